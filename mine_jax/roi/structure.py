"""Structure inside an area: do its voxels differ from each other more than noise explains, and in patches?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.config import RoiConfig
from mine_jax.description import saliences
from mine_jax.memory import SparseRows, sparse_rows
from mine_jax.roi.clusters import clusters
from mine_jax.roi.selectivity import memberships
from mine_jax.statistics import SequentialP, false_discovery_rate
from mine_jax.types import Places, Profiles

# Distance to which neighbours count, and the standard deviation of their weights, in the unit of `Places`.
_FARTHEST, _SPREAD = 4.5, 2.0
# Voxels compared in an area: all pairs of them are. Resampled ones are this far from each other.
_FEWEST, _MAX_VOXELS, _APART = 4, 1000, 2.0
_CLUSTER_PERMUTATIONS = 200
# Squares of lengths that rounding leaves of rows of length 1.
_ROUNDING = 1e-13


def structure(
    profiles: Profiles,
    rois: np.ndarray,
    *,
    corpus: np.ndarray,
    places: Places | None = None,
    settings: RoiConfig | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Tests whether voxels of an area differ reproducibly, and in patches.

    Distances are 1 - cosine of positive saliences. Each voxel has profiles from two halves of
    its images: between different voxels, one half of each is compared; the noise distance
    compares the two halves of the same voxel. Tests use what is left without the mean of the
    area. Differences are reproducible where a voxel's half resembles its own other half more
    than other voxels' do, against exchanged voxels. They are in patches where profiles of neighbours
    resemble each other more than those of other voxels (Moran's question), against exchanged places.
    Noise that neighbours share can do that in profiles from the same images; the same test with
    one half of each voxel, which it cannot pass, has less power and stands beside it. Vertices of
    a surface were resampled from voxels and do share noise: there both tests are needed, and only
    vertices 2 units apart are compared, since of maps that are smooth by chance exchanging is no null.

    Args:
        profiles: of V voxels; only those with words count.
        rois: [V] str, ";"-joined areas.
        corpus: [C] mean shares of words over a corpus.
        places: of the voxels; None where they are unknown, and patches with them.
        settings: sizes, thresholds and numbers of draws; by default those of the configuration.
        seed: of all that is drawn; 1000 voxels of a larger area are drawn.
        progress: called with (done, total) areas.

    Returns:
        One row per area: roi, n_voxels, between_distance, noise_distance, n_clusters, cluster_stability, cluster_p,
        reproducible_p and _q, patches (how much more neighbours resemble each other), structure_p and _q of patches,
        halves_p and _q (of patches from one half of each voxel), is_structured (reproducible and in patches, at
        max_q; with resampled places, in patches from halves, too).

    Source: Moran 1950, as a Mantel test (Mantel 1967) of similarity against neighbourhood.
    """
    settings = settings or RoiConfig()
    rng = np.random.default_rng(seed)
    areas = {roi: np.flatnonzero(m & profiles.explained) for roi, m in memberships(rois).items()}
    areas = {roi: voxels for roi, voxels in areas.items() if len(voxels) >= max(settings.min_voxels, _FEWEST)}
    kinds = [sparse_rows(kind) for kind in (profiles.distribution, *profiles.halves)]
    rows: list[dict[str, Any]] = []
    for done, (roi, members) in enumerate(areas.items()):
        voxels = _apart(places, members, rng) if places is not None and places.is_resampled else members
        voxels = np.sort(rng.choice(voxels, _MAX_VOXELS, replace=False)) if len(voxels) > _MAX_VOXELS else voxels
        if len(voxels) < _FEWEST:
            continue
        whole, first, second = (_unit_rows(kind.take(voxels), corpus) for kind in kinds)
        between = (first @ second.T).toarray()
        row: dict[str, Any] = {"roi": roi, "n_voxels": len(members)} | _distances(between)
        alike, *own = ((kind @ kind.T).toarray() for kind in (whole, first, second))
        (lengths, *of_halves), alike = map(_lengths, (alike, *own)), _centred(alike)
        alike, between = alike / np.outer(lengths, lengths), _centred(between) / np.outer(*of_halves)
        near = None if places is None else _near(places.take(voxels))
        row |= _tests(alike, between, near, settings.n_permutations, rng)
        within = [_centred(gram) / np.outer(length, length) for gram, length in zip(own, of_halves, strict=True)]
        found = clusters(within, between, max_p=settings.max_q, n_permutations=_CLUSTER_PERMUTATIONS, seed=seed)
        row |= {"n_clusters": found.n, "cluster_stability": found.stability, "cluster_p": found.p}
        rows.append(row)
        progress(done + 1, len(areas))
    needed = ("reproducible", "structure", *(("halves",) if places is not None and places.is_resampled else ()))
    return _with_q(rows, needed, settings.max_q)


