"""LAION-fMRI: GLMsingle betas of sessions enter; responses and images leave.

Betas are NIfTI volumes in T1w space, one file per session with a table of trials: session, run, beta_index, label.
Voxels with a model are those where the mean R2 map is above 0; areas are masks, one file each. Ceilings are in
percent, of so many repeats. The embeddings that it ships are one vector per image: they hold no image-tokens.

Source: documentation and file layout of the data set, github.com/ViCCo-Group/LAION-fMRI.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.config import BidsConfig, LaionConfig
from mine_jax.data import bids, ids, masks, noise_ceiling
from mine_jax.data.bids.load import join_rows, open_betas
from mine_jax.data.containers import csv, positions
from mine_jax.data.containers.series import Series, check_volumes
from mine_jax.data.folder.photos import Joined
from mine_jax.data.images import PhotoFiles
from mine_jax.errors import AlignmentError, ConfigError, DataError, MissingInputError
from mine_jax.types import Responses, Stimuli, Volume

# Map of the share of variance that the model of betas explains.
_EXPLAINED = "stat-rsquare_desc-R2mean"
# Repeats of the noise-ceiling maps, the best estimate first.
_CEILINGS = (("Noiseceiling12rep", 12), ("Noiseceiling4rep", 4))
_AREA = re.compile(r".*_space-T1w_res-1pt8_label-([A-Za-z0-9]+)_mask\.nii\.gz")


def load_laion(
    config: LaionConfig, *, directory: str | Path | None = None, progress: Progress = silent
) -> tuple[Responses, Stimuli]:
    """Reads one subject's responses and images.

    Args:
        config: section [data] with kind "laion_fmri".
        directory: where large arrays are kept on disk.
        progress: called after each session and block of voxels, then after each photo.

    Returns:
        Responses [N, V] float32, rows by ascending image id (the label without its suffix), and the Stimuli.
        Where no image was repeated in the sessions read, the noise ceiling is that of the data set's own maps.

    Raises:
        MissingInputError: with the full path of a file that is not there.
        AlignmentError: if betas and tables differ.
        GeometryError: if volumes differ in shape or affine.
        DataError: if no voxel is selected.
    """
    files, sessions = open_betas(_as_bids(config))
    joined = join_rows(_as_bids(config), files, sessions, _photos(config))
    voxel_ids, areas = _voxels(config, sessions[0])
    responses = joined.respond(sessions, voxel_ids, config, rois=areas, directory=directory, progress=progress)
    if not np.isfinite(responses.ncsnr).any():
        ncsnr = np.where(responses.status == "ok", _own_ncsnr(config, sessions[0], voxel_ids), np.nan)
        ceiling = noise_ceiling.noise_ceiling(ncsnr, responses.n_repeats)
        responses = replace(responses, ncsnr=ncsnr, noise_ceiling=ceiling)
    return responses, _stimuli(joined, responses.image_ids, progress)


def open_laion_stimuli(config: LaionConfig) -> Stimuli:
    """Opens the images that `load_laion` would give, without reading betas.

    Args:
        config: section [data] with kind "laion_fmri".

    Returns:
        Stimuli [N]; hashes are empty.

    Raises:
        MineError: as `load_laion`, for tables and images.
    """
    files, sessions = open_betas(_as_bids(config))
    return _stimuli(join_rows(_as_bids(config), files, sessions, _photos(config)), None, None)


def expected_shape(config: LaionConfig) -> tuple[int, int]:
    """Counts images and voxels from headers, tables and areas; reads no responses.

    Args:
        config: section [data] with kind "laion_fmri".

    Returns:
        Images N and voxels V as `load_laion` gives them; it gives fewer images only where a session does not vary.

    Raises:
        MineError: as `load_laion`.
    """
    files, sessions = open_betas(_as_bids(config))
    joined = join_rows(_as_bids(config), files, sessions, _photos(config))
    return joined.n_images, len(_voxels(config, sessions[0])[0])


def inputs(config: LaionConfig) -> list[Path]:
    """Names the files and folders whose change makes responses stale.

    Args:
        config: section [data] with kind "laion_fmri".

    Returns:
        Betas, tables, areas and maps of the subject.
    """
    if config.root is None:
        return []
    maps = [_map_file(config, desc) for desc in (_EXPLAINED, *(f"desc-{desc}" for desc, _ in _CEILINGS))]
    areas = Path(config.root) / "derivatives" / "rois" / config.subject
    return [*bids.inputs(_as_bids(config)), areas, *(path for path in maps if path.is_file())]


def images_of(config: LaionConfig) -> list[Path]:
    """Names the file of the images and the table of its rows.

    Args:
        config: section [data] with kind "laion_fmri".

    Returns:
        Both, or the folder or zip that is given in its place.
    """
    if config.images is not None:
        return [Path(config.images)]
    return [] if config.root is None else [_images_file(config), _images_table(config)]


def probe(config: LaionConfig) -> list[str]:
    """Opens everything but values, for `mine-jax check`.

    Args:
        config: section [data] with kind "laion_fmri".

    Returns:
        Findings, one sentence each.

    Raises:
        MineError: as `load_laion`.
    """
    files, sessions = open_betas(_as_bids(config))
    voxel_ids, areas = _voxels(config, sessions[0])
    n_rows = sum(session.n_rows for session in sessions)
    return [
        f"{config.subject}: {len(files)} sessions of {n_rows} betas, {len(voxel_ids)} voxels",
        f"areas: {', '.join(positions.split_names(areas)) or 'none'}",
    ]


def _as_bids(config: LaionConfig) -> BidsConfig:
    """Where the betas are, in the words of BIDS derivatives."""
    if config.root is None:
        raise ConfigError('data: kind = "laion_fmri" needs `root`, the folder that holds derivatives and stimuli.')
    shared = {name: getattr(config, name) for name in ("subject", "sessions", "zscore", "on_missing", "index_base")}
    return BidsConfig(
        root=str(Path(config.root) / "derivatives" / "glmsingle-tedana"),
        task="images",
        space="T1w",
        stat="effect",
        desc="SingletrialBetas",
        suffix="statmap",
        image_column="label",
        images=config.images,
        max_pixels=config.max_pixels,
        **shared,
    )


def _images_file(config: LaionConfig) -> Path:
    return Path(str(config.root)) / "stimuli" / "task-images_stimuli.h5"


def _images_table(config: LaionConfig) -> Path:
    return Path(str(config.root)) / "stimuli" / "task-images_metadata.csv"


def _photos(config: LaionConfig) -> PhotoFiles | None:
    """Photos in the data set's own file, whose rows the table beside it names."""
    if config.images is not None:
        return None
    file, table = _images_file(config), _images_table(config)
    if not file.is_file():
        raise MissingInputError(
            f"no images at {file}. They come with the data set's own terms (laion-fmri download-stimuli); or set "
            "`images` to a folder of photos."
        )
    names = ids.clean(csv.read_columns(table, ("image_name",))["image_name"].tolist(), str(table), first_line=2)
    rows = {str(name): str(row) for row, name in enumerate(names)}
    if len(rows) != len(names):
        raise DataError(f"{table} names {len(names) - len(rows)} images twice.")
    return PhotoFiles(file, dict(sorted(rows.items())), config.max_pixels)


