"""The areas of the simulated cortex: what each prefers, and where it lies on a folded sheet.

Some areas are there so that nothing should be found: V1 sees no words, the smooth controls prefer what
their place on the sheet says and not what their border says, and one area shares a category and no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mine_jax.errors import DataError

# Shares of the kinds of voxels in an area that prefers categories of things.
_KINDS = {"concept": 0.53, "pair": 0.15, "category": 0.07, "attribute": 0.12, "conjunction": 0.065, "suppressed": 0.065}
_PLACE_KINDS = {"place": 0.42, "concept": 0.12, "pair": 0.14, "category": 0.1, "attribute": 0.1}
_PLACE_KINDS |= {"conjunction": 0.06, "suppressed": 0.06}


@dataclass(frozen=True)
class Area:
    """What is planted in one area.

    Attributes:
        n_voxels: voxels at the default size.
        categories: preferred ones; none for a control area.
        kinds: kind of voxel -> its share.
        n_patches: contiguous patches with a fine preference each; 0 where fine preferences are shuffled.
    """

    n_voxels: int
    categories: tuple[str, ...] = ()
    kinds: dict[str, float] = field(default_factory=dict)
    n_patches: int = 0


# In the order in which they tile the sheet; "" is cortex without a label.
AREAS: dict[str, Area] = {
    "V1v": Area(30, kinds={"lowlevel": 1.0}),
    "V1d": Area(30, kinds={"lowlevel": 1.0}),
    "OFA": Area(45, ("face",), _KINDS),
    "FFA-1": Area(45, ("face",), _KINDS, n_patches=3),
    "FFA-2": Area(45, ("face",), _KINDS),
    "EBA": Area(45, ("body",), _KINDS, n_patches=3),
    "VWFA-1": Area(45, ("word",), {"category": 1.0}),
    "food": Area(45, ("food",), _KINDS, n_patches=3),
    "PPA": Area(45, ("place", "building"), _PLACE_KINDS),
    "OPA": Area(45, ("place", "building"), _PLACE_KINDS),
    "control-1": Area(30, kinds={"smooth": 1.0}),
    "control-2": Area(30, kinds={"smooth": 1.0}),
    "": Area(95),
}
# Areas that should prefer no category, that hold patches, and that hold neither patches nor fine preferences.
CONTROLS = tuple(name for name, area in AREAS.items() if name and not area.categories)
STRUCTURED = tuple(name for name, area in AREAS.items() if area.n_patches)
UNSTRUCTURED = ("V1v", "V1d", "VWFA-1")


def fold(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Folds a sheet into a volume.

    Args:
        rng: phase of the fold.
        shape: size of the volume.

    Returns:
        Positions [C] int64 of the voxels within one voxel of a wavy sheet.
    """
    x, y, z = np.indices(shape)
    phase = rng.uniform(0, 1, 2)
    # The slope stays below one voxel per voxel, so the sheet has no holes.
    height = min(0.3 * shape[2], 0.13 * min(shape[:2]))
    wave = np.sin(2 * np.pi * (x / shape[0] + phase[0])) * np.cos(2 * np.pi * (0.8 * y / shape[1] + phase[1]))
    return np.flatnonzero(np.abs(z - (shape[2] - 1) / 2 - height * wave) < 1.0).astype(np.int64)


def tile(sheet: np.ndarray, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Gives each area a contiguous patch of the sheet's middle.

    Args:
        sheet: positions [C] of the cortex.
        shape: size of the volume.

    Returns:
        Positions [V] ascending, and the area [V] of each.

    Raises:
        DataError: if the volume is too small for three voxels per area.
    """
    wanted = {name: area.n_voxels for name, area in AREAS.items()}
    # At least a fifth of the cortex stays outside, as unlabelled cortex does in a brain.
    share = min(1.0, 0.8 * len(sheet) / sum(wanted.values()))
    counts = {name: int(count * share) for name, count in wanted.items()}
    if min(counts.values()) < 3:
        raise DataError(
            f"`shape` {shape} holds {len(sheet)} cortex voxels, too few for {len(AREAS)} areas of three. "
            "Choose a larger one, for instance 16, 16, 12."
        )
    x, y, _ = np.unravel_index(sheet, shape)
    distance = np.maximum(np.abs(x / (shape[0] - 1) - 0.5), np.abs(y / (shape[1] - 1) - 0.5))
    inside = sheet[np.argsort(distance, kind="stable")[: sum(counts.values())]]
    area = dict(bisect(np.sort(inside), list(counts.items()), shape))
    voxel_ids = np.sort(inside)
    return voxel_ids, np.array([area[int(voxel)] for voxel in voxel_ids], object)


def patches(voxel_ids: np.ndarray, n: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Divides the voxels of an area into contiguous patches of about the same size.

    Args:
        voxel_ids: positions [v] in the volume.
        n: number of patches.
        shape: size of the volume.

    Returns:
        Patch [v] int, from 0.
    """
    counts = [(str(i), len(part)) for i, part in enumerate(np.array_split(np.arange(len(voxel_ids)), n))]
    of = dict(bisect(np.sort(voxel_ids), counts, shape))
    return np.array([int(of[int(voxel)]) for voxel in voxel_ids])


def bisect(ids: np.ndarray, counts: list[tuple[str, int]], shape: tuple[int, int, int]) -> list[tuple[int, str]]:
    """Cuts a patch along its longer side until each part is one area.

    Args:
        ids: positions [v], ascending.
        counts: names and sizes of the parts.
        shape: size of the volume.

    Returns:
        Position and name of every voxel.
    """
    if len(counts) == 1:
        return [(int(voxel), counts[0][0]) for voxel in ids]
    totals = np.cumsum([count for _, count in counts])
    cut = int(np.argmin(np.abs(totals[:-1] - totals[-1] / 2))) + 1
    x, y, z = np.unravel_index(ids, shape)
    order = np.lexsort((z, y, x) if np.ptp(x) >= np.ptp(y) else (z, x, y))
    first, second = ids[order[: totals[cut - 1]]], ids[order[totals[cut - 1] :]]
    return bisect(first, counts[:cut], shape) + bisect(second, counts[cut:], shape)
