"""The profile stage: builds the functional profile of each voxel, and tests what may be claimed of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mine_jax import encoder, memory, profile, sharding
from mine_jax._progress import Progress
from mine_jax.config import Config
from mine_jax.description import CorpusShares
from mine_jax.memory import SparseRows
from mine_jax.run import files
from mine_jax.run.evidence import evidence_tables
from mine_jax.run.execute import Step
from mine_jax.run.record.summary import finite_mean
from mine_jax.types import CLAIMS, Descriptions, Profiles, Scores, reaches

# Said where words could not be tested against low-level features.
NO_RIVAL = "no low-level rival: no photos could be read, or features.low_level = false"


class _Population(NamedTuple):
    """Voxels, or decoys: profiles of V, their scores, and the images [V, N] that made them, 1 / n for each of n."""

    profiles: Profiles
    scores: Scores
    used: SparseRows


class _Described(NamedTuple):
    """What profiles are built from: pairs, how faithful [V, I] they are, scores, and what decoys share [C]."""

    descriptions: Descriptions
    faithfulness: np.ndarray
    scores: Scores
    common: np.ndarray | None


class _HeldOut(NamedTuple):
    """Test images: shares of words [T, C]; measured responses, predictions and those of the rival, [T, V]."""

    words: SparseRows
    measured: np.ndarray
    predicted: np.ndarray
    rival: np.ndarray | None


def compute(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Builds the profiles of voxels and decoys, tests them on measured responses and judges them."""
    responses, scores = files.load_responses(directory), files.load_scores(directory)
    reason = files.why_not_described(directory)
    if reason is not None:
        files.save_no_profiles(directory, reason)
        files.save_voxels(directory, responses, scores, None)
        return {"explained": 0, "reason": reason}
    voxels, decoys = _populations(config, directory, progress)
    profiles, of_decoys = _judged(config, directory, scores, voxels, decoys, progress)
    files.save_profiles(directory, profiles, of_decoys)
    files.save_evidence(directory, evidence_tables(config, directory, profiles, progress=lambda *_: progress(1, 1)))
    files.save_voxels(directory, responses, scores, profiles)
    return {
        **({} if files.load_rival(directory) else {"warning": NO_RIVAL}),
        "profiled": len(profiles.voxel_ids),
        **{claim: int(reaches(profiles.claims, claim).sum()) for claim in CLAIMS[1:5]},
        "explained": int(profiles.explained.sum()),
        "decoys_explained": 0 if of_decoys is None else int(of_decoys.explained.sum()),
        "median_reliability": finite_mean([np.nanmedian(profiles.reliability)]),
        "mean_r_measured": finite_mean(profiles.r_measured[profiles.explained]),
    }


def _populations(config: Config, directory: Path, progress: Progress) -> tuple[_Population, _Population | None]:
    """Builds the profiles of voxels, and those of decoys where there are any."""
    described = files.load_control_descriptions(directory, files.DECOYS)
    attributed, fitted = files.load_control_attribution(directory, files.DECOYS), files.load_decoys(directory)
    decoys, common = None, None

    def still(done: int, total: int) -> None:
        """Lets signals through; decoys do not count."""
        progress(0, 1)

    if described is not None and attributed is not None and fitted is not None:
        halves = _halves(config, directory, described.voxel_ids)
        common = None if halves is None else profile.common_profile(halves, files.corpus(directory))
        decoys = _population(config, directory, _Described(described, attributed[1], fitted[1], common), still)
    of_voxels = _Described(
        files.load_descriptions(directory),
        files.load_faithfulness(directory).faithfulness,
        files.load_scores(directory),
        common,
    )
    return _population(config, directory, of_voxels, lambda done, total: progress(done, 2 * total)), decoys


def _population(config: Config, directory: Path, described: _Described, progress: Progress) -> _Population:
    descriptions, faithfulness, scores, common = described
    settings, shares = config.profile, files.word_shares(directory)
    usable = ~np.isin(descriptions.image_ids, shares.image_ids[shares.splits == "test"])
    profiles = profile.build(
        descriptions,
        faithfulness,
        corpus=shares.mean,
        usable=usable,
        faithfulness_quantile=settings.faithfulness_quantile,
        min_images=settings.min_images,
        n_words=settings.n_words,
        n_bootstrap=settings.n_bootstrap,
        seed=config.run.seed,
        progress=progress,
    )
    halves = _halves(config, directory, descriptions.voxel_ids)
    if halves is not None:
        profiles = profile.with_halves(profiles, halves, corpus=shares.mean, common=common)
    chosen = profile.most_faithful(
        faithfulness, usable=usable, quantile=settings.faithfulness_quantile, min_images=settings.min_images
    )
    rows = np.searchsorted(scores.voxel_ids, descriptions.voxel_ids)
    return _Population(profiles, scores.take(rows), _used(descriptions, chosen, shares))


def _halves(config: Config, directory: Path, voxel_ids: np.ndarray) -> tuple[SparseRows, SparseRows] | None:
    """Builds the profiles, two of [V, C], of the refits on two halves of the images; None where there are none."""
    tables = []
    for half in files.HALVES:
        described = files.load_control_descriptions(directory, half)
        attributed = files.load_control_attribution(directory, half)
        if described is None or attributed is None:
            return None
        settings = config.profile
        chosen = profile.most_faithful(
            attributed[1], quantile=settings.faithfulness_quantile, min_images=settings.min_images
        )
        rows = np.searchsorted(described.voxel_ids, voxel_ids)
        tables.append(profile.mean_shares(described, chosen).take(rows))
    return tables[0], tables[1]


