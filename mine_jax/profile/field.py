"""Where in the image each voxel looks: centre and size of its attribution on the token grid.

A map of absolute attribution follows what is shown as well as where the voxel looks. What all voxels share
(things stand where photographers put them) is taken out by the mean map over voxels: the field is what a
voxel has above it. A voxel without a place of its own has maps that could lie anywhere, so under the null the
map of each image is moved around the grid at random, which keeps what is shown in one piece. An encoder of
noise has a place too, which is its own invention: with refits on two halves of the images, the maps of both
must also agree more than those of decoys.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.statistics import false_discovery_rate, pearson, permutation_p, rank_p
from mine_jax.types import CriticalTokens

# Spatial frequencies (down, across) whose power says that the maps of a voxel agree on a place: half of a pair each.
_FREQUENCIES = ((0, 1), (1, 0), (1, 1), (1, -1))
_BLOCK = 256


class Field(NamedTuple):
    """Fields of V voxels, as fractions of the image from its left and upper side; NaN where nothing was attributed.

    Attributes:
        x: [V] centre.
        y: [V].
        size: [V] standard deviation around the centre, mean of both directions.
        agreement: [V] correlation over tokens of the fields of two refits; NaN without.
        p: [V], whether the maps of its images agree on a place, and those of two refits: the larger p.
        q: [V], Benjamini-Hochberg.
    """

    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    agreement: np.ndarray
    p: np.ndarray
    q: np.ndarray


def field(
    heat: np.ndarray,
    grid: tuple[int, int],
    *,
    halves: np.ndarray | None = None,
    decoys: np.ndarray | None = None,
    n_permutations: int = 1000,
    seed: int = 0,
    progress: Progress = silent,
) -> Field:
    """Finds the field of each voxel.

    Args:
        heat: attributions [V, I, P] of image-tokens, row-major on the grid; may be memory-mapped.
        grid: rows and columns.
        halves: maps [2, V, P] of two refits, see `critical_maps`; None for none.
        decoys: the same of decoys, [2, M, P].
        n_permutations: random moves of the maps.
        seed: of the moves.
        progress: called with (done, total) voxels.

    Returns:
        The fields.
    """
    n_voxels, n_images, n_tokens = heat.shape
    maps = np.zeros((n_voxels, n_tokens))
    for start in range(0, n_voxels, _BLOCK):
        maps[start : start + _BLOCK] = _shares(heat[start : start + _BLOCK]).mean(1)
    known = maps.sum(1) > 0
    common = maps[known].mean(0) if known.any() else np.ones(n_tokens)
    rng = np.random.default_rng(seed)
    moves = rng.integers(0, grid, (n_permutations, n_images, 2)) / np.array(grid)
    exceeding = np.zeros(n_voxels)
    for start in range(0, n_voxels, _BLOCK):
        voxels = slice(start, min(start + _BLOCK, n_voxels))
        # where all voxels look often, a map must stand out from more
        relative = _shares(heat[voxels]) / np.where(common > 0, common, 1)
        exceeding[voxels] = _exceeding(relative.reshape(-1, n_images, *grid), moves)
        progress(voxels.stop, n_voxels)
    p = np.where(known, permutation_p(exceeding, n_permutations), np.nan)
    agreement = np.full(n_voxels, np.nan)
    if halves is not None and decoys is not None:
        usual = halves.mean(1, keepdims=True)
        agreement = pearson(*(half.T for half in halves - usual))
        of_decoys = pearson(*(half.T for half in decoys - usual))
        agrees = np.where(np.isfinite(agreement), rank_p(agreement, of_decoys), 1.0)
        p = np.maximum(p, agrees)
    x, y, size = (np.where(known, part, np.nan) for part in _moments(maps, common, grid))
    return Field(x, y, size, agreement, p, false_discovery_rate(p))


def critical_maps(critical: CriticalTokens, n_tokens: int) -> np.ndarray:
    """Makes maps of critical tokens alone, for encoders whose other scores were not kept.

    Args:
        critical: K tokens of V x I pairs.
        n_tokens: P.

    Returns:
        Mean share [V, P] of the positive scores of each image.
    """
    scores = np.maximum(np.asarray(critical.scores, np.float64), 0)
    total = scores.sum(-1, keepdims=True)
    scores = scores / np.where(total > 0, total, 1)
    maps = np.zeros((len(scores), n_tokens))
    np.add.at(maps, (np.arange(len(scores))[:, None, None], np.asarray(critical.indices)), scores)
    return maps / max(1, scores.shape[1])


def _shares(heat: np.ndarray) -> np.ndarray:
    """Absolute attributions as shares of each image's, [v, I, P] float64."""
    size = np.abs(np.asarray(heat, np.float64))
    total = size.sum(-1, keepdims=True)
    return size / np.where(total > 0, total, 1)


def _moments(maps: np.ndarray, common: np.ndarray, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre and deviation [V] of what maps [V, P] have above the common one."""
    above = np.maximum(maps - common, 0)
    # a voxel that is alone has nothing above itself
    above = np.where(above.sum(1, keepdims=True) > 1e-9, above, maps)
    weights = above / np.maximum(above.sum(1, keepdims=True), 1e-300)
    row, column = np.divmod(np.arange(maps.shape[1]), grid[1])
    across, down = (column + 0.5) / grid[1], (row + 0.5) / grid[0]
    x, y = weights @ across, weights @ down
    variance = (weights @ across**2 - x**2 + weights @ down**2 - y**2) / 2
    return x, y, np.sqrt(np.maximum(variance, 0))


def _exceeding(maps: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """How many moves [n, I, 2] of maps [v, I, rows, columns] give their mean as much power as it has, [v]."""
    spectrum = np.fft.fft2(maps)
    observed, drawn = np.zeros(len(maps)), np.zeros((len(maps), len(moves)))
    for down, across in _FREQUENCIES:
        part = spectrum[:, :, down, across]
        observed += np.abs(part.sum(1)) ** 2
        # a map that is moved keeps its spectrum but for the phase
        phase = np.exp(-2j * np.pi * (moves @ np.array([down, across])))
        drawn += np.abs(part @ phase.T) ** 2
    return (drawn >= observed[:, None] * (1 - 1e-9)).sum(1)
