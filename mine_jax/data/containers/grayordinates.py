"""Surfaces in GIFTI and CIFTI: files enter; rows of vertices, labels and masks leave."""

from __future__ import annotations

import gzip
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers import expat

import numpy as np

from mine_jax._progress import Progress
from mine_jax.errors import DataError, IntegrityError, MissingInputError
from mine_jax.types import Surface

_ROWS_AT_ONCE = 64
# Codes of GIFTI for arrays of positions and of triangles.
_POINTS, _TRIANGLES = 1008, 1009
# Names of GIFTI for types of numbers; how much is read at once until the first array; and at the end.
_GIFTI_TYPES = {"NIFTI_TYPE_UINT8": "u1", "NIFTI_TYPE_INT32": "i4", "NIFTI_TYPE_FLOAT32": "f4"}
_GIFTI_TYPES |= {"NIFTI_TYPE_INT8": "i1", "NIFTI_TYPE_INT16": "i2", "NIFTI_TYPE_UINT16": "u2"}
_GIFTI_TYPES |= {"NIFTI_TYPE_UINT32": "u4", "NIFTI_TYPE_INT64": "i8", "NIFTI_TYPE_FLOAT64": "f8"}
_HEADER_BYTES, _TAIL_BYTES = 1 << 16, 1 << 10
_CORTEX = ("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT")
# What nibabel raises for damaged XML and headers.
_DAMAGED = (ValueError, OSError, EOFError, KeyError, AttributeError, TypeError, SyntaxError, zlib.error)


@dataclass(frozen=True)
class Cifti:
    """The cortical vertices of a CIFTI file; its subcortical voxels are left out.

    Attributes:
        path: the file.
        n_rows: maps or time points.
        surface: all vertices of both hemispheres, also those without data.
        columns: [all vertices] int, column of each; -1 without data.
        values: [rows, columns], read from the file when it is sliced.
    """

    path: Path
    n_rows: int
    surface: Surface
    columns: np.ndarray
    values: Any

    def read(self, voxel_ids: np.ndarray, progress: Progress) -> np.ndarray:
        """Reads vertices [V, rows] float32, some rows at a time; NaN without data."""
        columns = self.columns[voxel_ids]
        chosen = np.full((len(voxel_ids), self.n_rows), np.nan, np.float32)
        there = np.flatnonzero(columns >= 0)
        try:
            for start in range(0, self.n_rows, _ROWS_AT_ONCE):
                stop = min(start + _ROWS_AT_ONCE, self.n_rows)
                block = np.asarray(self.values[start:stop])
                chosen[there, start:stop] = block[:, columns[there]].T
                progress(stop, self.n_rows)
        except _DAMAGED as error:
            raise IntegrityError(f"{self.path} is damaged or cut short ({error}). Copy it again.") from error
        return chosen


def open_cifti(path: Path) -> Cifti:
    """Opens a dense CIFTI file.

    Args:
        path: `.dscalar.nii`, `.dtseries.nii` or `.dlabel.nii`.

    Returns:
        Cifti: its cortical vertices.

    Raises:
        MissingInputError: if it is not there.
        IntegrityError: if it is no CIFTI file.
        DataError: if its columns are not dense, or hold no cortex.
    """
    import nibabel

    if not path.is_file():
        raise MissingInputError(f"no file at {path}.")
    try:
        image: Any = nibabel.load(path)
        axes = [image.header.get_axis(n) for n in range(len(image.shape))]
    except (*_DAMAGED, nibabel.filebasedimages.ImageFileError) as error:
        raise IntegrityError(f"{path} is not a readable CIFTI file ({error}). Copy it again.") from error
    if len(axes) != 2 or not isinstance(axes[1], nibabel.cifti2.BrainModelAxis):
        raise DataError(f"{path} must have axes [maps, grayordinates], but has shape {image.shape}.")
    models = axes[1]
    counts = [int(models.nvertices.get(name, 0)) for name in _CORTEX]
    if not sum(counts):
        raise DataError(f"{path} holds no cortical vertices.")
    columns = np.full(sum(counts), -1, np.int64)
    for name, offset in zip(_CORTEX, (0, counts[0]), strict=True):
        at = np.flatnonzero(models.name == name)
        columns[offset + models.vertex[at]] = at
    return Cifti(
        path, int(image.shape[0]), Surface(f"cifti{counts[0]}", (counts[0], counts[1])), columns, image.dataobj
    )


class GiftiHeader(NamedTuple):
    """How many maps of how many vertices a GIFTI file declares, and the type of its numbers."""

    n_rows: int
    n_vertices: int
    dtype: np.dtype


