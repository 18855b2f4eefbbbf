"""Series in any container: a file enters; its rows, its space and a reader of chosen voxels leave.

A row is a volume of NIfTI or MGH, a map of GIFTI or CIFTI, or a row of `.npy`. Voxels are positions: C order in
volumes; vertices of the left hemisphere, then of the right, on surfaces; columns elsewhere. Whole volumes are never
held where some voxels are wanted (GIFTI apart, which is text).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mine_jax import artifacts, memory
from mine_jax._progress import Progress, silent
from mine_jax.data.containers import grayordinates, volumes
from mine_jax.errors import ConfigError, DataError, GeometryError, IntegrityError, MissingInputError
from mine_jax.types import Surface, Volume

SUFFIXES = (".nii", ".nii.gz", ".mgh", ".mgz", ".gii", ".gii.gz", ".npy")


@dataclass(frozen=True)
class Series:
    """Values of one session.

    Attributes:
        path: the file; that of the left hemisphere for two.
        n_rows: trials (or conditions) in it.
        n_positions: voxels, vertices or columns, whether chosen or not.
        space: of the positions; None for columns, and for one hemisphere.
        dtype: in which values are given.
        read: takes voxel ids [V] and a callback, gives [V, rows].
        is_columnar: whether reading some voxels costs as much as they are.
    """

    path: Path
    n_rows: int
    n_positions: int
    space: Volume | Surface | None
    dtype: np.dtype
    read: Callable[[np.ndarray, Progress], np.ndarray]
    is_columnar: bool = False


def open_series(path: str | Path) -> Series:
    """Opens one file by its suffix; reads no values.

    Args:
        path: `.nii`, `.nii.gz` (also CIFTI), `.mgh`, `.mgz`, `.gii` or `.npy`.

    Returns:
        Series: rows and positions of the file.

    Raises:
        MissingInputError: if it is not there.
        IntegrityError: if it is damaged.
        ConfigError: for another suffix.
        DataError: for axes that make no series.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"no file at {path}.")
    name = path.name
    if name.endswith((".dscalar.nii", ".dtseries.nii")):
        return _cifti(path)
    if name.endswith((".nii", ".nii.gz", ".mgh", ".mgz")):
        return _volumes(path)
    if name.endswith((".gii", ".gii.gz")):
        return _gifti(path)
    if name.endswith(".npy"):
        return open_rows(path)
    raise ConfigError(f"{path} must end with one of {', '.join(SUFFIXES)}.")


def open_hemispheres(left: str | Path, right: str | Path, *, name: str = "surface") -> Series:
    """Opens the two files of a session on a surface.

    Args:
        left: file of the left hemisphere.
        right: of the right.
        name: of the space.

    Returns:
        Series: with the vertices of both.

    Raises:
        DataError: if the numbers of rows differ; otherwise as `open_series`.
    """
    both = (open_series(left), open_series(right))
    if both[0].n_rows != both[1].n_rows:
        raise DataError(f"{left} has {both[0].n_rows} rows, but {right} has {both[1].n_rows}.")
    return side_by_side(both[0], both[1], name=name)


def side_by_side(left: Series, right: Series, *, name: str) -> Series:
    """Joins the series of two hemispheres.

    Args:
        left: of the left hemisphere.
        right: of the right, with as many rows.
        name: of the space.

    Returns:
        Series: left vertices, then right ones.
    """
    n = left.n_positions

    def read(voxel_ids: np.ndarray, progress: Progress) -> np.ndarray:
        is_left = voxel_ids < n
        values = np.empty((len(voxel_ids), left.n_rows), left.dtype)
        for side, chosen, ids in ((left, is_left, voxel_ids), (right, ~is_left, voxel_ids - n)):
            if chosen.any():
                values[chosen] = side.read(ids[chosen], progress)
        return values

    space = Surface(name, (n, right.n_positions))
    return replace(left, n_positions=n + right.n_positions, space=space, read=read)


def gather(
    sessions: Sequence[Series], voxel_ids: np.ndarray, *, scratch: Path | None = None, progress: Progress = silent
) -> Callable[[slice], np.ndarray]:
    """Prepares reading the rows of all sessions, block of voxels by block.

    Args:
        sessions: S series of one space.
        voxel_ids: [V] int, ascending.
        scratch: folder for temporary files of what must be streamed; kept in memory without.
        progress: called with (sessions streamed, S).

    Returns:
        Function: slice of voxels -> [v, rows of all sessions].

    Raises:
        GeometryError: if spaces differ.
        MineError: what damaged files raise.
    """
    parts: list[Callable[[slice], np.ndarray]] = []
    for done, session in enumerate(sessions, start=1):
        check_same_space(session, sessions[0])

        def tick(part: int, whole: int, done: int = done) -> None:
            # A long read still calls back often enough to be stopped.
            del part, whole
            progress(done - 1, len(sessions))

        if session.is_columnar:
            parts.append(lambda block, session=session: session.read(voxel_ids[block], silent))
            continue
        values = session.read(voxel_ids, tick)
        if scratch is not None:
            in_memory, values = values, memory.scratch(values.shape, values.dtype, scratch)
            values[:] = in_memory
        parts.append(lambda block, values=values: np.asarray(values[block]))
        progress(done, len(sessions))
    return lambda block: np.concatenate([part(block).astype(np.float64, copy=False) for part in parts], 1)


