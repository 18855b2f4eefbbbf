"""Do two encoders, fitted to different images, find the same profile?

The profiles come from refits on disjoint halves of the training images, so nothing that is particular to
one encoder, its images or their noise can make them agree.
"""

from __future__ import annotations

import numpy as np

from mine_jax.description import salience


def agreement(
    first: np.ndarray, second: np.ndarray, corpus: np.ndarray, *, common: np.ndarray | None = None
) -> np.ndarray:
    """Correlates the profiles of two halves, voxel by voxel.

    Args:
        first: [V, C] profiles as shares of words.
        second: [V, C], of the other half.
        corpus: [C] mean shares over a corpus.
        common: [C] what `common_profile` gives, partialled out; None for nothing.

    Returns:
        Pearson's r [V] of the saliences over words; NaN where a half has no words.
    """
    empty = (first.sum(1) == 0) | (second.sum(1) == 0)
    ours, theirs = (_unit(salience(half, corpus)) for half in (first, second))
    if common is not None:
        ours, theirs = (_unit(half - np.outer(half @ common, common)) for half in (ours, theirs))
    return np.where(empty, np.nan, (ours * theirs).sum(1))


def common_profile(halves: np.ndarray, corpus: np.ndarray) -> np.ndarray:
    """Finds the profile that decoys share: what an encoder of noise says.

    An encoder of noise spreads its attribution over whatever differs from the mean token. Two of them
    agree on that, and on nothing else.

    Args:
        halves: [2, M, C] profiles of both halves of decoys.
        corpus: [C] mean shares over a corpus.

    Returns:
        The leading direction of their saliences, [C] of length 1.
    """
    rows = _unit(salience(halves.reshape(-1, halves.shape[-1]), corpus))
    return np.linalg.eigh(rows.T @ rows)[1][:, -1]


def agreement_with_others(first: np.ndarray, second: np.ndarray, corpus: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Correlates one half of a voxel with the other halves of its area's voxels.

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
