"""Stability of a word table over the images it was made from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax.description import salience
from mine_jax.statistics import pearson


class Halves(NamedTuple):
    """Word tables [2, C] of two random halves of the images, and how well such halves agree."""

    tables: np.ndarray
    correlation: float


def split_half(tables: np.ndarray, corpus: np.ndarray, *, rng: np.random.Generator, n_splits: int = 10) -> Halves:
    """Splits the images in two random halves and correlates their word tables.

    Args:
        tables: [n, C] shares per image.
        corpus: [C] mean shares over a corpus.
        rng: source of the splits.
        n_splits: splits averaged for the correlation.

    Returns:
        The two half tables [2, C] of the first split, and the mean Pearson correlation of
        the halves' saliences; NaN for fewer than two images.
    """
    if len(tables) < 2:
        return Halves(np.zeros((2, tables.shape[1]), np.float32), np.nan)
    halves, correlations = [], []
    for _ in range(n_splits):
        order = rng.permutation(len(tables))
        half = np.stack([tables[order[::2]].mean(0), tables[order[1::2]].mean(0)])
        halves.append(half)
        correlations.append(pearson(*salience(half, corpus)))
    # a half without words agrees with nothing
    return Halves(halves[0].astype(np.float32), float(np.nan_to_num(correlations).mean()))
