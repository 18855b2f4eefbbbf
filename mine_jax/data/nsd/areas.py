"""ROI volumes of the Natural Scenes Dataset: files enter; positions and names of voxels leave."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mine_jax.data import masks
from mine_jax.data.containers import positions, series
from mine_jax.data.nsd import layout
from mine_jax.errors import ConfigError, DataError, MissingInputError
from mine_jax.types import Surface, Volume


@dataclass(frozen=True)
class Areas:
    """ROI volumes of a subject.

    Attributes:
        space: their common space.
        codes: collection -> [all voxels or vertices] int, -1 outside cortex, 0 unlabelled, then labels.
        labels: collection -> code -> name.
    """

    space: Volume | Surface
    codes: dict[str, np.ndarray]
    labels: dict[str, dict[int, str]]


def read_areas(root: Path, *, subject: str, space: str) -> Areas:
    """Reads all ROI volumes of a subject (those of single hemispheres are left out).

    Raises:
        MissingInputError: if there are none.
        GeometryError: if they differ in shape or affine.
        ConfigError: for unknown spaces.
    """
    if not space.startswith("func"):
        known = ", ".join(("func1pt8mm", "func1mm", *layout.SURFACES))
        raise ConfigError(f"`space` must be one of {known}, but is {space!r}.")
    folder = layout.roi_folder(root, subject, space)
    files = sorted(f for f in folder.glob("*.nii.gz") if not f.name.startswith(("lh.", "rh.", ".")))
    if not files:
        raise MissingInputError(
            f"no ROI volumes at {folder}/*.nii.gz, for instance nsdgeneral.nii.gz. They are part of nsddata."
        )
    codes, labels, volume = {}, {}, None
    for file in files:
        name = file.name.removesuffix(".nii.gz")
        values, header = masks.read_labels(file)
        volume = volume or header.volume
        series.check_volumes(str(file), header.volume, reference=str(files[0]), expected=volume)
        codes[name] = values.reshape(-1)
        labels[name] = read_labels(layout.ctab_file(root, subject, name), name)
    assert volume is not None
    return Areas(volume, codes, labels)


def select_voxels(areas: Areas, roi: Sequence[str], ncsnr: np.ndarray | None) -> np.ndarray:
    """Finds the voxels of some areas.

    Args:
        areas: all ROI volumes.
        roi: collections, labels, or collection:label; empty for every voxel with data (a finite ncsnr, or
            cortex without that file).
        ncsnr: [X*Y*Z], or None.

    Returns:
        np.ndarray: [V] int64, positions in C order, ascending.

    Raises:
        DataError: for an unknown name, with the closest ones, for a label of several collections, or if nothing
            is selected.
    """
    chosen = np.zeros(len(next(iter(areas.codes.values()))), bool)
    if not roi:
        cortex = np.any([values >= 0 for values in areas.codes.values()], 0)
        chosen = cortex if ncsnr is None else np.isfinite(ncsnr)
    owners = _owners(areas)
    for name in roi:
        if name in areas.codes:
            chosen |= areas.codes[name] > 0
            continue
        collection, _, label = name.rpartition(":")
        found = [owner for owner in owners.get(label, ()) if collection in ("", owner)]
        if not found:
            known = [*areas.codes, *owners]
            close = difflib.get_close_matches(name, known, n=3) or sorted(known)
            raise DataError(f"`roi` {name!r} is not there; the closest names: {', '.join(close)}.")
        if len(found) > 1:
            raise DataError(
                f"`roi` {name!r} is a label of {len(found)} collections that need not agree. "
                f"Write {' or '.join(f'{owner}:{label}' for owner in found)}."
            )
        codes = [code for code, text in areas.labels[found[0]].items() if code > 0 and text == label]
        chosen |= np.isin(areas.codes[found[0]], codes)
    if not chosen.any():
        raise DataError(f"0 voxels selected: `roi` = {', '.join(roi) or 'all'} is empty for this subject.")
    return np.flatnonzero(chosen)


def area_names(areas: Areas, voxel_ids: np.ndarray) -> np.ndarray:
    """Names the areas of voxels; nsdgeneral is not an area.

    Args:
        areas: all ROI volumes.
        voxel_ids: [V] int.

    Returns:
        np.ndarray: [V] str, labels in all collections, ";"-joined. A label of several collections is written
        collection:label, but for that of a collection drawn in the subject (`layout.ROI_LABELS`).
    """
    owners = _owners(areas)
    names_of: list[list[str]] = [[] for _ in voxel_ids]
    for name in sorted(areas.codes):
        if name == "nsdgeneral":
            continue
        shown = {}
        for code, label in areas.labels[name].items():
            drawn = [owner for owner in owners.get(label, ()) if owner in layout.ROI_LABELS]
            is_plain = owners.get(label) == [name] or drawn == [name]
            shown[code] = label if is_plain else f"{name}:{label}"
        codes = areas.codes[name][voxel_ids]
        for position in np.flatnonzero(codes > 0):
            code = int(codes[position])
            names_of[position].append(shown.get(code, f"{name}-{code}"))
    return np.array([";".join(dict.fromkeys(names)) for names in names_of], str)


def _owners(areas: Areas) -> dict[str, list[str]]:
    """Label -> collections that have it."""
    owners: dict[str, list[str]] = {}
    for name in sorted(areas.codes):
        for label in dict.fromkeys(label for code, label in areas.labels[name].items() if code > 0):
            owners.setdefault(label, []).append(name)
    return owners


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
    series.check_volumes(str(path), header.volume, reference="the ROI files", expected=volume)
    if np.any(values < 0):
        raise DataError(
            f"{path} must hold no negative ratio, but its smallest is {np.nanmin(values):g}. Is it damaged?"
        )
    return values.reshape(-1).astype(np.float64)


def read_labels(path: Path, collection: str) -> dict[int, str]:
    """Names of the codes: the table of the data set, or NSD's published ones."""
    if not path.is_file():
        return dict(enumerate(layout.ALL_LABELS.get(collection, ()), start=1))
    return positions.read_label_table(path)
