"""Which images of each voxel are attributed."""

from __future__ import annotations

import numpy as np
from jax.sharding import Mesh

from mine_jax import encoder
from mine_jax.types import Encoders, ImageTokens

_SPLITS = {"all": ("train", "val", "test"), "train": ("train", "val"), "test": ("test",)}


def choose_images(
    encoders: Encoders,
    tokens: ImageTokens,
    *,
    splits: np.ndarray,
    split: str,
    images: str,
    n: int,
    seed: int = 0,
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Chooses images of each voxel: those with the highest predictions, or random ones.

    Args:
        encoders: V fitted encoders.
        tokens: image-tokens [N, P, D].
        splits: [N] str, the split of each image; images of no split are never chosen.
        split: "all", "train" (with the validation images) or "test".
        images: "top" for the highest predictions, "random" for the same random ones of all voxels.
        n: images per voxel, I; no more than there are.
        seed: of the random ones.
        voxel_chunk: voxels held at once. Memory only, never the result.
        image_chunk: images held at once. Memory only, never the result.
        mesh: devices, as for `encoder.predict`.

    Returns:
        Image ids [V, I] str.
    """
    allowed = np.isin(splits, _SPLITS[split])
    n = min(n, int(allowed.sum()))
    if images == "random":
        shuffled = np.random.default_rng(seed).permutation(np.flatnonzero(allowed))[:n]
        return np.broadcast_to(tokens.image_ids[shuffled], (len(encoders.voxel_ids), n))
    chosen = encoder.top_images(
        encoders,
        tokens,
        n=n,
        allowed=allowed,
        voxel_chunk=voxel_chunk,
        image_chunk=image_chunk,
        mesh=mesh,
    )
    return tokens.image_ids[chosen]
