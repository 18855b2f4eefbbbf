"""The attribution of a chain: the best images of well predicted voxels and of decoys, also those of the halves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mine_jax import attribution, encoder, memory, sharding
from mine_jax._progress import Progress
from mine_jax.config import Config
from mine_jax.pipeline.fits import Fitted
from mine_jax.types import Attributions, CriticalTokens, Encoders, Faithfulness, ImageTokens, Scores

# Images of each voxel on which the two halves are compared.
N_COMPARED = 12


class Pairs(NamedTuple):
    """Encoders of V voxels, the first of which are no decoys, all image-tokens, and the images [V, I] of each."""

    encoders: Encoders
    tokens: ImageTokens
    image_ids: np.ndarray

    @property
    def n_voxels(self) -> int:
        """How many are no decoys."""
        return int((~encoder.is_decoy(np.asarray(self.encoders.voxel_ids))).sum())


class Attributed(NamedTuple):
    """What `attribution.attribute_and_patch` finds of V x I pairs."""

    attributions: Attributions
    critical: CriticalTokens
    faithfulness: Faithfulness

    def take(self, voxels: np.ndarray | slice) -> Attributed:
        """Returns those of some voxels (positions [V] or slice)."""
        return Attributed(self.attributions.take(voxels), self.critical.take(voxels), self.faithfulness.take(voxels))


def choose(
    config: Config,
    tokens: ImageTokens,
    splits: np.ndarray,
    voxels: Fitted,
    decoys: Fitted | None,
    halves: Iterable[tuple[Encoders, np.ndarray]],
    *,
    folder: Path | None = None,
) -> list[Pairs]:
    """Chooses encoders that predict well enough, with their images: of voxels and decoys, then of each half.

    Nothing is chosen by test responses; decoys pass the same gate as voxels.

    Args:
        config: of the chain.
        tokens: image-tokens of N images.
        splits: [N] str, the split of each; "" for images without responses.
        voxels: all voxels that were fitted.
        decoys: all decoys; None where there are none.
        halves: encoders of all voxels and decoys, and the ids of the images that they saw.
        folder: where the image ids of all voxels lie, in files without a name; None holds them in memory.

    Returns:
        Pairs of voxels and decoys, then of each half; none where no voxel is predicted well enough.
    """
    min_r2 = config.attribution.min_r2
    chosen = _gated(voxels.scores, min_r2)
    if not chosen.any():
        return []
    encoders = voxels.encoders.take(chosen)
    if decoys is not None:
        beside = _gated(decoys.scores, min_r2)
        encoders = encoder.together(encoders, decoys.encoders.take(beside)) if beside.any() else encoders
    images = _images(config, encoders, tokens, splits, config.attribution.split, folder)
    listed = [Pairs(encoders, tokens, images)]
    for fitted, image_ids in halves:
        half = fitted.take(np.searchsorted(fitted.voxel_ids, encoders.voxel_ids))
        seen = np.where(np.isin(tokens.image_ids, image_ids), splits, "")
        listed.append(Pairs(half, tokens, _images(config, half, tokens, seen, "train", folder)))
    return listed


def attributed(
    config: Config,
    pairs: Pairs,
    progress: Progress,
    *,
    keep: Callable[[slice, np.ndarray], None] | None = None,
    folder: Path | None = None,
) -> Attributed:
    """Attributes and patches pairs; `keep` and `folder` are those of `attribution.attribute_and_patch`."""
    found = attribution.attribute_and_patch(
        pairs.encoders,
        pairs.tokens,
        image_ids=pairs.image_ids,
        keep=keep,
        folder=folder,
        progress=progress,
        **_settings(config),
    )
    return Attributed(*found)


def faithfulness_of_halves(config: Config, pairs: Pairs, halves: list[Pairs], progress: Progress) -> np.ndarray:
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


def _gated(scores: Scores, min_r2: float) -> np.ndarray:
    return (scores.status == "ok") & (np.nan_to_num(scores.r2_selection, nan=-np.inf) >= min_r2)


def _images(
    config: Config, encoders: Encoders, tokens: ImageTokens, splits: np.ndarray, split: str, folder: Path | None
) -> np.ndarray:
    """Image ids [V, I] of each voxel."""
    settings = config.attribution
    rows = attribution.choose_images(
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
    if folder is None or 0 in rows.shape:
        return tokens.image_ids[rows]
    ids = memory.scratch(rows.shape, tokens.image_ids.dtype, folder)
    for block in memory.blocks(len(rows), memory.BLOCK_BYTES // max(1, ids[:1].nbytes)):
        ids[block] = tokens.image_ids[rows[block]]
    return ids


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
