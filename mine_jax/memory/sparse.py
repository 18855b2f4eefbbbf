"""Rows of numbers of which most are 0: of each row only the others are kept.

A profile names some hundred words of a vocabulary of tens of thousands, and so does an image. What is
computed from them goes over the kept numbers, or over blocks of dense rows of a stated size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mine_jax.memory.files import Growing

# Dense rows that are made at once, float64.
BLOCK_BYTES = 1 << 25


@dataclass(frozen=True)
class SparseRows:
    """R rows of C numbers in compressed form (CSR).

    Attributes:
        starts: [R + 1] int64, where the entries of each row begin and end.
        columns: [E] int32, column of each entry, ascending in each row and each once.
        values: [E] float, the entries.
        width: number of columns C.
    """

    starts: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.starts) - 1, self.width

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays."""
        return self.starts.nbytes + self.columns.nbytes + self.values.nbytes

    @property
    def rows(self) -> np.ndarray:
        """The row of each entry, [E] int64."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.starts) - 1

    def take(self, rows: np.ndarray | slice) -> SparseRows:
        """Returns some rows (positions, mask or slice), in that order; views where they follow one another."""
        rows = np.arange(len(self))[rows]
        if len(rows) and (np.diff(rows) == 1).all():
            starts = np.asarray(self.starts[rows[0] : rows[-1] + 2])
            entries = slice(int(starts[0]), int(starts[-1]))
            return SparseRows(starts - starts[0], self.columns[entries], self.values[entries], self.width)
        counts = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(counts)])
        entries = np.arange(starts[-1]) + np.repeat(np.asarray(self.starts)[rows] - starts[:-1], counts)
        return SparseRows(starts, self.columns[entries], self.values[entries], self.width)

    def with_values(self, values: np.ndarray) -> SparseRows:
        """Returns the same entries with other values [E]."""
        return replace(self, values=values)

    def positive(self) -> SparseRows:
        """Returns the entries above 0."""
        kept = self.values > 0
        before = np.concatenate([[0], np.cumsum(kept)])
        return SparseRows(before[np.asarray(self.starts)], self.columns[kept], self.values[kept], self.width)

    def at(self, columns: np.ndarray) -> np.ndarray:
        """Returns entries [R, L] of some columns of each row; 0 where there is none, or the column is -1."""
        out = np.zeros(columns.shape, self.values.dtype)
        if not len(self.columns):
            return out
        step = max(1, BLOCK_BYTES // (8 * max(1, len(self.columns) // max(1, len(self)))))
        for block in blocks(len(self), step):
            first, last = self.starts[block.start], self.starts[block.stop]
            if first == last:
                continue
            row = np.repeat(np.arange(block.stop - block.start), np.diff(self.starts[block.start : block.stop + 1]))
            # rows one after another, and columns within: one ascending list
            key = row * np.int64(self.width) + self.columns[first:last]
            wanted = np.arange(block.stop - block.start)[:, None] * np.int64(self.width) + columns[block]
            place = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
            found = (key[place] == wanted) & (columns[block] >= 0)
            out[block] = np.where(found, self.values[first:last][place], 0)
        return out

    def dense(self) -> np.ndarray:
        """Returns all numbers, [R, C]; for few rows at a time."""
        out = np.zeros(self.shape, self.values.dtype)
        out[self.rows, self.columns] = self.values
        return out

    def csr(self) -> Any:
        """Returns a `scipy.sparse.csr_array` of float64, for products."""
        from scipy.sparse import csr_array

        # one type for places and columns, or scipy copies both to the larger
        starts = np.asarray(self.starts).astype(self.columns.dtype if len(self.columns) < 1 << 31 else np.int64)
        return csr_array((np.asarray(self.values, np.float64), self.columns, starts), self.shape)


def sparse_rows(values: SparseRows | np.ndarray) -> SparseRows:
    """Returns dense rows [R, C] without their zeros; sparse ones as they are."""
    if isinstance(values, SparseRows):
        return values
    values = np.asarray(values)
    rows, columns = np.nonzero(values)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(values)))])
    return SparseRows(starts, columns.astype(np.int32), values[rows, columns], values.shape[1])


def empty_rows(n_rows: int, width: int) -> SparseRows:
    """Returns rows of zeros."""
    return SparseRows(np.zeros(n_rows + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), width)


def summed_rows(counts: np.ndarray, columns: np.ndarray, values: np.ndarray, width: int) -> SparseRows:
    """Adds up the entries of each row that are of the same column.

    Args:
        counts: [R], entries of each row.
        columns: [E] of the entries, row after row, in any order within one.
        values: [E], added in float64.
        width: number of columns.

    Returns:
        The rows, float64.
    """
    from scipy.sparse import csr_array

    starts = np.concatenate([[0], np.cumsum(counts)])
    # scipy adds in place
    table = csr_array((np.array(values, np.float64), np.array(columns), starts), (len(counts), width))
    table.sum_duplicates()
    return SparseRows(np.asarray(table.indptr, np.int64), np.asarray(table.indices, np.int32), table.data, width)


def concatenated(parts: Iterable[SparseRows], *, folder: Path | None = None) -> SparseRows:
    """Returns the rows of several tables of the same columns, one after another.

    Args:
        parts: the tables, at least one; each is asked for when those before are there.
        folder: where the rows lie, in files without a name; None holds them in memory.

    Returns:
        The rows.

    Raises:
        OSError: if the disk refuses.
    """
    if folder is None:
        listed = list(parts)
        counts = [np.diff(part.starts) for part in listed]
        columns, values = (np.concatenate([getattr(part, name) for part in listed]) for name in ("columns", "values"))
        return SparseRows(_starts(counts), columns, values, listed[0].width)
    counts, width = [], 0
    with Growing(folder) as columns, Growing(folder) as values:
        for part in parts:
            counts.append(np.diff(part.starts))
            columns.append(part.columns)
            values.append(part.values)
            width = part.width
        return SparseRows(_starts(counts), columns.array(), values.array(), width)


def _starts(counts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.concatenate(counts))])


def blocks(length: int, size: int) -> Iterator[slice]:
    """Yields slices of at most so many positions that cover an axis in order."""
    for start in range(0, length, max(1, size)):
        yield slice(start, min(start + max(1, size), length))


def in_blocks(rows: SparseRows) -> Iterator[tuple[slice, SparseRows]]:
    """Yields some rows after the others, so many that double precision of their entries is small."""
    step = BLOCK_BYTES // (8 * max(1, len(rows.columns) // max(1, len(rows))))
    for block in blocks(len(rows), step):
        yield block, rows.take(block)


def column_sums(rows: SparseRows) -> np.ndarray:
    """Returns the sum over rows of each column, [C] float64."""
    total = np.zeros(rows.width)
    for _, part in in_blocks(rows):
        total += np.bincount(part.columns, part.values, minlength=rows.width)
    return total


def column_means(rows: SparseRows) -> np.ndarray:
    """Returns the mean over rows of each column, [C] float64."""
    return column_sums(rows) / len(rows)
