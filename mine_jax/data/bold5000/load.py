"""BOLD5000: responses of areas (both releases) or volumes (the second) enter; responses and images leave.

Release 1: `CSI1_ROIs_TR34.h5` (or `.mat`), for each area of each hemisphere [trials, voxels]; the order of the images
is `CSI01_stim_lists.txt`. Release 2 (GLMsingle): `.npy` files of the same areas, or one NIfTI file per session with
`CSI1_brainmask.nii.gz`; the order is `CSI1_imgnames.txt`. Names of images that are shown again may begin with "rep_".
Sessions are those of the presentation lists; without these all trials are one.

Source: bold5000.org, release notes; Chang et al. 2019, doi:10.1038/s41597-019-0052-3.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.config import Bold5000Config
from mine_jax.data import ids, tables
from mine_jax.data.containers import hdf5, matlab, positions
from mine_jax.data.containers.series import Series, of_array, open_rows, open_series
from mine_jax.data.containers.sessions import check_rows
from mine_jax.data.folder.photos import Joined, join
from mine_jax.data.trials import Rows
from mine_jax.errors import AlignmentError, ConfigError, DataError, MissingInputError
from mine_jax.types import Responses, Stimuli

_log = logging.getLogger(__name__)
AREAS = tuple(f"{hemi}{area}" for area in ("EarlyVis", "LOC", "OPA", "PPA", "RSC") for hemi in ("LH", "RH"))


def load_bold5000(
    config: Bold5000Config, *, directory: str | Path | None = None, progress: Progress = silent
) -> tuple[Responses, Stimuli]:
    """Reads one subject's responses and photos.

    Args:
        config: section [data] with kind "bold5000".
        directory: where large arrays are kept on disk.
        progress: called after each session and block of voxels, then after each photo.

    Returns:
        Responses [N, V] float32, rows by ascending image id, and the Stimuli; images that were shown more than once
        are marked as shared.

    Raises:
        MissingInputError: with the name of a file that is not there.
        AlignmentError: if responses and lists of images differ.
        DataError: if an area is not known.
    """
    sessions, voxel_ids, areas = _open(config)
    joined = _joined(config, sessions)
    responses = joined.respond(sessions, voxel_ids, config, rois=areas, directory=directory, progress=progress)
    return responses, joined.stimuli(responses.image_ids, shared=joined.repeated, progress=progress)


def open_bold5000_stimuli(config: Bold5000Config) -> Stimuli:
    """Opens the photos that `load_bold5000` would give, without reading responses.

    Args:
        config: section [data] with kind "bold5000".

    Returns:
        Stimuli [N]; hashes are empty.

    Raises:
        MineError: as `load_bold5000`, for lists and photos.
    """
    joined = _joined(config, None)
    return joined.stimuli(shared=joined.repeated)


def expected_shape(config: Bold5000Config) -> tuple[int, int]:
    """Counts images and voxels from headers, tables and areas; reads no responses.

    Args:
        config: section [data] with kind "bold5000".

    Returns:
        Images N and voxels V as `load_bold5000` gives them; it gives fewer images only where a session does not vary.

    Raises:
        MineError: as `load_bold5000`.
    """
    if config.format == "volumes":
        sessions, voxel_ids, _ = _open(config)
        joined = _joined(config, sessions)
        check_rows(sessions, joined.rows)
        return joined.n_images, len(voxel_ids)
    files = _files(config)
    shapes = _shapes_of(files, config)
    joined = _joined(config, None)
    _check_trials({name: n_rows for name, (n_rows, _) in shapes.items()}, files)
    n_rows, n_listed = next(iter(shapes.values()))[0], len(joined.rows.image_ids)
    if n_rows != n_listed:
        raise AlignmentError(f"{files[0]} has {n_rows} trials, but {_list_of_images(config)} lists {n_listed}.")
    return joined.n_images, sum(shapes[name][1] for name in _wanted(shapes, config))


def inputs(config: Bold5000Config) -> list[Path]:
    """Names the files whose change makes responses stale.

    Args:
        config: section [data] with kind "bold5000".

    Returns:
        Responses, the list of images, the presentation lists or the brain mask.
    """
    if config.root is None:
        return []
    more = [_mask(config)] if config.format == "volumes" else _presentation_lists(config)
    return [*_files(config), _list_of_images(config), *more]


def probe(config: Bold5000Config) -> list[str]:
    """Opens everything but values, for `mine-jax check`.

    Args:
        config: section [data] with kind "bold5000".

    Returns:
        Findings, one sentence each.

    Raises:
        MineError: as `load_bold5000`.
    """
    sessions, voxel_ids, areas = _open(config)
    joined = _joined(config, sessions)
    names = ", ".join(positions.split_names(areas)) or "none"
    return [
        f"{config.subject}, release {config.release}: {len(joined.rows.image_ids)} trials, {len(voxel_ids)} voxels",
        f"{len(joined.repeated)} images were shown more than once; areas: {names}",
    ]


def _found(config: Bold5000Config, *patterns: str) -> list[Path]:
    """Files below `root` that fit the first pattern that any fits."""
    if config.root is None:
        raise ConfigError('data: kind = "bold5000" needs `root`, the folder with the unpacked release.')
    for pattern in patterns:
        found = sorted(path for path in Path(config.root).rglob(pattern) if path.is_file())
        if found:
            return found
    raise MissingInputError(f"no {' or '.join(patterns)} below {config.root}. Is `release` or `format` another one?")


def _files(config: Bold5000Config) -> list[Path]:
    """Files of responses."""
    if config.release == 1:
        if config.format == "volumes":
            raise ConfigError('data: release 1 of BOLD5000 has format = "rois" only.')
        return _found(config, f"{config.subject}_ROIs_TR34.h5", f"{config.subject}_ROIs_TR34.mat")[:1]
    base = f"{config.subject}_GLMbetas-{config.beta_version}"
    if config.format == "volumes":
        return sorted(
            _found(config, f"{base}_ses-*.nii.gz", f"{base}_ses-*.nii"), key=lambda p: positions.natural(p.name)
        )
    return _found(config, f"{base}_allses_*.npy")


def _open(config: Bold5000Config) -> tuple[list[Series], np.ndarray, np.ndarray]:
    """Series of all sessions, voxel ids [V] and areas [V]."""
    files = _files(config)
    if config.format == "volumes":
        if config.roi:
            raise ConfigError('data: `roi` needs format = "rois": the volumes come without areas.')
        sessions = positions.open_paths(files)
        voxel_ids = positions.read_mask(str(_mask(config)), sessions[0])
        return sessions, voxel_ids, np.full(len(voxel_ids), "")
    parts = _areas_of(files, config)
    wanted = _wanted(parts, config)
    _check_trials({name: part.n_rows for name, part in parts.items()}, files)
    # Columns of all areas in one order, so that ids do not depend on which are chosen.
    starts = dict(zip(parts, np.cumsum([0, *(part.n_positions for part in parts.values())]).tolist(), strict=False))
    voxel_ids = np.concatenate([starts[name] + np.arange(parts[name].n_positions) for name in wanted])
    areas = np.concatenate([np.full(parts[name].n_positions, name) for name in wanted])

    def read(chosen: np.ndarray, progress: Progress) -> np.ndarray:
        values = [
            part.read(chosen[inside] - starts[name], progress)
            for name, part in parts.items()
            if (inside := (chosen >= starts[name]) & (chosen < starts[name] + part.n_positions)).any()
        ]
        return np.concatenate(values)

    first = next(iter(parts.values()))
    n_positions = sum(part.n_positions for part in parts.values())
    return [replace(first, n_positions=n_positions, read=read)], voxel_ids, areas


def _wanted(areas: Iterable[str], config: Bold5000Config) -> list[str]:
    """Those of the areas that are asked for, in their order."""
    areas = list(areas)
    wanted = [name for name in areas if not config.roi or name in config.roi or name[2:] in config.roi]
    unknown = [name for name in config.roi if not any(name in (area, area[2:]) for area in areas)]
    if unknown or not wanted:
        raise DataError(f"`roi` {', '.join(unknown) or '()'} is not there; the areas: {', '.join(areas)}.")
    return wanted


def _check_trials(n_trials: dict[str, int], files: list[Path]) -> None:
    if len(set(n_trials.values())) != 1:
        raise AlignmentError(f"areas of {files[0].parent} differ in trials: {n_trials}.")


def _areas_of(files: list[Path], config: Bold5000Config) -> dict[str, Series]:
    """Area of a hemisphere -> its trials and voxels, in a fixed order."""
    if config.release == 2:
        of_name = {file.stem.rpartition("_allses_")[2]: file for file in files}
        return {name: open_rows(of_name[name]) for name in AREAS if name in of_name}
    file = files[0]
    _shapes_of(files, config)  # which of them can be read at all
    if file.suffix == ".h5":
        with hdf5.opened(file, why="read BOLD5000") as opened:
            arrays = {name: np.asarray(opened[name]) for name in AREAS if name in opened}
    else:
        arrays = matlab.read(file, AREAS)
    return {name: of_array(arrays[name], file) for name in AREAS if name in arrays}


def _shapes_of(files: list[Path], config: Bold5000Config) -> dict[str, tuple[int, int]]:
    """Area of a hemisphere -> numbers of its trials and voxels, from headers."""
    if config.release == 2:
        return {name: (part.n_rows, part.n_positions) for name, part in _areas_of(files, config).items()}
    file = files[0]
    if file.suffix == ".h5":
        with hdf5.opened(file, why="read BOLD5000") as opened:
            shapes = {name: hdf5.numbers(opened, name, file).shape for name in AREAS if name in opened}
    else:
        found = matlab.shapes(file, AREAS)
        shapes = {name: found[name] for name in AREAS if name in found}
    if not shapes:
        raise DataError(f"{file} holds none of the areas {', '.join(AREAS)}.")
    for name, shape in shapes.items():
        if len(shape) != 2 or 0 in shape:
            raise DataError(f"{name} of {file} must be [trials, voxels], but has shape {shape}.")
    return {name: (shape[0], shape[1]) for name, shape in shapes.items()}


def _list_of_images(config: Bold5000Config) -> Path:
    if config.release == 2:
        return _found(config, f"{config.subject}_imgnames.txt")[0]
    number = config.subject.removeprefix("CSI")
    return _found(config, f"CSI{number.zfill(2)}_stim_lists.txt", f"CSI{number}_stim_lists.txt")[0]


def _joined(config: Bold5000Config, sessions: list[Series] | None) -> Joined:
    """Image and session of each trial, with their photos."""
    if config.zscore == "run":
        raise ConfigError('`zscore` = "run" is not possible: BOLD5000 lists images by session. Use "session".')
    path = _list_of_images(config)
    lines = [line for line in tables.read_text(path).split("\n") if line.strip()]
    names = np.array([name.removeprefix("rep_") for name in ids.clean(lines, str(path)).tolist()], str)
    sizes = [session.n_rows for session in sessions or []] if config.format == "volumes" else _session_sizes(config)
    if config.format == "volumes" and sessions is None:
        sizes = [open_series(file).n_rows for file in _files(config)]
    if sizes and sum(sizes) != len(names):
        raise AlignmentError(f"{path} lists {len(names)} trials, but {len(sizes)} sessions have {sum(sizes)}.")
    if not sizes and config.zscore != "none":
        _log.warning("no presentation lists below %s: all trials are z-scored as one session", config.root)
    groups = np.repeat(np.arange(len(sizes)), sizes) if sizes and config.zscore != "none" else np.zeros(len(names), int)
    labels = tuple(f"ses-{number:02d}" for number in range(1, max(1, len(sizes)) + 1))
    return join(Rows(names, groups.astype(np.int64), labels), str(path), config)


def _session_sizes(config: Bold5000Config) -> list[int]:
    """Trials of each session by the presentation lists; empty without them."""
    sizes: dict[str, int] = {}
    for file in _presentation_lists(config):
        lines = [line for line in tables.read_text(file).split("\n") if line.strip()]
        sizes[file.parent.name] = sizes.get(file.parent.name, 0) + len(lines)
    return [sizes[name] for name in sorted(sizes, key=positions.natural)]


def _presentation_lists(config: Bold5000Config) -> list[Path]:
    """Lists of the images of each run, in a folder for each session."""
    folders = sorted(Path(str(config.root)).rglob(f"{config.subject}_sess*"))
    return [file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*run*.txt"))]


def _mask(config: Bold5000Config) -> Path:
    return _found(config, f"{config.subject}_brainmask.nii.gz")[0]
