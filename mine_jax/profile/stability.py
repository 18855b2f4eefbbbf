"""Uncertainty of a word table over the images it was made from."""

from __future__ import annotations

import numpy as np

from mine_jax.description import salience


def bootstrap_interval(
    tables: np.ndarray, *, n_bootstrap: int, rng: np.random.Generator, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the percentile interval of the mean share of each word.

    Args:
        tables: [n, C] shares per image.
        n_bootstrap: samples of n images with replacement.
        rng: source of the samples.
        level: coverage.

    Returns:
        Lower and upper ends, [C] each.
    """
    n = len(tables)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=n_bootstrap)
    means = counts.astype(np.float32) @ tables / n
    return tuple(np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0).astype(np.float32))


def split_half(
    tables: np.ndarray, corpus: np.ndarray, *, rng: np.random.Generator, n_splits: int = 10
) -> tuple[np.ndarray, float]:
    """Splits the images in two random halves and correlates their word tables.

    Args:
        tables: [n, C] shares per image.
        corpus: [C] mean shares over a corpus.
        rng: source of the splits.
        n_splits: splits averaged for the correlation.

    Returns:
        The two half tables [2, C] of the first split, and the mean Pearson correlation of
        the halves' saliences; NaN for fewer than two images.
    """
    if len(tables) < 2:
        return np.zeros((2, tables.shape[1]), np.float32), np.nan
    halves, correlations = [], []
    for _ in range(n_splits):
        order = rng.permutation(len(tables))
        half = np.stack([tables[order[::2]].mean(0), tables[order[1::2]].mean(0)])
        halves.append(half)
        a, b = salience(half, corpus)
        a, b = a - a.mean(), b - b.mean()
        norm = np.sqrt((a**2).sum() * (b**2).sum())
        correlations.append((a * b).sum() / norm if norm > 0 else 0.0)
    return halves[0].astype(np.float32), float(np.mean(correlations))
