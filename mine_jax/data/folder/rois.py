"""Which voxels are read and in which areas they lie: a mask and a table or an atlas of areas enter."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mine_jax.data.containers import positions
from mine_jax.data.containers.series import SUFFIXES, Series
from mine_jax.data.tables import read_tsv, whole_numbers
from mine_jax.errors import AlignmentError, ConfigError, DataError
from mine_jax.types import Volume

_TABLES = (".tsv", ".txt")
# Labels that mean "in no area".
_NO_AREA = frozenset(("", "-1", "0", "unknown"))


def read_rois(path: str | Path, voxel_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads ROI memberships, one row each.

    Args:
        path: tab-separated: voxel_id, roi, and optionally i, j, k.
        voxel_ids: [V] int64.

    Returns:
        Pair of names [V] str, ";"-joined in the order of the file, and indices [V, 3] int, None unless
        every voxel has them.

    Raises:
        MissingInputError: if the file is not there.
        AlignmentError: for voxels that `responses` does not have.
        DataError: for a missing column, or a value that is no whole number.
    """
    table = read_tsv(path)
    missing = [name for name in ("voxel_id", "roi") if name not in table]
    if missing:
        raise DataError(f"{path} must have the columns voxel_id and roi, but lacks {', '.join(missing)}.")
    ids = whole_numbers(table["voxel_id"], path)
    position_of = {int(voxel): position for position, voxel in enumerate(voxel_ids)}
    unknown = [voxel for voxel in dict.fromkeys(ids.tolist()) if voxel not in position_of]
    if unknown:
        raise AlignmentError(
            f"{path} names {len(unknown)} voxels that are not in `responses`, first "
            f"{', '.join(map(str, unknown[:5]))}. Voxel ids are column numbers from 0, or C-order "
            "positions in the mask's volume."
        )
    positions = np.array([position_of[voxel] for voxel in ids.tolist()], np.int64)
    names: list[list[str]] = [[] for _ in voxel_ids]
    for position, roi in zip(positions, table["roi"].str.strip(), strict=True):
        if ";" in roi:
            raise DataError(f"a ROI of {path} is named {roi!r}; names must not hold ';'. Write one row per membership.")
        if roi.lower() not in _NO_AREA:
            names[position].append(roi)
    indices = None
    if {"i", "j", "k"} <= set(table) and len(set(positions.tolist())) == len(voxel_ids):
        indices = np.zeros((len(voxel_ids), 3), np.int64)
        indices[positions] = np.stack([whole_numbers(table[axis], path) for axis in "ijk"], 1)
    return np.array([";".join(dict.fromkeys(areas)) for areas in names], str), indices


def inputs(mask: str | None, rois: str | None, labels: str | None) -> list[Path]:
    """Names the files that `choose_voxels` reads, and the table that it would read beside an atlas."""
    beside = [] if rois is None or labels is not None else [positions.table_beside(rois)]
    named = [path for path in (mask, rois) if path is not None]
    files = [file for path in named for file in positions.hemispheres_of(path) or (Path(path),)]
    tables = [Path(path) for path in (labels, *beside) if path is not None]
    return [*files, *(path for path in tables if path not in files and (labels is not None or path.is_file()))]


def choose_voxels(
    mask: str | None, rois: str | None, labels: str | None, first: Series
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Chooses the voxels of a mask, of an atlas, or all columns or vertices, and names their areas.

    Args:
        mask: 0 and 1 in the space of the series.
        rois: a table of memberships, or an atlas in the space of the series.
        labels: names of the areas of an atlas.
        first: series of the first session.

    Returns:
        Voxel ids [V] int64, their areas [V] str, and indices [V, 3] where only a table of areas gives them, else None.

    Raises:
        ConfigError: if nothing says which voxels of a volume are meant.
        MineError: as the readers of masks, atlases and tables.
    """
    atlas = None
    if rois is not None and not rois.endswith(_TABLES):
        if not rois.endswith(SUFFIXES):
            raise ConfigError(
                f"data: `rois` must be a table of areas ({', '.join(_TABLES)}, divided by tabs) or an atlas "
                f"({', '.join(SUFFIXES)}), but is {rois}."
            )
        atlas = positions.read_atlas(rois, labels, first)
    if mask is not None:
        voxel_ids = positions.read_mask(mask, first)
    elif not isinstance(first.space, Volume):
        voxel_ids = np.arange(first.n_positions)
    elif atlas is not None:
        voxel_ids = np.flatnonzero(np.isin(atlas[0], list(atlas[1])))
    else:
        raise ConfigError("data: a series of volumes needs `mask`, a volume of 0 and 1, or an atlas as `rois`.")
    if atlas is not None:
        return voxel_ids, positions.area_names(atlas[0][voxel_ids], atlas[1]), None
    if rois is not None:
        return voxel_ids, *read_rois(rois, voxel_ids)
    return voxel_ids, np.full(len(voxel_ids), ""), None
