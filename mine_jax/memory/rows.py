"""Arrays that stay in their files: rows chosen now and read later, arrays side by side, columns read in parts."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np

from mine_jax.memory.files import scratch

# What is read at once; pages of files are given back after each part.
PART_BYTES = 1 << 24
# What systems map around each page that is touched.
AROUND_BYTES = 1 << 16
_COLUMNS_AT_ONCE = 4096


class ChosenRows:
    """Read-only array over some rows of another one, read when they are asked for.

    Supports an int, a slice, an integer array or a boolean mask on the first axis, then any index
    on the others, and `numpy.asarray`.

    Attributes:
        source: the array, or anything that gives arrays for integer arrays of rows.
        rows: [n] int, positions in the source.
    """

    def __init__(self, source: Any, rows: np.ndarray) -> None:
        """Chooses rows (positions or mask) of an array; of chosen rows again, rows of its source."""
        if isinstance(source, ChosenRows):
            source, rows = source.source, source.rows[rows]
        self.source = source
        self.rows = np.arange(source.shape[0])[rows]
        self.shape = (len(self.rows), *source.shape[1:])
        self.dtype = source.dtype
        self.ndim = len(self.shape)
        self.size = int(np.prod(self.shape))
        self.nbytes = self.size * self.dtype.itemsize

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Returns a copy in memory."""
        first, *others = (key or (...,)) if isinstance(key, tuple) else (key,)
        if first is Ellipsis or first is None:
            return np.asarray(self)[key]
        rows = self.rows[first]
        if not isinstance(first, slice) or all(isinstance(other, slice) for other in others):
            values = self.source[(rows, *others)]
            return np.array(values) if rows.ndim == 0 else np.asarray(values)
        # whole rows, a few at a time: columns that are apart lie on every page of a file anyway
        step = max(1, PART_BYTES * self.shape[0] // max(1, self.nbytes))
        parts = []
        for start in range(0, max(1, len(rows)), step):
            parts.append(np.asarray(self.source[rows[start : start + step]])[(slice(None), *others)])
            release(self)
        return np.concatenate(parts)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Returns all rows in memory."""
        if copy is False:
            raise ValueError("rows of another array cannot become an array without a copy")
        array = self[:]
        return array if dtype is None else array.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"ChosenRows({self.dtype}{list(self.shape)} of {self.source.shape[0]} rows)"


class SideBySide:
    """Read-only array [N, V] whose columns are those of several others, read when they are asked for.

    Attributes:
        parts: arrays [N, W] of one dtype, or what reads them, each with the slice of its columns.
        shape: N and the number of all these columns.
    """

    def __init__(self, *parts: tuple[Any, slice]) -> None:
        """Joins columns (slices with start and stop) of arrays with the same rows."""
        self.parts = parts
        self._stops = np.cumsum([columns.stop - columns.start for _, columns in parts])
        self.shape = (parts[0][0].shape[0], int(self._stops[-1]))
        self.dtype = parts[0][0].dtype
        self.ndim = 2
        self.size = self.shape[0] * self.shape[1]
        self.nbytes = self.size * self.dtype.itemsize

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """Returns a copy in memory of some rows (slice, positions or mask), and of all or some columns."""
        key = key if isinstance(key, tuple) else (key,)
        rows, columns = key if len(key) == 2 else (*key, slice(None))
        wanted, chosen = np.arange(self.shape[1])[columns], np.arange(len(self))[rows]
        if not isinstance(rows, slice):
            rows = chosen
        out = np.empty((len(chosen), len(wanted)), self.dtype)
        part_of = np.searchsorted(self._stops, wanted, side="right")
        for i in np.unique(part_of):
            here = np.flatnonzero(part_of == i)
            source, span = self.parts[i]
            own = wanted[here] - self._stops[i] + span.stop
            first, last = int(own.min()), int(own.max()) + 1
            # from the first to the last: columns that are apart lie on the same pages of a file anyway
            values = np.asarray(source[rows, first:last])
            if _follow(own) and _follow(here):
                out[:, here[0] : here[-1] + 1] = values
            else:
                out[:, here] = values[:, own - first]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Returns everything in memory."""
        if copy is False:
            raise ValueError("arrays side by side cannot become one without a copy")
        array = self[:]
        return array if dtype is None else array.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"SideBySide({self.dtype}{list(self.shape)} of {len(self.parts)} parts)"


def take_rows(array: Any, rows: np.ndarray) -> Any:
    """Takes rows of an array: a copy of what is in memory, `ChosenRows` of what is in files.

    Args:
        array: [N, ...].
        rows: positions or mask [N].

    Returns:
        Array [n, ...], or what reads it.
    """
    return array[rows] if isinstance(array, np.ndarray) and is_in_memory(array) else ChosenRows(array, rows)


def read_columns(source: Any, columns: slice) -> np.ndarray:
    """Reads some columns of all rows, a few rows at a time.

    Args:
        source: [N, V]; an array, `ChosenRows`, or anything that gives arrays for two slices.
        columns: with start and stop.

    Returns:
        Array [N, v] of the dtype of the source; a view where the source is an array in memory.
    """
    if isinstance(source, np.ndarray) and is_in_memory(source):
        return source[:, columns]
    n, width = source.shape[0], len(range(source.shape[1])[columns])
    out = np.empty((n, width), source.dtype)
    step = rows_at_once(out.itemsize * width)
    for start in range(0, n, step):
        out[start : start + step] = source[start : start + step, columns]
        release(source)
    return out


def take_columns(source: Any, columns: np.ndarray, *, folder: Path | None = None) -> np.ndarray:
    """Copies some columns of all rows, a few at a time.

    Args:
        source: [N, V], as for `read_columns`.
        columns: positions [v].
        folder: where the copy lies, in a file without a name; None holds it in memory.

    Returns:
        [N, v] float32.
    """
    shape = (source.shape[0], len(columns))
    out = np.empty(shape, np.float32) if folder is None or 0 in shape else scratch(shape, np.float32, folder)
    for start in range(0, len(columns), _COLUMNS_AT_ONCE):
        block = columns[start : start + _COLUMNS_AT_ONCE]
        span = slice(int(block.min()), int(block.max()) + 1)
        out[:, start : start + len(block)] = read_columns(source, span)[:, block - span.start]
        release(out)
    return out


def rows_at_once(row_bytes: int) -> int:
    """Returns of how many rows of a file so many bytes are read before its pages are given back."""
    return max(1, PART_BYTES // max(row_bytes, AROUND_BYTES))


def is_in_memory(array: Any) -> bool:
    """Returns whether an array, or what is read for it, is in memory and not in a file."""
    while isinstance(array, ChosenRows):
        array = array.source
    if isinstance(array, SideBySide):
        return all(is_in_memory(source) for source, _ in array.parts)
    return isinstance(array, np.ndarray) and _mapping(array) is None


def release(array: Any) -> None:
    """Gives the pages of a memory-mapped array back; what was written stays in the file.

    Args:
        array: any object; only shared mappings are touched, also below `ChosenRows` and `SideBySide`.
    """
    while isinstance(array, ChosenRows):
        array = array.source
    if isinstance(array, SideBySide):
        for source, _ in array.parts:
            release(source)
    mapping = _mapping(array)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _follow(positions: np.ndarray) -> bool:
    """Returns whether each position is the one after the last."""
    return bool((np.diff(positions) == 1).all())


def _mapping(array: Any) -> mmap.mmap | None:
    """Returns the shared mapping below an array; None for memory and for private copies."""
    while isinstance(array, ChosenRows):
        array = array.source
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and array.mode == "c":
            return None
        array = array.base
    return array if isinstance(array, mmap.mmap) else None
