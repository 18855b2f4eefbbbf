"""Surfaces of the Natural Scenes Dataset: labels and betas of both hemispheres, on fsaverage or the subject's own.

On fsaverage betas are MGH floats in percent, [vertices, 1, 1, trials]; on the subject's own surface HDF5 `betas` of
int16, percent times 300, [trials, vertices] as h5py shows them. Vertices without data are NaN in some sessions.

Source: NSD data manual, "Prepared betas"; nsdcode.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.data import masks
from mine_jax.data.containers import hdf5
from mine_jax.data.containers.series import Series, gather, open_hemispheres, side_by_side
from mine_jax.data.nsd import areas as nsd_areas
from mine_jax.data.nsd import layout
from mine_jax.data.nsd.areas import Areas
from mine_jax.data.nsd.betas import Sessions
from mine_jax.errors import AlignmentError, DataError, GeometryError, MissingInputError
from mine_jax.types import Surface

# Vertices closer than this are read in one piece; and so many trials, where the file is stored trial by trial.
_GAP, _TRIALS_AT_ONCE = 64, 32


def read_areas(root: Path, *, subject: str, space: str) -> Areas:
    """Reads the labels of a surface that have a table of names, and nsdgeneral.

    Args:
        root: the data set.
        subject: "subj01" to "subj08".
        space: "fsaverage" or "nativesurface".

    Returns:
        Areas: vertices of the left hemisphere, then of the right.

    Raises:
        MissingInputError: if there are none, or not for both hemispheres.
        GeometryError: if they differ in the number of vertices.
    """
    folder = layout.label_folder(root, subject, space)
    names = {file.name[3:-4] for file in folder.glob("lh.*.mgz")}
    names = sorted(n for n in names if n in layout.ALL_LABELS or (folder / f"{n}.mgz.ctab").is_file())
    if not names:
        raise MissingInputError(f"no labels at {folder}/lh.*.mgz, for instance lh.nsdgeneral.mgz. They are in nsddata.")
    codes, labels, counts = {}, {}, None
    for name in names:
        parts = [masks.read_labels(folder / f"{hemi}.{name}.mgz")[0].reshape(-1) for hemi in ("lh", "rh")]
        found = (len(parts[0]), len(parts[1]))
        counts = counts or found
        if found != counts:
            raise GeometryError(f"{folder}/*.{name}.mgz have {found} vertices, but {names[0]} has {counts}.")
        codes[name] = np.concatenate(parts)
        labels[name] = nsd_areas.read_labels(folder / f"{name}.mgz.ctab", name)
    assert counts is not None
    return Areas(Surface("fsaverage" if space == "fsaverage" else f"{subject}.native", counts), codes, labels)


def read_ncsnr(folder: Path, surface: Surface) -> np.ndarray | None:
    """Reads `lh.ncsnr.mgh` and `rh.ncsnr.mgh` beside the betas.

    Args:
        folder: of the betas.
        surface: their space.

    Returns:
        np.ndarray: [vertices] float64, NaN without data; None where they are not there.

    Raises:
        GeometryError: if they belong to another surface.
        DataError: if they hold negative values.
    """
    files = [folder / f"{hemi}.ncsnr.mgh" for hemi in ("lh", "rh")]
    if not all(file.is_file() for file in files):
        return None
    series = open_hemispheres(*files)
    if not isinstance(series.space, Surface) or series.space.n_vertices != surface.n_vertices:
        raise GeometryError(f"{files[0]} and its other hemisphere are not on {surface}.")
    values = series.read(np.arange(series.n_positions), silent)[:, 0].astype(np.float64)
    if np.any(values < 0):
        raise DataError(f"{files[0]} must hold no negative ratio, but one is {np.nanmin(values):g}. Is it damaged?")
    return values


def open_sessions(sessions: Sessions, surface: Surface) -> list[Series]:
    """Opens the betas of both hemispheres of each session.

    Args:
        sessions: what `find_sessions` found for the left hemisphere.
        surface: space of the labels.

    Returns:
        One series per session.

    Raises:
        MissingInputError: if a right hemisphere is not there.
        AlignmentError: if trials and design differ.
        GeometryError: if betas and labels differ in their vertices.
    """
    opened = []
    for left, n_trials in zip(sessions.files, sessions.n_trials, strict=True):
        right = left.with_name(left.name.replace("lh.", "rh.", 1))
        if sessions.beta_format == "hdf5":
            sides = [_hdf5(file, n) for file, n in zip((left, right), surface.n_vertices, strict=True)]
            series = side_by_side(sides[0], sides[1], name=surface.name)
        else:
            series = open_hemispheres(left, right, name=surface.name)
        if series.n_rows != n_trials:
            raise AlignmentError(
                f"{left} has {series.n_rows} trials, but the design says {n_trials}. Is the session complete?"
            )
        if series.space != surface:
            raise GeometryError(f"{left} and {right.name} are on {series.space}, but the labels on {surface}.")
        opened.append(series)
    return opened


def column_reader(
    opened: list[Series], voxel_ids: np.ndarray, *, scratch: Path | None, progress: Progress
) -> Callable[[int, slice], np.ndarray]:
    """Prepares reading the trials of some vertices, session by session.

    Args:
        opened: series of all sessions.
        voxel_ids: [V] int, ascending.
        scratch: folder for temporary files.
        progress: called while files are streamed.

    Returns:
        Function (position of a session, slice of vertices) -> [v, t] in the dtype of the file.
    """
    readers = []
    for number, series in enumerate(opened):

        def tick(done: int, total: int, number: int = number) -> None:
            del total
            progress(number + done, len(opened))

        readers.append((gather([series], voxel_ids, scratch=scratch, progress=tick), series.dtype))
    return lambda session, block: readers[session][0](block).astype(readers[session][1], copy=False)


def _hdf5(path: Path, n_vertices: int) -> Series:
    """One hemisphere of a session: `betas` [trials, vertices], or the other way round."""
    with hdf5.opened(path, why="read HDF5 betas") as file:
        betas = hdf5.numbers(file, "betas", path)
        shape, dtype, chunks = betas.shape, betas.dtype, betas.chunks
    if len(shape) != 2 or n_vertices not in shape or shape[0] == shape[1]:
        raise GeometryError(f"`betas` of {path} must be [trials, {n_vertices} vertices], but has shape {shape}.")
    is_turned = shape[0] == n_vertices
    n_trials = shape[1] if is_turned else shape[0]
    by_vertex = chunks is not None and chunks[1 if is_turned else 0] >= n_trials

    def read(voxel_ids: np.ndarray, progress: Progress) -> np.ndarray:
        values = np.empty((len(voxel_ids), n_trials), dtype)
        with hdf5.opened(path, why="read HDF5 betas") as file:
            betas = file["betas"]
            if by_vertex:
                edges = [0, *(np.flatnonzero(np.diff(voxel_ids) > _GAP) + 1).tolist(), len(voxel_ids)]
                for start, stop in itertools.pairwise(edges):
                    first, last = int(voxel_ids[start]), int(voxel_ids[stop - 1])
                    piece = betas[first : last + 1].T if is_turned else betas[:, first : last + 1]
                    values[start:stop] = piece[:, voxel_ids[start:stop] - first].T
                    progress(stop, len(voxel_ids))
            else:
                for start in range(0, n_trials, _TRIALS_AT_ONCE):
                    rows = slice(start, min(start + _TRIALS_AT_ONCE, n_trials))
                    piece = betas[:, rows].T if is_turned else betas[rows]
                    values[:, rows] = piece[:, voxel_ids].T
                    progress(rows.stop, n_trials)
        return values

    return Series(path, n_trials, n_vertices, None, dtype, read)
