"""THINGS-fMRI: single-trial responses in tables or volumes enter; responses and images leave.

Tables: `sub-01_ResponseData.h5` is a table of pandas, a row per voxel and a column per trial, `_StimulusMetadata.csv` a
row per trial (without catch trials), `_VoxelMetadata.csv` a row per voxel with 0 or 1 for each area. Volumes: one NIfTI
file and one `_conditions.tsv` per run, catch trials included. The 100 test images were shown 12 times, all others once.

Source: THINGS-data, doi:10.25452/figshare.plus.20492835; github.com/ViCCo-Group/THINGS-data.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from mine_jax._progress import Progress, silent
from mine_jax.config import BidsConfig, ThingsConfig
from mine_jax.data import bids, ids, masks
from mine_jax.data.bids.load import join_rows, open_betas
from mine_jax.data.containers import csv, positions
from mine_jax.data.containers.series import Series
from mine_jax.data.folder.photos import Joined, join
from mine_jax.data.things import pandas_hdf
from mine_jax.data.trials import Rows
from mine_jax.errors import AlignmentError, ConfigError, DataError, GeometryError
from mine_jax.types import Responses, Stimuli, Volume

# Columns of the voxel table that are 0 or 1 but say nothing of an area, or come from another parcellation.
_NO_AREAS = ("voxel_", "subject_", "nc_", "splithalf_", "prf-", "glasser-")


def load_things(
    config: ThingsConfig, *, directory: str | Path | None = None, progress: Progress = silent
) -> tuple[Responses, Stimuli]:
    """Reads one subject's responses and photos.

    Args:
        config: section [data] with kind "things".
        directory: where large arrays are kept on disk.
        progress: called after each session and block of voxels, then after each photo.

    Returns:
        Responses [N, V] float32, rows by ascending image id (the stimulus without its suffix), and the Stimuli, of
        which those of the test set are marked as shared.

    Raises:
        MissingInputError: with the full path of a file that is not there.
        AlignmentError: if responses and tables differ in trials or voxels.
        DataError: if an area is not known, or no voxel is selected.
    """
    sessions, joined, shared = _open(config)
    voxel_ids, areas, order, indices = _voxels(config, sessions[0])
    responses = joined.respond(sessions, order, config, rois=areas, directory=directory, progress=progress)
    responses = replace(responses, voxel_ids=voxel_ids, **indices)
    return responses, joined.stimuli(responses.image_ids, shared=shared, progress=progress)


def open_things_stimuli(config: ThingsConfig) -> Stimuli:
    """Opens the photos that `load_things` would give, without reading responses.

    Args:
        config: section [data] with kind "things".

    Returns:
        Stimuli [N]; hashes are empty.

    Raises:
        MineError: as `load_things`, for tables and photos.
    """
    _, joined, shared = _open(config)
    return joined.stimuli(shared=shared)


def expected_shape(config: ThingsConfig) -> tuple[int, int]:
    """Counts images and voxels from headers, tables and areas; reads no responses.

    Args:
        config: section [data] with kind "things".

    Returns:
        Images N and voxels V as `load_things` gives them; it gives fewer images only where a session does not vary.

    Raises:
        MineError: as `load_things`.
    """
    sessions, joined, _ = _open(config)
    return joined.n_images, len(_voxels(config, sessions[0])[0])


def inputs(config: ThingsConfig) -> list[Path]:
    """Names the files whose change makes responses stale.

    Args:
        config: section [data] with kind "things".

    Returns:
        Responses, tables and the brain mask, where there is one.
    """
    if config.root is None:
        return []
    mask = [path for path in (_brain_mask(config),) if path.is_file()]
    if config.format == "volumes":
        return [*bids.inputs(_as_bids(config)), *mask]
    return [*mask, *_tables(config)]


def _tables(config: ThingsConfig) -> list[Path]:
    return [_table(config, name) for name in ("ResponseData.h5", "StimulusMetadata.csv", "VoxelMetadata.csv")]


def probe(config: ThingsConfig) -> list[str]:
    """Opens everything but values, for `mine-jax check`.

    Args:
        config: section [data] with kind "things".

    Returns:
        Findings, one sentence each.

    Raises:
        MineError: as `load_things`.
    """
    sessions, _, shared = _open(config)
    n_rows, n_voxels = sum(session.n_rows for session in sessions), len(_voxels(config, sessions[0])[0])
    return [f"sub-{_number(config)}: {n_rows} trials, {n_voxels} voxels, {len(shared)} test images"]


def _number(config: ThingsConfig) -> str:
    return config.subject.removeprefix("sub-")


def _table(config: ThingsConfig, name: str) -> Path:
    if config.root is None:
        raise ConfigError('data: kind = "things" needs `root`, the folder that holds betas_csv (or betas_vol).')
    return Path(config.root) / "betas_csv" / f"sub-{_number(config)}_{name}"


def _open(config: ThingsConfig) -> tuple[list[Series], Joined, list[str]]:
    """Series, the image and session of each of their rows, and the test images."""
    if config.format == "volumes":
        as_bids = _as_bids(config)
        files, sessions = open_betas(as_bids)
        joined = join_rows(as_bids, files, sessions, skip="catch")
        return sessions, joined, joined.repeated
    path = _table(config, "StimulusMetadata.csv")
    table = csv.read_columns(path, ("trial_type", "session", "stimulus"), optional=("run", "trial_id"))
    is_test = (table["trial_type"] == "test").to_numpy()
    if not set(table["trial_type"]) <= {"train", "test"}:
        raise DataError(
            f"trial_type of {path} must be train or test, but is {', '.join(sorted(set(table['trial_type'])))}."
        )
    names = ids.clean(table["stimulus"].tolist(), str(path), first_line=table.index.tolist())
    if config.zscore == "run" and "run" not in table:
        raise ConfigError(f'`zscore` = "run" needs a column run in {path}.')
    groups = {"session": table["session"], "none": pd.Series("all", table.index)}
    labels = groups.get(config.zscore, table["session"] + " run " + table.get("run", "")).to_numpy(str)
    known, index = np.unique(labels, return_inverse=True)
    rows = Rows(names, index.astype(np.int64), tuple(known.tolist()))
    series = pandas_hdf.open_table(_table(config, "ResponseData.h5"), n_columns=len(names), skip=("voxel_id",))
    joined = join(rows, str(path), config)
    return [series], joined, np.unique(joined.rows.image_ids[is_test]).tolist()


def _voxels(
    config: ThingsConfig, first: Series
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray | Volume]]:
    """Voxel ids [V] ascending, areas [V], their positions in the series [V], and where they are in the volume."""
    if config.format == "volumes":
        voxel_ids = positions.read_mask(str(_brain_mask(config)), first)
        if config.roi:
            raise ConfigError('data: `roi` needs format = "tables": areas of volumes are not in the data set.')
        return voxel_ids, np.full(len(voxel_ids), ""), voxel_ids, {}
    path = _table(config, "VoxelMetadata.csv")
    header = csv.read_header(path)
    areas = [name for name in header if not name.startswith(_NO_AREAS) or name in config.roi]
    table = csv.read_numbers(path, [name for name in ("voxel_x", "voxel_y", "voxel_z") if name in header] + areas)
    if len(table) != first.n_positions:
        raise AlignmentError(f"{first.path} has {first.n_positions} voxels, but {path} has {len(table)} rows.")
    members = {name: table[name].to_numpy() == 1 for name in areas if set(table[name].unique()) <= {0, 1}}
    unknown = [name for name in config.roi if name not in members]
    if unknown:
        close = difflib.get_close_matches(unknown[0], members, n=3) or sorted(members)
        raise DataError(f"`roi` {unknown[0]!r} is not in {path}; the closest names: {', '.join(close)}.")
    chosen = np.any([members[name] for name in config.roi], 0) if config.roi else np.ones(len(table), bool)
    order = np.flatnonzero(chosen)
    if not len(order):
        raise DataError(f"0 voxels selected: `roi` = {', '.join(config.roi)} is empty for this subject.")
    names = positions.join_names([np.where(inside[order], name, "") for name, inside in members.items()])
    mask = _brain_mask(config)
    if not mask.is_file() or "voxel_x" not in table:
        return order, names, order, {}
    where, mask_header = masks.read_mask(mask)
    places = table[["voxel_x", "voxel_y", "voxel_z"]].to_numpy(np.int64)[order]
    if np.any(places < 0) or np.any(places >= where.shape) or not where[tuple(places.T)].all():
        raise GeometryError(f"voxel_x, voxel_y, voxel_z of {path} are not in the brain mask {mask}.")
    voxel_ids = np.ravel_multi_index(tuple(places.T), where.shape)
    if np.any(np.diff(voxel_ids) <= 0):
        raise GeometryError(f"voxels of {path} must be in the order of the volume, x slowest, but are not.")
    return voxel_ids, names, order, {"indices": places, "volume": mask_header.volume}


def _brain_mask(config: ThingsConfig) -> Path:
    folder = Path(str(config.root)) / "brainmasks"
    return folder / f"sub-{_number(config)}_space-T1w_brainmask.nii.gz"


def _as_bids(config: ThingsConfig) -> BidsConfig:
    """Where the volumes are, in the words of BIDS derivatives."""
    if config.root is None:
        raise ConfigError('data: kind = "things" needs `root`, the folder that holds betas_csv (or betas_vol).')
    names = ("zscore", "on_missing", "index_base", "images", "max_pixels", "image_column")
    shared = {name: getattr(config, name) for name in names}
    return BidsConfig(root=str(Path(config.root) / "betas_vol"), subject=config.subject, suffix="betas", **shared)
