"""Clusters of voxels that predict themselves: found in one half of the images, sought in the other."""

from __future__ import annotations

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


def clusters(first: np.ndarray, second: np.ndarray, *, max_p: float, n_permutations: int, seed: int) -> Clusters:
    """Finds how many clusters of one half predict the other.

    Args:
        first: [n, C] unit vectors of n voxels, from one half of the images.
        second: [n, C] of the other half.
        max_p: above this there is one cluster.
        n_permutations: exchanges of voxels between the halves.
        seed: of the exchanges.

    Returns:
        The clusters; their stability is the adjusted Rand index between clusters of one half and the nearest of
        these for the other, over both directions. p is for the best of all numbers of clusters. Of numbers that
        agree equally well, the largest counts.

    Source: prediction strength, Tibshirani & Walther 2005, with the adjusted Rand index in its place.
    """
    rng, one = np.random.default_rng(seed), np.ones(len(first), int)
    directions = [_predicted(a, b) for a, b in ((first, second), (second, first))]
    numbers = sorted(set(directions[0]) & set(directions[1]))
    if not numbers:
        return Clusters(1, 0.0, 1.0, one)

    def agreement(order: np.ndarray) -> np.ndarray:
        pairs = [[direction[n] for n in numbers] for direction in directions]
        return np.mean([[adjusted_rand(cut, other[order]) for cut, other in cuts] for cuts in pairs], axis=0)

    observed = agreement(np.arange(len(first)))
    null = [agreement(rng.permutation(len(first))).max() for _ in range(n_permutations)]
    p = float(permutation_p(int((np.array(null) >= observed.max()).sum()), n_permutations))
    if p > max_p:
        return Clusters(1, float(observed.max()), p, one)
    best = max(n for n, value in zip(numbers, observed, strict=True) if value >= observed.max())
    return Clusters(best, float(observed.max()), p, directions[0][best][0])


def adjusted_rand(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the adjusted Rand index (Hubert & Arabie 1985) of two labelings [n] from 1."""
    size = int(b.max()) + 1
    table = np.bincount(a * size + b)
    both, first, second = (_pairs(counts) for counts in (table, np.bincount(a), np.bincount(b)))
    expected = first * second / max(len(a) * (len(a) - 1) / 2, 1)
    best = (first + second) / 2
    return float((both - expected) / (best - expected)) if best > expected else 1.0


def _pairs(counts: np.ndarray) -> float:
    return float((counts * (counts - 1.0) / 2).sum())


def _predicted(a: np.ndarray, b: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Number of clusters -> cut of one half, and the nearest of its clusters for the voxels of the other half."""
    from scipy.cluster import hierarchy

    tree, cuts = hierarchy.linkage(a, "ward"), {}
    for n in range(2, min(MAX_CLUSTERS, len(a) - 1) + 1):
        labels = hierarchy.fcluster(tree, n, "maxclust")
        if labels.max() < n:  # equal vectors are not divided
            continue
        means = np.stack([a[labels == label].mean(0) for label in range(1, n + 1)])
        nearest = (b**2).sum(1)[:, None] - 2 * b @ means.T + (means**2).sum(1)
        cuts[n] = labels, nearest.argmin(1) + 1
    return cuts
