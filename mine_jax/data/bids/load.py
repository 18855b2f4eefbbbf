"""BIDS derivatives: a folder of single-trial betas and tables of trials enter; responses and images leave.

One file of betas per session (or run), in volumes (NIfTI), on surfaces (GIFTI, both hemispheres) or in grayordinates
(CIFTI). Each has a table with a row per trial: `_trials.tsv`, `_conditions.tsv` or `_events.tsv`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.config import BidsConfig
from mine_jax.data import trials
from mine_jax.data.bids import names
from mine_jax.data.bids.names import Named
from mine_jax.data.bids.trials import read_rows
from mine_jax.data.containers import positions, spheres
from mine_jax.data.containers.series import Series
from mine_jax.data.folder import rois
from mine_jax.data.folder.photos import Joined, join
from mine_jax.data.images import PhotoFiles
from mine_jax.errors import ConfigError
from mine_jax.types import Responses, Stimuli


def load_bids(
    config: BidsConfig, *, directory: str | Path | None = None, progress: Progress = silent
) -> tuple[Responses, Stimuli]:
    """Reads one subject's responses and photos.

    Args:
        config: section [data] with kind "bids".
        directory: where large arrays are kept on disk.
        progress: called after each session and block of voxels, then after each photo.

    Returns:
        Responses [N, V] float32, rows by ascending image id, and the Stimuli of the same images.

    Raises:
        ConfigError: if a key is missing, or several files could be meant.
        MissingInputError: if a file is not there.
        AlignmentError: if betas, tables and photos do not belong together.
        GeometryError: if sessions, mask, areas and spheres differ in space.
        MineError: what damaged files raise.
    """
    files, sessions = open_betas(config)
    joined = join_rows(config, files, sessions)
    sphere = spheres.read_spheres(config.sphere, sessions[0].space)
    voxel_ids, areas = _voxels(config, sessions[0])
    responses = joined.respond(sessions, voxel_ids, config, rois=areas, directory=directory, progress=progress)
    return spheres.placed(responses, sphere), joined.stimuli(responses.image_ids, progress=progress)


def open_bids_stimuli(config: BidsConfig) -> Stimuli:
    """Opens the photos that `load_bids` would give, without reading betas.

    Args:
        config: section [data] with kind "bids".

    Returns:
        Stimuli [N]; hashes are empty.

    Raises:
        MineError: as `load_bids`, for tables and photos.
    """
    return join_rows(config, *open_betas(config)).stimuli()


def expected_shape(config: BidsConfig) -> tuple[int, int]:
    """Counts images and voxels from headers, tables and areas; reads no responses.

    Args:
        config: section [data] with kind "bids".

    Returns:
        Images N and voxels V as `load_bids` gives them; it gives fewer images only where a session does not vary.

    Raises:
        MineError: as `load_bids`.
    """
    files, sessions = open_betas(config)
    return join_rows(config, files, sessions).n_images, len(_voxels(config, sessions[0])[0])


def inputs(config: BidsConfig) -> list[Path]:
    """Names the files whose change makes responses stale.

    Args:
        config: section [data] with kind "bids".

    Returns:
        Betas, tables, mask, areas and spheres.
    """
    if config.root is None:
        return []
    files = _betas(config)
    betas = [path for file in files for path in positions.hemispheres_of(file.path) or (Path(file.path),)]
    tables = [path for file in files for path in names.find_tables(_folders(config), file)]
    masks = [] if config.mask is not None or config.rois is not None else _brain_masks(config)
    areas = rois.inputs(config.mask, config.rois, config.roi_labels)
    return [*betas, *tables, *masks, *areas, *spheres.files_of(config.sphere)]


def probe(config: BidsConfig) -> list[str]:
    """Opens everything but values, for `mine-jax check`.

    Args:
        config: section [data] with kind "bids".

    Returns:
        Findings, one sentence each.

    Raises:
        MineError: as `load_bids`.
    """
    files, sessions = open_betas(config)
    voxel_ids, areas = _voxels(config, sessions[0])
    n_rows = sum(session.n_rows for session in sessions)
    return [
        f"{config.subject}: {len(files)} files of {n_rows} betas, {len(voxel_ids)} of {sessions[0].n_positions} voxels",
        f"areas: {', '.join(positions.split_names(areas)) or 'none'}",
        *spheres.finding(config.sphere, sessions[0].space),
    ]


def open_betas(config: BidsConfig) -> tuple[list[Named], list[Series]]:
    """Opens the file of betas of each session (or run).

    Args:
        config: section [data] with kind "bids".

    Returns:
        Pair of their names and their series.

    Raises:
        MineError: as `load_bids`.
    """
    files = _betas(config)
    spaces = [file.entities.get("space", "surface") for file in files]
    return files, positions.open_paths([file.path for file in files], names=spaces)


def _voxels(config: BidsConfig, first: Series) -> tuple[np.ndarray, np.ndarray]:
    """Voxel ids [V] and their areas [V]."""
    mask = config.mask if config.mask is not None else _brain_mask(config, first)
    voxel_ids, areas, _ = rois.choose_voxels(mask, config.rois, config.roi_labels, first)
    return voxel_ids, areas


def _betas(config: BidsConfig) -> list[Named]:
    if config.root is None:
        raise ConfigError(f'data: kind = "{config.kind}" needs `root`, the folder of derivatives that holds sub-*.')
    wanted = {"task": config.task, "space": config.space, "desc": config.desc, "stat": config.stat}
    files = names.find_betas(Path(config.root), subject=config.subject, wanted=wanted, suffix=config.suffix)
    chosen = list(dict.fromkeys(file.session for file in files))[: config.sessions]
    return [file for file in files if file.session in chosen]


def _folders(config: BidsConfig) -> Sequence[Path]:
    """Data sets that may hold the tables: that of the betas, the one that is named, the raw one around both."""
    root = Path(str(config.root))
    named = [Path(config.events)] if config.events is not None else []
    around = [root.parent.parent] if root.parent.name == "derivatives" else []
    return [*named, root, *around]


def join_rows(
    config: BidsConfig,
    files: Sequence[Named],
    sessions: Sequence[Series],
    photos: PhotoFiles | None = None,
    skip: str = "",
) -> Joined:
    """Reads the image and session of each row of all files, and finds their photos.

    Args:
        config: section [data] with kind "bids".
        files: of betas.
        sessions: their series.
        photos: those of the data set itself, where the configuration names none.
        skip: images whose id begins with it are left out; "" for none.

    Returns:
        Joined: rows of all files, one after another.

    Raises:
        MineError: as `load_bids`, for tables and photos.
    """
    parts, keep, start = [], [], 0
    for file, session in zip(files, sessions, strict=True):
        rows, kept = read_rows(
            names.find_tables(_folders(config), file),
            session.n_rows,
            session=f"ses-{file.session}" if file.session else "",
            image_column=config.image_column,
            zscore=config.zscore,
            source=Path(file.path).name,
        )
        if skip:
            kept = kept[~np.char.startswith(rows.image_ids[kept], skip)]
        parts.append(rows)
        keep.append(kept + start)
        start += session.n_rows
    return join(trials.joined(parts), str(config.root), config, among=np.concatenate(keep), photos=photos)


def _brain_masks(config: BidsConfig) -> list[Path]:
    """The brain masks of a subject in the space of the betas."""
    masks = []
    for path in sorted(names.subject_folder(Path(str(config.root)), config.subject).rglob("*_mask.nii*")):
        named = names.parse(path)
        if named is not None and named.entities.get("desc") == "brain":
            masks += [path] if config.space in (None, named.entities.get("space")) else []
    return masks


def _brain_mask(config: BidsConfig, first: Series) -> str | None:
    """The only brain mask in the space of the betas, where areas do not select voxels."""
    if config.rois is not None or first.space is None or hasattr(first.space, "n_vertices"):
        return None
    masks = _brain_masks(config)
    if len(masks) > 1:
        raise ConfigError(f"data: {len(masks)} brain masks are there, first {masks[0]}. Set `mask` to one.")
    return str(masks[0]) if masks else None
