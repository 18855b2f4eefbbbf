"""Words whose joint presence matters: a response that is more than the sum of what both words say.

Each of the first words of a profile is paired with every word. For a pair, the product of both presences is
correlated with the measured response, with each presence partialled out. The pair that promises most in
training images is tested on held-out ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.description.presence import Presence, Seen, finite
from mine_jax.memory import BLOCK_BYTES, blocks
from mine_jax.statistics import false_discovery_rate

# First words of a profile that are paired with all others.
N_WORDS = 3
# Standard deviation that a word must leave of another one.
_MIN_LEFT = 0.2


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


def conjunctions(
    word_ids: np.ndarray, training: Seen, held_out: Seen, *, n_words: int = N_WORDS, progress: Progress = silent
) -> Conjunctions:
    """Finds and tests the pair of words of each voxel that matters most together.

    Args:
        word_ids: [V, L] positions of the words of V profiles, best first; -1 for none.
        training: images that choose the pair.
        held_out: images that test it.
        n_words: first words of a profile that are paired with all others.
        progress: called with (done, total) voxels.

    Returns:
        One row for each voxel with a word; p by the normal approximation of the permutation distribution.
    """
    from scipy.stats import norm

    n_voxels, presence = len(word_ids), Presence.of(training.words)
    best, first, second = np.zeros(n_voxels), np.full(n_voxels, -1), np.full(n_voxels, -1)
    listed = word_ids[:, :n_words]
    # voxels of the same words together: what a word's pairs have in common is computed once per block
    order = np.lexsort(listed.T[::-1])
    for block in blocks(n_voxels, BLOCK_BYTES // (16 * len(presence.mean))):
        voxels = order[block]
        response = finite(training.measured[:, voxels])
        along = presence.correlations(response)
        for word in np.unique(listed[voxels][listed[voxels] >= 0]):
            inside = np.flatnonzero((listed[voxels] == word).any(1))
            other, strength = _strongest(presence, int(word), response[:, inside], along[:, inside])
            rows = voxels[inside]
            better = strength > best[rows]
            best[rows[better]], first[rows[better]], second[rows[better]] = strength[better], word, other[better]
        progress(block.stop, n_voxels)
    voxel = np.flatnonzero(first >= 0)
    r = _partial(held_out, voxel, first[voxel], second[voxel])
    p = norm.sf(r * np.sqrt(max(len(held_out.measured) - 4, 1)))
    return Conjunctions(voxel, first[voxel], second[voxel], r, p, false_discovery_rate(p))


def _strongest(presence: Presence, word: int, response: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position of the other word [v] whose joint presence with a word correlates most with responses [N, v], and r.

    `along` are the correlations of all words with the responses, [C, v]. A product of presences is 0 outside the
    images of both words, so its moments are sums over the images of one.
    """
    n_images, span = len(response), slice(*presence.by_word.indptr[word : word + 2])
    images, shares = presence.by_word.indices[span], presence.by_word.data[span]
    inside = presence.by_image[images]
    columns = np.unique(inside.indices)
    inside, squared = inside[:, columns], inside[:, columns].power(2)
    scale, mean = presence.scale[columns], presence.mean[columns]
    own_scale, own_mean = presence.scale[word], presence.mean[word]
    sums = [table.T @ weights / n_images for table in (inside, squared) for weights in (shares, shares**2)]
    joint, by_own, by_other, square = (
        total * factor
        for total, factor in zip(
            sums,
            (own_scale * scale, own_scale**2 * scale, own_scale * scale**2, own_scale**2 * scale**2),
            strict=True,
        )
    )
    with_own = joint - own_scale * scale * own_mean * mean
    # covariance of the product with the word, and with what the word leaves of the other
    of_own = by_own - own_mean * own_scale * joint
    size = np.sqrt(np.maximum(1 - with_own**2, 0))
    usable = (size > _MIN_LEFT) & (scale > 0) & (columns != word)
    size = np.where(usable, size, 1)
    of_other = (by_other - mean * scale * joint - with_own * of_own) / size
    left = square - joint**2 - of_own**2 - of_other**2
    usable &= left > 1e-10 * square
    columns, keep = columns[usable], np.flatnonzero(usable)
    if not len(keep):
        return np.zeros(response.shape[1], int), np.full(response.shape[1], -1.0)
    with_response = inside[:, keep].T @ (shares[:, None] * response[images])
    with_response *= (own_scale * scale[keep] / n_images)[:, None]
    of_rest = (along[columns] - with_own[keep, None] * along[word]) / size[keep, None]
    with_response -= of_own[keep, None] * along[word] + of_other[keep, None] * of_rest
    # variance of the response that both words leave
    rest = np.maximum(1 - along[word] ** 2 - of_rest**2, 1e-9)
    r = with_response / np.sqrt(left[keep, None] * rest)
    other = r.argmax(0)
    return columns[other], r[other, np.arange(len(other))]


def _partial(seen: Seen, voxel: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Partial correlation [R] of responses with the joint presence of two words, given both; -1 where unknown."""
    presence, out = Presence.of(seen.words), np.full(len(voxel), -1.0)
    for part in blocks(len(voxel), BLOCK_BYTES // (64 * max(1, len(seen.measured)))):
        needed, rows = np.unique(np.concatenate([first[part], second[part]]), return_inverse=True)
        one, other = np.split(presence.of_words(needed)[rows], 2)
        response = finite(seen.measured[:, voxel[part]]).T
        joint = (one - one.min(1, keepdims=True)) * (other - other.min(1, keepdims=True))
        joint = joint - joint.mean(1, keepdims=True)
        other = other - _mean_product(one, other) * one
        size = np.sqrt((other**2).mean(1, keepdims=True))
        usable = size[:, 0] > _MIN_LEFT
        other = other / np.where(size > _MIN_LEFT, size, 1)
        joint = joint - _mean_product(one, joint) * one
        joint = joint - _mean_product(other, joint) * other
        length = np.sqrt((joint**2).mean(1))
        usable &= length > 1e-9
        left = 1 - _mean_product(response, one)[:, 0] ** 2 - _mean_product(response, other)[:, 0] ** 2
        r = _mean_product(response, joint)[:, 0] / (np.where(usable, length, 1) * np.sqrt(np.maximum(left, 1e-9)))
        out[part] = np.where(usable, r, -1.0)
    return out


def _mean_product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.einsum("rn,rn->r", one, other)[:, None] / one.shape[1]
