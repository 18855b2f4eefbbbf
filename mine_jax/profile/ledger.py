"""Confound ledger: does a profile's word predict the response, or something that comes with the word?

The presence of each word in held-out images is correlated with the measured response: alone, then with each
confound partialled out, then with all of them. Confounds are statistics of the image and the words that most
often come with this one. A word survives if every one of these correlations does, so the largest of their p
is the p of the word (an intersection-union test, Berger 1982), found at the confound that takes most away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.statistics import column_permutation_p, false_discovery_rate, standardized, without

NONE, ALL = "none", "all together"
# Rows (a voxel and a word) whose regressors are held at once.
_ROW_BYTES = 1 << 26


class Ledger(NamedTuple):
    """One row per voxel and word, R in all.

    Attributes:
        voxels: [R] int, position of the voxel.
        words: [R] int, position of the word.
        r: [R] correlation of the word's presence and the measured response.
        confounds: [R] str, what takes most of it away.
        r_given: [R] correlation that is left then.
        p: [R], one-sided, of `r_given`.
        q: [R], Benjamini-Hochberg over all rows.
    """

    voxels: np.ndarray
    words: np.ndarray
    r: np.ndarray
    confounds: np.ndarray
    r_given: np.ndarray
    p: np.ndarray
    q: np.ndarray


def ledger(
    word_ids: np.ndarray,
    words: np.ndarray,
    image_words: np.ndarray,
    measured: np.ndarray,
    *,
    confounds: Mapping[str, np.ndarray],
    seen_words: np.ndarray,
    n_companions: int = 3,
    n_permutations: int = 1000,
    seed: int = 0,
    progress: Progress = silent,
) -> Ledger:
    """Tests the words of profiles against what comes with them.

    Args:
        word_ids: [V, L] positions of each profile's words; -1 for none.
        words: [C] str.
        image_words: [T, C] shares of words in held-out images.
        measured: [T, V] measured responses to them, z-scored beta.
        confounds: name -> [T] statistic of each image.
        seen_words: [N, C] shares of words in other images, which say what comes with what.
        n_companions: words that come most often with each word, partialled out like the confounds.
        n_permutations: exchanges of images.
        seed: of the exchanges.
        progress: called with (done, total) rows.

    Returns:
        The ledger, voxel by voxel.
    """
    voxels, rank = np.nonzero(word_ids >= 0)
    asked = word_ids[voxels, rank]
    names = [NONE, *confounds, *(f"companion {i}" for i in range(n_companions)), ALL]
    company = companions(seen_words, np.unique(asked), n_companions)
    of_images = standardized(np.stack([*confounds.values()], 1)) if confounds else np.zeros((len(measured), 0))
    presence, response = standardized(image_words), standardized(measured)
    r, r_given, p, worst = (np.full(len(asked), np.nan) for _ in range(4))
    step = max(1, _ROW_BYTES // (8 * len(measured) * len(names)))
    for start in range(0, len(asked), step):
        rows = slice(start, min(start + step, len(asked)))
        beside = presence[:, company[asked[rows]]]  # [T, rows, companions]
        shared = np.broadcast_to(of_images[:, None], (*beside.shape[:2], of_images.shape[1]))
        others = np.concatenate([shared, beside], 2)
        x, y = presence[:, asked[rows]], response[:, voxels[rows]]
        lefts = [(without(x, part), without(y, part)) for part in _parts(others)]
        reached = np.stack([np.einsum("tr,tr->r", *left) / len(x) for left in lefts])
        least = np.argmin(np.nan_to_num(reached, nan=np.inf), 0)
        place = np.arange(len(least))
        ours, theirs = (np.stack([left[i] for left in lefts])[least, :, place].T for i in range(2))
        r[rows], r_given[rows], worst[rows] = reached[0], reached[least, place], least
        p[rows] = column_permutation_p(ours, theirs, n_permutations=n_permutations, seed=seed)
        # a word that is nothing but its confound leaves no residual to test
        p[rows] = np.where(np.isnan(p[rows]) & np.isfinite(reached[0]), 1.0, p[rows])
        progress(rows.stop, len(asked))
    named = np.array([names[int(i)] if np.isfinite(i) else NONE for i in worst], dtype=object)
    for i in range(n_companions):
        here = named == f"companion {i}"
        named[here] = np.char.add("comes with ", words[company[asked[here], i]].astype(str))
    return Ledger(voxels, asked, r, named.astype(str), r_given, p, false_discovery_rate(p))


def companions(image_words: np.ndarray, asked: np.ndarray, n: int) -> np.ndarray:
    """Finds the words that come most often with others.

    Args:
        image_words: [N, C] shares of words.
        asked: positions of the words that are asked for.
        n: words for each.

    Returns:
        Positions [C, n], best first; the word itself where there are no others, and for words not asked for.
    """
    n_words = image_words.shape[1]
    out = np.repeat(np.arange(n_words)[:, None], n, 1)
    values = standardized(image_words)
    for start in range(0, len(asked), 256):
        block = asked[start : start + 256]
        r = values[:, block].T @ values / len(values)
        r[np.arange(len(block)), block] = -np.inf
        best = np.argsort(-r, axis=1, kind="stable")[:, :n]
        out[block, : best.shape[1]] = best
    return out


def _parts(others: np.ndarray) -> list[np.ndarray]:
    """No regressor, each alone, all together; [T, R, K] each."""
    n_others = others.shape[2]
    return [others[:, :, :0], *(others[:, :, i : i + 1] for i in range(n_others)), others]
