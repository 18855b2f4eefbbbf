"""Contrasts: the words that tell two areas apart, and what areas prefer across subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from mine_jax._progress import Progress, silent
from mine_jax.config import RoiConfig
from mine_jax.memory import sparse_rows
from mine_jax.roi import surrogates
from mine_jax.roi.selectivity import memberships
from mine_jax.statistics import bootstrap_interval, false_discovery_rate, sign_flip_p
from mine_jax.types import Places, Profiles

# Words compared in each pair of areas: those with the largest mean share in either.
_MAX_WORDS = 50
# As for preferences: a variogram within areas has few independent pieces.
_DEGREES = 8
_SMALLEST = 1e-4
MIN_SUBJECTS = 3


def contrasts(
    profiles: Profiles,
    rois: np.ndarray,
    *,
    places: Places | None = None,
    settings: RoiConfig | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Compares the words of every two areas.

    Args:
        profiles: of V voxels; only those with words count.
        rois: [V] str, ";"-joined areas.
        places: of the voxels; None where they are unknown: voxels then count as independent.
        settings: smallest number of voxels; by default that of the configuration.
        progress: called with (done, total) pairs of areas.

    Returns:
        One row per two areas and word: roi, other, word, log_odds (natural logarithm of the ratio of the odds of the
        mean shares, above 0 where `roi` has more), share, share_other, p (two-sided, of the difference of the shares
        against the variogram within the two areas), q over all rows. Voxels of both areas belong to neither.
    """
    settings = settings or RoiConfig()
    explained = np.flatnonzero(profiles.explained)
    names = rois[explained]
    areas = {roi: inside for roi, inside in memberships(names).items() if inside.sum() >= settings.min_voxels}
    place = None if places is None or not areas else surrogates.space(places.take(explained), names)
    table = sparse_rows(profiles.distribution).take(explained).csr()
    means = {roi: (inside / inside.sum()) @ table for roi, inside in areas.items()}
    table = table.tocsc()
    rows: list[dict[str, Any]] = []
    both = list(combinations(areas, 2))
    for done, (roi, other) in enumerate(both):
        progress(done, len(both))
        first, second = areas[roi] & ~areas[other], areas[other] & ~areas[roi]
        if min(first.sum(), second.sum()) < settings.min_voxels:
            continue
        words = np.argsort(-np.maximum(means[roi], means[other]), kind="stable")[:_MAX_WORDS]
        shares = table[:, words].toarray()
        here, there = shares[first].mean(0), shares[second].mean(0)
        p, odds = _p(shares, first, second, place), _log_odds(here) - _log_odds(there)
        rows += [
            {
                "roi": roi,
                "other": other,
                "word": str(profiles.words[word]),
                "log_odds": float(odds[j]),
                "share": float(here[j]),
                "share_other": float(there[j]),
                "p": float(p[j]),
            }
            for j, word in enumerate(words)
        ]
    return _with_q(rows)


def across_subjects(
    tables: Mapping[str, pd.DataFrame] | Sequence[pd.DataFrame],
    *,
    n_permutations: int = 2000,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Tests what areas prefer with subjects as the unit.

    Args:
        tables: roi/selectivity.tsv of each subject, with the columns roi, category, enrichment and preferred.
        n_permutations: changes of sign, beyond 13 subjects; up to 13 all are tried.
        n_bootstrap: samples of subjects for the 95 % interval.
        seed: of both.

    Returns:
        One row per area and category: roi, category, n_subjects, n_preferred (subjects whose area prefers it),
        enrichment (mean), low, high, p (two-sided, of random signs; empty with fewer than three subjects), q.
        Three subjects cannot reach p below .25, five not below .0625: their number of preferences says more.
    """
    listed = tables.values() if isinstance(tables, Mapping) else tables
    together, rng = pd.concat([table.assign(subject=i) for i, table in enumerate(listed)]), np.random.default_rng(seed)
    together["preferred"] = together["preferred"].astype(str).str.lower() == "true"
    rows = []
    for (roi, category), part in together.groupby(["roi", "category"], sort=False):
        values = part["enrichment"].to_numpy(np.float64)
        enough = len(values) >= MIN_SUBJECTS
        low, high = bootstrap_interval(
            lambda draws, values=values: values[draws].mean(1), len(values), n_bootstrap=n_bootstrap, rng=rng
        )
        rows.append(
            {
                "roi": roi,
                "category": category,
                "n_subjects": len(values),
                "n_preferred": int(part["preferred"].sum()),
                "enrichment": float(values.mean()),
                "low": float(low),
                "high": float(high),
                "p": sign_flip_p(values, n_permutations=n_permutations, rng=rng) if enough else np.nan,
            }
        )
    return _with_q(rows)


def _p(shares: np.ndarray, first: np.ndarray, second: np.ndarray, place: surrogates.Space | None) -> np.ndarray:
    """Two-sided p of the difference of the mean shares [V, n] of two areas [V] bool."""
    from scipy import stats

    weights = first / first.sum() - second / second.sum()
    difference = weights @ shares
    if place is None:
        variance = sum(shares[area].var(0, ddof=1) / area.sum() for area in (first, second))
        degrees = min(first.sum(), second.sum()) - 1
    else:
        unit, degrees = surrogates.variance_of_weighted_sums(place, weights), _DEGREES
        anchors = [np.flatnonzero(area[place.anchors]) for area in (first, second)]
        own = [surrogates.components(place, shares, within=True, anchors=rows) for rows in anchors]
        variance = np.maximum(*own) @ unit
    return 2 * stats.t.sf(np.abs(difference) / np.sqrt(np.maximum(variance, 1e-24)), degrees)


def _log_odds(share: np.ndarray) -> np.ndarray:
    inside = np.clip(share, _SMALLEST, 1 - _SMALLEST)
    return np.log(inside) - np.log1p(-inside)


def _with_q(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row, q in zip(rows, false_discovery_rate(np.array([row["p"] for row in rows], float)), strict=True):
        row["q"] = float(q)
    return rows
