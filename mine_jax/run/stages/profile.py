"""The profile stage: builds the functional profile of each voxel, and tests what may be claimed of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mine_jax import encoder
from mine_jax._progress import Progress, at_the_end
from mine_jax.config import Config
from mine_jax.pipeline import claims, fits
from mine_jax.run import files
from mine_jax.run.evidence import evidence_tables
from mine_jax.run.execute import Step
from mine_jax.run.record.summary import finite_mean, finite_median
from mine_jax.types import CLAIMS, Profiles, reaches

# Said where words could not be tested against low-level features.
NO_RIVAL = "no low-level rival: no photos could be read, or features.low_level = false"


def compute(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Builds the profiles of voxels and decoys, tests them on measured responses and judges them."""
    responses, scores = files.load_responses(directory), files.load_scores(directory)
    reason = files.why_not_described(directory)
    if reason is not None:
        files.save_no_profiles(directory, reason)
        files.save_voxels(directory, responses, scores, None)
        return {"explained": 0, "reason": reason}
    described = _described(directory)
    populations = claims.populations(config, described, progress)
    profiles, of_decoys = _judged(config, directory, described, populations, progress)
    files.save_profiles(directory, profiles, of_decoys)
    files.save_evidence(directory, evidence_tables(config, directory, profiles, progress=at_the_end(progress)))
    files.save_voxels(directory, responses, scores, profiles)
    return {
        **({} if files.load_rival(directory) else {"warning": NO_RIVAL}),
        "profiled": len(profiles.voxel_ids),
        **{claim: int(reaches(profiles.claims, claim).sum()) for claim in CLAIMS[1:5]},
        "explained": int(profiles.explained.sum()),
        "decoys_explained": 0 if of_decoys is None else int(of_decoys.explained.sum()),
        "median_reliability": finite_median(profiles.reliability),
        "mean_r_measured": finite_mean(profiles.r_measured[profiles.explained]),
    }


def _described(directory: Path) -> claims.Described:
    """Opens what profiles are built from."""
    of_decoys, fitted = _control(directory, files.DECOYS), files.load_decoys(directory)
    of_voxels = claims.Pair(files.load_descriptions(directory), files.load_faithfulness(directory).faithfulness)
    return claims.Described(
        voxels=(of_voxels, files.load_scores(directory)),
        decoys=None if of_decoys is None or fitted is None else (of_decoys, fitted[1]),
        halves=[half for half in (_control(directory, name) for name in files.HALVES) if half is not None],
        shares=files.word_shares(directory),
        folder=directory / "profile",
    )


def _control(directory: Path, control: str) -> claims.Pair | None:
    descriptions = files.load_control_descriptions(directory, control)
    attributed = files.load_control_attribution(directory, control)
    return None if descriptions is None or attributed is None else claims.Pair(descriptions, attributed[1])


def _judged(
    config: Config,
    directory: Path,
    described: claims.Described,
    populations: list[claims.Population],
    progress: Progress,
) -> tuple[Profiles, Profiles | None]:
    """Opens the images, and tests every rung of the ladder on those for tests."""
    splits = files.load_splits(config, directory)
    decoys = files.load_decoys(directory)
    unseen = claims.held_out(
        config,
        populations,
        described,
        fits.with_decoys(config, {name: splits[name] for name in ("train", "test")}),
        encoder.together(files.load_encoders(directory), None if decoys is None else decoys[0]),
        files.load_rival(directory),
    )
    return claims.judge(config, populations, described, unseen, progress)


STEP = Step(
    compute=compute,
    needs=("encoder", "description"),
    sections=("profile", "run.seed"),
    outputs=files.OUTPUTS["profile"],
    found=(
        "{explained} of {profiled} {units} explained",
        "{predicted} predicted, {reliable} reliable, {words} with words, {localised} localised",
    ),
)
