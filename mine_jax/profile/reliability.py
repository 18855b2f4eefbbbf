"""Do two encoders, fitted to different images, find the same profile?

The profiles come from refits on disjoint halves of the training images, so nothing that is particular to
one encoder, its images or their noise can make them agree.
"""

from __future__ import annotations

import numpy as np

from mine_jax.description import salience
from mine_jax.statistics import pearson


def agreement(first: np.ndarray, second: np.ndarray, corpus: np.ndarray) -> np.ndarray:
    """Correlates the profiles of two halves, voxel by voxel.

    Args:
        first: [V, C] profiles as shares of words.
        second: [V, C], of the other half.
        corpus: [C] mean shares over a corpus.

    Returns:
        Pearson's r [V] of the saliences over words; NaN where a half has no words.
    """
    empty = (first.sum(1) == 0) | (second.sum(1) == 0)
    r = pearson(salience(first, corpus).T, salience(second, corpus).T)
    return np.where(empty, np.nan, r)


def agreement_with_others(first: np.ndarray, second: np.ndarray, corpus: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Correlates each voxel's first half with the second half of the other voxels of its area.

    Args:
        first: [V, C] profiles as shares of words.
        second: [V, C], of the other half.
        corpus: [C] mean shares over a corpus.
        areas: [V] str.

    Returns:
        Mean r [V] over the other voxels of the area; NaN without any.
    """
    out = np.full(len(first), np.nan)
    for area in np.unique(areas):
        inside = np.flatnonzero(areas == area)
        if len(inside) < 2:
            continue
        own, other = (_unit(salience(half[inside], corpus)) for half in (first, second))
        # sums of unit vectors give means of correlations without all pairs
        to_all = own @ other.sum(0)
        out[inside] = (to_all - (own * other).sum(1)) / (len(inside) - 1)
    return out


def _unit(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(1, keepdims=True, dtype=np.float64)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.where(norm > 0, norm, 1)
