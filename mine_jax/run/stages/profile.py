"""The profile stage: builds and tests the functional profile of each voxel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mine_jax import profile
from mine_jax._progress import Progress
from mine_jax.config import Config
from mine_jax.run import files
from mine_jax.run.execute import Step
from mine_jax.run.record.summary import finite_mean
from mine_jax.types import Profiles, Responses


def compute(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Builds the profiles, tests them on measured responses and judges them."""
    settings = config.profile
    responses, scores = files.load_responses(directory), files.load_scores(directory)
    reason = files.why_not_described(directory)
    if reason is not None:
        files.save_no_profiles(directory, reason)
        files.save_voxels(directory, responses, scores, None)
        return {"explained": 0, "reason": reason}
    descriptions = files.load_descriptions(directory)
    profiles = profile.build(
        descriptions,
        files.load_faithfulness(directory),
        corpus=files.corpus(directory),
        usable=~np.isin(descriptions.image_ids, files.test_images(directory)),
        faithfulness_quantile=settings.faithfulness_quantile,
        min_images=settings.min_images,
        n_words=settings.n_words,
        n_bootstrap=settings.n_bootstrap,
        seed=config.run.seed,
        progress=lambda done, total: progress(done, 2 * total),
    )
    rows = np.searchsorted(scores.voxel_ids, descriptions.voxel_ids)
    test = _tested(config, directory, profiles, responses, rows, progress)
    profiles = profile.judge(
        profiles,
        scores.take(rows),
        test,
        min_r2=settings.min_r2,
        min_stability=settings.min_stability,
        min_faithfulness=settings.min_faithfulness,
        min_images=settings.min_images,
        max_q=settings.max_q,
    )
    files.save_profiles(directory, profiles)
    files.save_voxels(directory, responses, scores, profiles)
    return {
        "profiled": len(profiles.voxel_ids),
        "explained": int(profiles.explained.sum()),
        "median_stability": finite_mean([np.nanmedian(profiles.stability)]),
        "mean_r_measured": finite_mean(profiles.r_measured[profiles.explained]),
    }


def _tested(
    config: Config, directory: Path, profiles: Profiles, responses: Responses, rows: np.ndarray, progress: Progress
) -> profile.NullTest:
    """Correlates what profiles foresee with measured responses of their voxels (rows) to the test images."""
    order = {image_id: i for i, image_id in enumerate(responses.image_ids)}
    held_out = responses.take_images(np.array([order[i] for i in files.test_images(directory)])).take(rows)
    return profile.measured_correlation(
        profiles.distribution,
        files.corpus(directory),
        files.test_words(directory),
        np.asarray(held_out.responses),
        n_permutations=config.profile.n_permutations,
        seed=config.run.seed,
        progress=lambda done, total: progress(total + done, 2 * total),
    )


STEP = Step(
    compute=compute,
    needs=("encoder", "description"),
    sections=("profile", "run.seed"),
    outputs=("profile/*", "voxels.tsv"),
)
