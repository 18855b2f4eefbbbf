"""Where in the image each voxel looks: centre and size of its attribution on the token grid.

A map of absolute attribution follows what is shown as well as where the voxel looks. What all voxels share
(things stand where photographers put them) is taken out by the mean map over voxels: the field is what a
voxel has above it. A voxel without a place of its own has maps that could lie anywhere, so under the null the
map of each image is moved around the grid at random, which keeps what is shown in one piece. An encoder of
noise has a place too, which is its own invention: so words inside the field must predict measured responses to
held-out images beyond the same words anywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.description import TokenWords, salience
from mine_jax.statistics import column_permutation_p, permutation_p, without

# Spatial frequencies (down, across) whose power says that the maps of a voxel agree on a place: half of a pair each.
_FREQUENCIES = ((0, 1), (1, 0), (1, 1), (1, -1))
_BLOCK = 256


class Field(NamedTuple):
    """Fields of V voxels, as fractions of the image from its left and upper side; NaN where nothing was attributed.

    Attributes:
        x: [V] centre.
        y: [V].
        size: [V] standard deviation around the centre, mean of both directions.
        maps: [V, P] mean share of each image-token in the absolute attribution.
        p: [V], whether the maps of its images agree on a place.
    """

    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    maps: np.ndarray
    p: np.ndarray


class FieldTest(NamedTuple):
    """Results [V]: partial r of the words inside the field, given the words anywhere, and its p; NaN if untested."""

    r: np.ndarray
    p: np.ndarray


def field(
    heat: np.ndarray, grid: tuple[int, int], *, n_permutations: int = 1000, seed: int = 0, progress: Progress = silent
) -> Field:
    """Finds the field of each voxel.

    Args:
        heat: attributions [V, I, P] of image-tokens, row-major on the grid; may be memory-mapped.
        grid: rows and columns.
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
    x, y, size = (np.where(known, part, np.nan) for part in _moments(maps, common, grid))
    return Field(x, y, size, maps, p)


def field_test(
    maps: np.ndarray,
    distribution: np.ndarray,
    corpus: np.ndarray,
    token_words: TokenWords,
    measured: np.ndarray,
    *,
    n_permutations: int = 1000,
    seed: int = 0,
    progress: Progress = silent,
) -> FieldTest:
    """Tests whether words inside its field move a voxel more than words elsewhere.

    Args:
        maps: [V, P] of `field`.
        distribution: [V, C] profiles as shares.
        corpus: [C] mean shares over a corpus.
        token_words: words of the image-tokens of T held-out images.
        measured: [T, V] measured responses, z-scored beta.
        n_permutations: exchanges of images.
        seed: of the exchanges.
        progress: called with (done, total) voxels.

    Returns:
        The test, one-sided.
    """
    n_images, n_voxels = measured.shape
    own = np.maximum(salience(distribution, corpus), 0)
    # position -1 is of dropped entries
    own = np.concatenate([own, np.zeros((n_voxels, 1))], 1)
    shares = token_words.shares if token_words.mask is None else token_words.shares * token_words.mask[..., None]
    inside, anywhere = np.zeros((2, n_images, n_voxels))
    for v in range(n_voxels):
        of_tokens = np.einsum("tpm,tpm->tp", own[v][token_words.word_ids], shares)
        inside[:, v], anywhere[:, v] = of_tokens @ maps[v], of_tokens.mean(1)
        progress(v + 1, n_voxels)
    left, response = (without(one, anywhere[..., None]) for one in (inside, measured))
    p = column_permutation_p(left, response, n_permutations=n_permutations, seed=seed)
    return FieldTest((left * response).mean(0), p)


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
