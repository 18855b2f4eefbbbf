"""The attribution stage: finds the image-tokens that drive each voxel, and patches them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mine_jax import attribution, encoder, memory, sharding
from mine_jax._progress import Progress, silent
from mine_jax.config import Config
from mine_jax.run import files
from mine_jax.run.execute import Step
from mine_jax.run.record.summary import finite_mean
from mine_jax.types import Attributions, CriticalTokens, Encoders, Faithfulness, ImageTokens, Scores

# Images of each voxel on which the two halves are compared.
N_COMPARED = 12


class _Pairs(NamedTuple):
    """Encoders of V voxels, the first of which are no decoys, all image-tokens, and the images [V, I] of each."""

    encoders: Encoders
    tokens: ImageTokens
    image_ids: np.ndarray

    @property
    def n_voxels(self) -> int:
        """How many are no decoys."""
        return int((~encoder.is_decoy(np.asarray(self.encoders.voxel_ids))).sum())


def compute(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Attributes the best images of well predicted voxels and of decoys, and patches them; also those of halves."""
    settings, scores = config.attribution, files.load_scores(directory)
    batches = _batches(config, directory)
    if not batches:
        files.save_no_attribution(directory)
        return {"voxels": 0, "reason": f"no voxel has r2_selection >= {settings.min_r2:g}"}
    pairs, *halves = batches
    n_voxels, n_images = pairs.n_voxels, pairs.image_ids.shape[1]
    shape = (n_voxels, n_images, pairs.tokens.tokens.shape[1])
    with files.kept_scores(directory, shape, keep=settings.keep_scores) as keep:
        results = _attributed(config, pairs, _part_of(progress, 0, len(batches)), _of_voxels(keep, n_voxels))
    voxels = np.arange(n_voxels)
    attributions, critical, faithfulness = (results[0].take(voxels), results[1].take(voxels), results[2].take(voxels))
    of_halves = _of_halves(config, pairs, halves, silent)
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
        decoys = np.arange(n_voxels, len(pairs.image_ids))
        _save_control(directory, files.DECOYS, results[1].take(decoys), results[2].take(decoys))
    for i, half in enumerate(halves):
        found = _attributed(config, half, _part_of(progress, 1 + i, len(batches)), None)
        _save_control(directory, files.HALVES[i], *found[1:])
    good = per_voxel[per_voxel["r2"] > 0.2]
    return {
        "voxels": n_voxels,
        "pairs": n_voxels * n_images,
        "decoys": len(pairs.image_ids) - n_voxels,
        "k": critical.indices.shape[2],
        "max_completeness_gap": float(np.abs(attributions.completeness_gap).max()),
        "median_faithfulness": finite_mean([np.nanmedian(faithfulness.faithfulness)]),
        "median_faithfulness_of_halves": _median(of_halves[:n_voxels]),
        "the_same_of_decoys": _median(of_halves[n_voxels:]),
        "voxels_r2_above_0.2": len(good),
        "share_hurt_more_than_random": finite_mean(good["left_without_ig"] < good["left_without_random"]),
    }


def share(config: Config, directory: Path, progress: Progress) -> None:
    """Takes this process's share of `compute`; writes nothing."""
    batches = _batches(config, directory)
    for i, pairs in enumerate(batches):
        _attributed(config, pairs, progress, None)
        if i == 0:
            _of_halves(config, pairs, batches[1:], progress)


def check(config: Config, directory: Path) -> None:
    """Raises if as many image-tokens would be critical as there are, once their number is known."""
    shape = files.tokens_shape(config, directory)
    if shape is not None and len(shape) == 3:
        attribution.n_critical(config.attribution.k, shape[1])


def plan(config: Config, directory: Path) -> list[str]:
    """Says how many pairs will be attributed."""
    sizes = files.sizes(config, directory)
    if sizes is None:
        return [files.UNKNOWN]
    pairs = sizes.n_voxels * min(config.attribution.n_images, sizes.n_images)
    scores = memory.readable(6 * pairs * sizes.n_tokens)
    return [f"at most {pairs} (voxel, image) pairs x {sizes.n_tokens} tokens: {scores} of scores on the host"]