def check_same_space(session: Series, first: Series) -> None:
    """Checks that a session has the space of another.

    Args:
        session: one.
        first: the other.

    Raises:
        GeometryError: with both shapes or affines.
    """
    if session.n_positions != first.n_positions:
        raise GeometryError(
            f"{session.path} has {session.n_positions} voxels or vertices, but {first.path} has {first.n_positions}. "
            "All sessions must be in one space."
        )
    one, other = session.space, first.space
    if isinstance(one, Volume) and isinstance(other, Volume):
        check_volumes(str(session.path), one, reference=str(first.path), expected=other)
    elif one is not None and other is not None and one != other:
        raise GeometryError(f"{session.path} is on {one}, but {first.path} on {other}.")


def check_volumes(name: str, found: Volume, *, reference: str, expected: Volume) -> None:
    """Checks that two volumes have one shape and one affine.

    Args:
        name: of the first, for messages.
        found: the first.
        reference: name of the second.
        expected: the second.

    Raises:
        GeometryError: with both shapes or both affines.
    """
    if found.shape != expected.shape:
        raise GeometryError(
            f"{name} has shape {found.shape}, but {reference} has {expected.shape}. Nothing is resampled or "
            "transposed here: give files of one space, with axes in one order."
        )
    if not np.allclose(found.affine, expected.affine, rtol=0, atol=volumes.AFFINE_TOLERANCE):
        raise GeometryError(
            f"{name} has the affine\n{found.affine}\nbut {reference} has\n{expected.affine}\n"
            "Nothing is resampled here: give files of one space."
        )


def open_rows(path: Path) -> Series:
    """Opens a two-dimensional `.npy` of real numbers, memory-mapped, [rows, columns].

    Args:
        path: the file.

    Returns:
        Series: its rows and columns.

    Raises:
        IntegrityError: if it is damaged.
        DataError: for other dtypes or axes.
    """
    dtype = artifacts.read_array_dtype(path)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise DataError(f"`responses` must hold real numbers of at most 64 bits, but {path} holds {dtype}.")
    values = artifacts.read_array(path, mmap=True)
    if values.ndim != 2:
        raise DataError(f"`responses` must have axes [images or trials, voxels], but {path} has shape {values.shape}.")
    if 0 in values.shape:
        raise DataError(f"`responses` of {path} is empty: shape {values.shape}, so 0 voxels or rows are selected.")
    return of_array(values, path)


def of_array(values: np.ndarray, path: Path) -> Series:
    """Makes a series of an array in memory or on disk.

    Args:
        values: [rows, columns].
        path: for messages.

    Returns:
        Series: reading some columns costs as much as they are.
    """
    n_rows, n_columns = values.shape

    def read(voxel_ids: np.ndarray, progress: Progress) -> np.ndarray:
        del progress
        first, last = (int(voxel_ids[0]), int(voxel_ids[-1])) if len(voxel_ids) else (0, -1)
        is_stretch = last - first + 1 == len(voxel_ids)
        # A stretch of a memory-mapped array is read without a copy of its index.
        return np.asarray(values[:, first : last + 1] if is_stretch else values[:, voxel_ids]).T

    return Series(path, n_rows, n_columns, None, values.dtype, read, is_columnar=True)


def _volumes(path: Path) -> Series:
    header = volumes.read_header(path)
    n_rows = header.shape[3] if len(header.shape) == 4 else 1
    # FreeSurfer keeps a surface as a volume of one line.
    is_surface = header.shape[1:3] == (1, 1)

    def read(voxel_ids: np.ndarray, progress: Progress) -> np.ndarray:
        return volumes.read_series(path, voxel_ids=voxel_ids, progress=progress)[0]

    space = None if is_surface else header.volume
    return Series(path, n_rows, int(np.prod(header.shape[:3])), space, header.value_dtype, read)


def _gifti(path: Path) -> Series:
    header = grayordinates.read_gifti_header(path)

    def read(voxel_ids: np.ndarray, progress: Progress) -> np.ndarray:
        del progress
        values = grayordinates.read_gifti(path)
        if values.shape != (header.n_rows, header.n_vertices):
            raise IntegrityError(
                f"{path} declares {header.n_rows} maps of {header.n_vertices} vertices, but holds {values.shape[0]} of "
                f"{values.shape[1]}. Copy it again."
            )
        return values.T[voxel_ids]

    return Series(path, header.n_rows, header.n_vertices, None, header.dtype, read)


def _cifti(path: Path) -> Series:
    cifti = grayordinates.open_cifti(path)

    def read(voxel_ids: np.ndarray, progress: Progress) -> np.ndarray:
        return cifti.read(voxel_ids, progress)

    n_positions = sum(cifti.surface.n_vertices)
    return Series(path, cifti.n_rows, n_positions, cifti.surface, np.dtype(np.float32), read)


def chosen_space(space: Volume | Surface | None, voxel_ids: np.ndarray) -> dict[str, Any]:
    """Returns the fields of `Responses` that say where voxels are.

    Args:
        space: of the series.
        voxel_ids: [V] int.

    Returns:
        `indices` and `volume`, or `surface`; nothing for columns.
    """
    if isinstance(space, Volume):
        return {"indices": np.stack(np.unravel_index(voxel_ids, space.shape), 1), "volume": space}
    return {} if space is None else {"surface": space}
