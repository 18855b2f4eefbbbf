"""The attribution stage: finds the image-tokens that drive each voxel, and patches them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mine_jax import attribution, memory
from mine_jax._numbers import count
from mine_jax._progress import Progress, part_of
from mine_jax.config import Config
from mine_jax.pipeline import attributing
from mine_jax.pipeline.fits import Fitted
from mine_jax.run import files
from mine_jax.run.execute import Step
from mine_jax.run.record.summary import finite_mean, finite_median


def compute(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Attributes the best images of well predicted voxels and of decoys, and patches them; also those of halves."""
    settings, scores = config.attribution, files.load_scores(directory)
    batches = _batches(config, directory)
    if not batches:
        files.save_no_attribution(directory)
        return {"voxels": 0, "reason": f"no voxel has r2_selection >= {settings.min_r2:g}"}
    pairs, *halves = batches
    n_parts = len(batches) + bool(halves)
    n_voxels, n_images = pairs.n_voxels, pairs.image_ids.shape[1]
    shape, out = (n_voxels, n_images, pairs.tokens.tokens.shape[1]), directory / "attribution"
    with files.kept_scores(directory, shape, keep=settings.keep_scores) as keep:
        own = part_of(progress, 0, n_parts)
        results = attributing.attributed(config, pairs, own, keep=_of_voxels(keep, n_voxels), folder=out)
    attributions, critical, faithfulness = results.take(slice(0, n_voxels))
    of_halves = attributing.faithfulness_of_halves(config, pairs, halves, part_of(progress, 1, n_parts))
    per_voxel = files.save_attribution(
        directory,
        attributions,
        critical,
        faithfulness,
        of_halves[:n_voxels],
        scores=scores,
        settings=settings,
        seed=config.run.seed,
    )
    if n_voxels < len(pairs.image_ids):
        _save_control(directory, files.DECOYS, results.take(slice(n_voxels, None)))
    for i, half in enumerate(halves):
        found = attributing.attributed(config, half, part_of(progress, 2 + i, n_parts), folder=out)
        _save_control(directory, files.HALVES[i], found)
    good = per_voxel[per_voxel["r2"] > 0.2]
    warning = attribution.warning_of_many(settings.k, shape[2])
    return ({"warning": warning} if warning else {}) | {
        "voxels": n_voxels,
        "pairs": n_voxels * n_images,
        "decoys": len(pairs.image_ids) - n_voxels,
        "k": critical.indices.shape[2],
        "max_completeness_gap": float(np.abs(attributions.completeness_gap).max()),
        "median_faithfulness": finite_median(faithfulness.faithfulness),
        "median_faithfulness_of_halves": finite_median(of_halves[:n_voxels]),
        "the_same_of_decoys": finite_median(of_halves[n_voxels:]),
        "voxels_r2_above_0.2": len(good),
        "share_hurt_more_than_random": finite_mean(good["left_without_ig"] < good["left_without_random"]),
    }


def share(config: Config, directory: Path, progress: Progress) -> None:
    """Takes this process's share of `compute`; writes nothing."""
    batches = _batches(config, directory)
    for i, pairs in enumerate(batches):
        attributing.attributed(config, pairs, progress)
        if i == 0:
            attributing.faithfulness_of_halves(config, pairs, batches[1:], progress)


def check(config: Config, directory: Path) -> None:
    """Raises if as many image-tokens would be critical as there are, once their number is known."""
    shape = files.tokens_shape(config, directory)
    if shape is not None and len(shape) == 3:
        attribution.n_critical(config.attribution.k, shape[1])


def plan(config: Config, directory: Path) -> list[str]:
    """Says how many pairs will be attributed."""
    planned = files.planned_sizes(config, directory)
    if planned is None:
        return [files.UNKNOWN]
    sizes = planned.sizes
    pairs = sizes.n_voxels * min(config.attribution.n_images, sizes.n_images)
    scores = memory.readable(6 * pairs * sizes.n_tokens)
    size = (
        f"at most {count(pairs)} (voxel, image) pairs x {count(sizes.n_tokens)} tokens: {scores} of scores on the host"
    )
    warning = attribution.warning_of_many(config.attribution.k, sizes.n_tokens)
    line = f"{size}, with the sizes of stage encoder" if planned.said else size
    return [line, f"warning: {warning}"] if warning else [line]


def _batches(config: Config, directory: Path) -> list[attributing.Pairs]:
    """Opens voxels, decoys and halves, and chooses their pairs."""
    tokens, decoys = files.load_tokens(directory), files.load_decoys(directory)
    return attributing.choose(
        config,
        tokens,
        files.splits_of_images(directory, tokens.image_ids),
        Fitted(files.load_encoders(directory), files.load_scores(directory)),
        None if decoys is None else Fitted(*decoys),
        filter(None, (files.load_half(directory, i) for i in range(len(files.HALVES)))),
        folder=directory / "attribution",
    )


def _of_voxels(
    keep: Callable[[slice, np.ndarray], None] | None, n_voxels: int
) -> Callable[[slice, np.ndarray], None] | None:
    """Keeps the scores of the first voxels only, which are no decoys."""
    if keep is None:
        return None

    def keep_voxels(voxels: slice, scores: np.ndarray) -> None:
        stop = min(voxels.stop, n_voxels)
        if voxels.start < stop:
            keep(slice(voxels.start, stop), scores[: stop - voxels.start])

    return keep_voxels


def _save_control(directory: Path, control: str, found: attributing.Attributed) -> None:
    files.save_control_attribution(directory, control, found.critical, found.faithfulness.faithfulness)


STEP = Step(
    compute=compute,
    needs=("features", "encoder"),
    sections=("attribution", "run.seed", "run.precision"),
    outputs=files.OUTPUTS["attribution"],
    plan=plan,
    check=check,
    share=share,
    found=("{voxels} {units}, {pairs} images of them", "median faithfulness {median_faithfulness}"),
)
