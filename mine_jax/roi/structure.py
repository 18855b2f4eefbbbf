"""Structure inside an area: do its voxels differ from each other more than noise explains, and in patches?"""

from __future__ import annotations

from typing import Any

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.config import RoiConfig
from mine_jax.description import salience
from mine_jax.roi.clusters import clusters
from mine_jax.roi.selectivity import memberships
from mine_jax.statistics import false_discovery_rate, permutation_p
from mine_jax.types import Profiles

# Voxels up to this far from each other are neighbours: all 26 around a voxel.
_NEIGHBOURS = 1.8
# Voxels compared in an area: all pairs of them are.
_MAX_VOXELS = 1000
_CLUSTER_PERMUTATIONS = 200


def structure(
    profiles: Profiles,
    rois: np.ndarray,
    *,
    corpus: np.ndarray,
    indices: np.ndarray | None = None,
    settings: RoiConfig | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Tests whether voxels of an area differ reproducibly, and in patches.

    Distances are 1 - cosine of positive saliences. Each voxel has profiles from two halves of
    its images: between different voxels, one half of each is compared; the noise distance
    compares the two halves of the same voxel. Tests use what is left without the mean of the
    area. Differences are reproducible where a voxel's half resembles its own other half more
    than other voxels' do, against exchanged voxels. They are in patches where neighbours' halves
    resemble each other more than other voxels' do (Moran's question), against exchanged places.
    The halves come from different images, so that noise that neighbours share cannot do that.

    Args:
        profiles: of V voxels; only those with words count.
        rois: [V] str, ";"-joined areas.
        corpus: [C] mean shares of words over a corpus.
        indices: [V, 3] int, i j k of the voxels; None without geometry, where patches are unknown.
        settings: sizes, thresholds and numbers of draws; by default those of the configuration.
        seed: of all that is drawn; 1000 voxels of a larger area are drawn.
        progress: called with (done, total) areas.

    Returns:
        One row per area: roi, n_voxels, between_distance, noise_distance, n_clusters, cluster_stability, cluster_p,
        reproducible_p and _q, patches (how much more neighbours resemble each other), structure_p and _q of patches,
        is_structured (reproducible and in patches, both at max_q).

    Source: Moran 1950, as a Mantel test (Mantel 1967) of similarity against neighbourhood.
    """
    settings = settings or RoiConfig()
    rng = np.random.default_rng(seed)
    areas = {roi: np.flatnonzero(m & profiles.explained) for roi, m in memberships(rois).items()}
    areas = {roi: voxels for roi, voxels in areas.items() if len(voxels) >= max(settings.min_voxels, 4)}
    rows: list[dict[str, Any]] = []
    for done, (roi, members) in enumerate(areas.items()):
        voxels = np.sort(rng.choice(members, _MAX_VOXELS, replace=False)) if len(members) > _MAX_VOXELS else members
        saliences = [np.maximum(salience(half[voxels], corpus), 0) for half in profiles.halves]
        row: dict[str, Any] = {"roi": roi, "n_voxels": len(members)} | _distances(saliences)
        first, second = (_unit(_unit(half) - _unit(half).mean(0)) for half in saliences)
        near = None if indices is None else _neighbours(indices[voxels])
        row |= _tests(first @ second.T, near, n_permutations=settings.n_permutations, rng=rng)
        found = clusters(first, second, max_p=settings.max_q, n_permutations=_CLUSTER_PERMUTATIONS, seed=seed)
        row |= {"n_clusters": found.n, "cluster_stability": found.stability, "cluster_p": found.p}
        rows.append(row)
        progress(done + 1, len(areas))
    for test in ("reproducible", "structure"):
        q = false_discovery_rate(np.array([row[f"{test}_p"] for row in rows], float))
        for row, value in zip(rows, q, strict=True):
            row[f"{test}_q"] = float(value)
    for row in rows:
        row["is_structured"] = row["reproducible_q"] <= settings.max_q and row["structure_q"] <= settings.max_q
    return rows


def _distances(saliences: list[np.ndarray]) -> dict[str, float]:
    """Mean distances of halves of the same voxel and of different ones."""
    first, second = map(_unit, saliences)
    noise, n = 1 - (first * second).sum(1), len(first)
    total = n * n - float(first.sum(0) @ second.sum(0))
    return {"between_distance": (total - float(noise.sum())) / (n * (n - 1)), "noise_distance": float(noise.mean())}


def _tests(
    similarity: np.ndarray, near: np.ndarray | None, *, n_permutations: int, rng: np.random.Generator
) -> dict[str, float]:
    """Tests the similarity [n, n] of one half of each voxel with the other half of each.

    Args:
        similarity: [n, n].
        near: [E, 2] int, pairs of neighbours; None without geometry.
        n_permutations: exchanges of voxels.
        rng: source of these.
    """
    n = len(similarity)
    own, voxels = float(np.trace(similarity)), np.arange(n)
    exceeding = sum(similarity[voxels, rng.permutation(n)].sum() >= own for _ in range(n_permutations))
    row = {"reproducible_p": float(permutation_p(exceeding, n_permutations)), "patches": np.nan, "structure_p": np.nan}
    if near is None or not len(near):
        return row
    both_ways = similarity + similarity.T
    observed = both_ways[near[:, 0], near[:, 1]].mean()
    others = (both_ways.sum() - 2 * own) / (n * (n - 1))
    exceeding = 0
    for _ in range(n_permutations):
        places = rng.permutation(n)[near]
        exceeding += int(both_ways[places[:, 0], places[:, 1]].mean() >= observed)
    p = float(permutation_p(exceeding, n_permutations))
    return row | {"patches": float(observed - others) / 2, "structure_p": p}


def _neighbours(indices: np.ndarray) -> np.ndarray:
    from scipy.spatial import KDTree

    return KDTree(indices).query_pairs(_NEIGHBOURS, output_type="ndarray")


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
