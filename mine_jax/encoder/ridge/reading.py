"""Reads responses by columns, from arrays, memory-mapped files and HDF5 data sets.

A few columns of a file with one row per image lie on every page of it, so columns are read
in wide slabs, a few rows at a time, and the pages are given back after each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mine_jax.memory.rows import is_in_memory, release, rows_at_once

# Responses in memory when columns of a file are read.
READ_BYTES = 1 << 28


def slabs(
    source: Any, *, position: np.ndarray, voxel_chunk: int, read_bytes: int = READ_BYTES, voxels_first: bool = False
) -> Iterator[tuple[int, np.ndarray]]:
    """Reads all columns, slab by slab.

    Args:
        source: [N, V], or [V, N] with `voxels_first`: an array, a memory-mapped one, or
            anything with `shape` that gives arrays for two slices (an h5py data set, `ChosenRows`).
        position: [N] place of each row in the slab.
        voxel_chunk: columns that are wanted at once; slabs are multiples of it.
        read_bytes: size of a slab of a file; at least one chunk is read.
        voxels_first: the order of the axes.

    Yields:
        First column, and the slab [N, w] float32 with permuted rows.
    """
    if isinstance(source, np.ndarray) and source.ndim == 2 and source.strides[0] < source.strides[1]:
        source, voxels_first = source.T, not voxels_first
    n, n_voxels = source.shape[::-1] if voxels_first else source.shape
    in_memory = is_in_memory(source)
    if in_memory or voxels_first:
        width = voxel_chunk
    else:
        width = voxel_chunk * max(1, read_bytes // (4 * n * voxel_chunk))
    for start in range(0, n_voxels, width):
        stop = min(start + width, n_voxels)
        slab = np.empty((n, stop - start), np.float32)
        length, other = (stop - start, n) if voxels_first else (n, stop - start)
        step = length if in_memory else rows_at_once(4 * other)
        for first in range(0, length, step):
            last = min(first + step, length)
            if voxels_first:
                slab[position, first:last] = source[start + first : start + last, :].T
            else:
                slab[position[first:last]] = source[first:last, start:stop]
            release(source)
        yield start, slab
        del slab  # before the next one is made
