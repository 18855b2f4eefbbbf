"""Single-trial betas of NSD sessions: files and voxel positions enter, columns [V, T] leave.

HDF5 sessions are chunked by voxel, so only the columns asked for are read; gzipped NIfTI
sessions are streamed once each, keeping the voxels asked for.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mine_jax import memory
from mine_jax._progress import Progress, silent
from mine_jax.data.containers import hdf5, series, volumes
from mine_jax.data.nsd import layout
from mine_jax.errors import AlignmentError, DataError, GeometryError, MissingInputError
from mine_jax.types import Volume

AxisOrder = Literal["auto", "xyzt", "tzyx"]
# Betas in percent: typical magnitudes outside these mean a wrong scale.
_MIN_MEDIAN, _MAX_SD = 0.01, 20.0


@dataclass(frozen=True)
class Sessions:
    """Sessions found on disk.

    Attributes:
        folder: where they are.
        beta_format: "hdf5" or "nifti".
        numbers: [S], counted from 1, ascending.
        n_trials: [S], trials that the design says each has.
        missing: numbers below the largest that are not there.
        prefix: before the name of each file: the left hemisphere's on surfaces.
    """

    folder: Path
    beta_format: str
    numbers: tuple[int, ...]
    n_trials: tuple[int, ...]
    missing: tuple[int, ...]
    prefix: str = ""

    @property
    def files(self) -> list[Path]:
        """One path per session."""
        return [layout.session_file(self.folder, number, self.beta_format, self.prefix) for number in self.numbers]


def find_sessions(
    folder: Path, *, n_design_trials: int, beta_format: str = "auto", limit: int | None = None, prefix: str = ""
) -> Sessions:
    """Lists the sessions of a betas folder.

    Args:
        folder: holds `betas_sessionBB.hdf5` or `.nii.gz`.
        n_design_trials: trials of the whole design.
        beta_format: "hdf5", "nifti", "mgh", or "auto" for the one with more sessions (HDF5 in a tie).
        limit: only the first so many sessions, which must all be there.
        prefix: "lh." for surfaces.

    Returns:
        Sessions: what was found; no file was opened.

    Raises:
        MissingInputError: with the full path of what is expected.
        AlignmentError: if there are more sessions than the design has.
    """
    numbers_of = {
        form: sorted(
            int(match[1])
            for file in folder.glob(f"{prefix}betas_session*{suffix}")
            if (match := _NAME.match(file.name))
        )
        for form, suffix in layout.SUFFIXES.items()
    }
    if beta_format == "auto":
        beta_format = max(numbers_of, key=lambda form: len(numbers_of[form]))
    numbers = [number for number in numbers_of[beta_format] if limit is None or number <= limit]
    expected = range(1, (limit or max(numbers, default=0)) + 1)
    missing = [number for number in expected if number not in numbers]
    if not numbers or (limit is not None and missing):
        wanted = layout.session_file(folder, missing[0] if missing else 1, beta_format, prefix)
        raise MissingInputError(
            f"no betas at {wanted}. Download the subject's betas from the Natural Scenes Dataset "
            "(http://naturalscenesdataset.org), or write a phantom with `mine-jax phantom`."
        )
    per_session = layout.TRIALS_PER_SESSION
    n_trials = [min(per_session, n_design_trials - (number - 1) * per_session) for number in numbers]
    if min(n_trials) < 1:
        raise AlignmentError(
            f"{folder} has a session {numbers[-1]}, but the design ends after {n_design_trials} trials. "
            "Do the betas and nsd_expdesign.mat belong together?"
        )
    return Sessions(folder, beta_format, tuple(numbers), tuple(n_trials), tuple(missing), prefix)


def column_reader(
    sessions: Sessions,
    *,
    voxel_ids: np.ndarray,
    volume: Volume,
    axis_order: AxisOrder = "auto",
    scratch: Path | None = None,
    progress: Progress = silent,
) -> Callable[[int, slice], np.ndarray]:
    """Prepares reading the trials of some voxels, session by session.

    Args:
        sessions: what `find_sessions` found.
        voxel_ids: [V] int, positions in C order, ascending.
        volume: space of the ROI files, which the betas must share.
        axis_order: axes of HDF5 betas as h5py shows them.
        scratch: folder for a temporary file; NIfTI only, kept in memory without.
        progress: called after each session, while NIfTI files are streamed.

    Returns:
        Function (position of a session, slice of voxels) -> [v, t] in the dtype of the file.
    """
    if sessions.beta_format == "hdf5":

        def read_columns(session: int, voxels: slice) -> np.ndarray:
            file, n_trials = sessions.files[session], sessions.n_trials[session]
            return _read_hdf5(file, voxel_ids[voxels], volume.shape, n_trials, axis_order)

        return read_columns
    columns = list(_stream_nifti(sessions, voxel_ids, volume, scratch, progress))
    return lambda session, voxels: np.asarray(columns[session][voxels])


def to_percent(betas: np.ndarray, *, beta_scale: float | Literal["auto"] = "auto") -> np.ndarray:
    """Converts betas of a file to percent signal change, once.

    Args:
        betas: any real dtype.
        beta_scale: divisor; "auto" divides integers by 300 and takes floats as percent.

    Returns:
        np.ndarray: float64.
    """
    values = betas.astype(np.float64)
    if beta_scale != "auto":
        return values / beta_scale
    return values / layout.BETA_SCALE if betas.dtype.kind in "iu" else values


def check_percent(betas: np.ndarray, *, source: str) -> None:
    """Checks that floats of some voxels can be percent signal change; voxels far from the others do not matter.

    Args:
        betas: [v, t]; integers pass, their scale is known.
        source: name for the message.

    Raises:
        DataError: if typical voxels are far too small or too large.
    """
    if betas.dtype.kind in "iu" or not betas.size:
        return
    with np.errstate(all="ignore"):
        values = np.where(np.isfinite(betas) & (betas != 0), betas, np.nan).astype(np.float64)
        values = values[np.isfinite(values).any(1)]
        if not len(values):
            return
        size, spread = np.nanmedian(np.abs(values)), np.nanmedian(np.nanstd(values, 1))
    if size < _MIN_MEDIAN or spread > _MAX_SD:
        raise DataError(
            f"{source} are floats with median size {size:.3g} and deviation {spread:.3g}, "
            f"which is not percent signal change. Were they scaled by 300 once too often or not at all? "
            "Set `beta_scale` to the divisor (1 for none)."
        )


_NAME = re.compile(r"(?:lh\.)?betas_session(\d\d)\.")


def _read_hdf5(
    path: Path, voxel_ids: np.ndarray, shape: tuple[int, int, int], n_trials: int, axis_order: AxisOrder
) -> np.ndarray:
    """Columns [v, t] of one session; voxels that touch along X are read together."""
    with hdf5.opened(path, why="read HDF5 betas") as file:
        betas = hdf5.numbers(file, "betas", path)
        order = _axis_order(betas.shape, shape, n_trials, axis_order, path)
        columns = np.empty((len(voxel_ids), n_trials), betas.dtype)
        i, j, k = np.unravel_index(voxel_ids, shape)
        # In this order neighbours along X follow one another.
        by_row = np.lexsort((i, j, k))
        for run in _runs(i[by_row], j[by_row], k[by_row]):
            voxels = by_row[run]
            x, y, z = slice(i[voxels[0]], i[voxels[-1]] + 1), j[voxels[0]], k[voxels[0]]
            columns[voxels] = betas[:, z, y, x].T if order == "tzyx" else betas[x, y, z, :]
        return columns


def _runs(i: np.ndarray, j: np.ndarray, k: np.ndarray) -> Iterator[slice]:
    """Stretches of voxels that follow one another along X."""
    if not len(i):
        return
    breaks = np.flatnonzero((np.diff(i) != 1) | (np.diff(j) != 0) | (np.diff(k) != 0)) + 1
    edges = [0, *breaks.tolist(), len(i)]
    for start, stop in itertools.pairwise(edges):
        yield slice(start, stop)


def _axis_order(on_disk: Any, shape: tuple[int, int, int], n_trials: int, wanted: AxisOrder, path: Path) -> str:
    """Which axes are which, from the shape of the volume."""
    layouts = {"tzyx": (n_trials, *shape[::-1]), "xyzt": (*shape, n_trials)}
    fits = [name for name, expected in layouts.items() if tuple(on_disk) == expected and wanted in ("auto", name)]
    if len(fits) == 1:
        return fits[0]
    if len(fits) > 1:
        raise GeometryError(
            f"{path} has shape {tuple(on_disk)}, which fits more than one order of axes. Set `axis_order`."
        )
    if len(on_disk) == 4 and tuple(on_disk)[1:] == shape[::-1]:
        raise AlignmentError(
            f"{path} has {on_disk[0]} trials, but the design says {n_trials}. Is the session complete?"
        )
    raise GeometryError(
        f"`betas` of {path} must have shape {layouts['tzyx']} (trials, Z, Y, X) or {layouts['xyzt']}, but has "
        f"{tuple(on_disk)}. Do the ROI files and `axis_order` = {wanted!r} belong to these betas?"
    )


def _stream_nifti(
    sessions: Sessions, voxel_ids: np.ndarray, volume: Volume, scratch: Path | None, progress: Progress
) -> Iterator[np.ndarray]:
    """Columns [V, t] of each session, in memory or in a file that goes with the process."""
    for done, (path, n_trials) in enumerate(zip(sessions.files, sessions.n_trials, strict=True), start=1):
        series.check_volumes(str(path), volumes.read_header(path).volume, reference="the ROI file", expected=volume)
        # A short read still calls back often enough to be stopped.
        values, header = volumes.read_series(
            path, voxel_ids=voxel_ids, progress=lambda *_, done=done: progress(done - 1, len(sessions.numbers))
        )
        if values.shape[1] != n_trials:
            raise AlignmentError(
                f"{path} has {header.shape[3:] or 1} trials, but the design says {n_trials}. Is the session complete?"
            )
        if scratch is not None:
            in_memory, values = values, memory.scratch(values.shape, values.dtype, scratch)
            values[:] = in_memory
        progress(done, len(sessions.numbers))
        yield values
