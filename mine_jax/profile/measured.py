"""Does the profile predict responses it was not made from, and more than its rivals do?

Held-out images are scored by the profile alone, by the presence of its words: their shares in an image, in
standard deviations over the images, so that a rare word counts as much as a common one. Each word counts as
much as its presence goes with measured responses to the training images: of a category of many words the best
images of a voxel show a few, and a profile says more of these than of the others. The score is correlated with
the measured response. Three rivals could explain such a correlation: chance (images may be exchanged), the
low-level statistics of the images, and words in general (the profiles of other voxels).

Words need not beat the low-level rival themselves where the encoder does: a scene is known by its colours and
edges nearly as well as by its name. If image-tokens say more of the response than low-level statistics, and
these little beyond the tokens, the words are tested whole, and must carry half of the encoder's correlation.
Otherwise they count with what the rival predicts partialled out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mine_jax import statistics
from mine_jax._progress import Progress, silent
from mine_jax.description import saliences
from mine_jax.description.presence import Presence, finite
from mine_jax.memory import SparseRows, blocks, sparse_rows
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


def word_weights(distribution: SparseRows | np.ndarray, presence: Presence, measured: np.ndarray) -> SparseRows:
    """Weighs the words of profiles by measured responses to training images.

    Args:
        distribution: [V, C] profiles as shares, dense or sparse.
        presence: of words in N images that had a part in the fit.
        measured: [N, V] responses to them, z-scored beta. A table [C, V] is made: give some voxels at a time.

    Returns:
        [V, C] of the words of each profile, however small their shares: how their presence correlates with the
        responses, nothing where it does so negatively. Responses that do not vary, or are not finite, weigh nothing.
    """
    of_words, r = sparse_rows(distribution), presence.correlations(finite(measured))
    return of_words.with_values(r[of_words.columns, of_words.rows]).positive()


def measured_test(
    distribution: SparseRows | np.ndarray,
    corpus: np.ndarray,
    image_words: SparseRows | np.ndarray,
    measured: np.ndarray,
    *,
    weights: SparseRows | None = None,
    predicted: np.ndarray | None = None,
    rival: np.ndarray | None = None,
    n_permutations: int = 2000,
    seed: int = 0,
    progress: Progress = silent,
) -> MeasuredTest:
    """Tests profiles on the measured responses to held-out images.

    Args:
        distribution: [V, C] profiles as shares, dense or sparse.
        corpus: [C] mean shares over a corpus.
        image_words: [T, C] shares of words in each held-out image, dense or sparse.
        measured: [T, V] measured responses, z-scored beta; NaN columns stay untested.
        weights: [V, C] how much each word counts, of `word_weights`, as in a run; without them its positive salience.
        predicted: [T, V] predictions of the encoders that gave the profiles.
        rival: [T, V] predictions of an encoder that knows low-level image statistics only.
        n_permutations: permutations of the images.
        seed: of the permutations.
        progress: called with (done, total) voxels.

    Returns:
        The tests; p is that of `statistics.SequentialP`.

    Source: partial correlation with permuted residuals, Freedman & Lane 1983.
    """
    distribution, of_images = sparse_rows(distribution), Presence.of(image_words).in_spreads
    weights = saliences(distribution, corpus, positive=True) if weights is None else weights
    n_images, n_voxels = measured.shape
    at_once = statistics.BLOCK_BYTES // (8 * max(1, n_images))
    usable = np.zeros(n_voxels, bool)
    for block in blocks(n_voxels, at_once):
        usable[block] = (standardized(_scores(weights.take(block), of_images)) != 0).any(0)
    drawn = np.random.default_rng([seed, 1]).permutation(np.flatnonzero(usable))[:MAX_OTHERS]
    of_others = standardized(_scores(weights.take(drawn), of_images))
    others = _Others(of_others, saliences(distribution.take(drawn), corpus))
    parts = []
    for block in blocks(n_voxels, at_once):
        scores = standardized(_scores(weights.take(block), of_images))
        response = standardized(measured[:, block])
        test = _tested(
            scores,
            response,
            encoded=None if predicted is None else standardized(predicted[:, block]),
            low_level=None if rival is None else standardized(rival[:, block]),
            n_permutations=n_permutations,
            seed=seed,
        )
        rank = others.rank(saliences(distribution.take(block), corpus), scores, response)
        parts.append(test._replace(rank=np.where(np.isfinite(test.r), rank, np.nan)))
        progress(block.stop, n_voxels)
    return MeasuredTest(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def profile_scores(distribution: SparseRows, corpus: np.ndarray, of_images: Any) -> np.ndarray:
    """Scores images by profiles alone: the positive saliences of a profile's words times their presence in an image.

    Args:
        distribution: [v, C] profiles as shares.
        corpus: [C] mean shares over a corpus.
        of_images: [C, T] presence of words in images, a sparse table.

    Returns:
        Scores [T, v] float64.
    """
    return _scores(saliences(distribution, corpus, positive=True), of_images)


def _scores(weights: SparseRows, of_images: Any) -> np.ndarray:
    """Sums the presence of words [C, T] in images by their weights [v, C]: scores [T, v] float64."""
    return np.ascontiguousarray((weights.csr() @ of_images).toarray().T)


def _tested(
    scores: np.ndarray,
    response: np.ndarray,
    *,
    encoded: np.ndarray | None,
    low_level: np.ndarray | None,
    n_permutations: int,
    seed: int,
) -> MeasuredTest:
    """Tests some voxels; all arrays [T, v] standardised. Ranks are unknown yet."""
    r = (scores * response).mean(0)
    tested = np.isfinite(r) & (np.abs(scores).sum(0) > 0) & (np.abs(response).sum(0) > 0)
    unknown = np.full(len(r), np.nan)
    rival = np.zeros_like(response) if low_level is None else np.nan_to_num(low_level)
    r_rival = unknown if low_level is None else (low_level * response).mean(0)
    r_encoder, is_whole = unknown, np.zeros(len(r), bool)
    if encoded is not None:
        r_encoder = (encoded * response).mean(0)
        is_whole = _beats(encoded, rival, response) & (r >= _WHOLE_SHARE * r_encoder)
    scores_left, response_left = _without(scores, rival), _without(response, rival)
    r_beyond = (scores_left * response_left).mean(0)
    ours, theirs = np.where(is_whole, scores, scores_left), np.where(is_whole, response, response_left)
    p = statistics.column_permutation_p(ours, theirs, n_permutations=n_permutations, seed=seed)
    r, r_beyond, p, r_rival, r_encoder = (
        np.where(tested, part, np.nan) for part in (r, r_beyond, p, r_rival, r_encoder)
    )
    return MeasuredTest(r, r_beyond, is_whole, p, r_rival, r_encoder, unknown)


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


class _Others(NamedTuple):
    """Profiles of O other voxels: their scores of images [T, O], and their saliences over words."""

    scores: np.ndarray
    saliences: SparseRows

    def rank(self, own: SparseRows, scores: np.ndarray, response: np.ndarray) -> np.ndarray:
        """Share [v] of the others that predict a voxel as well as its own profile; those like its own do not count."""
        of_others = self.scores.T @ response / len(scores)  # [O, v]
        (mean, spread), (other_mean, other_spread) = _moments(own), _moments(self.saliences)
        covariance = (self.saliences.csr() @ own.csr().T).toarray() / own.width - np.outer(other_mean, mean)
        is_other = covariance / np.outer(other_spread, spread) < _SAME_PROFILE
        reaching = (is_other & (of_others >= (scores * response).mean(0))).sum(0)
        return permutation_p(reaching, is_other.sum(0))


def _moments(rows: SparseRows) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of rows over all words; 1 for rows that do not vary."""
    mean, square = (np.bincount(rows.rows, rows.values**power, minlength=len(rows)) / rows.width for power in (1, 2))
    variance = square - mean**2
    return mean, np.sqrt(np.where(variance > 0, variance, 1))
