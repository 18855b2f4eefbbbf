"""Token terms of (voxel, image) pairs: what both attribution and patching are computed from.

For each pair the key logits and value scalars of every token are wanted, at the image and
at the baseline. Images are projected once; a pair then costs O(P E) for the terms.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mine_jax._checks import check_shape
from mine_jax._chunking import padded_chunks
from mine_jax._progress import Progress
from mine_jax.encoder import check_token_width
from mine_jax.encoder import query as query_encoder
from mine_jax.errors import DataError
from mine_jax.types import Architecture, Encoders, ImageTokens

# Pairs of one chunk times tokens times width: about 16 MiB of float32, near the caches of CPUs measured so far.
_CHUNK_ELEMENTS = 1 << 22


def image_rows(tokens: ImageTokens, image_ids: np.ndarray | None, n_voxels: int) -> np.ndarray:
    """Returns positions [V, I] in `tokens` of each voxel's images; all images when None.

    Raises:
        DataError: naming the first id without tokens.
    """
    if image_ids is None:
        return np.broadcast_to(np.arange(len(tokens.image_ids)), (n_voxels, len(tokens.image_ids)))
    image_ids = np.asarray(image_ids)
    check_shape("image_ids", image_ids, "V I", V=n_voxels, hint="It holds one row of images for each voxel.")
    order = np.argsort(tokens.image_ids)
    found = np.searchsorted(tokens.image_ids, image_ids, sorter=order)
    rows = order[np.minimum(found, len(order) - 1)]
    wrong = tokens.image_ids[rows] != image_ids
    if wrong.any():
        missing = str(image_ids[wrong][0])
        raise DataError(f"image {missing!r} has no tokens. Were features extracted for another image list?")
    return rows


def baseline_states(encoders: Encoders, baseline: Any, n_tokens: int) -> jax.Array:
    """Returns the start of the path [P, D]: the encoders' mean token, zeros, or what was given.

    Raises:
        ValueError: for an unknown name.
        DataError: if the array has another shape.
    """
    if isinstance(baseline, str) and baseline not in ("mean", "zero"):
        raise ValueError(f'`baseline` must be "mean", "zero" or an array, but is {baseline!r}.')
    mean = np.asarray(encoders.baseline, np.float32)
    if isinstance(baseline, str) or baseline is None:
        baseline = np.zeros_like(mean) if baseline == "zero" else mean
    states = jnp.asarray(baseline, jnp.float32)
    check_shape("baseline", states, "P D" if states.ndim == 2 else "D", P=n_tokens, D=mean.shape[-1])
    return jnp.broadcast_to(states, (n_tokens, states.shape[-1]))


def map_pairs(
    one: Callable[..., Any],
    encoders: Encoders,
    tokens: ImageTokens,
    rows: np.ndarray,
    common: dict[str, Any],
    extra: tuple[np.ndarray, ...] = (),
    *,
    image_chunk: int | None,
    voxel_chunk: int | None,
    progress: Progress,
) -> Iterator[tuple[slice, slice, Any]]:
    """Applies a function of one pair to all pairs, vmapped over voxels and images in chunks.

    Args:
        one: takes (shared, common, voxel, states [P, D], mask [P] or None, *extra of the pair);
            the same object in every call, so that calls of equal shapes compile once.
        encoders: V encoders.
        tokens: image-tokens of all images.
        rows: [V, I] positions of the images of each voxel.
        common: arrays that are the same for all pairs.
        extra: arrays [V, I, ...] passed pair by pair.
        image_chunk: images of a voxel held at once. Memory only.
        voxel_chunk: voxels held at once. Memory only.
        progress: called with (done, total) voxels.

    Yields:
        Voxel slice, image slice, and the outputs [v, i, ...] of that block.
    """
    check_token_width(encoders, tokens)
    n_voxels, n_images = rows.shape
    n_tokens, width = tokens.tokens.shape[1:]
    image_chunk = min(n_images, image_chunk or 16)
    # images that all voxels share are held once, not once per voxel
    is_common = n_voxels > 1 and bool((rows == rows[:1]).all())
    n_heads = encoders.per_voxel["query"].shape[1] if "query" in encoders.per_voxel else 1
    held = n_tokens * (8 * n_heads if is_common else width)
    voxel_chunk = voxel_chunk or max(1, _CHUNK_ELEMENTS // (image_chunk * held))
    over_pairs = _over_pairs(one, is_common, tokens.mask is not None, len(extra))
    for voxels, n_valid in padded_chunks(n_voxels, voxel_chunk):
        per_voxel = {name: jnp.asarray(value)[voxels] for name, value in encoders.per_voxel.items()}
        for images, n_real in padded_chunks(n_images, image_chunk):
            block = rows[0, images] if is_common else rows[voxels][:, images]
            unique, inverse = np.unique(block, return_inverse=True)
            states = np.asarray(tokens.tokens[unique], dtype=np.float32)[inverse.reshape(block.shape)]
            mask = None if tokens.mask is None else jnp.asarray(tokens.mask[block])
            if mask is not None:
                states = np.where(mask[..., None], states, np.float32(0))  # padding may hold anything, NaN too
            given = [jnp.asarray(array[voxels][:, images]) for array in extra]
            out = over_pairs(encoders.shared, common, per_voxel, states, mask, *given)
            out = jax.tree.map(lambda x, v=n_valid, i=n_real: np.asarray(x)[:v, :i], out)
            yield slice(voxels[0], voxels[0] + n_valid), slice(images[0], images[0] + n_real), out
        progress(int(voxels[n_valid - 1]) + 1, n_voxels)


def cell_weights(architecture: Architecture, n_tokens: int, mask: Any) -> jax.Array | None:
    """Returns the cells [C, P] of one image, or None when every token is its own cell."""
    return query_encoder.cells(architecture, n_tokens, mask)


@functools.lru_cache(maxsize=32)
def _over_pairs(one: Callable[..., Any], is_common: bool, is_masked: bool, n_extra: int) -> Callable[..., Any]:
    states, mask, extra = 0, 0 if is_masked else None, [0] * n_extra
    over_images = jax.vmap(one, in_axes=(None, None, None, states, mask, *extra))
    if is_common:
        states = mask = None
    return jax.jit(jax.vmap(over_images, in_axes=(None, None, 0, states, mask, *extra)))
