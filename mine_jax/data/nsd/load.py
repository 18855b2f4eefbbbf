"""Natural Scenes Dataset, volumes and surfaces: a folder enters; responses and images leave.

Betas are converted to percent, z-scored per voxel within session, and averaged over the
repeats of an image. Ids in NSD's files count from 1; here they are 0-based 73k ids as text.

Source: NSD data manual; Allen et al. 2022, doi:10.1038/s41593-021-00962-x.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from mine_jax._progress import Progress, shown
from mine_jax.data import noise_ceiling, trials
from mine_jax.data.containers import spheres
from mine_jax.data.containers.series import chosen_space
from mine_jax.data.nsd import areas as nsd_areas
from mine_jax.data.nsd import betas as nsd_betas
from mine_jax.data.nsd import design as nsd_design
from mine_jax.data.nsd import layout, spaces
from mine_jax.data.nsd.betas import AxisOrder, Sessions
from mine_jax.data.trials import Rows, Trials, average
from mine_jax.errors import ConfigError
from mine_jax.types import Responses, Stimuli

_log = logging.getLogger(__name__)
# Percent signal change; integer betas move in steps of 0.003.
_MIN_SD = 1e-5
# Voxels whose scale is looked at in every session.
_N_PROBED = 128


def load_nsd(
    root: str | Path,
    *,
    subject: str = "subj01",
    roi: str | Sequence[str] = ("nsdgeneral",),
    space: str = "func1pt8mm",
    beta_version: str = "betas_fithrf_GLMdenoise_RR",
    beta_format: Literal["auto", "hdf5", "nifti", "mgh"] = "auto",
    sessions: int | None = None,
    zscore: Literal["session", "run", "none"] = "session",
    beta_scale: float | Literal["auto"] = "auto",
    axis_order: AxisOrder = "auto",
    sphere: str | None = None,
    voxel_block: int = 512,
    directory: str | Path | None = None,
    progress: Progress | bool = True,
) -> tuple[Responses, Stimuli]:
    """Reads one subject's responses and images.

    Args:
        root: folder that holds nsddata, nsddata_betas and nsddata_stimuli.
        subject: "subj01" to "subj08".
        roi: collections ("nsdgeneral", "floc-faces") or labels ("FFA-1") whose voxels are read; empty for
            every voxel with data.
        space: "func1pt8mm", "func1mm", "fsaverage" or "nativesurface".
        beta_version: folder of the betas.
        beta_format: of the session files; "auto" prefers the one with more sessions.
        sessions: only the first so many; None for all found, missing ones are logged.
        zscore: "session", or "none" for percent signal change.
        beta_scale: divisor of the betas; "auto" is 300 for integers.
        axis_order: axes of HDF5 betas as h5py shows them.
        sphere: spheres of both hemispheres, `{hemi}` in the name; None for those in nsddata/freesurfer, if any.
        voxel_block: voxels held in memory at once. Memory only, never the result.
        directory: where large responses (and NIfTI trials on the way) are kept on disk.
        progress: called after each block of voxels (and each session of NIfTI files). True shows a bar
            on a terminal, False nothing.

    Returns:
        Responses [N, V] float32, images by ascending id, voxels by ascending position; voxels whose
        status is not "ok" hold 0. `noise_ceiling` is that of all rows; `with_noise_ceiling` gives it for
        chosen ones. And the Stimuli.

    Raises:
        MissingInputError: with the full path of a file that is not there.
        AlignmentError: if trials and design differ, or ids do not count from 1.
        GeometryError: if volumes differ in shape or affine, surfaces in their vertices, or a sphere is none.
        IntegrityError: if a file is damaged.
        DataError: if no voxel is selected, or values have a wrong scale.
    """
    root = Path(root)
    if zscore == "run":
        raise ConfigError('`zscore` = "run" is not possible: NSD\'s betas carry no run numbers. Use "session".')
    design = nsd_design.read_design(root, subject=subject)
    areas = spaces.read_areas(root, subject=subject, space=space)
    positions = spheres.read_spheres(layout.spheres_path(root, subject, space, named=sphere), areas.space)
    folder = layout.betas_folder(root, subject, space, beta_version)
    files = spaces.find_sessions(
        folder, space=space, n_design_trials=len(design.images), beta_format=beta_format, limit=sessions
    )
    _log_sessions(files)
    file_ncsnr = spaces.read_ncsnr(folder, areas)
    voxel_ids = nsd_areas.select_voxels(areas, [roi] if isinstance(roi, str) else roi, file_ncsnr)
    disk = None if directory is None else Path(directory)
    in_design = nsd_design.trial_positions(files)
    numbers, n_trials = [str(number) for number in files.numbers], np.array(files.n_trials)
    with shown("data", progress) as report:
        read_columns = spaces.column_reader(
            files,
            areas,
            voxel_ids=voxel_ids,
            axis_order=axis_order,
            scratch=disk if len(voxel_ids) * len(design.images) * 2 > trials.LARGE_BYTES else None,
            progress=report,
        )
        if beta_scale == "auto":
            # The same voxels whatever is held in memory at once.
            some = slice(None, None, max(1, len(voxel_ids) // _N_PROBED))
            for session, file in enumerate(files.files):
                nsd_betas.check_percent(read_columns(session, some), source=str(file))

        def read(block: slice) -> np.ndarray:
            return np.concatenate(
                [nsd_betas.to_percent(read_columns(s, block), beta_scale=beta_scale) for s in range(len(numbers))], 1
            )

        rows = Rows(design.images[in_design].astype(str), np.repeat(np.arange(len(numbers)), n_trials), tuple(numbers))
        responses = average(
            Trials(read, voxel_ids, rows, _MIN_SD, source=str(folder)),
            is_scored=zscore != "none",
            voxel_block=max(1, voxel_block),
            directory=disk,
            progress=report,
        )
    responses = _with_file_ncsnr(responses, None if file_ncsnr is None else file_ncsnr[voxel_ids])
    responses = replace(
        responses,
        rois=nsd_areas.area_names(areas, voxel_ids),
        subject=subject,
        **chosen_space(areas.space, voxel_ids),
    )
    return spheres.placed(responses, positions), nsd_design.stimuli(root, responses.image_ids, design)


def open_nsd_stimuli(
    root: str | Path,
    *,
    subject: str = "subj01",
    space: str = "func1pt8mm",
    beta_version: str = "betas_fithrf_GLMdenoise_RR",
    beta_format: str = "auto",
    sessions: int | None = None,
) -> Stimuli:
    """Opens the images that `load_nsd` would give, without reading betas.

    Args:
        root: folder that holds nsddata, nsddata_betas and nsddata_stimuli.
        subject: "subj01" to "subj08".
        space: as for `load_nsd`; it decides which sessions are found.
        beta_version: folder of the betas.
        beta_format: of the session files.
        sessions: only the first so many.

    Returns:
        Stimuli [N] by ascending id; hashes are empty.

    Raises:
        MineError: as `load_nsd`, for design, sessions and images.
    """
    root = Path(root)
    design = nsd_design.read_design(root, subject=subject)
    folder = layout.betas_folder(root, subject, space, beta_version)
    files = spaces.find_sessions(
        folder, space=space, n_design_trials=len(design.images), beta_format=beta_format, limit=sessions
    )
    images = np.unique(design.images[nsd_design.trial_positions(files)])
    return nsd_design.stimuli(root, images.astype(str), design)


def _with_file_ncsnr(responses: Responses, ncsnr: np.ndarray | None) -> Responses:
    """Marks voxels that NSD calls invalid; takes its noise ceiling where the trials give none."""
    if ncsnr is None:
        return responses
    # All-zero voxels are constant, unless NSD's own file says that they hold no data.
    status = np.where((responses.status == "constant") & np.isnan(ncsnr), "nonfinite", responses.status)
    responses = replace(responses, status=status)
    if np.isfinite(responses.ncsnr).any():
        return responses
    _log.info("no image was repeated in these sessions: the noise ceiling is NSD's own, over all sessions")
    ncsnr = np.where(status == "ok", ncsnr, np.nan)
    ceiling = noise_ceiling.noise_ceiling(ncsnr, responses.n_repeats)
    return replace(responses, ncsnr=ncsnr, noise_ceiling=ceiling)


def _log_sessions(sessions: Sessions) -> None:
    _log.info("sessions found (%s): %s", sessions.beta_format, ", ".join(map(str, sessions.numbers)))
    if sessions.missing:
        _log.warning("sessions not found in %s: %s", sessions.folder, ", ".join(map(str, sessions.missing)))
