"""Paired tests: does a condition move the response, by how much, and how surely?

Pairs of one voxel are not independent, so a voxel's pairs change sign together and the
bootstrap draws voxels. Non-finite differences are left out and do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mine_jax.profile import false_discovery_rate

SUMMARY = (
    *("test", "comparison", "source", "voxels", "evaluator", "effect", "low", "high", "p", "q", "n_pairs"),
    *("effect_size", "share", "evaluator_r2", "maker"),
)
N_PERMUTATIONS = 10_000
N_BOOTSTRAP = 2_000
# With so few voxels every change of signs is tried.
MAX_EXACT = 13
_LEVEL = 0.95
_BLOCK = 1000


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
    """

    effect: float
    low: float
    high: float
    effect_size: float
    share: float
    p: float
    n_pairs: int


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
    low, high = _interval(sums, counts, n_bootstrap, rng)
    return Comparison(
        effect=effect,
        low=low,
        high=high,
        effect_size=effect / sd if sd > 0 else np.nan,
        share=float(((values > 0) + 0.5 * (values == 0)).mean()),
        p=_sign_flip(sums, n_permutations, rng),
        n_pairs=len(values),
    )


def tabulate(compared: Sequence[tuple[dict[str, str], Comparison]], r2: Mapping[str, float]) -> pd.DataFrame:
    """Builds the summary of all comparisons.

    Args:
        compared: labels (other columns of `SUMMARY`) and comparison.
        r2: evaluator -> its mean accuracy; NaN for those that are not there.

    Returns:
        One row per comparison; q over all of them.
    """
    rows = [
        {"source": "", **labels, **comparison._asdict(), "evaluator_r2": r2.get(labels["evaluator"], np.nan)}
        for labels, comparison in compared
    ]
    summary = pd.DataFrame(rows, columns=list(SUMMARY))
    summary["q"] = false_discovery_rate(summary["p"].to_numpy(float)) if len(summary) else []
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
    r = _pearson(both[0], both[1])
    draws = rng.integers(n, size=(n_bootstrap, n))
    samples = np.array([_pearson(both[0, draw], both[1, draw]) for draw in draws])
    low, high = np.nanquantile(samples, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    null = np.array([_pearson(both[0], rng.permutation(both[1])) for _ in range(n_permutations)])
    p = (1 + int((np.abs(null) >= abs(r) - 1e-12).sum())) / (1 + n_permutations)
    return Comparison(r, float(low), float(high), r, float(np.mean(both[0] * both[1] > 0)), p, n)


def _interval(sums: np.ndarray, counts: np.ndarray, n_bootstrap: int, rng: np.random.Generator) -> tuple[float, float]:
    n = len(sums)
    draws = rng.integers(n, size=(n_bootstrap, n))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _sign_flip(sums: np.ndarray, n_permutations: int, rng: np.random.Generator) -> float:
    """Two-sided p of the total of `sums` [G] under random signs."""
    n, total = len(sums), abs(sums.sum())
    if total == 0:
        return 1.0
    # Sums of the same numbers in another order differ by rounding.
    enough = total * (1 - 1e-9)
    if n <= MAX_EXACT:
        signs = 1 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ sums) >= enough).mean())
    exceeding = 0
    for start in range(0, n_permutations, _BLOCK):
        size = min(_BLOCK, n_permutations - start)
        signs = rng.integers(0, 2, (size, n)) * 2.0 - 1
        exceeding += int((np.abs(signs @ sums) >= enough).sum())
    return (1 + exceeding) / (1 + n_permutations)


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / norm if norm > 0 else np.nan
