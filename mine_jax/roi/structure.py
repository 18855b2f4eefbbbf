"""Structure inside an area: do its voxels differ from each other more than noise explains?"""

from __future__ import annotations

from typing import Any

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.description import salience
from mine_jax.roi.selectivity import memberships
from mine_jax.types import Profiles

_MAX_CLUSTERS = 8


def structure(
    profiles: Profiles, rois: np.ndarray, *, corpus: np.ndarray, min_voxels: int = 5, progress: Progress = silent
) -> list[dict[str, Any]]:
    """Measures distances between voxels' profiles inside each area, and clusters them.

    Distances are 1 - cosine of positive saliences. Each voxel has profiles from two halves of
    its images: between different voxels, one half of each is compared; the noise distance
    compares the two halves of the same voxel. Clusters are average-linkage, their number has
    the best silhouette, their stability is the adjusted Rand index between the halves.

    Args:
        profiles: of V voxels; only explained ones count.
        rois: [V] str, ";"-joined areas.
        corpus: [C] mean shares of words over a corpus.
        min_voxels: areas with fewer explained voxels are left out.
        progress: called with (done, total) areas.

    Returns:
        One row per area: roi, n_voxels, between_distance, noise_distance, n_clusters, cluster_stability.
    """
    areas = {roi: np.flatnonzero(m & profiles.explained) for roi, m in memberships(rois).items()}
    areas = {roi: voxels for roi, voxels in areas.items() if len(voxels) >= max(min_voxels, 3)}
    rows = []
    for done, (roi, voxels) in enumerate(areas.items()):
        first, second = (_unit(np.maximum(salience(half[voxels], corpus), 0)) for half in profiles.halves)
        distance = 1 - first @ second.T
        off = ~np.eye(len(voxels), dtype=bool)
        labels = _clusters(_unit(np.maximum(salience(profiles.distribution[voxels], corpus), 0)))
        n_clusters = int(labels.max())
        rows.append(
            {
                "roi": roi,
                "n_voxels": len(voxels),
                "between_distance": float(distance[off].mean()),
                "noise_distance": float(np.diag(distance).mean()),
                "n_clusters": n_clusters,
                "cluster_stability": adjusted_rand(_cut(first, n_clusters), _cut(second, n_clusters)),
            }
        )
        progress(done + 1, len(areas))
    return rows


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _clusters(vectors: np.ndarray) -> np.ndarray:
    """Labels [n] from 1 of the cut with the best mean silhouette."""
    candidates = range(2, min(_MAX_CLUSTERS, len(vectors) - 1) + 1)
    cuts = [_cut(vectors, n) for n in candidates]
    return max(cuts, key=lambda labels: silhouette(1 - vectors @ vectors.T, labels))


def _cut(vectors: np.ndarray, n_clusters: int) -> np.ndarray:
    from scipy.cluster import hierarchy

    condensed = np.clip((1 - vectors @ vectors.T)[np.triu_indices(len(vectors), 1)], 0, None)
    return hierarchy.fcluster(hierarchy.linkage(condensed, "average"), n_clusters, "maxclust")


def silhouette(distance: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette (Rousseeuw 1987); a voxel alone in its cluster counts 0."""
    values = []
    for i, label in enumerate(labels):
        same = (labels == label) & (np.arange(len(labels)) != i)
        others = [distance[i, labels == other].mean() for other in np.unique(labels) if other != label]
        if not same.any() or not others:
            values.append(0.0)
            continue
        inside, outside = distance[i, same].mean(), min(others)
        values.append((outside - inside) / max(inside, outside, 1e-12))
    return float(np.mean(values))


def adjusted_rand(a: np.ndarray, b: np.ndarray) -> float:
    """Adjusted Rand index (Hubert & Arabie 1985) of two labelings."""
    table = np.array([[np.sum((a == i) & (b == j)) for j in np.unique(b)] for i in np.unique(a)], float)

    def pairs(counts: np.ndarray) -> float:
        return (counts * (counts - 1) / 2).sum()

    both, first, second = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    expected = first * second / max(len(a) * (len(a) - 1) / 2, 1)
    best = (first + second) / 2
    return float((both - expected) / (best - expected)) if best > expected else 1.0
