"""Reads responses by columns, from arrays, memory-mapped files and HDF5 data sets.

A few columns of a file with one row per image lie on every page of it, so columns are read
in wide slabs, a few rows at a time, and the pages are given back after each.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

# Responses in memory when columns of a file are read, and rows of them whose pages are held meanwhile.
READ_BYTES = 1 << 28
_PART_BYTES = 1 << 24


def slabs(
    source: Any, *, position: np.ndarray, voxel_chunk: int, read_bytes: int = READ_BYTES, voxels_first: bool = False
) -> Iterator[tuple[int, np.ndarray]]:
    """Reads all columns, slab by slab.

    Args:
        source: [N, V], or [V, N] with `voxels_first`: an array, a memory-mapped one, or
            anything with `shape` that gives arrays for two slices (an h5py data set).
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
    in_memory = isinstance(source, np.ndarray) and _mapping(source) is None
    if in_memory or voxels_first:
        width = voxel_chunk
    else:
        width = voxel_chunk * max(1, read_bytes // (4 * n * voxel_chunk))
    for start in range(0, n_voxels, width):
        stop = min(start + width, n_voxels)
        slab = np.empty((n, stop - start), np.float32)
        length, other = (stop - start, n) if voxels_first else (n, stop - start)
        step = length if in_memory else max(1, _PART_BYTES // (4 * other))
        for first in range(0, length, step):
            last = min(first + step, length)
            if voxels_first:
                slab[position, first:last] = source[start + first : start + last, :].T
            else:
                slab[position[first:last]] = source[first:last, start:stop]
            release(source)
        yield start, slab
        del slab  # before the next one is made


def release(array: Any) -> None:
    """Gives the pages of a memory-mapped array back; what was written stays in the file.

    Args:
        array: any object; only shared mappings are touched.
    """
    mapping = _mapping(array)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _mapping(array: Any) -> mmap.mmap | None:
    """Returns the shared mapping below an array; None for memory and for private copies."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and array.mode == "c":
            return None
        array = array.base
    return array if isinstance(array, mmap.mmap) else None
