"""Equal, padded chunks of one axis, so that jitted steps compile once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh


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
