"""The statistics of every stage, with one convention each.

Statistics of [N, V] arrays go over axis 0 and are computed in float64. Intervals cover 95 %.
A p-value from random draws is (1 + exceeding draws) / (1 + draws), and is never 0. Where each draw costs work, a
test ends once so many of them reach what was observed that p is known to a tenth of itself: see `SequentialP`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Ends of every interval, as quantiles of the bootstrap samples.
LEVEL = 0.95
INTERVAL = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
# With so few units every change of signs is tried.
MAX_EXACT = 13
# Float64 copies that are made at once.
BLOCK_BYTES = 1 << 22
_SIGNS_AT_ONCE = 1000
# Positions of units that bootstrap samples hold at once.
_DRAWN_AT_ONCE = 1 << 20
# Draws that reach the observed statistic after which a sequential test ends: p is then known to a tenth of itself.
ENOUGH_REACHING = 100
# Draws after which columns are sorted out whose test has ended.
_DRAWS_AT_ONCE = 64


class Interval(NamedTuple):
    """Lower and upper ends, of the shape of the statistic."""

    low: np.ndarray
    high: np.ndarray


def r2(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Computes the coefficient of determination around the measured mean.

    Args:
        measured: [N, V] or [N].
        predicted: of the same shape.

    Returns:
        R2 [V] (or a number) float64, at most 1; 0 where the measured values do not vary.

    Source: 1 - residual sum of squares / total sum of squares, as in scikit-learn's r2_score.
    """
    return _by_columns(_r2, measured, predicted)


def mean_r2(values: np.ndarray) -> float:
    """Averages R2 over voxels, each at least -1.

    A voxel that hardly varies in the test images has an R2 of any size below 0; it must not decide the mean.

    Args:
        values: [V] R2, or R2 / noise ceiling; NaN where there is none.

    Returns:
        The mean, a scalar; NaN where no value is finite.
    """
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    return float(np.maximum(known, -1).mean()) if len(known) else float("nan")


def pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes Pearson's correlation of each column.

    Args:
        a: [N, V] or [N].
        b: of the same shape.

    Returns:
        r [V] (or a number) float64; NaN where either column does not vary.
    """
    return _by_columns(_pearson, a, b)


def bootstrap_interval(
    statistic: Callable[[np.ndarray], np.ndarray], n_units: int, *, n_bootstrap: int, rng: np.random.Generator
) -> Interval:
    """Computes the percentile interval of a statistic over units drawn with replacement.

    Args:
        statistic: takes positions of units [n, n_units] of n <= n_bootstrap samples, gives one value (or array) per
            row; NaN where a draw has none, which does not count.
        n_units: units to draw from: voxels, images or pairs.
        n_bootstrap: samples.
        rng: source of the draws.

    Returns:
        The 95 % interval.
    """
    # of many units some samples after the others: the same draws in less memory
    step = max(1, _DRAWN_AT_ONCE // max(1, n_units))
    sizes = [min(step, n_bootstrap - start) for start in range(0, n_bootstrap, step)]
    samples = np.concatenate([statistic(rng.integers(n_units, size=(size, n_units))) for size in sizes])
    quantile = np.nanquantile if np.isnan(samples).any() else np.quantile
    return Interval(*quantile(samples, INTERVAL, axis=0))


def quantiles_of_sorted(samples: np.ndarray) -> Interval:
    """Computes the ends of the 95 % interval of samples that are sorted already.

    Args:
        samples: [..., n], ascending along the last axis.

    Returns:
        The ends [...], with the linear interpolation of `numpy.quantile`.
    """
    ends = []
    for level in INTERVAL:
        place = level * (samples.shape[-1] - 1)
        below = int(place)
        left, right = samples[..., below], samples[..., min(below + 1, samples.shape[-1] - 1)]
        ends.append(left + (right - left) * (place - below))
    return Interval(*ends)


def permutation_p(exceeding: np.ndarray | int, n_permutations: np.ndarray | int) -> np.ndarray:
    """Computes p from the number of random draws that reach the observed statistic.

    Args:
        exceeding: draws that reach it, a number or one per test.
        n_permutations: draws, a number or one per test.

    Returns:
        p of the shape of `exceeding`, in (0, 1].

    Source: Phipson & Smyth 2010; the observed order counts as one of the draws.
    """
    return (1 + np.asarray(exceeding)) / (1 + n_permutations)


class SequentialP:
    """Counts random draws that reach observed statistics, each until 100 do.

    A statistic that the hundredth draw reaches after d draws has p = 100 / d, so of at most n draws p above 100 / n
    are known to a tenth of themselves. One that fewer reach has p = (1 + exceeding) / (1 + n), as everywhere.

    Source: Besag & Clifford 1991, sequential Monte Carlo p-values.
    """

    def __init__(self, observed: np.ndarray) -> None:
        """Starts with statistics [T]; what is not finite has no p."""
        self.observed = np.asarray(observed, np.float64)
        self._reaching = np.zeros(self.observed.shape, int)
        self._drawn = np.zeros(self.observed.shape, int)

    @property
    def is_open(self) -> np.ndarray:
        """Tests [T] bool that further draws tell something of."""
        return np.isfinite(self.observed) & (self._reaching < ENOUGH_REACHING)

    def add(self, drawn: np.ndarray, tests: np.ndarray | slice = slice(None)) -> None:
        """Adds one draw of the statistics of some tests (positions or slice); those that have ended stay."""
        counts = self._reaching[tests] < ENOUGH_REACHING
        self._drawn[tests] += counts
        self._reaching[tests] += counts & (drawn >= self.observed[tests])

    @property
    def p(self) -> np.ndarray:
        """One-sided p [T]; NaN where the statistic is not finite."""
        drawn = np.maximum(self._drawn, 1)
        ended, whole = self._reaching / drawn, permutation_p(self._reaching, self._drawn)
        p = np.where(self._reaching >= ENOUGH_REACHING, ended, whole)
        return np.where(np.isfinite(self.observed), p, np.nan)


def rank_p(values: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Computes one-sided p of values by their ranks among values for which the null holds, such as decoys'.

    Args:
        values: [V]; NaN stays NaN.
        null: [M]; NaN counts as lower than every value, since it did not even get that far.

    Returns:
        p [V], (1 + null values that reach it) / (1 + M); ties count as reaching.
    """
    values, null = np.asarray(values, np.float64), np.sort(np.nan_to_num(np.asarray(null, np.float64), nan=-np.inf))
    reaching = len(null) - np.searchsorted(null, values, side="left")
    return np.where(np.isfinite(values), permutation_p(reaching, len(null)), np.nan)


