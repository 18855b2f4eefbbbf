"""Volumes on disk, masks and geometry: checked reads, no resampling, no silent zeros.

NIfTI files are streamed to their last byte, so the checksum of a gzip is always verified;
nibabel alone stops before it and can return damaged values.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.errors import DataError, GeometryError, IntegrityError, MissingInputError
from mine_jax.types import Volume

# Largest difference of two affines that is rounding, millimetres.
AFFINE_TOLERANCE = 1e-4
MAX_BYTES = 64 << 30


@dataclass(frozen=True)
class Header:
    """What a NIfTI file says of itself: `shape` (3 or 4 axes), `affine`, `dtype`, scaling, `offset` in bytes."""

    path: Path
    shape: tuple[int, ...]
    affine: np.ndarray
    dtype: np.dtype
    slope: float
    intercept: float
    offset: int

    @property
    def volume(self) -> Volume:
        """Space of the three spatial axes."""
        return Volume((self.shape[0], self.shape[1], self.shape[2]), self.affine)


def read_header(path: Path, *, max_bytes: int = MAX_BYTES) -> Header:
    """Reads the header of a NIfTI file.

    Raises:
        MissingInputError: if the file is not there.
        IntegrityError: if it is not NIfTI, or its header makes no sense.
        DataError: if it declares more than `max_bytes` bytes.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    if not path.is_file():
        raise MissingInputError(f"no file at {path}.")
    try:
        image: Any = nibabel.load(path)
        header = image.header
        shape = tuple(int(n) for n in image.shape)
        slope, intercept = header.get_slope_inter()
        dtype, offset = header.get_data_dtype(), int(image.dataobj.offset)
    except (
        ImageFileError,
        HeaderDataError,
        OverflowError,
        MemoryError,
        ValueError,
        EOFError,
        OSError,
        zlib.error,
    ) as error:
        raise IntegrityError(f"{path} is not a readable NIfTI file ({error}). Copy it again.") from error
    if len(shape) == 4 and shape[3] == 1:
        shape = shape[:3]
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise GeometryError(f"{path} must have axes X, Y, Z or X, Y, Z, T, but has shape {shape}.")
    if dtype.kind not in "iuf":
        raise DataError(f"{path} must hold real numbers, but holds {dtype}.")
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > max_bytes:
        raise DataError(f"{path} declares shape {shape} of {dtype}, more than `max_bytes` = {max_bytes}.")
    affine = np.asarray(image.affine, np.float64)
    return Header(path, shape, affine, dtype, float(slope or 1.0), float(intercept or 0.0), offset)


def read_series(
    path: Path, *, voxel_ids: np.ndarray | None = None, max_bytes: int = MAX_BYTES, progress: Progress = silent
) -> tuple[np.ndarray, Header]:
    """Reads a NIfTI volume or series to the last byte, keeping some voxels.

    Args:
        path: `.nii` or `.nii.gz`, [X, Y, Z] or [X, Y, Z, T].
        voxel_ids: [V] int, positions in C order. Default: all.
        max_bytes: refuse files that declare more.
        progress: called after each volume.

    Returns:
        Pair of values [V, T] (T = 1 for a volume; the file's dtype, or float64 where it has a
        scale factor) and the header.

    Raises:
        MissingInputError: if the file is not there.
        IntegrityError: if it is damaged, cut short or too long.
        DataError: if it declares more than `max_bytes` bytes.
    """
    header = read_header(path, max_bytes=max_bytes)
    n_voxels = int(np.prod(header.shape[:3]))
    n_volumes = header.shape[3] if len(header.shape) == 4 else 1
    ids = np.arange(n_voxels) if voxel_ids is None else np.asarray(voxel_ids)
    # On disk the first axis runs fastest.
    at = np.ravel_multi_index(np.unravel_index(ids, header.shape[:3]), header.shape[:3], order="F")
    values = np.empty((len(ids), n_volumes), header.dtype.newbyteorder("="))
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            _read_exactly(file, header.offset, path)
            for number in range(n_volumes):
                block = _read_exactly(file, n_voxels * header.dtype.itemsize, path)
                values[:, number] = np.frombuffer(block, header.dtype)[at]
                progress(number + 1, n_volumes)
            if file.read(1):
                raise IntegrityError(f"{path} holds more bytes than its header declares. Is the header damaged?")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise IntegrityError(f"{path} is damaged or cut short ({error}). Copy it again.") from error
    if (header.slope, header.intercept) != (1.0, 0.0):
        values = values * header.slope + header.intercept
    return values, header


def read_volume(path: Path) -> tuple[np.ndarray, Header]:
    """Reads one NIfTI volume [X, Y, Z].

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
    levels = np.unique(values)
    if not np.isin(levels, (0, 1)).all():
        shown = ", ".join(f"{value:g}" for value in levels[:5])
        raise GeometryError(f"the mask {path} must hold only 0 and 1, but holds {shown}. Threshold it first.")
    if len(levels) < 2:
        what = "no voxel" if not levels[0] else "every voxel"
        raise GeometryError(f"the mask {path} selects {what}. Was the right file given?")
    return values.astype(bool), header


def check_geometry(name: str, found: Volume, *, reference: str, expected: Volume) -> None:
    """Checks that two volumes have one shape and one affine.

    Raises:
        GeometryError: with both shapes or both affines.
    """
    if found.shape != expected.shape:
        raise GeometryError(
            f"{name} has shape {found.shape}, but {reference} has {expected.shape}. Nothing is resampled or "
            "transposed here: give files of one space, with axes in one order."
        )
    if not np.allclose(found.affine, expected.affine, rtol=0, atol=AFFINE_TOLERANCE):
        raise GeometryError(
            f"{name} has the affine\n{found.affine}\nbut {reference} has\n{expected.affine}\n"
            "Nothing is resampled here: give files of one space."
        )


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


def _read_exactly(file: Any, n_bytes: int, path: Path) -> bytes:
    """The next bytes of a stream, all of them or an error."""
    parts, missing = [], n_bytes
    while missing:
        part = file.read(missing)
        if not part:
            raise IntegrityError(f"{path} is cut short: {missing} of {n_bytes} bytes are missing. Copy it again.")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
