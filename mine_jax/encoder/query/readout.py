"""Closed-form readouts: one ridge regression per voxel on its own attended tokens.

The variable-projection step: with queries and positions held, the best readout of every
voxel is a ridge solution. Attended tokens are never stored; their Gram matrices are summed
over image chunks and the penalty comes from generalised cross-validation.
Source: Golub & Pereyra 1973 (variable projection); Golub, Heath & Wahba 1979 (GCV).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
from jax import lax

from mine_jax.types import Array

# Penalties per unit of mean token variance, as powers of ten.
PENALTIES = tuple(10.0 ** np.arange(-1, 6.01, 0.5))
# Attention of so many (image, voxel, head, cell) is held at once: on CPUs as much as fits a cache, in tiles of voxels
# that have at least a number; on accelerators of all voxels, and enough images to fill products.
_LOGITS, _LOGITS_ELSEWHERE = {"cpu": 1 << 20}, 1 << 28
_LEAST_VOXELS = 64
_F32 = {"preferred_element_type": jnp.float32}


class Tile(NamedTuple):
    """How many voxels and images a readout reads at once."""

    voxels: int
    images: int


def logits_at_once() -> int:
    """Returns of how many (image, voxel, head, cell) attention is held at once on the default device."""
    return _LOGITS.get(jax.default_backend(), _LOGITS_ELSEWHERE)


def tile(n_voxels: int, n_images: int, n_logits: int) -> Tile:
    """Chooses how many voxels and images are read at once on the default device.

    Args:
        n_voxels: V.
        n_images: at most.
        n_logits: of one voxel and image, H C.

    Returns:
        Equal tiles of voxels, the last filled up, and images: the tile's logits are at most `logits_at_once`, unless
        one image of the fewest voxels has more.
    """
    at_once = logits_at_once() // n_logits
    least = min(n_voxels, _LEAST_VOXELS) if jax.default_backend() in _LOGITS else n_voxels
    images = max(1, min(n_images, at_once // least))
    n_tiles = -(-n_voxels // max(least, at_once // images))
    return Tile(-(-n_voxels // n_tiles), images)


@functools.partial(jax.jit, static_argnames=("image_chunk",))
def add(
    sums: dict[str, jax.Array] | None,
    query: Array,
    position: Array,
    keys: Array,
    responses: Array,
    weights: Array,
    mask: Array | None = None,
    values: Array | None = None,
    components: Array | None = None,
    *,
    image_chunk: int = 128,
) -> dict[str, jax.Array]:
    """Adds images to the sums that `finish` solves from; images may come in any number of parts.

    Args:
        sums: what an earlier call gave; None for the first.
        query: [V, H, E], scaled.
        position: [V, H, C].
        keys: [N, C, G, E].
        responses: [N, V], z-scored beta.
        weights: [N] 0 or 1; images with 0 are left out (padding).
        mask: [N, C] bool or None.
        values: [N, C, G, E]; None where they are the keys.
        components: [N, R], centred, of a linear term; None where there is none.
        image_chunk: images held at once. Memory only.

    Returns:
        Sums over images: `gram` [V, H E, H E], `cross` [V, H E], `total` [V, H E], `y_total` [V],
        `y_square` [V] and `count` []; with components also `linear_cross` [V, R, H E] and `linear_y` [V, R].
    """
    n_voxels, n_heads, width = query.shape
    n_images, n_cells = keys.shape[:2]
    size, weights = n_heads * width, jnp.asarray(weights, jnp.float32)
    if sums is None:
        shapes = {"gram": (n_voxels, size, size), "cross": (n_voxels, size), "total": (n_voxels, size)}
        shapes |= {"y_total": (n_voxels,), "y_square": (n_voxels,), "count": ()}
        if components is not None:
            n_components = components.shape[1]
            shapes |= {"linear_cross": (n_voxels, n_components, size), "linear_y": (n_voxels, n_components)}
        sums = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    size_of = tile(n_voxels, min(image_chunk, n_images), n_heads * n_cells)
    images, n_parts = (keys, keys if values is None else values, mask, components), -(-n_images // size_of.images)

    def one_tile(of_tile: tuple[dict[str, jax.Array], Array, Array, Array]) -> dict[str, jax.Array]:
        sums, query, position, responses = of_tile

        def one_part(sums: dict[str, jax.Array], part: jax.Array) -> tuple[dict[str, jax.Array], None]:
            # the last part reaches back to images that were read, which weigh nothing then
            start = jnp.minimum(part * size_of.images, n_images - size_of.images)
            rows = functools.partial(lax.dynamic_slice_in_dim, start_index=start, slice_size=size_of.images)
            w = jnp.where(start + jnp.arange(size_of.images) < part * size_of.images, 0.0, rows(weights))
            part_keys, part_values, part_mask, z = jax.tree.map(rows, images)
            attended = attended_tokens(query, position, part_keys, part_values, part_mask) * w[:, None, None]
            more = _sums_of_part(attended, rows(responses, axis=1) * w[None], z)
            return jax.tree.map(jnp.add, sums, more), None

        return lax.scan(one_part, sums, jnp.arange(n_parts))[0]

    count = {"count": sums["count"] + weights.sum()}
    of_voxels = ({name: sums[name] for name in sums if name != "count"}, query, position, responses.T)
    if size_of.voxels == n_voxels:
        return one_tile(of_voxels) | count
    tiles = lax.map(one_tile, jax.tree.map(functools.partial(_in_tiles, size=size_of.voxels), of_voxels))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:n_voxels], tiles) | count


def _sums_of_part(attended: jax.Array, y: jax.Array, components: Array | None) -> dict[str, jax.Array]:
    """Sums over the images of one part, of attended tokens [b, v, S], responses [v, b] and components [b, R]."""
    # products over images are several times faster where the rows of a voxel lie together
    attended = attended.transpose(1, 0, 2)
    sums = {
        "gram": jnp.einsum("vbi,vbj->vij", attended, attended, **_F32),
        "cross": jnp.einsum("vbi,vb->vi", attended, y, **_F32),
        "total": attended.sum(1),
        "y_total": y.sum(1),
        "y_square": (y**2).sum(1),
    }
    if components is not None:
        sums["linear_cross"] = jnp.einsum("br,vbi->vri", components, attended, **_F32)
        sums["linear_y"] = jnp.einsum("br,vb->vr", components, y, **_F32)
    return sums


def _in_tiles(array: jax.Array, size: int) -> jax.Array:
    """Cuts [V, ...] into tiles [n, size, ...], with zeros at the end."""
    pad = -array.shape[0] % size
    padded = jnp.pad(array, ((0, pad), *[(0, 0)] * (array.ndim - 1))) if pad else array
    return padded.reshape(-1, size, *array.shape[1:])


@functools.partial(jax.jit, static_argnames=("heads", "method"))
def finish(
    sums: dict[str, jax.Array], *, heads: int, method: str = "eigenvalues"
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Solves the readout and intercept of every voxel from the sums of `add`.

    Args:
        sums: over all images.
        heads: H.
        method: how penalties are chosen: from "eigenvalues", or by a "cholesky" factor for each penalty, for
            accelerators, whose solvers of eigenvalues are iterative; on a CPU it takes nearly three times as long.

    Returns:
        Readout [V, H, E], intercept [V], penalty [V].
    """
    centred = jax.vmap(_centred, in_axes=(0, 0, 0, 0, 0, None))
    moments = centred(*(sums[name] for name in ("gram", "cross", "total", "y_total", "y_square", "count")))
    if method == "cholesky":
        readout, penalty = _chosen_one_by_one(moments, sums["count"])
    else:
        readout, penalty = jax.vmap(_chosen_by_eigenvalues, in_axes=(0, None))(moments, sums["count"])
    intercept = moments.y_mean - (moments.mean * readout).sum(-1)
    return readout.reshape(len(intercept), heads, -1), intercept, penalty


