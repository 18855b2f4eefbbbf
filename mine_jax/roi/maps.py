"""Values of voxels to maps in the space of the data, NIfTI volumes or GIFTI and MGH surfaces, and back.

Every map is float32 with NaN outside the voxels, so that "outside" and "zero" stay apart.
Text labels are written as numbers, with a table `<name>.tsv` that says what they mean.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mine_jax import _checks, artifacts
from mine_jax.convert.volumes import as_float32, check_places, write_volume
from mine_jax.errors import DataError, IntegrityError, MissingInputError
from mine_jax.types import Responses, Surface

NO_LABEL = "none"
# Label volumes above this many voxels are refused before they are unpacked.
MAX_VOXELS = 1 << 27


def write_maps(directory: str | Path, responses_like: Responses, values: Mapping[str, Any]) -> list[Path]:
    """Writes one map per set of voxel values, in the space of the data.

    Args:
        directory: folder of the maps; made if needed.
        responses_like: gives `indices` [V, 3] and `volume` (shape and affine in millimetres), or `voxel_ids` and
            `surface`.
        values: name -> [V] numbers, booleans or text labels. Labels become 1, 2, ... in
            alphabetical order ("" becomes 0), with a legend `<name>.tsv`.

    Returns:
        Paths of the maps: `<name>.nii.gz`, or `lh.<name>.func.gii`, `lh.<name>.mgh` and those of the right
        hemisphere; none when the data have no geometry.

    Raises:
        DataError: if a name is no plain file name, a length is not V, or a number does
            not fit float32.
        GeometryError: if voxels lie outside the volume or twice at one place.
    """
    directory = Path(directory)
    surface, volume = responses_like.surface, responses_like.volume
    indices = None if responses_like.indices is None else np.asarray(responses_like.indices)
    if volume is not None and indices is not None:
        check_places(indices, tuple(volume.shape))
    elif surface is None:
        return []
    n_voxels, paths = len(responses_like.voxel_ids), []
    for name, value in values.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise DataError(f"a map must be named with letters, digits, _ or -, but is named {name!r}.")
        array = np.asarray(value)
        _checks.check_shape(name, array, "V", hint="One value per voxel is needed.", V=n_voxels)
        legend = None
        if array.dtype.kind in "OUS":
            array, legend = _coded(array.astype(str))
        singles = as_float32(name, array)
        if surface is not None:
            paths += _write_surfaces(directory, name, singles, surface, responses_like.voxel_ids)
        elif volume is not None and indices is not None:
            paths.append(write_volume(directory / f"{name}.nii.gz", singles, volume, indices))
        _write_legend(directory / f"{name}.tsv", legend)
    return paths


def read_map(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a volume written by `write_maps`.

    Args:
        path: a `.nii.gz` or `.nii` file.

    Returns:
        Values [x, y, z] float32, NaN outside, and the affine [4, 4] to millimetres.

    Raises:
        MissingInputError: if the file is not there.
        IntegrityError: if it is not a readable volume of three axes.
    """
    import nibabel

    if not path.is_file():
        raise MissingInputError(f"no map at {path}.")
    try:
        image = nibabel.Nifti1Image.from_filename(path)
        if len(image.shape) != 3 or np.prod(image.shape, dtype=float) > MAX_VOXELS:
            raise IntegrityError(f"{path} must hold one volume of three axes, but has shape {image.shape}.")
        return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine)
    except IntegrityError:
        raise
    except (
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
        nibabel.wrapstruct.WrapStructError,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        raise IntegrityError(f"{path} is not a readable NIfTI volume ({error}). Run the stage `roi` again.") from error


def read_legend(path: Path) -> dict[int, str]:
    """Reads what the numbers of a label map mean.

    Args:
        path: the volume, `<name>.nii.gz`; its legend lies beside it.

    Returns:
        Number -> label; empty for a map of plain values.
    """
    legend = path.with_name(path.name.split(".")[0] + ".tsv")
    if not legend.is_file():
        return {}
    table = artifacts.read_table(legend, label=str)
    return {int(value): str(label) for value, label in zip(table["value"], table["label"], strict=True)}


def _coded(labels: np.ndarray) -> tuple[np.ndarray, pd.DataFrame]:
    """Turns labels [V] into numbers [V] and a legend."""
    names = sorted(set(labels) - {"", NO_LABEL})
    codes = {"": 0, NO_LABEL: 0, **{name: code for code, name in enumerate(names, start=1)}}
    legend = pd.DataFrame({"value": range(len(names) + 1), "label": [NO_LABEL, *names]})
    return np.array([codes[label] for label in labels], dtype=np.float32), legend


def _write_surfaces(
    directory: Path, name: str, values: np.ndarray, surface: Surface, voxel_ids: np.ndarray
) -> list[Path]:
    """Writes values [V] of vertices as GIFTI and MGH, each hemisphere with NaN where there is none."""
    import nibabel

    whole = np.full(sum(surface.n_vertices), np.nan, np.float32)
    whole[np.asarray(voxel_ids)] = values
    structures = {"lh": "CortexLeft", "rh": "CortexRight"}
    paths = []
    for hemi, part in zip(structures, np.split(whole, [surface.n_vertices[0]]), strict=True):
        if not len(part):
            continue
        meta = nibabel.gifti.GiftiMetaData(AnatomicalStructurePrimary=structures[hemi], Name=name)
        array = nibabel.gifti.GiftiDataArray(part, intent="NIFTI_INTENT_NONE", datatype="NIFTI_TYPE_FLOAT32", meta=meta)
        images = {
            ".func.gii": nibabel.gifti.GiftiImage(darrays=[array], meta=meta),
            ".mgh": nibabel.MGHImage(part[:, None, None], np.eye(4)),
        }
        for suffix, image in images.items():
            path = directory / f"{hemi}.{name}{suffix}"
            with artifacts.atomic(path) as temporary:
                temporary.write_bytes(image.to_bytes())
            paths.append(path)
    return paths


def _write_legend(path: Path, legend: pd.DataFrame | None) -> None:
    if legend is None:
        path.unlink(missing_ok=True)
    else:
        artifacts.write_table(path, legend)
