"""Paired tests: does a condition move the response, by how much, and how surely?

Pairs of one voxel are not independent, so a voxel's pairs change sign together and the
bootstrap draws voxels. Non-finite differences are left out and do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mine_jax.statistics import bootstrap_interval, false_discovery_rate, pearson, permutation_p, sign_flip_p

SUMMARY = (
    *("test", "comparison", "source", "voxels", "evaluator", "effect", "low", "high", "p", "q", "n_pairs"),
    *("effect_size", "share", "evaluator_r2", "maker", "n_same"),
)
# Comparisons with the same of these are one family of tests: controls and exact rows have families of their own.
FAMILY = ("test", "evaluator", "voxels", "maker")
N_PERMUTATIONS = 10_000
N_BOOTSTRAP = 2_000


class Comparison(NamedTuple):
    """One paired comparison.

    Attributes:
        effect: mean difference, z-scored beta.
        low: lower end of the 95 % bootstrap interval.
        high: upper end.
        effect_size: mean over standard deviation of the differences (Cohen's d of paired data).
        share: share of pairs with a positive difference; ties count half.
        p: two-sided, sign-flip permutation.
        n_pairs: pairs with a finite difference.
        n_same: pairs that were left out since their control is the same as what it controls.
    """

    effect: float
    low: float
    high: float
    effect_size: float
    share: float
    p: float
    n_pairs: int
    n_same: int = 0


def compare(
    differences: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    n_permutations: int = N_PERMUTATIONS,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> Comparison:
    """Tests whether paired differences are zero on average.

    Args:
        differences: [n] condition minus control, one per pair.
        groups: [n] voxel of each pair; None where every pair stands alone.
        n_permutations: random changes of sign; all of them where there are few voxels.
        n_bootstrap: samples of voxels for the interval.
        seed: of both.

    Returns:
        The comparison; effect, interval and p are NaN for fewer than two voxels.

    Source: Fisher's randomisation test; p = (1 + exceeding) / (1 + permutations).
    """
    values = np.asarray(differences, np.float64)
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    known = np.isfinite(values)
    values, groups = values[known], groups[known]
    _, members = np.unique(groups, return_inverse=True)
    n_groups = int(members.max()) + 1 if len(values) else 0
    if n_groups < 2:
        effect = float(values.mean()) if len(values) else np.nan
        return Comparison(effect, np.nan, np.nan, np.nan, np.nan, np.nan, len(values))
    sums, counts = np.bincount(members, weights=values), np.bincount(members).astype(float)
    effect, sd = float(values.mean()), float(values.std(ddof=1))
    rng = np.random.default_rng(seed)
    low, high = bootstrap_interval(
        lambda draws: sums[draws].sum(1) / counts[draws].sum(1), len(sums), n_bootstrap=n_bootstrap, rng=rng
    )
    return Comparison(
        effect=effect,
        low=float(low),
        high=float(high),
        effect_size=effect / sd if sd > 0 else np.nan,
        share=float(((values > 0) + 0.5 * (values == 0)).mean()),
        p=sign_flip_p(sums, n_permutations=n_permutations, rng=rng),
        n_pairs=len(values),
    )


def tabulate(compared: Sequence[tuple[dict[str, str], Comparison]], r2: Mapping[str, float]) -> pd.DataFrame:
    """Builds the summary of all comparisons.

    Args:
        compared: labels (other columns of `SUMMARY`) and comparison.
        r2: evaluator -> its mean accuracy; NaN for those that are not there.

    Returns:
        One row per comparison; q over those of the same `FAMILY`.
    """
    rows = [
        {"source": "", **labels, **comparison._asdict(), "evaluator_r2": r2.get(labels["evaluator"], np.nan)}
        for labels, comparison in compared
    ]
    summary = pd.DataFrame(rows, columns=list(SUMMARY))
    for _, family in summary.groupby(list(FAMILY), dropna=False):
        summary.loc[family.index, "q"] = false_discovery_rate(family["p"].to_numpy(float))
    return summary


def correlate(
    first: np.ndarray,
    second: np.ndarray,
    *,
    n_permutations: int = N_PERMUTATIONS,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> Comparison:
    """Correlates two values of the same pairs.

    Args:
        first: [n] one value per pair.
        second: [n] the other.
        n_permutations: permutations of the pairs.
        n_bootstrap: samples of pairs for the interval.
        seed: of both.

    Returns:
        The comparison with Pearson's r as effect and effect size; NaN for fewer than three pairs or no spread.
    """
    both = np.array([first, second], np.float64)
    both = both[:, np.isfinite(both).all(0)]
    n = both.shape[1]
    if n < 3 or (np.ptp(both, axis=1) == 0).any():
        return Comparison(np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, n)
    rng = np.random.default_rng(seed)
    r = float(pearson(both[0], both[1]))
    low, high = bootstrap_interval(
        lambda draws: pearson(both[0, draws].T, both[1, draws].T), n, n_bootstrap=n_bootstrap, rng=rng
    )
    null = np.array([pearson(both[0], rng.permutation(both[1])) for _ in range(n_permutations)])
    p = float(permutation_p((np.abs(null) >= abs(r) - 1e-12).sum(), n_permutations))
    return Comparison(r, float(low), float(high), r, float(np.mean(both[0] * both[1] > 0)), p, n)
