"""Natural Scenes Dataset, volume space: a folder enters; responses and images leave.

Betas are converted to percent, z-scored per voxel within session, and averaged over the
repeats of an image. Ids in NSD's files count from 1; here they are 0-based 73k ids as text.

Source: NSD data manual; Allen et al. 2022, doi:10.1038/s41593-021-00962-x.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.data import noise_ceiling, trials
from mine_jax.data.nsd import areas as nsd_areas
from mine_jax.data.nsd import betas as nsd_betas
from mine_jax.data.nsd import design as nsd_design
from mine_jax.data.nsd import layout
from mine_jax.data.nsd.betas import AxisOrder, Sessions
from mine_jax.data.nsd.design import Design
from mine_jax.errors import ConfigError
from mine_jax.types import Responses, Stimuli

_log = logging.getLogger(__name__)
# Percent signal change; integer betas move in steps of 0.003.
_MIN_SD = 1e-5


def load_nsd(
    root: str | Path,
    *,
    subject: str = "subj01",
    roi: str | Sequence[str] = ("nsdgeneral",),
    space: str = "func1pt8mm",
    beta_version: str = "betas_fithrf_GLMdenoise_RR",
    beta_format: Literal["auto", "hdf5", "nifti"] = "auto",
    sessions: int | None = None,
    zscore: Literal["session", "run", "none"] = "session",
    beta_scale: float | Literal["auto"] = "auto",
    axis_order: AxisOrder = "auto",
    voxel_block: int = 512,
    directory: str | Path | None = None,
    progress: Progress = silent,
) -> tuple[Responses, Stimuli]:
    """Reads one subject's responses and images.

    Args:
        root: folder that holds nsddata, nsddata_betas and nsddata_stimuli.
        subject: "subj01" to "subj08".
        roi: collections ("nsdgeneral", "floc-faces") or labels ("FFA-1") whose voxels are read; empty for
            every voxel with data.
        space: "func1pt8mm" or "func1mm".
        beta_version: folder of the betas.
        beta_format: of the session files; "auto" prefers the one with more sessions.
        sessions: only the first so many; None for all found, missing ones are logged.
        zscore: "session", or "none" for percent signal change.
        beta_scale: divisor of the betas; "auto" is 300 for integers.
        axis_order: axes of HDF5 betas as h5py shows them.
        voxel_block: voxels held in memory at once. Memory only, never the result.
        directory: where large responses (and NIfTI trials on the way) are kept on disk.
        progress: called after each session of each block.

    Returns:
        Responses [N, V] float32, images by ascending id, voxels by ascending position; voxels whose
        status is not "ok" hold 0. `noise_ceiling` is that of all rows; `with_noise_ceiling` gives it for
        chosen ones. And the Stimuli.

    Raises:
        MissingInputError: with the full path of a file that is not there.
        AlignmentError: if trials and design differ, or ids do not count from 1.
        GeometryError: if volumes differ in shape or affine.
        IntegrityError: if a file is damaged.
        DataError: if no voxel is selected, or values have a wrong scale.
    """
    root = Path(root)
    if zscore == "run":
        raise ConfigError('`zscore` = "run" is not possible: NSD\'s betas carry no run numbers. Use "session".')
    design = nsd_design.read_design(root, subject=subject)
    areas = nsd_areas.read_areas(root, subject=subject, space=space)
    folder = layout.betas_folder(root, subject, space, beta_version)
    files = nsd_betas.find_sessions(folder, n_design_trials=len(design.images), beta_format=beta_format, limit=sessions)
    _log_sessions(files)
    file_ncsnr = nsd_areas.read_ncsnr(folder, areas.volume)
    voxel_ids = nsd_areas.select_voxels(areas, [roi] if isinstance(roi, str) else roi, file_ncsnr)
    disk = None if directory is None else Path(directory)
    read_columns = nsd_betas.column_reader(
        files,
        voxel_ids=voxel_ids,
        volume=areas.volume,
        axis_order=axis_order,
        scratch=disk if len(voxel_ids) * len(design.images) * 2 > trials.LARGE_BYTES else None,
        progress=progress,
    )
    read = _Reading(files, design, voxel_ids, read_columns, zscore, beta_scale, max(1, voxel_block), disk, progress)
    responses = read.responses(np.arange(len(files.numbers)))
    responses = _with_file_ncsnr(responses, None if file_ncsnr is None else file_ncsnr[voxel_ids])
    responses = replace(
        responses,
        rois=nsd_areas.area_names(areas, voxel_ids),
        indices=np.stack(np.unravel_index(voxel_ids, areas.volume.shape), 1),
        volume=areas.volume,
        subject=subject,
    )
    return responses, nsd_design.stimuli(root, responses.image_ids, design)


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
    files = nsd_betas.find_sessions(folder, n_design_trials=len(design.images), beta_format=beta_format, limit=sessions)
    images = np.unique(design.images[nsd_design.trial_positions(files)])
    return nsd_design.stimuli(root, images.astype(str), design)


@dataclass(frozen=True)
class _Reading:
    """All that is needed to turn sessions into responses, block by block."""

    sessions: Sessions
    design: Design
    voxel_ids: np.ndarray
    read_columns: Callable[[int, slice], np.ndarray]
    zscore: str
    beta_scale: float | Literal["auto"]
    voxel_block: int
    directory: Path | None
    progress: Progress

    def responses(self, kept: np.ndarray) -> Responses:
        """Responses from some sessions (positions); starts again where a session holds no signal at all."""
        numbers, n_trials = np.array(self.sessions.numbers)[kept], np.array(self.sessions.n_trials)[kept]
        session_of = np.repeat(kept, n_trials)
        positions = nsd_design.trial_positions(replace(self.sessions, numbers=tuple(numbers), n_trials=tuple(n_trials)))
        images, image_index = np.unique(self.design.images[positions], return_inverse=True)
        n_repeats = np.bincount(image_index)
        n_voxels = len(self.voxel_ids)
        out = trials.allocate((len(images), n_voxels), self.directory)
        ncsnr, is_finite = np.empty(n_voxels), np.empty(n_voxels, bool)
        is_flat, moments = np.empty((n_voxels, len(kept)), bool), np.zeros((2, len(kept)))
        starts = range(0, n_voxels, self.voxel_block)
        for number, start in enumerate(starts):
            block = slice(start, min(start + self.voxel_block, n_voxels))
            values = self._read(block, kept, number * len(kept), len(starts) * len(kept))
            scores, is_flat[block] = trials.zscore(values, session_of, min_sd=_MIN_SD)
            is_finite[block] = np.isfinite(values).all(1)
            usable = is_finite[block] & ~is_flat[block].any(1)
            ncsnr[block] = noise_ceiling.ncsnr(scores.T, image_index)
            averaged = trials.average_repeats(values if self.zscore == "none" else scores, image_index)
            out[:, block] = np.where(usable[:, None], averaged, 0.0).T
            moments += [part[usable].sum(0) for part in _session_sums(values, n_trials)]
        empty = is_flat.all(0)
        if empty.any() and not empty.all():
            _log.warning("sessions %s do not vary in any voxel and are left out", numbers[empty].tolist())
            return self.responses(kept[~empty])
        _log_drift(moments, n_trials, numbers)
        status = np.where(~is_finite, "nonfinite", np.where(is_flat.any(1), "constant", "ok"))
        ncsnr[status != "ok"] = np.nan
        return Responses(
            responses=trials.finished(out),
            image_ids=images.astype(str),
            n_repeats=n_repeats,
            voxel_ids=self.voxel_ids,
            status=status,
            ncsnr=ncsnr,
            noise_ceiling=noise_ceiling.noise_ceiling(ncsnr, n_repeats),
            rois=np.full(n_voxels, ""),
        )

    def _read(self, block: slice, kept: np.ndarray, done: int, total: int) -> np.ndarray:
        """Percent signal change [v, T] of some voxels, all kept sessions one after another."""
        parts = []
        for step, session in enumerate(kept, start=1):
            betas = self.read_columns(int(session), block)
            source = str(self.sessions.files[session])
            parts.append(nsd_betas.to_percent(betas, beta_scale=self.beta_scale, source=source))
            self.progress(done + step, total)
        return np.concatenate(parts, 1)


def _session_sums(values: np.ndarray, n_trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and sums of squares [v, S] over the trials of each session."""
    parts = np.split(values, np.cumsum(n_trials)[:-1], axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        squares = [np.einsum("vt,vt->v", part, part) for part in parts]
        return np.stack([part.sum(1) for part in parts], 1), np.stack(squares, 1)


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


def _log_drift(moments: np.ndarray, n_trials: np.ndarray, numbers: np.ndarray) -> None:
    """Warns of sessions whose mean or size is far from the others'; `moments` are sums and sums of squares."""
    if len(numbers) < 6:
        return
    mean, square = moments / n_trials
    for name, values in (("mean", mean), ("size", np.sqrt(square))):
        for position in trials.outlying(values):
            _log.warning("the %s of the betas of session %d is far from other sessions'", name, numbers[position])
