"""Pairs of a voxel's words that matter together: their joint presence changes the response beyond their sum.

The product of the two presences is correlated with the measured responses to held-out images, with both
presences partialled out of both.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.statistics import column_permutation_p, false_discovery_rate, standardized, without

_ROW_BYTES = 1 << 26


class Conjunctions(NamedTuple):
    """One row per voxel and pair of its words, R in all.

    Attributes:
        voxels: [R] int, position of the voxel.
        first: [R] int, position of the better word.
        second: [R] int, of the other.
        r: [R] correlation of joint presence and measured response, given each presence; negative where one
            word takes from what the other adds.
        p: [R], two-sided.
        q: [R], Benjamini-Hochberg over all rows.
    """

    voxels: np.ndarray
    first: np.ndarray
    second: np.ndarray
    r: np.ndarray
    p: np.ndarray
    q: np.ndarray


def conjunctions(
    word_ids: np.ndarray,
    image_words: np.ndarray,
    measured: np.ndarray,
    *,
    n_permutations: int = 1000,
    seed: int = 0,
    progress: Progress = silent,
) -> Conjunctions:
    """Tests all pairs of each voxel's words.

    Args:
        word_ids: [V, L] positions of each profile's words, best first; -1 for none.
        image_words: [T, C] shares of words in held-out images.
        measured: [T, V] measured responses to them, z-scored beta.
        n_permutations: exchanges of images.
        seed: of the exchanges.
        progress: called with (done, total) rows.

    Returns:
        The pairs, voxel by voxel.
    """
    i, j = np.triu_indices(word_ids.shape[1], 1)
    voxels, pair = np.nonzero((word_ids[:, i] >= 0) & (word_ids[:, j] >= 0))
    first, second = word_ids[voxels, i[pair]], word_ids[voxels, j[pair]]
    presence, response = standardized(image_words), standardized(measured)
    r, p = np.full((2, len(voxels)), np.nan)
    step = max(1, _ROW_BYTES // (8 * 4 * len(measured)))
    for start in range(0, len(voxels), step):
        rows = slice(start, min(start + step, len(voxels)))
        each = np.stack([presence[:, first[rows]], presence[:, second[rows]]], 2)
        joint, left = (without(one, each) for one in (each.prod(2), response[:, voxels[rows]]))
        r[rows] = (joint * left).mean(0)
        p[rows] = column_permutation_p(joint, left, n_permutations=n_permutations, seed=seed, is_two_sided=True)
        progress(rows.stop, len(voxels))
    return Conjunctions(voxels, first, second, r, p, false_discovery_rate(p))