def _batches(config: Config, directory: Path) -> list[_Pairs]:
    """Opens encoders that predict well enough, with their images: of voxels and decoys, then of both halves.

    Nothing is chosen by test responses; decoys pass the same gate as voxels. Empty without voxels.
    """
    tokens, scores = files.load_tokens(directory), files.load_scores(directory)
    chosen = _gated(scores, config.attribution.min_r2)
    if not chosen.any():
        return []
    encoders, decoys = files.load_encoders(directory).take(chosen), files.load_decoys(directory)
    if decoys is not None:
        beside = _gated(decoys[1], config.attribution.min_r2)
        encoders = encoder.together(encoders, decoys[0].take(beside)) if beside.any() else encoders
    splits = files.splits_of_images(directory, tokens.image_ids)
    batches = [_Pairs(encoders, tokens, _images(config, encoders, tokens, splits, config.attribution.split))]
    for i in range(len(files.HALVES)):
        half = files.load_half(directory, i)
        if half is not None:
            rows = np.searchsorted(half[0].voxel_ids, encoders.voxel_ids)
            seen = np.where(np.isin(tokens.image_ids, half[1]), splits, "")
            batches.append(
                _Pairs(half[0].take(rows), tokens, _images(config, half[0].take(rows), tokens, seen, "train"))
            )
    return batches


def _gated(scores: Scores, min_r2: float) -> np.ndarray:
    return (scores.status == "ok") & (np.nan_to_num(scores.r2_selection, nan=-np.inf) >= min_r2)


def _images(config: Config, encoders: Encoders, tokens: ImageTokens, splits: np.ndarray, split: str) -> np.ndarray:
    settings = config.attribution
    return attribution.choose_images(
        encoders,
        tokens,
        splits=splits,
        split=split,
        images=settings.images,
        n=settings.n_images,
        seed=config.run.seed,
        voxel_chunk=config.run.voxel_chunk,
        image_chunk=config.run.image_chunk,
        mesh=sharding.mesh(config.run.mesh),
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


def _save_control(directory: Path, control: str, critical: CriticalTokens, faithfulness: Faithfulness) -> None:
    files.save_control_attribution(directory, control, critical, faithfulness.faithfulness)


def _part_of(progress: Progress, i: int, n: int) -> Progress:
    """Reports one of n equal parts of the work."""
    return lambda done, total: progress(i * total + done, n * total)


def _of_halves(config: Config, pairs: _Pairs, halves: list[_Pairs], progress: Progress) -> np.ndarray:
    """Measures [V] whether both halves rest on the same image-tokens; NaN where no halves were fitted."""
    if len(halves) < 2:
        return np.full(len(pairs.image_ids), np.nan)
    return attribution.faithfulness_of_halves(
        (halves[0].encoders, halves[1].encoders),
        pairs.tokens,
        image_ids=pairs.image_ids[:, :N_COMPARED],
        progress=progress,
        **_settings(config),
    )


def _median(values: np.ndarray) -> float | None:
    return finite_mean([np.nanmedian(values)]) if np.isfinite(values).any() else None


def _attributed(
    config: Config, pairs: _Pairs, progress: Progress, keep: Callable[[slice, np.ndarray], None] | None
) -> tuple[Attributions, CriticalTokens, Faithfulness]:
    return attribution.attribute_and_patch(
        pairs.encoders, pairs.tokens, image_ids=pairs.image_ids, keep=keep, progress=progress, **_settings(config)
    )


def _settings(config: Config) -> dict[str, Any]:
    names = ("baseline", "n_steps", "max_steps", "tolerance", "method", "quadrature", "reduce")
    names += ("k", "sufficiency", "n_random")
    return {
        **{name: getattr(config.attribution, name) for name in names},
        "seed": config.run.seed,
        "voxel_chunk": config.run.voxel_chunk,
        "image_chunk": config.run.image_chunk,
        "mesh": sharding.mesh(config.run.mesh),
    }


STEP = Step(
    compute=compute,
    needs=("features", "encoder"),
    sections=("attribution", "run.seed", "run.precision"),
    outputs=files.OUTPUTS["attribution"],
    plan=plan,
    check=check,
    share=share,
    found=("{voxels} voxels, {pairs} images of them", "median faithfulness {median_faithfulness}"),
)