def _used(descriptions: Descriptions, chosen: np.ndarray, shares: CorpusShares) -> SparseRows:
    """Lists the images that made each profile, [V, N]."""
    order = np.argsort(shares.image_ids)
    voxel, image = np.nonzero(chosen)
    rows = order[np.searchsorted(shares.image_ids, descriptions.image_ids[voxel, image], sorter=order)]
    counts = chosen.sum(1)
    return memory.summed_rows(counts, rows, 1 / counts[voxel], len(shares.image_ids))


def _judged(
    config: Config,
    directory: Path,
    scores: Scores,
    voxels: _Population,
    decoys: _Population | None,
    progress: Progress,
) -> tuple[Profiles, Profiles | None]:
    """Tests every rung of the ladder, for voxels and for decoys."""
    settings, populations = config.profile, [voxels] if decoys is None else [voxels, decoys]
    shares = files.word_shares(directory)
    distribution = memory.concatenated([one.profiles.distribution for one in populations])
    held_out = _held_out(config, directory, shares, np.concatenate([one.profiles.voxel_ids for one in populations]))
    measured = profile.measured_test(
        distribution,
        shares.mean,
        held_out.words,
        held_out.measured,
        predicted=held_out.predicted,
        rival=held_out.rival,
        n_permutations=settings.n_permutations,
        seed=config.run.seed,
        progress=lambda done, total: progress(2 * total + done, 4 * total),
    )
    localised = profile.localised_test(
        distribution,
        profile.WholeImages(memory.concatenated([one.used for one in populations]), shares.images),
        shares.mean,
        held_out.words,
        held_out.measured,
        n_permutations=settings.n_permutations,
        seed=config.run.seed,
        progress=lambda done, total: progress(3 * total + done, 4 * total),
    )
    limits = profile.Limits(settings.max_q, settings.min_share, settings.max_rank)
    n_voxels = len(voxels.profiles.voxel_ids)
    fitted = int((scores.status == "ok").sum())
    of_voxels = _evidence(voxels, measured, localised, np.arange(n_voxels), fitted)
    of_decoys, judged_decoys = None, None
    if decoys is not None:
        rows = np.arange(n_voxels, len(distribution))
        of_decoys = _evidence(decoys, measured, localised, rows, _n_fitted_decoys(directory))
        climbed = profile.climb_decoys(of_decoys, limits)
        judged_decoys = _with_claims(decoys, of_decoys, climbed, settings.min_images)
    rungs = profile.climb(of_voxels, of_decoys, limits)
    return _with_claims(voxels, of_voxels, rungs, settings.min_images), judged_decoys


def _evidence(
    population: _Population,
    measured: profile.MeasuredTest,
    localised: profile.LocalisedTest,
    rows: np.ndarray,
    n_fitted: int,
) -> profile.Evidence:
    return profile.Evidence(
        r2_selection=population.scores.r2_selection,
        reliability=np.asarray(population.profiles.reliability, np.float64),
        measured=measured.take(rows),
        localised=localised.take(rows),
        n_fitted=n_fitted,
    )


def _with_claims(
    population: _Population, evidence: profile.Evidence, rungs: dict[str, profile.Rung], min_images: int
) -> Profiles:
    profiles = replace(population.profiles, r_measured=evidence.measured.r.astype(np.float32))
    return profile.judge(profiles, rungs, statuses=population.scores.status, min_images=min_images)


def _n_fitted_decoys(directory: Path) -> int:
    fitted = files.load_decoys(directory)
    return 0 if fitted is None else int((fitted[1].status == "ok").sum())


def _held_out(config: Config, directory: Path, shares: CorpusShares, voxel_ids: np.ndarray) -> _HeldOut:
    """Opens what was measured and predicted in the test images, for voxels and decoys."""
    test = files.load_splits(config, directory)["test"]
    copies = encoder.n_copies(len(test.responses.voxel_ids), config.encoder.decoys)
    test = encoder.add_decoys(test, copies, seed=config.run.seed)
    columns = np.searchsorted(test.responses.voxel_ids, voxel_ids)
    encoders, decoys = files.load_encoders(directory), files.load_decoys(directory)
    encoders = encoder.together(encoders, None if decoys is None else decoys[0])
    chosen = encoders.take(np.searchsorted(encoders.voxel_ids, voxel_ids))
    predicted = encoder.predict(
        chosen,
        test.tokens,
        voxel_chunk=config.run.voxel_chunk,
        image_chunk=config.run.image_chunk,
        mesh=sharding.local(sharding.mesh(config.run.mesh)),
    )
    order = np.argsort(shares.image_ids)
    rows = order[np.searchsorted(shares.image_ids, test.responses.image_ids, sorter=order)]
    rival = files.load_rival(directory)
    return _HeldOut(
        words=shares.images.take(rows),
        measured=np.asarray(test.responses.responses[:, columns]),
        predicted=predicted,
        rival=None if rival is None else np.asarray(rival[0][:, np.searchsorted(rival[1].voxel_ids, voxel_ids)]),
    )


STEP = Step(
    compute=compute,
    needs=("encoder", "description"),
    sections=("profile", "run.seed"),
    outputs=files.OUTPUTS["profile"],
    found=(
        "{explained} of {profiled} voxels explained",
        "{predicted} predicted, {reliable} reliable, {words} with words, {localised} localised",
    ),
)
