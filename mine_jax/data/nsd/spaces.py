"""One way in to the four spaces of the Natural Scenes Dataset: two volumes, two surfaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.data.nsd import areas as nsd_areas
from mine_jax.data.nsd import betas as nsd_betas
from mine_jax.data.nsd import layout, surface
from mine_jax.data.nsd.areas import Areas
from mine_jax.data.nsd.betas import AxisOrder, Sessions
from mine_jax.errors import ConfigError
from mine_jax.types import Surface


def read_areas(root: Path, *, subject: str, space: str) -> Areas:
    """Reads the areas of a subject in any space.

    Args:
        root: the data set.
        subject: "subj01" to "subj08".
        space: "func1pt8mm", "func1mm", "fsaverage" or "nativesurface".

    Returns:
        Areas: those that NSD names.

    Raises:
        ConfigError: for another space.
        MineError: as the readers of volumes and surfaces.
    """
    read = surface.read_areas if layout.is_surface(space) else nsd_areas.read_areas
    return read(root, subject=subject, space=space)


def find_sessions(
    folder: Path, *, space: str, n_design_trials: int, beta_format: str = "auto", limit: int | None = None
) -> Sessions:
    """Lists the sessions of a betas folder in any space.

    Args:
        folder: of the betas.
        space: as in `read_areas`.
        n_design_trials: trials of the whole design.
        beta_format: "hdf5", "nifti", "mgh" or "auto".
        limit: only the first so many.

    Returns:
        Sessions: as `betas.find_sessions`; on surfaces of the left hemisphere.

    Raises:
        ConfigError: for a format that the space does not have.
        MineError: as `betas.find_sessions`.
    """
    formats = ("hdf5", "mgh") if layout.is_surface(space) else ("hdf5", "nifti")
    if beta_format not in ("auto", *formats):
        raise ConfigError(f"`beta_format` must be auto, {' or '.join(formats)} in {space}, but is {beta_format!r}.")
    prefix = "lh." if layout.is_surface(space) else ""
    return nsd_betas.find_sessions(
        folder, n_design_trials=n_design_trials, beta_format=beta_format, limit=limit, prefix=prefix
    )


def read_ncsnr(folder: Path, areas: Areas) -> np.ndarray | None:
    """Reads the ncsnr beside the betas.

    Args:
        folder: of the betas.
        areas: for their space.

    Returns:
        np.ndarray: [all voxels or vertices] float64, NaN without data; None where it is not there.
    """
    if isinstance(areas.space, Surface):
        return surface.read_ncsnr(folder, areas.space)
    return nsd_areas.read_ncsnr(folder, areas.space)


def column_reader(
    sessions: Sessions,
    areas: Areas,
    *,
    voxel_ids: np.ndarray,
    axis_order: AxisOrder = "auto",
    scratch: Path | None = None,
    progress: Progress = silent,
) -> Callable[[int, slice], np.ndarray]:
    """Prepares reading the trials of some voxels or vertices, session by session.

    Args:
        sessions: what `find_sessions` found.
        areas: for their space, which the betas must share.
        voxel_ids: [V] int, ascending.
        axis_order: axes of HDF5 volumes as h5py shows them.
        scratch: folder for temporary files of what must be streamed; kept in memory without.
        progress: called while files are streamed.

    Returns:
        Function (position of a session, slice of voxels) -> [v, t] in the dtype of the file.
    """
    if isinstance(areas.space, Surface):
        opened = surface.open_sessions(sessions, areas.space)
        return surface.column_reader(opened, voxel_ids, scratch=scratch, progress=progress)
    return nsd_betas.column_reader(
        sessions, voxel_ids=voxel_ids, volume=areas.space, axis_order=axis_order, scratch=scratch, progress=progress
    )
