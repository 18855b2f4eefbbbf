"""Does the profile predict responses it was not made from, and more than its rivals do?

Held-out images are scored by the profile alone, in the space of words; the score is correlated with the
measured response. Three rivals could explain such a correlation: chance (images may be exchanged), the
low-level statistics of the images, and words in general (the profiles of other voxels).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.description import salience
from mine_jax.statistics import permutation_p, standardized

# Profiles of other voxels that are tried on a voxel's responses.
MAX_OTHERS = 300
# Profiles that correlate more than this with the voxel's own say the same.
_SAME_PROFILE = 0.5


class MeasuredTest(NamedTuple):
    """Results per voxel; NaN where untested.

    Attributes:
        r: [V] correlation of profile scores and measured responses.
        r_beyond: [V] the same given the low-level rival's predictions; r where there is no rival.
        p: [V] of r_beyond, one-sided, under exchanged images.
        r_rival: [V] correlation of the rival's predictions and measured responses.
        r_encoder: [V] correlation of the encoder's predictions and measured responses.
        rank: [V] share of other voxels' profiles, different from the own one, that predict the voxel no worse.
    """

    r: np.ndarray
    r_beyond: np.ndarray
    p: np.ndarray
    r_rival: np.ndarray
    r_encoder: np.ndarray
    rank: np.ndarray

    def take(self, voxels: np.ndarray) -> MeasuredTest:
        """Returns the results of some voxels (positions or mask [V])."""
        return MeasuredTest(*(part[voxels] for part in self))


def measured_test(
    distribution: np.ndarray,
    corpus: np.ndarray,
    image_words: np.ndarray,
    measured: np.ndarray,
    *,
    predicted: np.ndarray | None = None,
    rival: np.ndarray | None = None,
    n_permutations: int = 2000,
    seed: int = 0,
    progress: Progress = silent,
) -> MeasuredTest:
    """Tests profiles on the measured responses to held-out images.

    Args:
        distribution: [V, C] profiles as shares.
        corpus: [C] mean shares over a corpus.
        image_words: [T, C] shares of words in each held-out image.
        measured: [T, V] measured responses, z-scored beta; NaN columns stay untested.
        predicted: [T, V] predictions of the encoders that gave the profiles.
        rival: [T, V] predictions of an encoder that knows low-level image statistics only.
        n_permutations: permutations of the images.
        seed: of the permutations.
        progress: called with (done, total) permutations.

    Returns:
        The tests; p = (1 + exceeding permutations) / (1 + permutations).

    Source: partial correlation with permuted residuals, Freedman & Lane 1983.
    """
    scores = standardized(image_words @ np.maximum(salience(distribution, corpus), 0).T)
    response = standardized(measured)
    r = (scores * response).mean(0)
    tested = np.isfinite(r) & (np.abs(scores).sum(0) > 0) & (np.abs(response).sum(0) > 0)
    low_level = np.zeros_like(response) if rival is None else np.nan_to_num(standardized(rival))
    scores_left, response_left = (standardized(x - (x * low_level).mean(0) * low_level) for x in (scores, response))
    r_beyond = (scores_left * response_left).mean(0)
    exceeding, rng = np.zeros(len(r)), np.random.default_rng(seed)
    for i in range(n_permutations):
        exceeding += (scores_left[rng.permutation(len(scores))] * response_left).mean(0) >= r_beyond
        if i % 100 == 99:
            progress(i + 1, n_permutations)
    unknown = np.full(len(r), np.nan)
    r_rival, r_encoder = (
        unknown if one is None else (standardized(one) * response).mean(0) for one in (rival, predicted)
    )
    p, rank = permutation_p(exceeding, n_permutations), _rank_among_others(distribution, corpus, scores, response, seed)
    return MeasuredTest(*(np.where(tested, part, np.nan) for part in (r, r_beyond, p, r_rival, r_encoder, rank)))


def _rank_among_others(
    distribution: np.ndarray, corpus: np.ndarray, scores: np.ndarray, response: np.ndarray, seed: int
) -> np.ndarray:
    """Share [V] of other profiles that predict a voxel at least as well as its own; those like its own do not count."""
    rng = np.random.default_rng([seed, 1])
    usable = np.flatnonzero(np.abs(np.nan_to_num(scores)).sum(0) > 0)
    others = rng.permutation(usable)[:MAX_OTHERS]
    own = standardized(salience(distribution, corpus).T)
    of_others = scores[:, others].T @ response / len(scores)  # [O, V]
    is_other = own[:, others].T @ own / len(own) < _SAME_PROFILE
    reaching = (is_other & (of_others >= (scores * response).mean(0))).sum(0)
    return permutation_p(reaching, is_other.sum(0))
