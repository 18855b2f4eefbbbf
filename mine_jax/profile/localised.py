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
from mine_jax.description import salience
from mine_jax.statistics import permutation_p, standardized

# Images that show several things: the share with the most even words.
_SEVERAL_SHARE = 2 / 3


class LocalisedTest(NamedTuple):
    """Results [V]: r with critical tokens minus r with all tokens of the images, and its p; NaN where untested."""

    effect: np.ndarray
    p: np.ndarray

    def take(self, voxels: np.ndarray) -> LocalisedTest:
        """Returns the results of some voxels (positions or mask [V])."""
        return LocalisedTest(*(part[voxels] for part in self))


def images_of_several_things(image_words: np.ndarray) -> np.ndarray:
    """Finds the images whose words are spread most evenly.

    Args:
        image_words: [T, C] shares of words in each image.

    Returns:
        Two thirds of the images, [T] bool.
    """
    shares = image_words / np.maximum(image_words.sum(1, keepdims=True), 1e-12)
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(1)
    return entropy >= np.quantile(entropy, 1 - _SEVERAL_SHARE)


def localised_test(
    distribution: np.ndarray,
    whole_images: np.ndarray,
    corpus: np.ndarray,
    image_words: np.ndarray,
    measured: np.ndarray,
    *,
    n_permutations: int = 2000,
    seed: int = 0,
    progress: Progress = silent,
) -> LocalisedTest:
    """Compares profiles of critical tokens with those of whole images.

    Args:
        distribution: [V, C] profiles as shares.
        whole_images: [V, C] mean shares over all tokens of the images that made each profile.
        corpus: [C] mean shares over a corpus.
        image_words: [T, C] shares of words in each held-out image.
        measured: [T, V] measured responses, z-scored beta.
        n_permutations: random exchanges of the two scores of an image.
        seed: of the exchanges.
        progress: called with (done, total) permutations.

    Returns:
        The test, one-sided.
    """
    chosen = images_of_several_things(image_words)
    response = standardized(measured[chosen])
    ours, theirs = (
        standardized(image_words[chosen] @ np.maximum(salience(one, corpus), 0).T)
        for one in (distribution, whole_images)
    )
    change = (ours - theirs) * response
    effect = change.mean(0)
    tested = np.isfinite(effect) & (np.abs(ours).sum(0) > 0) & (np.abs(theirs).sum(0) > 0)
    exceeding, rng = np.zeros(len(effect)), np.random.default_rng([seed, 2])
    for i in range(n_permutations):
        signs = rng.integers(0, 2, len(change)) * 2.0 - 1
        exceeding += signs @ change / len(change) >= effect
        if i % 100 == 99:
            progress(i + 1, n_permutations)
    p = permutation_p(exceeding, n_permutations)
    return LocalisedTest(*(np.where(tested, part, np.nan) for part in (effect, p)))
