"""Blocks of (voxel, image) pairs, for attribution and patching.

An image is read, copied to the device and projected to keys once for all voxels that want
it; the parameters of a voxel are small. A block is A images with B voxels each.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from mine_jax import memory, sharding
from mine_jax._checks import check_shape
from mine_jax._progress import Progress
from mine_jax.attribution.path import Baseline
from mine_jax.encoder import check_token_width, model
from mine_jax.encoder.linear import model as linear
from mine_jax.encoder.query import model as query_encoder
from mine_jax.errors import DataError
from mine_jax.memory.chunks import Chunks, padded_chunks
from mine_jax.types import Architecture, Encoders, ImageTokens

# Tokens times heads of the pairs in one block: each array of token terms has 4 MiB on CPUs, 256 MiB elsewhere.
_BLOCK_ELEMENTS = {"cpu": 1 << 20}
_BLOCK_ELEMENTS_ELSEWHERE = 1 << 26
# Arrays of token terms that a block has at most, in float32: patching has 23, integrated gradients 13.
BYTES_PER_ELEMENT = 4 * 24
# Tokens times width of the images of one block: 64 MiB of float32.
_IMAGE_ELEMENTS = 1 << 24
_T = TypeVar("_T")


class Images(NamedTuple):
    """Images of a block: states [A, P, D] or keys and values [A, P, G, E]; mask [A, P] or None. No A in one image."""

    states: Any = None
    keys: Any = None
    values: Any = None
    mask: Any = None


class Block(NamedTuple):
    """A images with B voxels each, on the devices.

    `shared` and `per_voxel` are arrays of the encoders, `voxels` positions in the latter, [B] in a
    grid (all images with the same voxels), else [A, B]; `scores` [A, B, P] belong to the pairs, or None.
    """

    shared: dict[str, Any]
    per_voxel: dict[str, Any]
    voxels: Any
    images: Images
    scores: Any

    @property
    def is_grid(self) -> bool:
        """Whether all images have the same voxels."""
        return self.voxels.ndim == 1

    def parameters(self) -> dict[str, jax.Array]:
        """Returns the parameters of the voxels, [B, ...] in a grid, else [A, B, ...]."""
        return {name: value[self.voxels] for name, value in self.per_voxel.items()}


@dataclasses.dataclass(frozen=True)
class Pairs:
    """(voxel, image) pairs.

    Attributes:
        voxels: positions [n].
        images: positions [n].
        is_grid: whether all voxels have all images, voxel by voxel.
        scores: [n, P] that blocks take along, or None.
    """

    voxels: np.ndarray
    images: np.ndarray
    is_grid: bool = False
    scores: np.ndarray | None = None


def pairs_of(rows: np.ndarray, *, scores: np.ndarray | None = None, only: np.ndarray | None = None) -> Pairs:
    """Returns the pairs of images [V, I] of each voxel, voxel by voxel.

    Args:
        rows: positions [V, I] of images.
        scores: [V, I, P] that blocks take along, or None.
        only: positions [n] of the pairs wanted; None for all.
    """
    n_voxels, n_images = rows.shape
    is_grid = bool((rows == rows[:1]).all())
    voxels, images = np.repeat(np.arange(n_voxels), n_images), rows.ravel()
    scores = None if scores is None else scores.reshape(rows.size, -1)
    if only is not None:
        return Pairs(voxels[only], images[only], scores=None if scores is None else scores[only])
    return Pairs(voxels, images, is_grid, scores)


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
    places = np.searchsorted(tokens.image_ids, image_ids, sorter=order)
    rows = order[np.minimum(places, len(order) - 1)]
    wrong = tokens.image_ids[rows] != image_ids
    if wrong.any():
        missing = str(image_ids[wrong][0])
        raise DataError(f"image {missing!r} has no tokens. Were features extracted for another image list?")
    return rows


def start_of(encoders: Encoders, baseline: Baseline, n_tokens: int, *, needs_states: bool = False) -> Any:
    """Returns the start of the path: one image's `Images` [P, ...], or its states [P, D] where these are needed.

    Where all tokens of a query encoder start alike, `Images` hold one of them.

    Raises:
        DataError: if the array has another shape.
    """
    mean = np.asarray(encoders.baseline, np.float32)
    if isinstance(baseline, str) or baseline is None:
        baseline = np.zeros_like(mean) if baseline == "zero" else mean
    states = np.asarray(baseline, np.float32)
    check_shape("baseline", states, "P D" if states.ndim == 2 else "D", P=n_tokens, D=mean.shape[-1])
    states = np.broadcast_to(states, (n_tokens, states.shape[-1]))
    if needs_states:
        return states
    if not is_query(encoders.architecture):
        return Images(states)
    is_one = bool((states == states[:1]).all())
    return jax.tree.map(lambda x: x[0], _projected(encoders.shared, (states[:1] if is_one else states)[None]))


def blocks_of(
    encoders: Encoders,
    tokens: ImageTokens,
    pairs: Pairs,
    chunks: Chunks,
    *,
    room: int,
    needs_states: bool = False,
    progress: Progress,
) -> Iterator[tuple[np.ndarray, Block]]:
    """Reads images and puts them on the devices, with the voxels that want them.

    Args:
        encoders: V encoders.
        tokens: image-tokens of all images.
        pairs: n pairs.
        chunks: what is held at once; its mesh has devices of this process, which divide the images of a block.
        room: pairs held at once on each device, at most; see `pairs_at_once`.
        needs_states: keys and values would not do.
        progress: called with (done, total) voxels.

    Yields:
        Positions [A, B] of the block's pairs, which may repeat, and the block.
    """
    check_token_width(encoders, tokens)
    n_voxels, n_pairs, mesh = len(encoders.voxel_ids), len(pairs.voxels), chunks.mesh
    image_chunk, voxel_chunk = _sizes(encoders, tokens, pairs, chunks, room)
    image_chunk *= sharding.n_shards(mesh, *sharding.DEVICES)
    per_image = n_voxels if pairs.is_grid else voxel_chunk
    is_projected = not needs_states and _is_cheaper_projected(encoders, tokens, per_image)
    shared, per_voxel = jax.tree.map(lambda x: sharding.placed(x, mesh), (encoders.shared, dict(encoders.per_voxel)))
    done = 0
    grouped = _grid_blocks if pairs.is_grid else _listed_blocks
    for group in grouped(pairs, image_chunk, voxel_chunk):
        # devices have equal parts: the last image fills up the last one
        n_rows = sharding.padded(len(group[0]), mesh, *sharding.DEVICES)
        group = [positions[np.minimum(np.arange(n_rows), len(positions) - 1)] for positions in group]
        states, mask = (sharding.placed(x, mesh, sharding.DEVICES) for x in _read(tokens, pairs.images[group[0][:, 0]]))
        images = (_projected(shared, states) if is_projected else Images(states))._replace(mask=mask)
        for positions in group:
            voxels = pairs.voxels[positions[0] if pairs.is_grid else positions]
            scores = None if pairs.scores is None else pairs.scores[positions]
            yield positions, Block(shared, per_voxel, voxels, images, sharding.placed(scores, mesh, sharding.DEVICES))
            done += positions.size
        progress(min(n_voxels, done * n_voxels // n_pairs), n_voxels)


def on_devices(compute: Callable[..., _T]) -> Callable[..., _T]:
    """Compiles a function of a block, and divides the block's images A over the devices.

    Args:
        compute: takes (block, arrays that are the same for all pairs, `how`), where `how` is hashable,
            and returns a tree of arrays [A, B, ...].

    Returns:
        Function of (block, arrays, *, how, mesh); calls of equal shapes compile once.
    """

    def on_mesh(block: Block, common: Any, *, how: Any, mesh: Mesh | None) -> _T:
        whole, images = PartitionSpec(), PartitionSpec(sharding.DEVICES)
        specs = Block._make((whole, whole, whole if block.is_grid else images, images, images))
        compute_part = functools.partial(compute, how=how)
        return sharding.mapped(compute_part, mesh, (specs, whole), images)(block, common)

    on_mesh.__name__ = compute.__name__  # ty: ignore[missing-attribute]  # what profiles show
    return jax.jit(on_mesh, static_argnames=("how", "mesh"))


def gathered(results: Iterable[tuple[np.ndarray, _T]], n_pairs: int) -> _T:
    """Takes the results of blocks over to the host, each while the next one is computed.

    Args:
        results: positions [A, B] of pairs, and a tree of arrays [A, B, ...] on the devices.
        n_pairs: how many pairs there are; each has a position.

    Returns:
        Tree of host arrays [n, ...] in the order of the pairs.
    """
    arrays: Any = None
    waiting: collections.deque[tuple[np.ndarray, _T]] = collections.deque()
    for result in itertools.chain(results, [None]):
        if waiting:
            positions, computed = waiting.popleft()
            on_host = fetched(computed)
            if arrays is None:
                arrays = jax.tree.map(lambda part: np.empty((n_pairs, *part.shape[2:]), part.dtype), on_host)
            for array, part in zip(jax.tree.leaves(arrays), jax.tree.leaves(on_host), strict=True):
                array[positions] = part
        if result is not None:
            waiting.append(result)
    return arrays


def fetched(computed: _T) -> _T:
    """Copies a tree of arrays from the devices; waits until they are computed."""
    return jax.tree.map(np.asarray, computed)


def pairs_at_once(encoders: Encoders, tokens: ImageTokens, *, needs_states: bool = False) -> int:
    """Returns how many pairs a device holds at once: what suits its cache, or its memory if that is less."""
    n_tokens, width = tokens.tokens.shape[1:]
    n_heads = encoders.per_voxel["query"].shape[1] if "query" in encoders.per_voxel else 1
    n_heads += linear.has_linear(encoders.per_voxel)
    held = n_tokens * (width if needs_states else n_heads)
    fitting = int(memory.SAFE_SHARE * sharding.free_bytes()) // BYTES_PER_ELEMENT
    wanted = _BLOCK_ELEMENTS.get(sharding.platform(), _BLOCK_ELEMENTS_ELSEWHERE)
    return max(1, min(wanted, fitting) // held)


def is_query(architecture: Architecture) -> bool:
    """Says whether keys and values are linear in the token states, as token terms assume."""
    return model(architecture).has_keys


def over_pairs(one: Callable[..., Any], is_grid: bool, *axes: int | None) -> Callable[..., Any]:
    """Maps a function of one pair (voxel, image, *more) over a block [A, B]; `more` where their axis is 0."""
    over_voxels = jax.vmap(one, in_axes=(0, None, *axes))
    return jax.vmap(over_voxels, in_axes=(None if is_grid else 0, 0, *axes))


def _sizes(encoders: Encoders, tokens: ImageTokens, pairs: Pairs, chunks: Chunks, room: int) -> tuple[int, int]:
    """Returns how many images a block has, and how many voxels of each."""
    image_chunk, voxel_chunk = chunks.images, chunks.voxels
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


def _is_cheaper_projected(encoders: Encoders, tokens: ImageTokens, n_voxels: int) -> bool:
    """Compares the products of projecting an image once with those of reading n voxels through the weights."""
    if not is_query(encoders.architecture):
        return False
    width, groups, inner = encoders.shared["key_weight"].shape
    n_tokens, n_heads = tokens.tokens.shape[1], encoders.per_voxel["query"].shape[1]
    once = n_tokens * width * groups * inner * (2 if "value_weight" in encoders.shared else 1)
    return once + 2 * n_voxels * n_tokens * n_heads * inner < 2 * n_voxels * n_heads * width * (inner + n_tokens)


@jax.jit
def _projected(shared: dict[str, jax.Array], states: jax.Array) -> Images:
    keys, values = query_encoder.project(shared, states)
    return Images(None, keys, None if values is keys else values)