def _with_q(rows: list[dict[str, Any]], needed: tuple[str, ...], max_q: float) -> list[dict[str, Any]]:
    """Adds q of each test, and whether those that are needed are all passed."""
    for test in ("reproducible", "structure", "halves"):
        q = false_discovery_rate(np.array([row[f"{test}_p"] for row in rows], float))
        for row, value in zip(rows, q, strict=True):
            row[f"{test}_q"] = float(value)
    for row in rows:
        q_values = np.array([row[f"{test}_q"] for test in needed], float)
        row["is_structured"] = bool((q_values <= max_q).all())
    return rows


def _distances(between: np.ndarray) -> dict[str, float]:
    """Mean distances of halves of the same voxel and of different ones, from cosines [n, n] of both halves."""
    noise, n = 1 - np.diag(between), len(between)
    total = n * n - float(between.sum())
    return {"between_distance": (total - float(noise.sum())) / (n * (n - 1)), "noise_distance": float(noise.mean())}


def _unit_rows(shares: SparseRows, corpus: np.ndarray) -> Any:
    """Positive saliences as a sparse table of rows of length 1 (or 0)."""
    positive = saliences(shares, corpus, positive=True)
    length = np.sqrt(np.bincount(positive.rows, positive.values**2, minlength=len(positive)))
    return positive.with_values(positive.values / np.maximum(length, 1e-12)[positive.rows]).csr()


def _centred(products: np.ndarray) -> np.ndarray:
    """Products [n, n] of two sets of rows, each without its mean."""
    return products - products.mean(0) - products.mean(1, keepdims=True) + products.mean()


def _lengths(products: np.ndarray) -> np.ndarray:
    """Lengths [n] of rows without their mean, from their products; infinite for rows that are the mean."""
    squares = np.diag(_centred(products))
    return np.sqrt(np.where(squares > _ROUNDING, squares, np.inf))


def _apart(places: Places, members: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws voxels of an area that are too far from each other to share much of their noise."""
    from scipy.spatial import KDTree

    order = rng.permutation(members)
    close = KDTree(_with_part(places.take(order)))
    is_free = np.ones(len(order), bool)
    chosen = []
    for number, at in enumerate(close.data):
        if is_free[number]:
            is_free[close.query_ball_point(at, _APART)] = False
            chosen.append(order[number])
    return np.sort(np.array(chosen))


def _with_part(places: Places) -> np.ndarray:
    """Positions [V, 4]: a fourth axis keeps the parts further from each other than neighbours are."""
    return np.column_stack([places.at, 2 * _FARTHEST * places.part])


class _Near(NamedTuple):
    """Pairs [E, 2] of neighbours and their weights [E], of sum 1."""

    pairs: np.ndarray
    weights: np.ndarray


def _near(places: Places) -> _Near | None:
    from scipy.spatial import KDTree

    at = _with_part(places)
    pairs = KDTree(at).query_pairs(_FARTHEST, output_type="ndarray")
    weights = np.exp(-((at[pairs[:, 0]] - at[pairs[:, 1]]) ** 2).sum(1) / (2 * _SPREAD**2))
    return _Near(pairs, weights / weights.sum()) if len(pairs) else None


def _tests(
    whole: np.ndarray, halves: np.ndarray, near: _Near | None, n_permutations: int, rng: np.random.Generator
) -> dict[str, float]:
    """Tests similarities [n, n]: of whole profiles, and of one half of each voxel with the other half of each."""
    n = len(halves)
    voxels = np.arange(n)

    def own(order: np.ndarray) -> np.ndarray:
        return halves[voxels, order].sum(keepdims=True)

    row = {"reproducible_p": float(_sequential_p(own, n, n_permutations, rng)[0])}
    if near is None:
        return row | dict.fromkeys(("patches", "structure_p", "halves_p"), np.nan)
    # both in one number, so that each pair is looked up once
    both = (whole + 0.5j * (halves + halves.T)).ravel()
    first, second = (np.ascontiguousarray(column) for column in near.pairs.T)
    weights = near.weights.astype(complex)

    def alike(order: np.ndarray) -> np.ndarray:
        total = weights @ both.take(order.take(first) * n + order.take(second))
        return np.array([total.real, total.imag])

    p = _sequential_p(alike, n, n_permutations, rng)
    others = (whole.sum() - np.trace(whole)) / (n * (n - 1))
    return row | {"patches": float(alike(voxels)[0] - others), "structure_p": float(p[0]), "halves_p": float(p[1])}


def _sequential_p(
    statistic: Callable[[np.ndarray], np.ndarray], n: int, n_permutations: int, rng: np.random.Generator
) -> np.ndarray:
    """One-sided p of statistics of n voxels in their order, when it is exchanged."""
    test = SequentialP(statistic(np.arange(n)))
    for _ in range(n_permutations):
        if not test.is_open.any():
            break
        test.add(statistic(rng.permutation(n)))
    return test.p
