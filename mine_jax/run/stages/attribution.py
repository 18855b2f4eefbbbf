"""The attribution stage: finds the image-tokens that drive each voxel, and patches them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mine_jax import attribution, memory, sharding
from mine_jax._progress import Progress
from mine_jax.config import Config
from mine_jax.run import files
from mine_jax.run.execute import Step
from mine_jax.run.record.summary import finite_mean
from mine_jax.types import Attributions, CriticalTokens, Encoders, Faithfulness, ImageTokens, Scores


class _Pairs(NamedTuple):
    """Encoders of V voxels, all image-tokens, and the images [V, I] of each voxel."""

    encoders: Encoders
    tokens: ImageTokens
    image_ids: np.ndarray


def compute(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Attributes the best images of well predicted voxels, and patches them."""
    settings, scores = config.attribution, files.load_scores(directory)
    pairs = _pairs(config, directory, scores)
    if pairs is None:
        files.save_no_attribution(directory)
        return {"voxels": 0, "reason": f"no voxel has r2 >= {settings.min_r2:g}"}
    n_voxels, n_images = pairs.image_ids.shape
    shape = (n_voxels, n_images, pairs.tokens.tokens.shape[1])
    with files.kept_scores(directory, shape, keep=settings.keep_scores) as keep:
        attributions, critical, faithfulness = _attributed(config, pairs, progress, keep)
    per_voxel = files.save_attribution(
        directory, attributions, critical, faithfulness, scores=scores, settings=settings, seed=config.run.seed
    )
    good = per_voxel[per_voxel["r2"] > 0.2]
    return {
        "voxels": n_voxels,
        "pairs": n_voxels * n_images,
        "k": critical.indices.shape[2],
        "max_completeness_gap": float(np.abs(attributions.completeness_gap).max()),
        "median_faithfulness": finite_mean([np.nanmedian(faithfulness.faithfulness)]),
        "voxels_r2_above_0.2": len(good),
        "share_hurt_more_than_random": finite_mean(good["left_without_ig"] < good["left_without_random"]),
    }


def share(config: Config, directory: Path, progress: Progress) -> None:
    """Takes this process's share of `compute`; writes nothing."""
    pairs = _pairs(config, directory, files.load_scores(directory))
    if pairs is not None:
        _attributed(config, pairs, progress, None)


def plan(config: Config, directory: Path) -> list[str]:
    """Says how many pairs will be attributed."""
    sizes = files.sizes(config, directory)
    if sizes is None:
        return [files.UNKNOWN]
    pairs = sizes.n_voxels * min(config.attribution.n_images, sizes.n_images)
    scores = memory.readable(6 * pairs * sizes.n_tokens)
    return [f"at most {pairs} (voxel, image) pairs x {sizes.n_tokens} tokens: {scores} of scores on the host"]


def _pairs(config: Config, directory: Path, scores: Scores) -> _Pairs | None:
    """Opens encoders of voxels that are predicted well enough, with their images; None without voxels."""
    settings, tokens = config.attribution, files.load_tokens(directory)
    good = np.nan_to_num(scores.r2, nan=-1) >= settings.min_r2
    chosen = np.flatnonzero((scores.status == "ok") & good)
    if not len(chosen):
        return None
    encoders = files.load_encoders(directory).take(chosen)
    image_ids = attribution.choose_images(
        encoders,
        tokens,
        splits=files.splits_of_images(directory, tokens.image_ids),
        split=settings.split,
        images=settings.images,
        n=settings.n_images,
        seed=config.run.seed,
        voxel_chunk=config.run.voxel_chunk,
        image_chunk=config.run.image_chunk,
        mesh=sharding.mesh(config.run.mesh),
    )
    return _Pairs(encoders, tokens, image_ids)


def _attributed(
    config: Config, pairs: _Pairs, progress: Progress, keep: Callable[[slice, np.ndarray], None] | None
) -> tuple[Attributions, CriticalTokens, Faithfulness]:
    settings = config.attribution
    return attribution.attribute_and_patch(
        pairs.encoders,
        pairs.tokens,
        image_ids=pairs.image_ids,
        baseline=settings.baseline,
        n_steps=settings.n_steps,
        max_steps=settings.max_steps,
        tolerance=settings.tolerance,
        method=settings.method,
        quadrature=settings.quadrature,
        reduce=settings.reduce,
        k=settings.k,
        sufficiency=settings.sufficiency,
        n_random=settings.n_random,
        seed=config.run.seed,
        keep=keep,
        voxel_chunk=config.run.voxel_chunk,
        image_chunk=config.run.image_chunk,
        mesh=sharding.mesh(config.run.mesh),
        progress=progress,
    )


STEP = Step(
    compute=compute,
    needs=("features", "encoder"),
    sections=("attribution", "run.seed", "run.precision"),
    outputs=("attribution/*",),
    plan=plan,
    share=share,
)
