"""Do the critical image-tokens say more than the images they were taken from?

A profile may owe its words to the choice of images alone: a voxel that likes beaches gets the words of beach
photos from any of their tokens. The rival is the profile of all tokens of the same images, which is what
random tokens give on average. Both are compared on held-out images that show several things, where it
matters which of them is meant.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.description.presence import Presence
from mine_jax.memory import BLOCK_BYTES, SparseRows, blocks, sparse_rows
from mine_jax.profile.measured import profile_scores
from mine_jax.statistics import permutation_p, standardized

# Images that show several things: the share with the most even words.
_SEVERAL_SHARE = 2 / 3
# Random exchanges that are looked at together.
_SIGNS_AT_ONCE = 500


class LocalisedTest(NamedTuple):
    """Results [V]: r with critical tokens minus r with all tokens of the images, and its p; NaN where untested."""

    effect: np.ndarray
    p: np.ndarray

    def take(self, voxels: np.ndarray) -> LocalisedTest:
        """Returns the results of some voxels (positions or mask [V])."""
        return LocalisedTest(*(part[voxels] for part in self))


class WholeImages(NamedTuple):
    """Words of all tokens of the images that made V profiles, put together when they are asked for.

    Attributes:
        used: [V, N], 1 / n for each of the n images of a voxel.
        images: [N, C] shares of words in each image.
    """

    used: SparseRows
    images: SparseRows

    def take(self, voxels: slice) -> SparseRows:
        """Returns the mean shares of some voxels, [v, C]."""
        table = self.used.take(voxels).csr() @ self.images.csr()
        return SparseRows(table.indptr, table.indices, table.data, self.images.width)


def images_of_several_things(image_words: SparseRows | np.ndarray) -> np.ndarray:
    """Finds the images whose words are spread most evenly.

    Args:
        image_words: [T, C] shares of words in each image, dense or sparse.

    Returns:
        Two thirds of the images, [T] bool.
    """
    entropy = word_entropy(image_words)
    return entropy >= np.quantile(entropy, 1 - _SEVERAL_SHARE)


def word_entropy(image_words: SparseRows | np.ndarray) -> np.ndarray:
    """Computes how evenly the words of each image are spread.

    Args:
        image_words: [T, C] shares of words in each image, dense or sparse.

    Returns:
        Entropy [T], natural logarithm.
    """
    rows = sparse_rows(image_words)
    values, of_row, n_images = np.asarray(rows.values, np.float64), rows.rows, len(rows)
    shares = values / np.maximum(np.bincount(of_row, values, minlength=n_images), 1e-12)[of_row]
    return -np.bincount(of_row, shares * np.log(np.maximum(shares, 1e-12)), minlength=n_images)


def localised_test(
    distribution: SparseRows | np.ndarray,
    whole_images: WholeImages | SparseRows | np.ndarray,
    corpus: np.ndarray,
    image_words: SparseRows | np.ndarray,
    measured: np.ndarray,
    *,
    n_permutations: int = 2000,
    seed: int = 0,
    progress: Progress = silent,
) -> LocalisedTest:
    """Compares profiles of critical tokens with those of whole images.

    Args:
        distribution: [V, C] profiles as shares, dense or sparse.
        whole_images: [V, C] mean shares over all tokens of the images that made each profile.
        corpus: [C] mean shares over a corpus.
        image_words: [T, C] shares of words in each held-out image, dense or sparse.
        measured: [T, V] measured responses, z-scored beta.
        n_permutations: random exchanges of the two scores of an image.
        seed: of the exchanges.
        progress: called with (done, total) voxels.

    Returns:
        The test, one-sided.
    """
    image_words, distribution = sparse_rows(image_words), sparse_rows(distribution)
    whole = whole_images if isinstance(whole_images, WholeImages) else sparse_rows(whole_images)
    chosen = images_of_several_things(image_words)
    of_images = Presence.of(image_words.take(chosen)).in_spreads
    n_chosen, n_voxels = int(chosen.sum()), measured.shape[1]
    rng = np.random.default_rng([seed, 2])
    signs = np.stack([rng.integers(0, 2, n_chosen) for _ in range(n_permutations)]).astype(np.int8) * 2 - 1
    effect, exceeding, tested = np.zeros(n_voxels), np.zeros(n_voxels), np.zeros(n_voxels, bool)
    for block in blocks(n_voxels, BLOCK_BYTES // (8 * max(n_chosen, _SIGNS_AT_ONCE, distribution.width))):
        response = standardized(measured[chosen, block])
        ours, theirs = (
            standardized(profile_scores(rows.take(block), corpus, of_images)) for rows in (distribution, whole)
        )
        change = (ours - theirs) * response
        effect[block] = change.mean(0)
        tested[block] = np.isfinite(effect[block]) & (np.abs(ours).sum(0) > 0) & (np.abs(theirs).sum(0) > 0)
        for part in blocks(n_permutations, _SIGNS_AT_ONCE):
            drawn = signs[part].astype(np.float64) @ change / n_chosen
            exceeding[block] += (drawn >= effect[block]).sum(0)
        progress(block.stop, n_voxels)
    p = permutation_p(exceeding, n_permutations)
    return LocalisedTest(*(np.where(tested, part, np.nan) for part in (effect, p)))
