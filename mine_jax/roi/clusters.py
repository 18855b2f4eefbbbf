"""Clusters of voxels that predict themselves: found in one half of the images, sought in the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mine_jax.statistics import permutation_p

MAX_CLUSTERS = 8


class Clusters(NamedTuple):
    """Number of clusters (1 for none), how well they agree over halves, p of that, and labels [n] from 1."""

    n: int
    stability: float
    p: float
    labels: np.ndarray


def clusters(
    within: Sequence[np.ndarray], between: np.ndarray, *, max_p: float, n_permutations: int, seed: int
) -> Clusters:
    """Finds how many clusters of one half predict the other.

    Args:
        within: products [n, n] of unit vectors of n voxels, from one half of the images and from the other.
        between: [n, n] of vectors of the first half and of the second.
        max_p: above this there is one cluster.
        n_permutations: exchanges of voxels between the halves.
        seed: of the exchanges.

    Returns:
        The clusters; their stability is the adjusted Rand index between clusters of one half and the nearest of
        these for the other, over both directions. p is for the best of all numbers of clusters. Of numbers that
        agree equally well, the largest counts.

    Source: prediction strength, Tibshirani & Walther 2005, with the adjusted Rand index in its place.
    """
    n_voxels = len(between)
    rng, one = np.random.default_rng(seed), np.ones(n_voxels, int)
    directions = [_predicted(within[0], between.T), _predicted(within[1], between)]
    numbers = sorted(set(directions[0]) & set(directions[1]))
    if not numbers:
        return Clusters(1, 0.0, 1.0, one)

    def agreement(orders: np.ndarray) -> np.ndarray:
        """Agreement [orders, numbers] of clusters with voxels of the other half in these orders."""
        pairs = [[direction[n] for n in numbers] for direction in directions]
        return np.mean([[adjusted_rand(cut, other[orders]) for cut, other in cuts] for cuts in pairs], axis=0).T

    observed = agreement(np.arange(n_voxels)[None])[0]
    null = agreement(np.stack([rng.permutation(n_voxels) for _ in range(n_permutations)])).max(1)
    p = float(permutation_p(int((null >= observed.max()).sum()), n_permutations))
    if p > max_p:
        return Clusters(1, float(observed.max()), p, one)
    best = max(n for n, value in zip(numbers, observed, strict=True) if value >= observed.max())
    return Clusters(best, float(observed.max()), p, directions[0][best][0])


def adjusted_rand(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes the adjusted Rand index [...] (Hubert & Arabie 1985) of labels [n] with labels [..., n], both from 1."""
    n_first, n_second = int(a.max()), int(b.max())
    table = b.reshape(-1, b.shape[-1])
    rows = np.arange(len(table))[:, None] * (n_first * n_second)
    cells = (rows + (a - 1) * n_second + (table - 1)).ravel()
    counts = np.bincount(cells, minlength=len(table) * n_first * n_second)
    counts = counts.reshape(*b.shape[:-1], n_first, n_second).astype(np.float64)
    both = _pairs(counts).sum((-2, -1))
    of_first, of_second = (_pairs(counts.sum(axis)).sum(-1) for axis in (-1, -2))
    expected = of_first * of_second / max(len(a) * (len(a) - 1) / 2, 1)
    best = (of_first + of_second) / 2
    differs = best > expected
    return np.where(differs, (both - expected) / np.where(differs, best - expected, 1), 1.0)


def _pairs(counts: np.ndarray) -> np.ndarray:
    return counts * (counts - 1) / 2


def _predicted(own: np.ndarray, of_other: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Number of clusters -> cut of one half, and the nearest of its clusters for the voxels of the other half.

    `own` are products [n, n] within one half, `of_other` of vectors of the other half and of this one.
    """
    from scipy.cluster import hierarchy

    length = np.diag(own)
    squares = (length[:, None] + length - 2 * own)[np.triu_indices(len(own), 1)]
    # equal vectors differ by rounding
    tree, cuts = hierarchy.linkage(np.sqrt(np.where(squares > 1e-12, squares, 0)), "ward"), {}
    for n in range(2, min(MAX_CLUSTERS, len(own) - 1) + 1):
        labels = hierarchy.fcluster(tree, n, "maxclust")
        if labels.max() < n:  # equal vectors are not divided
            continue
        members = (labels[:, None] == np.arange(1, n + 1)).astype(np.float64)
        members /= members.sum(0)
        nearest = np.einsum("nk,nm,mk->k", members, own, members, optimize=True) - 2 * of_other @ members
        cuts[n] = labels, nearest.argmin(1) + 1
    return cuts
