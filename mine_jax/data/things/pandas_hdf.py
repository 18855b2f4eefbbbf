"""Tables that pandas wrote to HDF5 ("fixed" format): columns are read without pandas, some rows at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mine_jax._progress import Progress
from mine_jax.data.containers import hdf5
from mine_jax.data.containers.series import Series
from mine_jax.errors import AlignmentError, DataError


def open_table(path: Path, *, n_columns: int, skip: Sequence[str] = ()) -> Series:
    """Opens a table whose rows are voxels and whose columns are trials.

    Args:
        path: HDF5 with one table.
        n_columns: trials that other files list, in the order of their numbers.
        skip: columns that are no trials.

    Returns:
        Series: a position per row of the table, a row per trial.

    Raises:
        MissingInputError: if it is not there.
        DataError: if it holds no such table.
        AlignmentError: if it has another number of trials.
    """
    with hdf5.opened(path, why="read tables in HDF5") as file:
        groups = [name for name in file if f"{name}/block0_values" in file and hasattr(file[name], "keys")]
        if len(groups) != 1:
            raise DataError(f"{path} must hold one table of pandas, but holds {', '.join(file) or 'nothing'}.")
        group = file[groups[0]]
        blocks = sorted(name.removesuffix("_values") for name in group if name.endswith("_values"))
        shapes = {name: hdf5.numbers(group, f"{name}_values", path).shape for name in blocks}
        name = max(blocks, key=lambda block: shapes[block][-1])
        order = _order(group[f"{name}_items"], skip)
        key, shape, dtype = f"{groups[0]}/{name}_values", shapes[name], group[f"{name}_values"].dtype
    if len(shape) != 2 or dtype.kind not in "iuf":
        raise DataError(f"the table of {path} must hold numbers, but holds {dtype} of shape {shape}.")
    if order is None:
        order = np.arange(shape[1])
    if len(order) != n_columns:
        raise AlignmentError(f"{path} has {len(order)} trials, but the table of stimuli lists {n_columns}.")

    def read(voxel_ids: np.ndarray, progress: Progress) -> np.ndarray:
        del progress
        values = np.empty((len(voxel_ids), len(order)), dtype)
        with hdf5.opened(path, why="read tables in HDF5") as file:
            table = file[key]
            # Rows lie one after another on disk.
            edges = [0, *(np.flatnonzero(np.diff(voxel_ids) != 1) + 1).tolist(), len(voxel_ids)]
            for start, stop in itertools.pairwise(edges):
                if stop > start:
                    values[start:stop] = table[int(voxel_ids[start]) : int(voxel_ids[stop - 1]) + 1][:, order]
        return values

    return Series(path, len(order), shape[0], None, dtype, read, is_columnar=True)


def _order(items: Any, skip: Sequence[str]) -> np.ndarray | None:
    """Columns in the order of their numbers; None where their names are stored as objects."""
    if items.dtype.kind not in "iuSa":
        return None
    names = [text.decode("utf-8") if isinstance(text, bytes) else str(text) for text in items[...].tolist()]
    kept = [column for column, name in enumerate(names) if name not in skip]
    if all(names[column].isdecimal() for column in kept):
        kept.sort(key=lambda column: int(names[column]))
    return np.array(kept, np.int64)