def read_gifti_header(path: Path) -> GiftiHeader:
    """Reads what a GIFTI file says of its maps before their values.

    Args:
        path: `.gii` or `.gii.gz`, whose maps are alike.

    Returns:
        GiftiHeader: numbers of maps and vertices.

    Raises:
        MissingInputError: if it is not there.
        IntegrityError: if it is damaged.
        DataError: if it declares nothing but coordinates.
    """
    if not path.is_file():
        raise MissingInputError(f"no file at {path}.")
    found: dict[str, Any] = {"passed": 0}

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "GIFTI":
            found["arrays"] = int(attributes["NumberOfDataArrays"])
        elif name == "DataArray" and "map" not in found:
            if attributes.get("Intent") in ("NIFTI_INTENT_POINTSET", "NIFTI_INTENT_TRIANGLE"):
                found["passed"] += 1
            else:
                found["map"] = attributes

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            while "map" not in found and (block := file.read(_HEADER_BYTES)):
                parser.Parse(block)
            if path.suffix != ".gz":
                file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
                if b"</GIFTI>" not in file.read():
                    raise ValueError("it is cut short")
        if "map" not in found:
            raise DataError(f"{path} must hold maps of one length, but holds none. Give a functional or label file.")
        first = found["map"]
        sizes = [int(first[f"Dim{axis}"]) for axis in range(int(first["Dimensionality"]))]
        dtype = np.dtype(_GIFTI_TYPES[first["DataType"]])
    except DataError:
        raise
    except (*_DAMAGED, expat.ExpatError) as error:
        raise IntegrityError(f"{path} is not a readable GIFTI file ({error}). Copy it again.") from error
    n_rows = (found.get("arrays", 1) - found["passed"]) * (sizes[1] if len(sizes) > 1 else 1)
    if len(sizes) not in (1, 2) or min(n_rows, *sizes) < 1:
        raise DataError(f"{path} must hold maps of one length, but declares {n_rows} of shape {sizes}.")
    return GiftiHeader(n_rows, sizes[0], dtype)


def read_gifti(path: Path) -> np.ndarray:
    """Reads the maps of a GIFTI file.

    Args:
        path: `.gii` or `.gii.gz`.

    Returns:
        np.ndarray: [maps, vertices].

    Raises:
        MissingInputError: if it is not there.
        IntegrityError: if it is damaged.
        DataError: if it holds coordinates, or maps of different length.
    """
    image = _gifti(path)
    arrays = [array.data for array in image.darrays if array.intent not in (_POINTS, _TRIANGLES)]
    if not arrays or len({array.shape[0] for array in arrays}) != 1:
        shapes = ", ".join(str(array.shape) for array in arrays[:5]) or "none but coordinates"
        raise DataError(f"{path} must hold maps of one length, but holds {shapes}. Give a functional or label file.")
    return np.concatenate([np.atleast_2d(array.T) for array in arrays])


def read_gifti_points(path: Path) -> np.ndarray:
    """Reads the positions of the vertices of a GIFTI surface.

    Args:
        path: `.surf.gii` or `.surf.gii.gz`.

    Returns:
        np.ndarray: [vertices, 3] float64, millimetres.

    Raises:
        MissingInputError: if it is not there.
        IntegrityError: if it is damaged.
        DataError: if it holds no positions, or several.
    """
    arrays = [array.data for array in _gifti(path).darrays if array.intent == _POINTS]
    if len(arrays) != 1 or arrays[0].ndim != 2 or arrays[0].shape[1] != 3:
        shapes = ", ".join(str(array.shape) for array in arrays) or "none"
        raise DataError(f"{path} must hold one array of positions [vertices, 3], but holds {shapes}.")
    return np.asarray(arrays[0], np.float64)


def read_gifti_labels(path: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Reads a label file of GIFTI.

    Args:
        path: `.label.gii`.

    Returns:
        Pair of codes [vertices] int64 and the name of each code.

    Raises:
        MineError: as `read_gifti`.
    """
    image = _gifti(path)
    names = {int(label.key): str(label.label) for label in image.labeltable.labels}
    return np.asarray(read_gifti(path)[0]).astype(np.int64), names


def read_cifti_labels(path: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Reads a `.dlabel.nii`.

    Args:
        path: the file.

    Returns:
        Pair of codes [vertices of both hemispheres] int64, 0 without data, and the name of each code.

    Raises:
        MineError: as `open_cifti`.
    """
    import nibabel

    cifti = open_cifti(path)
    image: Any = nibabel.load(path)
    codes = cifti.read(np.arange(len(cifti.columns)), lambda *_: None)[:, 0]
    table = image.header.get_axis(0).label[0]
    return np.nan_to_num(codes).astype(np.int64), {int(code): str(name) for code, (name, _) in table.items()}


def _gifti(path: Path) -> Any:
    import nibabel

    if not path.is_file():
        raise MissingInputError(f"no file at {path}.")
    try:
        if path.suffix == ".gz":
            with tempfile.NamedTemporaryFile(suffix=".gii") as file:
                file.write(gzip.decompress(path.read_bytes()))
                file.flush()
                return nibabel.load(file.name)
        return nibabel.load(path)
    except (*_DAMAGED, nibabel.filebasedimages.ImageFileError) as error:
        raise IntegrityError(f"{path} is not a readable GIFTI file ({error}). Copy it again.") from error
    except Exception as error:
        # The XML parser has errors of its own.
        if type(error).__module__.startswith(("xml.", "pyexpat")):
            raise IntegrityError(f"{path} is damaged or cut short ({error}). Copy it again.") from error
        raise
