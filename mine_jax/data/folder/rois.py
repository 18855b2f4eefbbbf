"""Areas of one's own voxels: a table of memberships enters, names and places of voxels leave."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mine_jax.data.tables import read_tsv, whole_numbers
from mine_jax.errors import AlignmentError, DataError

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