def leave_one_out_rank_p(null: np.ndarray) -> np.ndarray:
    """Computes `rank_p` of each null value [M] among the others; uniform if they are exchangeable."""
    known = np.isfinite(null)
    order = np.sort(np.asarray(null, np.float64)[known])
    reaching = len(order) - np.searchsorted(order, null, side="left") - 1
    return np.where(known, permutation_p(np.maximum(reaching, 0), max(len(order) - 1, 0)), np.nan)


def without(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Computes what is left of columns when other columns, and a constant, are regressed out of each.

    Args:
        values: [N, R].
        others: [N, R, K], K regressors of each column; those that do not vary take nothing away.

    Returns:
        Residuals [N, R] float64, standardised as by `standardized`; 0 where nothing but rounding is left.

    Source: Gram-Schmidt; with `column_permutation_p` the partial correlation of Freedman & Lane 1983.
    """
    left = standardized(values)
    basis: list[np.ndarray] = []
    for k in range(others.shape[2]):
        direction = standardized(others[:, :, k])
        for _ in range(2):  # twice is enough for regressors that are nearly the same
            for one in basis:
                direction = direction - (direction * one).mean(0) * one
        size = np.sqrt((direction**2).mean(0))
        basis.append(np.where(size > 1e-6, direction / np.maximum(size, 1e-6), 0))
        left = left - (left * basis[-1]).mean(0) * basis[-1]
    size = np.sqrt((left**2).mean(0))
    return np.where(size > 1e-6, left / np.maximum(size, 1e-6), 0)


def column_permutation_p(
    a: np.ndarray, b: np.ndarray, *, n_permutations: int, seed: int | list[int] = 0, is_two_sided: bool = False
) -> np.ndarray:
    """Computes p of the correlation of each column of two arrays, when rows of one are exchanged.

    Args:
        a: [N, R], standardised columns (or zeros).
        b: [N, R], of the same rows.
        n_permutations: random orders of the rows at most, the same for all columns.
        seed: of the orders.
        is_two_sided: whether correlations of either sign count; else those at or above the observed one.

    Returns:
        p [R] of `SequentialP`; NaN where a column of either array is 0.
    """
    out = np.full(a.shape[1], np.nan)
    step = max(1, BLOCK_BYTES // (8 * max(1, len(a))))
    for start in range(0, a.shape[1], step):
        columns = slice(start, start + step)
        ours, theirs = np.ascontiguousarray(a[:, columns]), np.ascontiguousarray(b[:, columns])
        known = (ours != 0).any(0) & (theirs != 0).any(0)

        def total(order: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
            products = np.einsum("nr,nr->r", ours[order], theirs)
            return np.abs(products) if is_two_sided else products

        # sums of the same numbers in another order differ by rounding
        enough = np.where(known, total(np.arange(len(a)), ours, theirs) - 1e-9 * len(a), np.nan)
        rng, test = np.random.default_rng(seed), SequentialP(enough)
        for first in range(0, n_permutations, _DRAWS_AT_ONCE):
            tests = np.flatnonzero(test.is_open)
            if not len(tests):
                break
            some = [np.ascontiguousarray(part[:, tests]) for part in (ours, theirs)]
            for _ in range(min(_DRAWS_AT_ONCE, n_permutations - first)):
                test.add(total(rng.permutation(len(a)), *some), tests)
        out[columns] = test.p
    return out


def sign_flip_p(values: np.ndarray, *, n_permutations: int, rng: np.random.Generator) -> float:
    """Computes the two-sided p of a total under random signs.

    Args:
        values: [n] one value per unit.
        n_permutations: random changes of sign; all of them are tried for up to 13 units.
        rng: source of the signs.

    Returns:
        p; 1 where the total is 0.

    Source: Fisher's randomisation test.
    """
    n, total = len(values), abs(values.sum())
    if total == 0:
        return 1.0
    # Sums of the same numbers in another order differ by rounding.
    enough = total * (1 - 1e-9)
    if n <= MAX_EXACT:
        signs = 1 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ values) >= enough).mean())
    exceeding = 0
    for start in range(0, n_permutations, _SIGNS_AT_ONCE):
        size = min(_SIGNS_AT_ONCE, n_permutations - start)
        signs = rng.integers(0, 2, (size, n)) * 2.0 - 1
        exceeding += int((np.abs(signs @ values) >= enough).sum())
    return float(permutation_p(exceeding, n_permutations))


def false_discovery_rate(p: np.ndarray) -> np.ndarray:
    """Computes Benjamini-Hochberg q; NaN stays NaN and does not count.

    Args:
        p: [T] p-values.

    Returns:
        q [T] float64.

    Source: Benjamini & Hochberg 1995, by scipy.
    """
    from scipy.stats import false_discovery_control

    q = np.full(len(p), np.nan)
    known = np.isfinite(p)
    if known.any():
        q[known] = false_discovery_control(np.asarray(p)[known])
    return q


def standardized(values: np.ndarray) -> np.ndarray:
    """Scales columns to mean 0 and deviation 1.

    Args:
        values: [N, ...].

    Returns:
        float64 of the same shape; constant columns become 0.
    """
    values = np.asarray(values, np.float64) - values.mean(0, dtype=np.float64)
    spread = values.std(0)
    return values / np.where(spread > 0, spread, 1)


def prediction_range(predicted: np.ndarray, predicted_baseline: np.ndarray) -> np.ndarray:
    """Computes the range of each voxel's predictions, of which an allowed completeness gap is a share.

    Args:
        predicted: [V, N] predictions of images.
        predicted_baseline: [V, N] predictions of their baselines.

    Returns:
        Largest minus smallest prediction [V], above 0.
    """
    return np.maximum(np.ptp(np.concatenate([predicted, predicted_baseline], 1), axis=1), 1e-12)


def _by_columns(statistic: Callable[..., np.ndarray], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes a statistic of [N, V] (or [N]) arrays for some columns after the others, in float64 [v, N]."""
    if a.ndim == 1:
        return _by_columns(statistic, a[:, None], b[:, None])[0]
    out = np.empty(a.shape[1])
    step = max(1, BLOCK_BYTES // (8 * max(1, len(a))))
    for start in range(0, len(out), step):
        columns = slice(start, start + step)
        # columns first: then the sum of each is the same however many others there are
        out[columns] = statistic(*(np.asarray(x[:, columns].T, np.float64, order="C") for x in (a, b)))
    return out


def _r2(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    residual = ((measured - predicted) ** 2).sum(1)
    total = ((measured - measured.mean(1, keepdims=True)) ** 2).sum(1)
    return np.where(total > 0, 1 - residual / np.where(total > 0, total, 1), 0.0)


def _pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # the mean of equal numbers may differ from them by rounding, so that their norm is not 0
    varies = (a != a[:, :1]).any(1) & (b != b[:, :1]).any(1)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    norm = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    known = varies & (norm > 0)
    return np.where(known, (a * b).sum(1) / np.where(known, norm, 1), np.nan)