class _Moments(NamedTuple):
    """Of a voxel's attended tokens and responses, about their means."""

    gram: jax.Array
    cross: jax.Array
    y_square: jax.Array
    mean: jax.Array
    y_mean: jax.Array


def _centred(
    gram: jax.Array, cross: jax.Array, total: jax.Array, y_total: jax.Array, y_square: jax.Array, count: jax.Array
) -> _Moments:
    mean, y_mean = total / count, y_total / count
    gram = gram - count * jnp.outer(mean, mean)
    return _Moments(gram, cross - count * y_mean * mean, y_square - count * y_mean**2, mean, y_mean)


def _chosen_one_by_one(moments: _Moments, count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Readouts [V, S] and penalties [V], from a factorisation of every voxel's matrix for each penalty."""
    n_voxels, size = moments.cross.shape
    unit = jnp.broadcast_to(jnp.eye(size, dtype=moments.gram.dtype), moments.gram.shape)
    solve = functools.partial(lax.linalg.triangular_solve, left_side=True, lower=True)

    def one(best: tuple[jax.Array, ...], penalty: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
        factors = jnp.linalg.cholesky(moments.gram + penalty * unit)
        readout = solve(factors, solve(factors, moments.cross[..., None]), transpose_a=True)[..., 0]
        fitted = (readout * (2 * moments.cross - jnp.einsum("vij,vj->vi", moments.gram, readout, **_F32))).sum(-1)
        inverse = solve(factors, unit)
        freedom = 1.0 - (size - penalty * (inverse**2).sum((1, 2))) / count
        error = _generalised(moments.y_square - fitted, freedom)
        better = error < best[0]  # never where rounding has left a matrix without a factor
        readout = jnp.where(better[:, None], readout, best[1])
        return (jnp.where(better, error, best[0]), readout, jnp.where(better, penalty, best[2])), None

    start = (jnp.full(n_voxels, jnp.inf), jnp.zeros_like(moments.cross), jnp.full(n_voxels, PENALTIES[-1]))
    (_, readout, penalty), _ = lax.scan(one, start, jnp.asarray(PENALTIES, moments.gram.dtype))
    return readout, penalty


def _generalised(residual: jax.Array, freedom: jax.Array) -> jax.Array:
    """Generalised cross-validation from the sum of squared residuals and the share of freedom that is left."""
    return jnp.maximum(residual, 0.0) / jnp.maximum(freedom, 1e-3) ** 2


def _chosen_by_eigenvalues(moments: _Moments, count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Readout [S] and penalty of one voxel."""
    gram, cross, y_square = moments.gram, moments.cross, moments.y_square
    values, vectors = jnp.linalg.eigh(gram)
    values = jnp.maximum(values, 0.0)
    rotated = vectors.T @ cross
    # relative to one unit of token variance, so that the grid suits any number of heads
    penalties = jnp.asarray(PENALTIES, gram.dtype)
    shrunk = 1.0 / (values[None] + penalties[:, None])
    residual = y_square - (rotated[None] ** 2 * shrunk * (2.0 - values[None] * shrunk)).sum(1)
    freedom = 1.0 - (values[None] * shrunk).sum(1) / count
    best = jnp.argmin(_generalised(residual, freedom))
    return vectors @ (rotated * shrunk[best]), penalties[best]


def attended_tokens(query: Array, position: Array, keys: Array, values: Array, mask: Array | None) -> jax.Array:
    """Returns attended tokens [B, V, H E]: what each head of each voxel sees of each image.

    Voxels and heads are the last axes of the attention: products write it as it lies, and the softmax over cells works
    on many of them at once.
    """
    shared = keys.shape[2] == 1
    if shared:
        logits = jnp.einsum("bce,vhe->bcvh", keys[:, :, 0], query, **_F32)
    else:
        logits = jnp.einsum("bche,vhe->bcvh", keys, query, **_F32)
    seen = None if mask is None else mask[:, :, None, None]
    attention = mine_kernels.masked_softmax(logits + position.transpose(2, 0, 1)[None], seen, axis=1)
    if shared:
        attended = jnp.einsum("bcvh,bce->bvhe", attention, values[:, :, 0], **_F32)
    else:
        attended = jnp.einsum("bcvh,bche->bvhe", attention, values, **_F32)
    return attended.reshape(*attended.shape[:2], -1)


def folded(arrays: tuple[Any, ...], chunk: int) -> tuple[Any, ...]:
    """Pads axis 0 with zeros to a multiple of the chunk and folds it; None stays None."""
    length = arrays[0].shape[0]
    chunk = min(chunk, length)
    n_chunks = -(-length // chunk)
    pad = n_chunks * chunk - length

    def fold(array: Array) -> jax.Array:
        padded = jnp.pad(array, ((0, pad), *[(0, 0)] * (array.ndim - 1)))
        return padded.reshape(n_chunks, chunk, *array.shape[1:])

    return jax.tree.map(fold, arrays)
