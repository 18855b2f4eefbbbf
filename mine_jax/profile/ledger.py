"""What else could explain a word: a ledger of confounds, word by word.

The presence of a word in held-out images is correlated with the measured response, alone and with one
confound at a time partialled out: low-level statistics of the image, the number of things in it, and the
words that it comes with most. A word survives if it says something of the response beyond each of them. The
words that the first word comes with are looked at, too: a picture of swimmers shows a beach.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mine_jax.statistics import false_discovery_rate, standardized

# Words of a profile that are looked at, and words that each of them comes with.
N_WORDS, N_COMPANIONS = 5, 3
# Words that correlate less with a word over images are no company.
_MIN_COMPANY = 0.1


class Ledger(NamedTuple):
    """One row per voxel and word, R rows.

    Attributes:
        voxel: [R] position of the voxel.
        word: [R] position of the word.
        r: [R] correlation of the word's presence and the measured response.
        confound: [R] str, the confound that leaves least; a word it comes with has "with " before it.
        r_given: [R] the correlation with that confound partialled out.
        p: [R] of r_given, one-sided.
        q: [R] over all rows.
    """

    voxel: np.ndarray
    word: np.ndarray
    r: np.ndarray
    confound: np.ndarray
    r_given: np.ndarray
    p: np.ndarray
    q: np.ndarray


def ledger(
    word_ids: np.ndarray,
    words: np.ndarray,
    image_words: np.ndarray,
    measured: np.ndarray,
    *,
    confounds: Mapping[str, np.ndarray] | None = None,
    company: np.ndarray | None = None,
    n_words: int = N_WORDS,
) -> Ledger:
    """Tests the first words of each profile against what they could stand for.

    Args:
        word_ids: [V, L] positions of the words of V profiles, best first; -1 for none.
        words: [C] str.
        image_words: [T, C] shares of words in each held-out image.
        measured: [T, V] measured responses, z-scored beta.
        confounds: name -> [T, k] numbers of each image, partialled out together.
        company: [N, C] shares of words in images that say which words come together; None for `image_words`.
        n_words: first words that are looked at, beside those that the first one comes with.

    Returns:
        A row for each such word of each voxel whose response varies.

    Source: partial correlation; its p by the normal approximation of the permutation distribution. That a word
    must survive each confound makes the largest p that of the whole (intersection-union test, Berger 1982).
    """
    presence, response = standardized(image_words), standardized(measured)
    varies = np.isfinite(response).all(0) & (np.abs(response).sum(0) > 0)
    together = _companions(standardized(image_words if company is None else company))
    asked = _with_company(word_ids[:, :n_words], together)
    voxel, rank = np.nonzero((asked >= 0) & varies[:, None])
    word = asked[voxel, rank]
    fixed = {name: standardized(np.atleast_2d(values.T).T) for name, values in (confounds or {}).items()}
    r, r_given, z = np.zeros(len(voxel)), np.full(len(voxel), np.inf), np.full(len(voxel), np.inf)
    confound = np.full(len(voxel), "", dtype=object)
    for one in np.unique(word):
        rows = np.flatnonzero(word == one)
        x, y = presence[:, one], response[:, voxel[rows]]
        r[rows] = x @ y / len(x)
        companions = {f"with {words[other]}": presence[:, [other]] for other in together[one] if other >= 0}
        for name, values in {**fixed, **companions}.items():
            given = _partial(x, y, values)
            strength = given * np.sqrt(max(len(x) - 2 - values.shape[1], 1))
            worse = strength < z[rows]
            z[rows] = np.where(worse, strength, z[rows])
            r_given[rows] = np.where(worse, given, r_given[rows])
            confound[rows[worse]] = name
    alone = ~np.isfinite(z)
    z, r_given = np.where(alone, r * np.sqrt(max(len(presence) - 2, 1)), z), np.where(alone, r, r_given)
    p = _upper_tail(z)
    return Ledger(voxel, word, r, confound.astype(str), r_given, p, false_discovery_rate(p))


def _companions(presence: np.ndarray) -> np.ndarray:
    """Positions [C, n] of the words that each word comes with most; -1 where there are fewer."""
    correlation = presence.T @ presence / len(presence)
    np.fill_diagonal(correlation, -1)
    order = np.argsort(-correlation, axis=1)[:, :N_COMPANIONS]
    return np.where(np.take_along_axis(correlation, order, 1) >= _MIN_COMPANY, order, -1)


def _with_company(word_ids: np.ndarray, together: np.ndarray) -> np.ndarray:
    """Words [V, L] and the companions of the first, each once."""
    first = word_ids[:, 0]
    beside = np.where((first >= 0)[:, None], together[first], -1)
    is_new = ~(beside[:, :, None] == word_ids[:, None]).any(2)
    return np.concatenate([word_ids, np.where(is_new, beside, -1)], 1)


def _partial(x: np.ndarray, y: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Correlation [v] of x [T] and y [T, v] with values [T, k] partialled out."""
    basis = np.linalg.qr(values)[0]
    x_left, y_left = x - basis @ (basis.T @ x), y - basis @ (basis.T @ y)
    norm = np.linalg.norm(x_left) * np.linalg.norm(y_left, axis=0)
    # what the confound says altogether leaves rounding errors
    known = np.linalg.norm(x_left) > 1e-6 * np.linalg.norm(x)
    return np.where(known & (norm > 0), x_left @ y_left / np.where(norm > 0, norm, 1), 0.0)


def _upper_tail(z: np.ndarray) -> np.ndarray:
    from scipy.stats import norm

    return norm.sf(z)
