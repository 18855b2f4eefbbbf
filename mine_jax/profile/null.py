"""Does the profile predict responses it was not made from? A permutation test per voxel.

Held-out images are scored by the profile alone, in the space of words; the score is
correlated with the measured response. Under the null the images carry no information, so
measured responses may be exchanged between images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.description import salience
from mine_jax.statistics import false_discovery_rate, permutation_p


class NullTest(NamedTuple):
    """Result per voxel: correlation r [V], p [V] one-sided, Benjamini-Hochberg q [V]; NaN where untested."""

    r: np.ndarray
    p: np.ndarray
    q: np.ndarray


def measured_correlation(
    distribution: np.ndarray,
    corpus: np.ndarray,
    image_words: np.ndarray,
    measured: np.ndarray,
    *,
    n_permutations: int = 2000,
    seed: int = 0,
    progress: Progress = silent,
) -> NullTest:
    """Correlates profile scores of held-out images with measured responses.

    Args:
        distribution: [V, C] profiles as shares.
        corpus: [C] mean shares over a corpus.
        image_words: [N, C] shares of words in each held-out image.
        measured: [N, V] measured responses, z-scored beta; NaN columns stay untested.
        n_permutations: permutations of the images.
        seed: of the permutations.
        progress: called with (done, total) permutations.

    Returns:
        The test; p = (1 + exceeding permutations) / (1 + permutations).

    Source: method of the package; q by Benjamini & Hochberg 1995 (scipy).
    """
    weights = np.maximum(salience(distribution, corpus), 0)
    predicted = _standardized(image_words @ weights.T)
    response = _standardized(measured)
    r = (predicted * response).mean(0)
    tested = np.isfinite(r) & (np.abs(predicted).sum(0) > 0) & (np.abs(response).sum(0) > 0)
    exceeding = np.zeros(len(r))
    rng = np.random.default_rng(seed)
    for i in range(n_permutations):
        exceeding += (predicted[rng.permutation(len(predicted))] * response).mean(0) >= r
        if i % 100 == 99:
            progress(i + 1, n_permutations)
    p = np.where(tested, permutation_p(exceeding, n_permutations), np.nan)
    return NullTest(np.where(tested, r, np.nan), p, false_discovery_rate(p))


def _standardized(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64) - values.mean(0, dtype=np.float64)
    spread = values.std(0)
    return values / np.where(spread > 0, spread, 1)
