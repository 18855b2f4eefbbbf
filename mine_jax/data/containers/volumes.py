"""Volumes and series of NIfTI and FreeSurfer's MGH: a file and voxel positions enter, values leave.

Files are streamed to their last byte, one volume at a time, so the checksum of a gzip is always
verified; nibabel alone stops before it and can return damaged values.
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

MAX_BYTES = 64 << 30
_PIECE_BYTES = 64 << 20
# Largest difference of two affines that is rounding, millimetres.
AFFINE_TOLERANCE = 1e-4
MGH_SUFFIXES = (".mgh", ".mgz")
# Scan parameters, tags and colour tables behind the values of an MGH file.
MAX_FOOTER = 16 << 20


@dataclass(frozen=True)
class Header:
    """What a file says of itself: `shape` (3 or 4 axes), `affine`, `dtype` as stored, scaling, `offset` in bytes."""

    path: Path
    shape: tuple[int, ...]
    affine: np.ndarray
    dtype: np.dtype
    slope: float
    intercept: float
    offset: int

    @property
    def is_scaled(self) -> bool:
        """Whether stored numbers times `slope` plus `intercept` are the values."""
        return (self.slope, self.intercept) != (1.0, 0.0)

    @property
    def value_dtype(self) -> np.dtype:
        """In which values are given: as stored; scaled, float32 for integers of up to 16 bits, else float64."""
        stored = self.dtype.newbyteorder("=")
        if not self.is_scaled:
            return stored
        return np.dtype(np.float32 if stored.kind in "iu" and stored.itemsize <= 2 else np.float64)

    @property
    def is_mgh(self) -> bool:
        """Whether it is of FreeSurfer's format, which ends with the parameters of the scan."""
        return self.path.suffix in MGH_SUFFIXES

    @property
    def volume(self) -> Volume:
        """Space of the three spatial axes."""
        return Volume((self.shape[0], self.shape[1], self.shape[2]), self.affine)


def read_header(path: Path, *, max_bytes: int = MAX_BYTES) -> Header:
    """Reads the header of a NIfTI or MGH file.

    Raises:
        MissingInputError: if the file is not there.
        IntegrityError: if it is neither, or its header makes no sense.
        DataError: if it declares more than `max_bytes` bytes.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    if not path.is_file():
        raise MissingInputError(f"no file at {path}.")
    try:
        opener: Callable[..., Any] = gzip.open if path.suffix == ".mgz" else open
        if path.suffix in MGH_SUFFIXES:
            with opener(path, "rb") as file:
                found: Any = nibabel.freesurfer.MGHImage.header_class.from_fileobj(file)
            affine, offset, slope, intercept = found.get_affine(), found.get_data_offset(), 1.0, 0.0
            shape, dtype = found.get_data_shape(), found.get_data_dtype()
        else:
            image: Any = nibabel.load(path)
            shape, dtype, affine = image.shape, image.header.get_data_dtype(), image.affine
            offset = int(image.dataobj.offset)
            # nibabel resets the scaling in the header of a loaded image; its array proxy keeps what the file declares.
            slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
        shape = tuple(int(n) for n in shape)
    except (
        ImageFileError,
        HeaderDataError,
        AttributeError,
        OverflowError,
        MemoryError,
        ValueError,
        EOFError,
        OSError,
        zlib.error,
    ) as error:
        raise IntegrityError(f"{path} is not a readable NIfTI or MGH file ({error}). Copy it again.") from error
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    # Some tools put the volumes of a series on the fifth axis.
    if len(shape) == 5 and shape[3] == 1:
        shape = (*shape[:3], shape[4])
    shape = shape + (1,) * (3 - len(shape))
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise GeometryError(f"{path} must have axes X, Y, Z or X, Y, Z, T, but has shape {shape}.")
    if dtype.kind not in "iuf":
        raise DataError(f"{path} must hold real numbers, but holds {dtype}.")
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > max_bytes:
        raise DataError(f"{path} declares shape {shape} of {dtype}, more than `max_bytes` = {max_bytes}.")
    return Header(path, shape, np.asarray(affine, np.float64), dtype, slope, intercept, offset)


def read_series(
    path: Path, *, voxel_ids: np.ndarray | None = None, max_bytes: int = MAX_BYTES, progress: Progress = silent
) -> tuple[np.ndarray, Header]:
    """Reads a NIfTI or MGH volume or series to the last byte, keeping some voxels.

    Args:
        path: `.nii`, `.nii.gz`, `.mgh` or `.mgz`, [X, Y, Z] or [X, Y, Z, T].
        voxel_ids: [V] int, positions in C order. Default: all.
        max_bytes: refuse files that declare more.
        progress: called after each volume.

    Returns:
        Pair of values [V, T] in the units that the header declares, and the header; T = 1 for a volume.
        The file's dtype; with a scale factor float32 for integers of up to 16 bits, else float64.

    Raises:
        MissingInputError: if the file is not there.
        IntegrityError: if it is damaged, cut short or too long.
        DataError: if it declares more than `max_bytes` bytes.
    """
    header = read_header(path, max_bytes=max_bytes)
    n_voxels = int(np.prod(header.shape[:3]))
    n_volumes = header.shape[3] if len(header.shape) == 4 else 1
    # On disk the first axis runs fastest.
    at = None
    if voxel_ids is not None:
        places = np.unravel_index(np.asarray(voxel_ids), header.shape[:3])
        at = np.ravel_multi_index(places, header.shape[:3], order="F")
    values = np.empty((n_voxels if at is None else len(at), n_volumes), header.value_dtype)
    opener: Callable[..., Any] = gzip.open if path.suffix in (".gz", ".mgz") else open
    try:
        with opener(path, "rb") as file:
            _read_exactly(file, header.offset, path)
            for number in range(n_volumes):
                block = _read_exactly(file, n_voxels * header.dtype.itemsize, path)
                stored = np.frombuffer(block, header.dtype)
                chosen = stored.reshape(header.shape[:3], order="F").ravel() if at is None else stored[at]
                if header.is_scaled:
                    # float32 times a number of Python would stay float32
                    chosen = np.multiply(chosen, header.slope, dtype=np.float64) + header.intercept
                values[:, number] = chosen
                progress(number + 1, n_volumes)
            if len(file.read()) > (MAX_FOOTER if header.is_mgh else 0):
                raise IntegrityError(f"{path} holds more bytes than its header declares. Is the header damaged?")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise IntegrityError(f"{path} is damaged or cut short ({error}). Copy it again.") from error
    return values, header


def _read_exactly(file: Any, n_bytes: int, path: Path) -> bytes:
    """The next bytes of a stream, all of them or an error."""
    parts, missing = [], n_bytes
    while missing:
        # piece by piece: a header may declare far more than there is
        part = file.read(min(missing, _PIECE_BYTES))
        if not part:
            raise IntegrityError(f"{path} is cut short: {missing} of {n_bytes} bytes are missing. Copy it again.")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
