"""Contrasts: the words that tell two areas apart, and what areas prefer across subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

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
    inside = {roi: rows for roi, rows in memberships(names).items() if rows.sum() >= settings.min_voxels}
    if len(inside) < 2:
        return []
    place = None if places is None else surrogates.space(places.take(explained), names)
    table, members = sparse_rows(profiles.distribution).take(explained).csr(), np.stack(list(inside.values()))
    means = np.stack([(rows / rows.sum()) @ table for rows in members])
    words = np.unique([_leading(mean) for mean in means])
    table, means = table[:, words], means[:, words]
    both = list(combinations(range(len(members)), 2))

    def still(done: int, total: int) -> None:
        """Lets signals through; what is done once for each area does not count."""
        progress(0, len(both))

    whole = []
    for rows in members:
        still(0, 1)
        whole.append(_Side.of(table, rows, place))
    units = None if place is None else surrogates.variances_of_contrasts(place, members, progress=still)
    found: list[dict[str, Any]] = []
    for done, (a, b) in enumerate(both):
        progress(done, len(both))
        overlap = members[a] & members[b]
        first, second = members[a] & ~overlap, members[b] & ~overlap
        if min(first.sum(), second.sum()) < settings.min_voxels:
            continue
        sides, unit = (whole[a], whole[b]), None if units is None else units[a, b]
        if overlap.any():
            sides = _Side.of(table, first, place), _Side.of(table, second, place)
            unit = None if place is None else _unit(place, first, second)
        some = _leading(np.maximum(means[a], means[b]))
        here, there = (side.mean[some] for side in sides)
        p, odds = _p(*(side.of_words(some) for side in sides), unit), _log_odds(here) - _log_odds(there)
        roi, other = (list(inside)[number] for number in (a, b))
        found += [
            {
                "roi": roi,
                "other": other,
                "word": str(profiles.words[words[word]]),
                "log_odds": float(odds[j]),
                "share": float(here[j]),
                "share_other": float(there[j]),
                "p": float(p[j]),
            }
            for j, word in enumerate(some)
        ]
    return _with_q(found)


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


class _Side(NamedTuple):
    """Shares of W words in the voxels of an area.

    Attributes:
        mean: [W].
        spread: [W, 1 + widths] components of the variogram within the area; [W, 1] variances where voxels have no
            places, which then count as independent.
        n_voxels: of the area.
    """

    mean: np.ndarray
    spread: np.ndarray
    n_voxels: int

    @classmethod
    def of(cls, table: Any, inside: np.ndarray, place: surrogates.Space | None) -> _Side:
        """Measures the shares [V, W] of an area [V] bool, a sparse table."""
        shares = table[np.flatnonzero(inside)].toarray().astype(np.float64)
        if place is None:
            spread = shares.var(0, ddof=1)[:, None]
        else:
            spread = surrogates.components(surrogates.part_of(place, inside), shares, within=True)
        return cls(shares.mean(0), spread, len(shares))

    def of_words(self, words: np.ndarray) -> _Side:
        """Returns those of some words."""
        return _Side(self.mean[words], self.spread[words], self.n_voxels)


def _leading(shares: np.ndarray) -> np.ndarray:
    """Positions of the words with the largest shares [C]."""
    return np.argsort(-shares, kind="stable")[:_MAX_WORDS]


def _unit(place: surrogates.Space, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return surrogates.variance_of_weighted_sums(place, first / first.sum() - second / second.sum())


def _p(first: _Side, second: _Side, unit: np.ndarray | None) -> np.ndarray:
    """Two-sided p of the difference of the mean shares of two areas; `unit` is what each component says of it."""
    from scipy import stats

    if unit is None:
        variance = sum(side.spread[:, 0] / side.n_voxels for side in (first, second))
        degrees = min(first.n_voxels, second.n_voxels) - 1
    else:
        variance, degrees = np.maximum(first.spread, second.spread) @ unit, _DEGREES
    return 2 * stats.t.sf(np.abs(first.mean - second.mean) / np.sqrt(np.maximum(variance, 1e-24)), degrees)


def _log_odds(share: np.ndarray) -> np.ndarray:
    inside = np.clip(share, _SMALLEST, 1 - _SMALLEST)
    return np.log(inside) - np.log1p(-inside)


def _with_q(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row, q in zip(rows, false_discovery_rate(np.array([row["p"] for row in rows], float)), strict=True):
        row["q"] = float(q)
    return rows
