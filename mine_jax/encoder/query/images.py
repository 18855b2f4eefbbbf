"""Keys or cell states of the images of one split, and their responses, as the training loop reads them.

What fits a budget of bytes stays on the device. Otherwise keys are kept in a scratch file, states
stay in the token store, and blocks of images are staged by a thread while the last one computes.
At most two blocks are on the device. The budget never changes the result.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from jax.sharding import Mesh

from mine_jax import sharding
from mine_jax.config import QueryConfig
from mine_jax.encoder.cells import cell_mask, n_cells, pooled_tokens
from mine_jax.encoder.query import model as query
from mine_jax.memory import scratch
from mine_jax.memory.ahead import read_ahead
from mine_jax.types import Architecture, ImageTokens

IMAGE_CHUNK = 128
_READ_IMAGES = 64
_DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


class Batch(NamedTuple):
    """Some images on the device: keys or cell states [B, C, ...], mask [B, C] or None, responses [B, V].

    Where a linear term is solved for, also the components [B, R] of the images.
    """

    tokens: Any
    mask: Any
    responses: Any
    components: Any = None


@dataclass(frozen=True)
class Examples:
    """What one split gives to the training loop.

    Attributes:
        tokens: keys [N, C, 1, E] when the trunk is fixed, else cell states [N, C, D]: a device array
            when resident, else anything on the host that takes rows.
        is_projected: whether `tokens` are keys.
        mask: [N, C] bool, or None.
        responses: [N, V] float32, z-scored beta.
        components: [N, R], centred, while a linear term is solved for; else None.
        block_images: images staged at once; None when `tokens` are resident.
        mesh: devices: tokens and mask are on each, voxels are divided; None for one device.
    """

    tokens: Any
    is_projected: bool
    mask: Any
    responses: Any = None
    components: Any = None
    block_images: int | None = None
    mesh: Mesh | None = None

    def with_responses(self, responses: np.ndarray) -> Examples:
        """Returns the same images with the responses [N, V] of some voxels; zeros fill up what devices divide."""
        n_voxels = responses.shape[1]
        n_more = sharding.padded(n_voxels, self.mesh, *sharding.DEVICES) - n_voxels
        if n_more:
            responses = np.pad(responses, ((0, 0), (0, n_more)))
        return replace(self, responses=sharding.placed(responses, self.mesh, None, sharding.VOXEL))

    def with_components(self, components: np.ndarray) -> Examples:
        """Returns the same images with components [N, R] of a linear term."""
        return replace(self, components=sharding.placed(components, self.mesh))

    def staged(self, parts: Sequence[np.ndarray]) -> Iterator[Batch]:
        """Yields tokens, mask and responses of each part (rows), on the device; reads one part ahead.

        Whoever iterates waits for its results before the next part, so that no third one is held.
        """
        yield from read_ahead(self.batch, parts)

    def in_order(self) -> Iterator[Batch]:
        """Yields tokens, mask and responses of all images in order: at once where they are resident."""
        if self.block_images is None:
            yield Batch(self.tokens, self.mask, self.responses, self.components)
            return
        n_images = len(self.responses)
        size = max(1, self.block_images // IMAGE_CHUNK) * min(IMAGE_CHUNK, self.block_images)
        yield from self.staged([np.arange(a, min(a + size, n_images)) for a in range(0, n_images, size)])

    def batch(self, rows: np.ndarray) -> Batch:
        """Reads some images.

        Args:
            rows: their positions [B].

        Returns:
            Their tokens, mask and responses [B, V], on the device.
        """
        mask = None if self.mask is None else self.mask[rows]
        components = None if self.components is None else self.components[rows]
        return Batch(sharding.placed(self.tokens[rows], self.mesh), mask, self.responses[rows], components)


def chosen_from(splits: Sequence[Examples], rows: np.ndarray) -> Examples:
    """Chooses images from splits of the same kind, one below the other, without their responses.

    Args:
        splits: each N images, resident or not.
        rows: positions [n] in all of them; what is not resident is read when it is asked for.
    """
    first, parts = splits[0], _Stacked([examples.tokens for examples in splits], rows)
    mask = None if first.mask is None else _Stacked([examples.mask for examples in splits], rows)
    every = np.arange(len(rows))
    blocks = [examples.block_images for examples in splits]
    tokens = sharding.placed(parts[every], first.mesh) if blocks == [None] * len(splits) else parts
    mask = None if mask is None else sharding.placed(mask[every], first.mesh)
    block_images = min((block for block in blocks if block is not None), default=None)
    return replace(first, tokens=tokens, mask=mask, responses=None, block_images=block_images)


class _Stacked:
    """Rows of arrays that are one below the other; those asked for are read."""

    def __init__(self, arrays: Sequence[Any], rows: np.ndarray) -> None:
        self._arrays, self._rows = arrays, rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._rows), *self._arrays[0].shape[1:])

    def __getitem__(self, chosen: np.ndarray) -> np.ndarray:
        rows, out = self._rows[chosen], None
        start = 0
        for array in self._arrays:
            places = np.flatnonzero((rows >= start) & (rows < start + len(array)))
            part = np.asarray(sharding.host(array[rows[places] - start]))
            out = np.empty((len(rows), *part.shape[1:]), part.dtype) if out is None else out
            out[places] = part
            start += len(array)
        return np.asarray(out)


def load(
    tokens: ImageTokens,
    trunk: dict[str, Any],
    architecture: Architecture,
    config: QueryConfig,
    *,
    image_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Examples:
    """Prepares one split: keys for a fixed trunk, cell states for a learned one.

    Args:
        tokens: image-tokens [N, P, D].
        trunk: arrays of the projection.
        architecture: static description.
        config: settings; `resident_bytes` and `storage` are read here.
        image_chunk: images read at once. Memory only, never the result.
        mesh: devices, or None for one.

    Returns:
        Examples without responses.
    """
    dtype = _DTYPES[config.storage]
    n_images, n_tokens = tokens.tokens.shape[:2]
    size = n_cells(architecture, n_tokens)
    is_projected = config.trunk == "fixed"
    width = trunk["key_bias"].size if is_projected else tokens.tokens.shape[2]
    image_bytes = size * width * dtype.itemsize
    is_resident = n_images * image_bytes <= config.resident_bytes
    mask = sharding.placed(cell_mask(tokens, architecture), mesh)
    block_images = None if is_resident else int(max(1, config.resident_bytes // (2 * image_bytes)))
    image_chunk = min(image_chunk or _READ_IMAGES, block_images or n_images)
    if is_projected:
        out = _empty((n_images, size, width), dtype, on_disk=not is_resident)
        query.project_all(trunk, tokens, architecture, out=out, image_chunk=image_chunk)
        keys = out[:, :, None]
        keys = sharding.placed(keys, mesh) if is_resident else keys
        return Examples(keys, True, mask, block_images=block_images, mesh=mesh)
    states = _States(tokens, architecture, dtype, image_chunk)
    if is_resident:
        states = sharding.placed(states[np.arange(n_images)], mesh)
    return Examples(states, False, mask, block_images=block_images, mesh=mesh)


class _States:
    """Cell states [N, C, D] read from the token store when rows are asked for."""

    def __init__(self, tokens: ImageTokens, architecture: Architecture, dtype: np.dtype, image_chunk: int) -> None:
        self._tokens, self._architecture, self._dtype, self._image_chunk = tokens, architecture, dtype, image_chunk

    def __len__(self) -> int:
        return len(self._tokens.image_ids)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        parts = [rows[a : a + self._image_chunk] for a in range(0, len(rows), self._image_chunk)]
        return np.concatenate(
            [np.asarray(pooled_tokens(self._tokens, part, self._architecture)[0]).astype(self._dtype) for part in parts]
        )


def _empty(shape: tuple[int, ...], dtype: np.dtype, *, on_disk: bool) -> np.ndarray:
    return scratch(shape, dtype, Path(tempfile.gettempdir())) if on_disk else np.empty(shape, dtype)
