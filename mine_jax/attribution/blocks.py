"""Blocks of (voxel, image) pairs, for attribution and patching.

An image is read, copied to the device and projected to keys once for all voxels that want
it; the parameters of a voxel are small. A block is A images with B voxels each.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from mine_jax import memory, sharding
from mine_jax._checks import check_shape
from mine_jax._progress import Progress
from mine_jax.encoder import check_token_width, model
from mine_jax.encoder.query import model as query_encoder
from mine_jax.errors import DataError
from mine_jax.memory.chunks import padded_chunks
from mine_jax.types import Architecture, Encoders, ImageTokens

# Tokens times heads of the pairs in one block: each array of token terms has 4 MiB on CPUs, 256 MiB elsewhere.
_BLOCK_ELEMENTS = {"cpu": 1 << 20}
_BLOCK_ELEMENTS_ELSEWHERE = 1 << 26
# Arrays of token terms that a block has, in float32.
_BYTES_PER_ELEMENT = 4 * 16
# Tokens times width of the images of one block: 64 MiB of float32.
_IMAGE_ELEMENTS = 1 << 24


class Images(NamedTuple):
    """Images of a block: states [A, P, D] or keys and values [A, P, G, E]; mask [A, P] or None. No A in one image."""

    states: Any = None
    keys: Any = None
    values: Any = None
    mask: Any = None


@dataclasses.dataclass(frozen=True)
class Pairs:
    """(voxel, image) pairs: `voxels` [n] and `images` [n] are positions, `is_grid` if all voxels have all images."""

    voxels: np.ndarray
    images: np.ndarray
    is_grid: bool = False


def pairs_of(rows: np.ndarray) -> Pairs:
    """Returns the pairs of images [V, I] of each voxel, voxel by voxel."""
    n_voxels, n_images = rows.shape
    is_grid = bool((rows == rows[:1]).all())
    return Pairs(np.repeat(np.arange(n_voxels), n_images), rows.ravel(), is_grid)


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
    """Returns the start of the path, [P, D], or [1, D] where all tokens of a query encoder start alike.

    Raises:
        ValueError: for an unknown name.
        DataError: if the array has another shape.
    """
    if isinstance(baseline, str) and baseline not in ("mean", "zero"):
        raise ValueError(f'`baseline` must be "mean", "zero" or an array, but is {baseline!r}.')
    mean = np.asarray(encoders.baseline, np.float32)
    if isinstance(baseline, str) or baseline is None:
        baseline = np.zeros_like(mean) if baseline == "zero" else mean
    states = np.asarray(baseline, np.float32)
    check_shape("baseline", states, "P D" if states.ndim == 2 else "D", P=n_tokens, D=mean.shape[-1])
    states = np.broadcast_to(states, (n_tokens, states.shape[-1]))
    is_one = is_query(encoders.architecture) and bool((states == states[:1]).all())
    return jnp.asarray(states[:1] if is_one else states)


def map_blocks(
    compute: Callable[..., Any],
    encoders: Encoders,
    tokens: ImageTokens,
    pairs: Pairs,
    common: Any,
    extra: tuple[np.ndarray, ...] = (),
    *,
    needs_states: bool = False,
    room: int,
    image_chunk: int | None,
    voxel_chunk: int | None,
    mesh: Mesh | None,
    progress: Progress,
) -> Iterator[tuple[np.ndarray, Any]]:
    """Applies a function of blocks to all pairs.

    Args:
        compute: takes (shared, common, per_voxel, voxels, images, *extra of the block); jitted, and
            the same object in every call, so that calls of equal shapes compile once. `voxels`
            are positions, [B] in a grid, else [A, B]; `images` are `Images`.
        encoders: V encoders.
        tokens: image-tokens of all images.
        pairs: n pairs.
        common: arrays that are the same for all pairs.
        extra: arrays [n, ...] passed pair by pair.
        needs_states: `compute` cannot do with keys and values.
        room: pairs held at once on each device, at most; see `pairs_at_once`.
        image_chunk: images held at once on each device. Memory only.
        voxel_chunk: voxels held at once. Memory only.
        mesh: devices of this process, which divide the images of a block; None for one.
        progress: called with (done, total) voxels.

    Yields:
        Positions [A, B] of the block's pairs, and its outputs [A, B, ...]. Positions may repeat.
    """
    check_token_width(encoders, tokens)
    n_voxels, n_pairs = len(encoders.voxel_ids), len(pairs.voxels)
    image_chunk, voxel_chunk = _chunks(encoders, tokens, pairs, image_chunk, voxel_chunk, room)
    image_chunk *= sharding.n_shards(mesh, *sharding.DEVICES)
    per_image = n_voxels if pairs.is_grid else voxel_chunk
    is_projected = not needs_states and _is_cheaper_projected(encoders, tokens, per_image)
    shared, common, per_voxel = jax.tree.map(
        lambda x: sharding.placed(x, mesh), (encoders.shared, common, dict(encoders.per_voxel))
    )
    compute = _over_devices(compute, mesh, pairs.is_grid, len(extra))
    waiting: collections.deque[tuple[np.ndarray, Any]] = collections.deque()
    done = 0
    grouped = _grid_blocks if pairs.is_grid else _listed_blocks
    for blocks in grouped(pairs, image_chunk, voxel_chunk):
        # devices have equal parts: the last image fills up the last one
        n_rows = sharding.padded(len(blocks[0]), mesh, *sharding.DEVICES)
        blocks = [block[np.minimum(np.arange(n_rows), len(block) - 1)] for block in blocks]
        states, mask = (
            sharding.placed(x, mesh, sharding.DEVICES) for x in _read(tokens, pairs.images[blocks[0][:, 0]])
        )
        images = (_projected(shared, states) if is_projected else Images(states))._replace(mask=mask)
        for block in blocks:
            voxels = pairs.voxels[block[0] if pairs.is_grid else block]
            given = [sharding.placed(array[block], mesh, sharding.DEVICES) for array in extra]
            waiting.append((block, compute(shared, common, per_voxel, voxels, images, *given)))
            if len(waiting) > 1:  # a block is computed while the one before it is taken over
                yield _fetched(waiting.popleft())
            done += block.size
        progress(min(n_voxels, done * n_voxels // n_pairs), n_voxels)
    while waiting:
        yield _fetched(waiting.popleft())


def pairs_at_once(encoders: Encoders, tokens: ImageTokens, *, needs_states: bool = False) -> int:
    """Returns how many pairs a device holds at once: what suits its cache, or its memory if that is less."""
    n_tokens, width = tokens.tokens.shape[1:]
    n_heads = encoders.per_voxel["query"].shape[1] if "query" in encoders.per_voxel else 1
    held = n_tokens * (width if needs_states else n_heads)
    fitting = int(memory.SAFE_SHARE * sharding.free_bytes()) // _BYTES_PER_ELEMENT
    wanted = _BLOCK_ELEMENTS.get(sharding.platform(), _BLOCK_ELEMENTS_ELSEWHERE)
    return max(1, min(wanted, fitting) // held)


def features_of(encoders: Encoders, states: jax.Array) -> Images:
    """Returns one image's `Images` [P, ...] for `compute`: keys and values of a query encoder, else states."""
    if not is_query(encoders.architecture):
        return Images(states)
    return jax.tree.map(lambda x: x[0], _projected(encoders.shared, states[None]))