def _stimuli(joined: Joined, image_ids: np.ndarray | None, progress: Progress | None) -> Stimuli:
    """The photos; those that begin with "shared" were seen by every subject."""
    shown = np.unique(joined.rows.image_ids[joined.keep])
    shared = [name for name in shown.tolist() if name.startswith("shared_") and "_OOD_" not in name]
    parts = {"ood": np.array([name for name in shown.tolist() if "_OOD_" in name], str)}
    return joined.stimuli(image_ids, shared=shared, parts=parts, progress=progress)


def _voxels(config: LaionConfig, first: Series) -> tuple[np.ndarray, np.ndarray]:
    """Voxel ids [V] and their areas [V]."""
    assert isinstance(first.space, Volume)
    folder = Path(str(config.root)) / "derivatives" / "rois" / config.subject
    members: dict[str, np.ndarray] = {}
    category_of: dict[str, str] = {}
    for file in sorted(folder.glob("*/*_mask.nii.gz")):
        if match := _AREA.fullmatch(file.name):
            members[match[1]] = positions.read_mask(str(file), first)
            category_of[match[1]] = file.parent.name
    if config.roi:
        known = [*members, *category_of.values()]
        for name in config.roi:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=3) or sorted(set(known))
                raise DataError(f"`roi` {name!r} is not in {folder}; the closest names: {', '.join(close) or 'none'}.")
        chosen = [name for name in members if {name, category_of[name]} & set(config.roi)]
        voxel_ids = np.unique(np.concatenate([members[name] for name in chosen]))
    else:
        voxel_ids = np.flatnonzero(_map(config, _EXPLAINED, first.space, needed=True) > 0)
    names = [np.where(np.isin(voxel_ids, inside), name, "") for name, inside in members.items()]
    return voxel_ids, positions.join_names(names) if names else np.full(len(voxel_ids), "")


def _own_ncsnr(config: LaionConfig, first: Series, voxel_ids: np.ndarray) -> np.ndarray:
    """The ncsnr [V] of the data set's own ceilings: percent of variance in the mean of n repeats."""
    assert isinstance(first.space, Volume)
    for desc, n_repeats in _CEILINGS:
        values = _map(config, f"desc-{desc}", first.space)
        if len(values):
            share = values[voxel_ids] / 100
            if np.any((share < 0) | (share > 1)):
                raise DataError(f"the map {desc} of {config.subject} must hold 0 to 100. Is it damaged?")
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.sqrt(share / (n_repeats * (1 - share)))
    return np.full(len(voxel_ids), np.nan)


def _map_file(config: LaionConfig, desc: str) -> Path:
    folder = Path(str(config.root)) / "derivatives" / "glmsingle-tedana" / config.subject
    return folder / f"{config.subject}_task-images_space-T1w_{desc}_statmap.nii.gz"


def _map(config: LaionConfig, desc: str, space: Volume, *, needed: bool = False) -> np.ndarray:
    """Values [X*Y*Z] of a map of the subject; empty where it is not there and not needed."""
    path = _map_file(config, desc)
    if not path.is_file() and not needed:
        return np.zeros(0)
    values, header = masks.read_volume(path)
    check_volumes(str(path), header.volume, reference="the betas", expected=space)
    if values.size != int(np.prod(space.shape)):
        raise AlignmentError(f"{path} has {values.size} voxels, but the betas {space.shape}.")
    return values.reshape(-1).astype(np.float64)
