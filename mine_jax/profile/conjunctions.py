"""Words whose joint presence matters: a response that is more than the sum of what both words say.

Each of the first words of a profile is paired with every word. For a pair, the product of both presences is
correlated with the measured response, with each presence partialled out. The pair that promises most in
training images is tested on held-out ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax.statistics import false_discovery_rate, standardized

# First words of a profile that are paired with all others.
N_WORDS = 3
# Voxels whose responses are looked at together.
_VOXELS_AT_ONCE = 4096


class Conjunctions(NamedTuple):
    """The most promising pair of each voxel, R <= V rows.

    Attributes:
        voxel: [R] position of the voxel.
        first: [R] position of a word of its profile.
        second: [R] position of the other.
        r: [R] partial correlation of the joint presence in held-out images; above 0 where both together raise
            the response beyond the sum of both.
        p: [R] of r, one-sided.
        q: [R] over all rows.
    """

    voxel: np.ndarray
    first: np.ndarray
    second: np.ndarray
    r: np.ndarray
    p: np.ndarray
    q: np.ndarray


class Seen(NamedTuple):
    """Images: shares of words [N, C] and measured responses [N, V]."""

    words: np.ndarray
    measured: np.ndarray


def conjunctions(word_ids: np.ndarray, training: Seen, held_out: Seen, *, n_words: int = N_WORDS) -> Conjunctions:
    """Finds and tests the pair of words of each voxel that matters most together.

    Args:
        word_ids: [V, L] positions of the words of V profiles, best first; -1 for none.
        training: images that choose the pair.
        held_out: images that test it.
        n_words: first words of a profile that are paired with all others.

    Returns:
        One row for each voxel with a word; p by the normal approximation of the permutation distribution.
    """
    from scipy.stats import norm

    n_voxels = len(word_ids)
    best, first, second = np.zeros(n_voxels), np.full(n_voxels, -1), np.full(n_voxels, -1)
    listed = word_ids[:, :n_words]
    for word in np.unique(listed[listed >= 0]):
        voxels = np.flatnonzero((listed == word).any(1))
        for start in range(0, len(voxels), _VOXELS_AT_ONCE):
            block = voxels[start : start + _VOXELS_AT_ONCE]
            found = _joint(training, int(word), block)
            other = found.argmax(1)
            strength = found[np.arange(len(block)), other]
            better = strength > best[block]
            best[block[better]], first[block[better]], second[block[better]] = strength[better], word, other[better]
    voxel = np.flatnonzero(first >= 0)
    r = np.zeros(len(voxel))
    for word in np.unique(first[voxel]):
        rows = np.flatnonzero(first[voxel] == word)
        found = _joint(held_out, int(word), voxel[rows])
        r[rows] = found[np.arange(len(rows)), second[voxel[rows]]]
    p = norm.sf(r * np.sqrt(max(len(held_out.words) - 4, 1)))
    return Conjunctions(voxel, first[voxel], second[voxel], r, p, false_discovery_rate(p))


def _joint(seen: Seen, word: int, voxels: np.ndarray) -> np.ndarray:
    """Partial correlation [v, C] of each voxel's response with the joint presence of a word and every other."""
    presence, response = standardized(seen.words), standardized(seen.measured[:, voxels])
    n, one = len(presence), presence[:, word]
    with_one = one @ presence / n  # [C]
    # what the word leaves of the others, and both of their product
    others = presence - np.outer(one, with_one)
    size = np.sqrt((others**2).mean(0))
    usable = size > 0.2
    others = others / np.where(usable, size, 1)
    joint = (presence - presence.min(0)) * (one - one.min())[:, None]
    joint = joint - joint.mean(0)
    joint = joint - np.outer(one, one @ joint / n)
    joint = joint - others * ((others * joint).mean(0))
    norm = np.sqrt((joint**2).mean(0))
    usable &= norm > 1e-9
    along = response.T @ one / n
    left = 1 - along[:, None] ** 2 - (response.T @ others / n) ** 2  # [v, C] variance that both words leave
    found = (response.T @ joint / n) / (np.where(usable, norm, 1) * np.sqrt(np.maximum(left, 1e-9)))
    return np.where(usable & np.isfinite(found), found, -1.0)
