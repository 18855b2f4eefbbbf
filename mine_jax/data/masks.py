"""Volumes on disk, masks and geometry: checked reads, no resampling, no silent zeros."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mine_jax.data.containers.volumes import Header, read_series
from mine_jax.errors import DataError, GeometryError

# A label that was stored with a scale factor is this close to a whole number.
LABEL_TOLERANCE = 1e-3


def read_volume(path: Path) -> tuple[np.ndarray, Header]:
    """Reads one NIfTI or MGH volume [X, Y, Z] in the units that its header declares.

    Raises:
        GeometryError: if it is a series; otherwise as `read_series`.
    """
    values, header = read_series(path)
    if len(header.shape) != 3:
        raise GeometryError(f"{path} must have axes X, Y, Z, but has shape {header.shape}.")
    return values[:, 0].reshape(header.shape), header


def read_mask(path: Path) -> tuple[np.ndarray, Header]:
    """Reads a mask volume of zeros and ones.

    Returns:
        Pair of mask [X, Y, Z] bool and the header.

    Raises:
        GeometryError: if it holds other values, nothing, or everything.
    """
    values, header = read_volume(path)
    return whole_mask(values, str(path)), header


def whole_mask(values: np.ndarray, source: str) -> np.ndarray:
    """Reads zeros and ones, which may be stored scaled, such as 0 and 255 times 1/255.

    Args:
        values: any shape.
        source: for messages.

    Returns:
        np.ndarray: bool, the same shape.

    Raises:
        GeometryError: if there are other values, only zeros, or only ones.
    """
    values, whole, is_whole = _rounded(values)
    levels = np.unique(np.where(is_whole, whole, values))
    if not np.isin(levels, (0, 1)).all():
        shown = ", ".join(f"{value:g}" for value in levels[:5])
        raise GeometryError(f"the mask {source} must hold only 0 and 1, but holds {shown}. Threshold it first.")
    if len(levels) < 2:
        what = "no voxel" if not levels[0] else "every voxel"
        raise GeometryError(f"the mask {source} selects {what}. Was the right file given?")
    return whole.astype(bool)


def read_labels(path: Path) -> tuple[np.ndarray, Header]:
    """Reads a volume of whole numbers, which may be stored with a scale factor.

    Args:
        path: NIfTI or MGH.

    Returns:
        Pair of labels [X, Y, Z] int64 and the header.

    Raises:
        DataError: with the value and the voxel of what is no label.
    """
    values, header = read_volume(path)
    return whole_labels(values, str(path)), header


def whole_labels(values: np.ndarray, source: str) -> np.ndarray:
    """Rounds labels that a scale factor moved a little from whole numbers.

    Args:
        values: any shape.
        source: for messages.

    Returns:
        np.ndarray: int64, the same shape.

    Raises:
        DataError: with the value and the place of what is no label.
    """
    values, whole, is_whole = _rounded(values)
    wrong = ~is_whole | ~(np.abs(whole) < 2.0**53)
    if wrong.any():
        place = tuple(int(n) for n in np.argwhere(wrong)[0])
        raise DataError(
            f"{source} must hold whole numbers (-1, 0, 1, ...), but holds {float(values[place]):g} at {place}. "
            "Is it a statistic map?"
        )
    return whole.astype(np.int64)


def _rounded(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns values as float64, the whole numbers next to them, and which of them are such but for rounding."""
    # numpy rounds integers of 8 bits to float16
    values = values.astype(np.float64)
    whole = np.rint(values)
    with np.errstate(invalid="ignore"):
        return values, whole, np.abs(values - whole) <= LABEL_TOLERANCE


def mask(volumes: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Takes the voxels of a mask, in C order.

    Args:
        volumes: [X, Y, Z] or [X, Y, Z, T].
        where: [X, Y, Z] bool.

    Returns:
        np.ndarray: [V], or [T, V] for a series.

    Raises:
        GeometryError: if the shapes differ or the mask is not boolean.
    """
    if where.dtype != bool or volumes.shape[:3] != where.shape:
        raise GeometryError(
            f"`where` must be a boolean volume of shape {volumes.shape[:3]}, but is {where.dtype} of {where.shape}."
        )
    return volumes[where].T


def unmask(values: np.ndarray, where: np.ndarray, *, fill: float = np.nan) -> np.ndarray:
    """Puts values back into a volume, the inverse of `mask`.

    Args:
        values: [V] or [T, V].
        where: [X, Y, Z] bool with V voxels.
        fill: value outside; NaN makes the result floating-point.

    Returns:
        np.ndarray: [X, Y, Z] or [X, Y, Z, T].

    Raises:
        GeometryError: if the number of voxels differs.
    """
    if where.dtype != bool or values.shape[-1] != int(where.sum()):
        raise GeometryError(
            f"`values` must have one column per voxel of `where` ({int(where.sum())}), but has shape {values.shape}."
        )
    dtype = np.result_type(values.dtype, np.float32) if np.isnan(fill) else values.dtype
    volumes = np.full(where.shape + values.shape[:-1], fill, dtype)
    volumes[where] = values.T
    return volumes
