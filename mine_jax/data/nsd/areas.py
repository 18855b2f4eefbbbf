"""ROI volumes of the Natural Scenes Dataset: files enter; positions and names of voxels leave."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mine_jax.data import masks
from mine_jax.data.nsd import layout
from mine_jax.errors import ConfigError, DataError, MissingInputError
from mine_jax.types import Volume


@dataclass(frozen=True)
class Areas:
    """ROI volumes of a subject.

    Attributes:
        volume: their common space.
        codes: collection -> [X*Y*Z] int, -1 outside cortex, 0 unlabelled, then labels.
        labels: collection -> code -> name.
    """

    volume: Volume
    codes: dict[str, np.ndarray]
    labels: dict[str, dict[int, str]]


def read_areas(root: Path, *, subject: str, space: str) -> Areas:
    """Reads all ROI volumes of a subject (those of single hemispheres are left out).

    Raises:
        MissingInputError: if there are none.
        GeometryError: if they differ in shape or affine.
        ConfigError: for surface spaces.
    """
    if not space.startswith("func"):
        raise ConfigError(f'`space` must be a volume ("func1pt8mm" or "func1mm"), but is {space!r}.')
    folder = layout.roi_folder(root, subject, space)
    files = sorted(f for f in folder.glob("*.nii.gz") if not f.name.startswith(("lh.", "rh.", ".")))
    if not files:
        raise MissingInputError(
            f"no ROI volumes at {folder}/*.nii.gz, for instance nsdgeneral.nii.gz. They are part of nsddata."
        )
    codes, labels, volume = {}, {}, None
    for file in files:
        name = file.name.removesuffix(".nii.gz")
        values, header = masks.read_volume(file)
        volume = volume or header.volume
        masks.check_geometry(str(file), header.volume, reference=str(files[0]), expected=volume)
        if not np.isfinite(values).all() or np.any(values != np.rint(values)):
            raise DataError(f"{file} must hold whole numbers (-1, 0, 1, ...), but holds others. Is it a statistic map?")
        codes[name] = values.reshape(-1).astype(np.int64)
        labels[name] = _read_labels(layout.ctab_file(root, subject, name), name)
    assert volume is not None
    return Areas(volume, codes, labels)


def select_voxels(areas: Areas, roi: Sequence[str], ncsnr: np.ndarray | None) -> np.ndarray:
    """Finds the voxels of some areas.

    Args:
        areas: all ROI volumes.
        roi: collections or labels; empty for every voxel with data (a finite ncsnr, or cortex without that file).
        ncsnr: [X*Y*Z], or None.

    Returns:
        np.ndarray: [V] int64, positions in C order, ascending.

    Raises:
        DataError: for an unknown name, with the closest ones, or if nothing is selected.
    """
    chosen = np.zeros(int(np.prod(areas.volume.shape)), bool)
    if not roi:
        cortex = np.any([values >= 0 for values in areas.codes.values()], 0)
        chosen = cortex if ncsnr is None else np.isfinite(ncsnr)
    by_label = {label: (name, code) for name in areas.codes for code, label in areas.labels[name].items() if code > 0}
    for name in roi:
        if name in areas.codes:
            chosen |= areas.codes[name] > 0
        elif name in by_label:
            collection, code = by_label[name]
            chosen |= areas.codes[collection] == code
        else:
            known = [*areas.codes, *by_label]
            close = difflib.get_close_matches(name, known, n=3) or sorted(known)
            raise DataError(f"`roi` {name!r} is not there; the closest names: {', '.join(close)}.")
    if not chosen.any():
        raise DataError(f"0 voxels selected: `roi` = {', '.join(roi) or 'all'} is empty for this subject.")
    return np.flatnonzero(chosen)


def area_names(areas: Areas, voxel_ids: np.ndarray) -> np.ndarray:
    """Returns the labels [V] of each voxel in all collections, ";"-joined; nsdgeneral is not an area."""
    names_of: list[list[str]] = [[] for _ in voxel_ids]
    for name in sorted(areas.codes):
        if name == "nsdgeneral":
            continue
        codes = areas.codes[name][voxel_ids]
        for position in np.flatnonzero(codes > 0):
            code = int(codes[position])
            names_of[position].append(areas.labels[name].get(code, f"{name}-{code}"))
    return np.array([";".join(dict.fromkeys(names)) for names in names_of], str)


def read_ncsnr(folder: Path, volume: Volume) -> np.ndarray | None:
    """Reads `ncsnr.nii.gz` beside the betas: [X*Y*Z] float64 with NaN at invalid voxels, or None.

    Raises:
        GeometryError: if it belongs to another subject or space.
        DataError: if it holds negative values.
    """
    path = folder / "ncsnr.nii.gz"
    if not path.is_file():
        return None
    values, header = masks.read_volume(path)
    masks.check_geometry(str(path), header.volume, reference="the ROI files", expected=volume)
    if np.any(values < 0):
        raise DataError(
            f"{path} must hold no negative ratio, but its smallest is {np.nanmin(values):g}. Is it damaged?"
        )
    return values.reshape(-1).astype(np.float64)


def _read_labels(path: Path, collection: str) -> dict[int, str]:
    """Names of the codes: the table of the data set, or NSD's published ones."""
    if not path.is_file():
        return dict(enumerate(layout.ROI_LABELS.get(collection, ()), start=1))
    labels = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) < 2 or not parts[0].lstrip("-").isdecimal():
            raise DataError(f"line {number} of {path} must read `code name`, but is {line!r}.")
        labels[int(parts[0])] = parts[1]
    return labels
