"""Equal, padded chunks of one axis, so that jitted steps compile once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

# On CPUs more voxels at once are no faster, as their matrices leave the cache, nor are more images.
_VOXELS, _VOXELS_ELSEWHERE = {"cpu": 256}, 4096
_IMAGES, _IMAGES_ELSEWHERE = {"cpu": 64}, 256


@dataclass(frozen=True)
class Chunks:
    """How much is held at once, and where: memory only, never the result.

    Attributes:
        voxels: largest number of voxels; None for as many as suit the device.
        images: largest number of images; None likewise.
        mesh: devices of `sharding.mesh`; None for one.
    """

    voxels: int | None = None
    images: int | None = None
    mesh: Mesh | None = None


def voxels_at_once() -> int:
    """Returns how many voxels suit the default device, where there is memory for them."""
    return _VOXELS.get(jax.default_backend(), _VOXELS_ELSEWHERE)


def images_at_once() -> int:
    """Returns how many images suit the default device, where there is memory for them."""
    return _IMAGES.get(jax.default_backend(), _IMAGES_ELSEWHERE)


def chunk_size(length: int, wanted: int | None) -> int:
    """Returns the size of equal chunks no larger than wanted; the last one may need padding.

    Args:
        length: length of the axis, at least 1.
        wanted: largest chunk allowed; None for one chunk.
    """
    if wanted is None or wanted >= length:
        return length
    n_chunks = -(-length // wanted)
    return -(-length // n_chunks)


def padded_chunks(length: int, wanted: int | None) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (indices, n_valid) of equal length; padding repeats the last index.

    Args:
        length: length of the axis.
        wanted: largest chunk allowed; None for one chunk.

    Yields:
        Indices [chunk] int64 and how many of them are real.
    """
    if length == 0:
        return
    size = chunk_size(length, wanted)
    for start in range(0, length, size):
        indices = np.arange(start, start + size)
        yield np.minimum(indices, length - 1), min(size, length - start)


def grouped_chunks(length: int, n_together: int, wanted: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (indices, n_valid) as `padded_chunks` does, in chunks of whole groups.

    Where each group is computed by itself, its numbers are the same in chunks of any size: a matrix product
    rounds its rows differently when it has other rows.

    Args:
        length: length of the axis.
        n_together: size of a group.
        wanted: largest chunk, if a group is not larger.

    Yields:
        Indices [chunk] int64, a multiple of the group, and how many of them are real.
    """
    for groups, n_valid in padded_chunks(-(-length // n_together), max(1, wanted // n_together)):
        rows = (groups[:, None] * n_together + np.arange(n_together)).ravel()
        yield np.minimum(rows, length - 1), min(n_valid * n_together, length - int(rows[0]))
