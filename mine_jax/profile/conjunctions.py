"""Words whose joint presence matters: a response that is more than the sum of what both words say.

Each of the first words of a profile is paired with every word that it is often seen with. For a pair, the product of
both presences is correlated with the measured response, with each presence partialled out. The pair that promises
most in training images is tested on held-out ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.description.presence import Presence, Seen, finite
from mine_jax.memory import BLOCK_BYTES, blocks
from mine_jax.statistics import false_discovery_rate

# First words of a profile that are paired with others.
N_WORDS = 3
# Training images of both words, below which what they show together is the accident of a few images.
MIN_TOGETHER = 10
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
        n_words: first words of a profile that are paired with others.
        progress: called with (done, total) voxels.

    Returns:
        One row for each voxel with a word; p by the normal approximation of the permutation distribution.
    """
    from scipy.stats import norm

    n_voxels, presence = len(word_ids), Presence.of(training.words)
    best, first, second = np.zeros(n_voxels), np.full(n_voxels, -1), np.full(n_voxels, -1)
    # only words that are in so many images can be with another one in as many
    often = np.diff(presence.by_word.indptr) >= MIN_TOGETHER
    listed = np.where((word_ids >= 0) & often[word_ids], word_ids, -1)[:, :n_words]
    # voxels of the same word together: what its pairs have in common is computed once
    order = np.argsort(listed, axis=None, kind="stable")
    words, starts = np.unique(listed.ravel()[order], return_index=True)
    for word, rows in zip(words.tolist(), np.split(order, starts[1:]), strict=True):
        progress(int(rows[0]) // listed.shape[1], n_voxels)
        if word < 0:
            continue
        joint, voxels = _joint(presence, word), np.sort(rows // listed.shape[1])
        if not len(joint.columns):
            continue
        for block in blocks(len(voxels), BLOCK_BYTES // (16 * sum(joint.others.shape))):
            some = voxels[block]
            other, strength = _strongest(presence, word, joint, finite(training.measured[:, some]))
            better = strength > best[some]
            best[some[better]], first[some[better]], second[some[better]] = strength[better], word, other[better]
    voxel = np.flatnonzero(first >= 0)
    r = _partial(held_out, voxel, first[voxel], second[voxel])
    p = norm.sf(r * np.sqrt(max(len(held_out.measured) - 4, 1)))
    return Conjunctions(voxel, first[voxel], second[voxel], r, p, false_discovery_rate(p))


class _Joint(NamedTuple):
    """Joint presence of a word and J others over images, what both words say of it taken away.

    Attributes:
        columns: [J] positions of the others; only those that are seen with the word often enough, and can be told
            from the word and its product.
        images: [n] images with the word.
        products: [J, n] sparse, in these images the products of the shares of both words.
        others: [J, N] sparse, shares of the others in all images.
        with_own: [J] correlation of the word with each.
        of_own: [J] covariance of the product with the word.
        of_other: [J] covariance of the product with what the word leaves of the other.
        size: [J] deviation of what the word leaves of the other.
        left: [J] variance of the product that both leave.
    """

    columns: np.ndarray
    images: np.ndarray
    products: Any
    others: Any
    with_own: np.ndarray
    of_own: np.ndarray
    of_other: np.ndarray
    size: np.ndarray
    left: np.ndarray


def _joint(presence: Presence, word: int) -> _Joint:
    """Computes what a word's pairs have in common for all voxels.

    A product of presences is 0 outside the images of both words, so its moments are sums over the images of one.
    """
    n_images, span = presence.by_image.shape[0], slice(*presence.by_word.indptr[word : word + 2])
    images, shares = presence.by_word.indices[span], presence.by_word.data[span]
    rows = presence.by_image[images]
    weights = np.repeat(shares, np.diff(rows.indptr))
    counts = np.bincount(rows.indices, rows.data * weights > 0, minlength=rows.shape[1])
    columns = np.flatnonzero(counts >= MIN_TOGETHER)
    scale, mean = presence.scale[columns], presence.mean[columns]
    own_scale, own_mean = presence.scale[word], presence.mean[word]

    def moment(power: int, own_power: int) -> np.ndarray:
        """Mean of the product of powers of both presences; scaled, not centred."""
        total = np.bincount(rows.indices, rows.data**power * weights**own_power, minlength=rows.shape[1])
        return total[columns] / n_images * scale**power * own_scale**own_power

    joint, by_own, by_other, square = moment(1, 1), moment(1, 2), moment(2, 1), moment(2, 2)
    with_own = joint - own_scale * scale * own_mean * mean
    of_own = by_own - own_mean * own_scale * joint
    size = np.sqrt(np.maximum(1 - with_own**2, 0))
    usable = (size > _MIN_LEFT) & (scale > 0) & (columns != word)
    size = np.where(usable, size, 1)
    of_other = (by_other - mean * scale * joint - with_own * of_own) / size
    left = square - joint**2 - of_own**2 - of_other**2
    usable &= left > 1e-10 * square
    columns = columns[usable]
    products = rows[:, columns].T.tocsr()
    products.data = np.float32(products.data * shares[products.indices])
    parts = (part[usable] for part in (with_own, of_own, of_other, size, left))
    return _Joint(columns, images, products, presence.by_word[columns].astype(np.float32), *parts)


def _strongest(presence: Presence, word: int, joint: _Joint, response: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position [v] of the other word whose joint presence goes most with responses [N, v], and its partial r."""
    n_images, scale = len(response), presence.scale[joint.columns]

    def column(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32)[:, None]

    response = response.astype(np.float32)
    own = (presence.by_word[[word]] @ response * (presence.scale[word] / n_images)).astype(np.float32)
    other = (joint.others @ response) * column(scale / n_images)
    found = joint.products @ response[joint.images]
    found *= column(presence.scale[word] * scale / n_images)
    other -= column(joint.with_own) * own
    other /= column(joint.size)
    found -= column(joint.of_own) * own
    found -= column(joint.of_other) * other
    # variance of the response that both words leave
    rest = np.maximum(1 - own**2 - other**2, np.float32(1e-9))
    found /= np.sqrt(column(joint.left) * rest)
    best = found.argmax(0)
    return joint.columns[best], found[best, np.arange(found.shape[1])]


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
