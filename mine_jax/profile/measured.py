"""Does the profile predict responses it was not made from, and more than its rivals do?

Held-out images are scored by the profile alone, in the space of words; the score is correlated with the
measured response. Three rivals could explain such a correlation: chance (images may be exchanged), the
low-level statistics of the images, and words in general (the profiles of other voxels).

Words need not beat the low-level rival themselves where the encoder does: a scene is known by its colours and
edges nearly as well as by its name. If image-tokens say more of the response than low-level statistics, and
these little beyond the tokens, the words are tested whole, and must carry half of the encoder's correlation.
Otherwise they count with what the rival predicts partialled out.
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
# The encoder adds to the rival with at most this p, and words that are tested whole carry this share of its r.
_ADDS_P, _WHOLE_SHARE = 0.01, 0.5


class MeasuredTest(NamedTuple):
    """Results per voxel; NaN where untested.

    Attributes:
        r: [V] correlation of profile scores and measured responses.
        r_beyond: [V] the same given the low-level rival's predictions; r where there is no rival.
        is_whole: [V] bool, whether r is tested, since the encoder beats the rival; else r_beyond is.
        p: [V] of what is tested, one-sided, under exchanged images.
        r_rival: [V] correlation of the rival's predictions and measured responses.
        r_encoder: [V] correlation of the encoder's predictions and measured responses.
        rank: [V] share of other voxels' profiles, different from the own one, that predict the voxel no worse.
    """

    r: np.ndarray
    r_beyond: np.ndarray
    is_whole: np.ndarray
    p: np.ndarray
    r_rival: np.ndarray
    r_encoder: np.ndarray
    rank: np.ndarray

    @property
    def effect(self) -> np.ndarray:
        """What is tested [V]: r, or r_beyond."""
        return np.where(self.is_whole, self.r, self.r_beyond)

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
    unknown = np.full(len(r), np.nan)
    low_level = np.zeros_like(response) if rival is None else np.nan_to_num(standardized(rival))
    r_rival = unknown if rival is None else (standardized(rival) * response).mean(0)
    r_encoder, is_whole = unknown, np.zeros(len(r), bool)
    if predicted is not None:
        encoded = standardized(predicted)
        r_encoder = (encoded * response).mean(0)
        is_whole = _beats(encoded, low_level, response) & (r >= _WHOLE_SHARE * r_encoder)
    scores_left, response_left = _without(scores, low_level), _without(response, low_level)
    r_beyond = (scores_left * response_left).mean(0)
    ours, theirs = np.where(is_whole, scores, scores_left), np.where(is_whole, response, response_left)
    reached = np.where(is_whole, r, r_beyond)
    exceeding, rng = np.zeros(len(r)), np.random.default_rng(seed)
    for i in range(n_permutations):
        exceeding += (ours[rng.permutation(len(ours))] * theirs).mean(0) >= reached
        if i % 100 == 99:
            progress(i + 1, n_permutations)
    p, rank = permutation_p(exceeding, n_permutations), _rank_among_others(distribution, corpus, scores, response, seed)
    r, r_beyond, p, r_rival, r_encoder, rank = (
        np.where(tested, part, np.nan) for part in (r, r_beyond, p, r_rival, r_encoder, rank)
    )
    return MeasuredTest(r, r_beyond, is_whole, p, r_rival, r_encoder, rank)


def _without(values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Standardised values [T, V] without what another predicts of them."""
    return standardized(values - (values * other).mean(0) * other)


def _beats(encoded: np.ndarray, low_level: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Whether the encoder adds to the rival, and more than the rival to it, [V] bool; all [T, V] standardised."""
    from scipy.stats import norm

    adds, added = (
        (_without(one, other) * _without(response, other)).mean(0)
        for one, other in ((encoded, low_level), (low_level, encoded))
    )
    p = norm.sf(np.arctanh(np.clip(adds, -0.999999, 0.999999)) * np.sqrt(max(len(response) - 4, 1)))
    return (adds > added) & (p <= _ADDS_P)


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
