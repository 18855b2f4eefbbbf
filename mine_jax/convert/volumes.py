"""Values of voxels to NIfTI volumes: float32, NaN outside the voxels, so that "outside" and "zero" stay apart."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from mine_jax import _checks, artifacts
from mine_jax.errors import DataError, GeometryError, MissingInputError
from mine_jax.types import CLAIMS, Responses, Volume


def write_field(value: Any, name: str, path: str | Path, like: Any) -> Path:
    """Writes numbers of voxels as a volume.

    Args:
        value: responses, scores or profiles of V voxels.
        name: of the field [V] wanted, such as "r2"; claims become 0 (none) to 5 (causal).
        path: ends in .nii or .nii.gz.
        like: the responses with the voxels' places, or a NIfTI image (or its path) of whose voxels, in C order,
            the voxel ids are positions.

    Returns:
        The path.

    Raises:
        DataError: if there is no such field, or the ending is another one.
        GeometryError: if there are no places, or voxels lie outside the volume.
        MissingInputError: if the image is not there.
    """
    path, array = Path(path), np.asarray(getattr(value, name, None))
    ids = np.asarray(value.voxel_ids)
    if name == "claims":
        array = np.array([CLAIMS.index(claim) for claim in array.tolist()])
    if array.shape != ids.shape or array.dtype.kind not in "biuf":
        raise DataError(f"{type(value).__name__} has no numbers [V] named {name!r} to draw.")
    if not path.name.endswith((".nii", ".nii.gz")):
        raise DataError(f"a volume must be named .nii or .nii.gz, but is named {path.name}.")
    volume, indices = _places(like, ids)
    return write_volume(path, as_float32(name, array), volume, indices)


def write_volume(path: Path, values: np.ndarray, volume: Volume, indices: np.ndarray) -> Path:
    """Writes values [V] float32 at their places [V, 3] of a volume, and returns the path."""
    import nibabel

    check_places(indices, tuple(volume.shape))
    filled = np.full(tuple(volume.shape), np.nan, np.float32)
    filled[tuple(indices.T)] = values
    image = nibabel.Nifti1Image(filled, np.asarray(volume.affine, np.float64))
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = path.name.split(".")[0][:79].encode("ascii", "replace")
    content = image.to_bytes()
    with artifacts.atomic(path) as temporary:
        # Without a time stamp, the same values give the same bytes.
        temporary.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def as_float32(name: str, array: np.ndarray) -> np.ndarray:
    """Returns numbers [V] as float32; a `DataError` names those that would not survive it."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"`{name}` must hold numbers, booleans or labels, but has dtype {array.dtype}.")
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if array.dtype.kind in "iu" and not np.array_equal(single.astype(array.dtype), array):
        raise DataError(f"`{name}` holds integers above 2**24, which float32 cannot keep. Map something smaller.")
    if np.any(np.isinf(single) & np.isfinite(array)):
        raise DataError(f"`{name}` holds values above the range of float32.")
    return single


def check_places(indices: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises a `GeometryError` unless voxels [V, 3] have places of their own in a volume."""
    _checks.check_shape("indices", indices, "V 3", **{"3": 3})
    outside = np.any((indices < 0) | (indices >= np.asarray(shape)), axis=1)
    if outside.any():
        raise GeometryError(
            f"{outside.sum()} voxels lie outside the volume of shape {shape}, the first at "
            f"{tuple(map(int, indices[outside][0]))}. Do mask and data come from the same space?"
        )
    n_places = len(np.unique(np.ravel_multi_index(tuple(indices.T), shape))) if len(indices) else 0
    if n_places != len(indices):
        raise GeometryError(f"{len(indices)} voxels share {n_places} places of the volume; each needs its own.")


def _places(like: Any, voxel_ids: np.ndarray) -> tuple[Volume, np.ndarray]:
    """Finds the space and the places [V, 3] of voxels."""
    if isinstance(like, Responses):
        if like.volume is None or like.indices is None:
            raise GeometryError("the responses know no volume; give `like` a NIfTI image of the voxels' space.")
        rows = np.searchsorted(like.voxel_ids, voxel_ids)
        if np.any(rows >= len(like.voxel_ids)) or np.any(like.voxel_ids[rows] != voxel_ids):
            raise GeometryError("`like` are responses of other voxels.")
        return like.volume, np.asarray(like.indices)[rows]
    if isinstance(like, str | Path):
        import nibabel

        if not Path(like).is_file():
            raise MissingInputError(f"no image at {like}.")
        like = nibabel.Nifti1Image.from_filename(like)
    if not hasattr(like, "affine"):
        raise GeometryError(f"{type(like).__name__} knows no places; give `like` the responses or a NIfTI image.")
    shape = tuple(like.shape[:3])
    if len(voxel_ids) and not 0 <= voxel_ids.min() <= voxel_ids.max() < np.prod(shape):
        raise GeometryError(f"voxel {voxel_ids.max()} lies outside the image of shape {shape}.")
    return Volume(shape, np.asarray(like.affine)), np.stack(np.unravel_index(voxel_ids, shape), 1)
