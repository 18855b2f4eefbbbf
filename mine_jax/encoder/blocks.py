"""Predictions used block by block, so that those of all voxels to all images are never held at once."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mine_jax import sharding
from mine_jax._progress import Progress, silent
from mine_jax.encoder.kinds import model
from mine_jax.encoder.predict import check_token_width, predict
from mine_jax.memory import Chunks, padded_chunks
from mine_jax.types import Array, Encoders, ImageTokens

# Predictions of some voxels to all images that are held at once.
BLOCK_BYTES = 1 << 26
# Voxels whose images are ranked at once.
VOXELS_RANKED = 1 << 14
# Below every prediction, above images that may not be chosen.
_LOWEST = float(np.finfo(np.float32).min)


def predict_blocks(
    encoders: Encoders,
    tokens: ImageTokens,
    *,
    voxel_chunk: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Predicts the responses of some voxels after the others, to all images.

    Args:
        encoders: V fitted encoders.
        tokens: image-tokens [N, P, D]; read again for every block, but by ridge encoders.
        voxel_chunk: voxels held at once on a device. Memory only, never the result.
        mesh: devices, as for `predict`.
        progress: called with (done, total).

    Yields:
        Positions of the voxels, and their predictions [N, v] float32.
    """
    n_images, n_voxels = len(tokens.image_ids), len(encoders.voxel_ids)
    blocks = list(padded_chunks(n_voxels, max(1, BLOCK_BYTES // (4 * max(1, n_images)))))
    check_token_width(encoders, tokens)
    kind = model(encoders.architecture)
    features = kind.summaries(encoders, tokens, image_chunk=None, progress=silent)
    for i, (index, n_valid) in enumerate(blocks):
        chosen = encoders.take(index)
        if features is not None:
            predicted = kind.read_out(chosen, features)
            progress(i + 1, len(blocks))
        else:

            def advance(done: int, total: int, before: int = i) -> None:
                progress(before * total + done, len(blocks) * total)

            predicted = predict(chosen, tokens, voxel_chunk=voxel_chunk, mesh=mesh, progress=advance)
        yield slice(int(index[0]), int(index[0]) + n_valid), predicted[:, :n_valid]


def top_images(
    encoders: Encoders,
    tokens: ImageTokens,
    *,
    n: int,
    allowed: np.ndarray | None = None,
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
) -> np.ndarray:
    """Finds the images with the highest predictions of each voxel.

    Tokens are read once, and predictions are kept of the best images so far only.

    Args:
        encoders: V fitted encoders.
        tokens: image-tokens [N, P, D].
        n: images wanted; no more than are allowed are given.
        allowed: [N] bool, images to choose from; None for all.
        voxel_chunk: voxels held at once on a device. Memory only, never the result.
        image_chunk: images held at once on each device. Memory only, never the result.
        mesh: devices, as for `predict`.
        progress: called with (done, total) images.

    Returns:
        Positions of images [V, n] int32, highest prediction first; equal ones in the order of the images.
    """
    check_token_width(encoders, tokens)
    allowed = np.ones(len(tokens.image_ids), bool) if allowed is None else allowed
    n = min(n, int(allowed.sum()))

    kind, chunks = model(encoders.architecture), Chunks(voxel_chunk, image_chunk, sharding.local(mesh))

    def ranked(voxels: np.ndarray) -> np.ndarray:
        values, images = np.full((len(voxels), n), -np.inf, np.float32), np.zeros((len(voxels), n), np.int32)
        for index, n_valid, block in kind.by_images(encoders.take(voxels), tokens, chunks=chunks, progress=progress):
            is_new = allowed[index] & (np.arange(len(index)) < n_valid)
            for part, _ in padded_chunks(len(voxels), VOXELS_RANKED):
                new = (block[: len(index), part], index.astype(np.int32), is_new)
                values[part], images[part] = _best(values[part], images[part], *new)
        return images

    return sharding.divided(ranked, len(encoders.voxel_ids), mesh)


@jax.jit
def _best(values: Array, images: Array, block: Array, index: Array, is_new: Array) -> tuple[jax.Array, jax.Array]:
    """Joins the best images so far, [V, n] twice, with predictions [B, V]; equal ones keep their order."""
    numbers = jnp.nan_to_num(block, nan=_LOWEST, posinf=jnp.inf, neginf=_LOWEST)
    fresh = jnp.where(is_new[:, None], numbers, -jnp.inf).T
    values, places = jax.lax.top_k(jnp.concatenate([values, fresh], 1), values.shape[1])
    images = jnp.concatenate([images, jnp.broadcast_to(index[None], fresh.shape)], 1)
    return values, jnp.take_along_axis(images, places, 1)
