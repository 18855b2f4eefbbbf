"""Anyone's own data: photos and responses on disk enter; responses and images leave.

Responses are averages or trials: a `.npy`, or NIfTI, MGH, GIFTI or CIFTI files, one or one per session. Averages are
taken as they are; trials are z-scored within session or run and averaged over the repeats of an image.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mine_jax import artifacts
from mine_jax._progress import Progress, silent
from mine_jax.config import FolderConfig
from mine_jax.data import ids, trials
from mine_jax.data.containers import positions, spheres
from mine_jax.data.containers.series import Series
from mine_jax.data.containers.sessions import check_rows
from mine_jax.data.folder import rois
from mine_jax.data.folder.photos import Joined, join
from mine_jax.data.trials import Rows
from mine_jax.errors import AlignmentError, ConfigError, DataError
from mine_jax.types import Responses, Stimuli


def load_folder(
    config: FolderConfig, *, directory: str | Path | None = None, progress: Progress = silent
) -> tuple[Responses, Stimuli]:
    """Reads responses and photos that the configuration names.

    Args:
        config: section [data] with kind "folder".
        directory: where large responses are kept on disk, memory-mapped.
        progress: called after each session or block of voxels, then after each photo.

    Returns:
        Responses [N, V] float32, rows by ascending image id; voxels whose status is not "ok" hold 0.
        `noise_ceiling` is that of all rows (`with_noise_ceiling` gives it for chosen ones); of averages that of the
        file `noise_ceiling`; NaN without one, and where no image was repeated. And the Stimuli of the same images.

    Raises:
        ConfigError: if a key is missing.
        MissingInputError: if a file is not there.
        IntegrityError: if a file is damaged.
        AlignmentError: if rows, ids and photos do not belong together.
        GeometryError: if series and mask differ in space, or the spheres are of another surface.
        DataError: for unusable dtypes, values or photos.
    """
    sessions = _open_sessions(config)
    joined = _joined(config, sessions)
    sphere = spheres.read_spheres(config.sphere, sessions[0].space)
    voxel_ids, names, indices = rois.choose_voxels(config.mask, config.rois, config.roi_labels, sessions[0])
    ceiling = _known_ceiling(config, len(voxel_ids))
    responses = joined.respond(sessions, voxel_ids, config, rois=names, directory=directory, progress=progress)
    if ceiling is not None:
        responses = replace(responses, noise_ceiling=np.where(responses.status == "ok", ceiling, np.nan))
    if indices is not None and responses.volume is None:
        responses = replace(responses, indices=indices)
    return spheres.placed(responses, sphere), joined.stimuli(responses.image_ids, progress=progress)


def open_folder_stimuli(config: FolderConfig) -> Stimuli:
    """Opens the photos that `load_folder` would give, without decoding any.

    Args:
        config: section [data] with kind "folder".

    Returns:
        Stimuli [N]; hashes are empty.

    Raises:
        MineError: as `load_folder`, for ids and photos.
    """
    return _joined(config, None).stimuli()


def expected_shape(config: FolderConfig) -> tuple[int, int]:
    """Counts images and voxels from headers, tables and areas; reads no responses.

    Args:
        config: section [data] with kind "folder".

    Returns:
        Images N and voxels V as `load_folder` gives them; it gives fewer images only where a session does not vary.

    Raises:
        MineError: as `load_folder`.
    """
    sessions = _open_sessions(config)
    joined = _joined(config, sessions)
    check_rows(sessions, joined.rows)
    voxel_ids, _, _ = rois.choose_voxels(config.mask, config.rois, config.roi_labels, sessions[0])
    return joined.n_images, len(voxel_ids)


def inputs(config: FolderConfig) -> list[Path]:
    """Names the files whose change makes responses stale.

    Args:
        config: section [data] with kind "folder".

    Returns:
        Those that are given.
    """
    named = (config.responses, config.trials)
    patterns = [path for pattern in named if pattern is not None for path in positions.expand(pattern)]
    files = [file for path in patterns for file in positions.hemispheres_of(path) or (Path(path),)]
    plain = [Path(path) for path in (config.images, config.image_ids, config.noise_ceiling) if path is not None]
    areas = rois.inputs(config.mask, config.rois, config.roi_labels)
    return [*plain, *files, *areas, *spheres.files_of(config.sphere)]


def _known_ceiling(config: FolderConfig, n_voxels: int) -> np.ndarray | None:
    """Reads the noise ceilings [V] that were measured before rows were averaged; None where none are given."""
    if config.noise_ceiling is None:
        return None
    path = Path(config.noise_ceiling)
    if config.trials is not None:
        raise ConfigError(
            "data: `noise_ceiling` is for averages (`image_ids`); that of trials comes from their own repeats."
        )
    ceiling = artifacts.read_array(path)
    if ceiling.dtype.kind not in "fiu" or ceiling.shape != (n_voxels,):
        raise AlignmentError(
            f"{path} must hold a number for each of the {n_voxels} voxels, but is {ceiling.dtype} of shape "
            f"{ceiling.shape}."
        )
    known = ceiling[np.isfinite(ceiling)].astype(np.float64)
    if len(known) and (known.min() < 0 or known.max() > 1):
        raise DataError(
            f"{path} must hold shares of variance from 0 to 1, but has {known.min():g} to {known.max():g}. Divide "
            "percents by 100."
        )
    return ceiling.astype(np.float64)


def _open_sessions(config: FolderConfig) -> list[Series]:
    if config.responses is None:
        raise ConfigError(
            "data: `responses` is needed: a .npy [images or trials, voxels], or a series of NIfTI, MGH, GIFTI or "
            "CIFTI; `*` in its name for one file per session, `{hemi}` for both hemispheres."
        )
    return positions.open_paths(positions.expand(config.responses))


def _joined(config: FolderConfig, sessions: list[Series] | None) -> Joined:
    """Image (and session) of each row of responses, with their photos."""
    if (config.image_ids is None) == (config.trials is None):
        raise ConfigError(
            "data: give either `image_ids` (rows of responses are averages) or `trials` (rows are trials), not both."
        )
    if config.trials is None:
        rows, source = Rows(ids.read(str(config.image_ids))), str(config.image_ids)
    else:
        files, source = positions.expand(config.trials), config.trials
        tables = [trials.read_trials(file, zscore=config.zscore, is_session=len(files) > 1) for file in files]
        _check_pairs(files, tables, sessions)
        rows = trials.joined(tables)
    return join(rows, source, config)


def _check_pairs(files: list[str], tables: list[Rows], sessions: list[Series] | None) -> None:
    """Checks that each of several tables has the rows of its file."""
    if sessions is None or len(files) == 1:
        return
    if len(files) != len(sessions):
        raise AlignmentError(f"`responses` are {len(sessions)} files, but `trials` {len(files)}: give one for each.")
    for file, table, session in zip(files, tables, sessions, strict=True):
        if len(table.image_ids) != session.n_rows:
            raise AlignmentError(f"{session.path} has {session.n_rows} rows, but {file} has {len(table.image_ids)}.")