def is_query(architecture: Architecture) -> bool:
    """Says whether keys and values are linear in the token states, as token terms assume."""
    return model(architecture).has_keys


def over_pairs(one: Callable[..., Any], is_grid: bool, *axes: int | None) -> Callable[..., Any]:
    """Maps a function of one pair (voxel, image, *more) over a block [A, B]; `more` where their axis is 0."""
    over_voxels = jax.vmap(one, in_axes=(0, None, *axes))
    return jax.vmap(over_voxels, in_axes=(None if is_grid else 0, 0, *axes))


def _chunks(encoders, tokens, pairs: Pairs, image_chunk, voxel_chunk, room) -> tuple[int, int]:
    """Returns how many images a block has, and how many voxels of each."""
    n_tokens, width = tokens.tokens.shape[1:]
    if pairs.is_grid:
        image_chunk = min(room, image_chunk or min(16, len(pairs.voxels) // len(encoders.voxel_ids)))
        return image_chunk, min(voxel_chunk or room, max(1, room // image_chunk))
    _, counts = np.unique(pairs.images, return_counts=True)
    together = min(2 ** round(np.log2(counts.mean())), voxel_chunk or room, room)
    n_blocks = int((-(-counts // together)).sum())
    fitting = max(1, min(room // together, _IMAGE_ELEMENTS // (n_tokens * width)))
    # powers of two, so that calls with other pairs find the same shapes compiled
    return min(image_chunk or 2 ** int(np.ceil(np.log2(min(n_blocks, fitting)))), max(1, room // together)), together


def _grid_blocks(pairs: Pairs, image_chunk: int, voxel_chunk: int) -> Iterator[list[np.ndarray]]:
    """Yields for some images the positions [A, B] of all voxels, in blocks."""
    n_voxels = int(pairs.voxels[-1]) + 1
    n_images = len(pairs.voxels) // n_voxels
    for columns, _ in padded_chunks(n_images, image_chunk):
        yield [rows * n_images + columns[:, None] for rows, _ in padded_chunks(n_voxels, voxel_chunk)]


def _listed_blocks(pairs: Pairs, image_chunk: int, voxel_chunk: int) -> Iterator[list[np.ndarray]]:
    """Yields positions [A, B] of pairs with B of one image together; an image's last pair fills its last row."""
    order = np.argsort(pairs.images, kind="stable")
    _, first, counts = np.unique(pairs.images[order], return_index=True, return_counts=True)
    n_rows = -(-counts // voxel_chunk)
    image = np.repeat(np.arange(len(counts)), n_rows)
    row = np.arange(len(image)) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows)
    place = np.minimum(row[:, None] * voxel_chunk + np.arange(voxel_chunk), counts[image][:, None] - 1)
    listed = order[first[image][:, None] + place]
    for start in range(0, len(listed), image_chunk):
        yield [listed[np.minimum(np.arange(start, start + image_chunk), len(listed) - 1)]]


def _read(tokens: ImageTokens, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    states = np.asarray(tokens.tokens[rows], dtype=np.float32)
    if tokens.mask is None:
        return states, None
    mask = np.asarray(tokens.mask[rows])
    return np.where(mask[..., None], states, np.float32(0)), mask  # padding may hold NaN


@functools.lru_cache(maxsize=32)
def _over_devices(compute: Callable[..., Any], mesh: Mesh | None, is_grid: bool, n_extra: int) -> Callable[..., Any]:
    """Divides a block [A, B] by its images A; each device has the parameters of all voxels."""
    if mesh is None:
        return compute
    whole, images = PartitionSpec(), PartitionSpec(sharding.DEVICES)
    specs = (whole, whole, whole, whole if is_grid else images, images, *[images] * n_extra)
    return jax.jit(sharding.mapped(compute, mesh, specs, images))


def _is_cheaper_projected(encoders: Encoders, tokens: ImageTokens, n_voxels: int) -> bool:
    """Compares the products of projecting an image once with those of reading n voxels through the weights."""
    if not is_query(encoders.architecture):
        return False
    width, groups, inner = encoders.shared["key_weight"].shape
    n_tokens, n_heads = tokens.tokens.shape[1], encoders.per_voxel["query"].shape[1]
    once = n_tokens * width * groups * inner * (2 if "value_weight" in encoders.shared else 1)
    return once + 2 * n_voxels * n_tokens * n_heads * inner < 2 * n_voxels * n_heads * width * (inner + n_tokens)


@jax.jit
def _projected(shared, states) -> Images:
    keys, values = query_encoder.project(shared, states)
    return Images(None, keys, None if values is keys else values)


def _fetched(made: tuple[np.ndarray, Any]) -> tuple[np.ndarray, Any]:
    return made[0], jax.tree.map(np.asarray, made[1])
