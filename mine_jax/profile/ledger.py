"""What else could explain a word: a ledger of confounds, word by word.

The presence of a word in held-out images is correlated with the measured response, alone and with one
confound at a time partialled out: low-level statistics of the image, the number of things in it, and the
words that it comes with most, one by one and all together, each as its share of the image, the square root of
that, and whether it is there at all. A word survives if it says something of the response beyond each of
them. The words that the first word comes with are looked at, too: a picture of swimmers shows a beach.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.description.presence import Presence, finite, pair_products
from mine_jax.memory import BLOCK_BYTES, SparseRows, blocks
from mine_jax.statistics import false_discovery_rate, standardized, without

# Words of a profile that are looked at, and words that each of them comes with.
N_WORDS, N_COMPANIONS = 5, 3
# Words that correlate less with a word over images are no company.
_MIN_COMPANY = 0.1
# Voxels whose responses are looked at together.
_VOXELS_AT_ONCE = 4096


class Ledger(NamedTuple):
    """One row per voxel and word, R rows.

    Attributes:
        voxel: [R] position of the voxel.
        word: [R] position of the word.
        r: [R] correlation of the word's presence and the measured response.
        confound: [R] str, the confound that leaves least; words it comes with have "with " before them.
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
    image_words: SparseRows | np.ndarray,
    measured: np.ndarray,
    *,
    confounds: Mapping[str, np.ndarray] | None = None,
    company: SparseRows | np.ndarray | None = None,
    n_words: int = N_WORDS,
    progress: Progress = silent,
) -> Ledger:
    """Tests the first words of each profile against what they could stand for.

    Args:
        word_ids: [V, L] positions of the words of V profiles, best first; -1 for none.
        words: [C] str.
        image_words: [T, C] shares of words in each held-out image, dense or sparse.
        measured: [T, V] measured responses, z-scored beta.
        confounds: name -> [T, k] numbers of each image, partialled out together.
        company: [N, C] shares of words in images that say which words come together; None for `image_words`.
        n_words: first words that are looked at, beside those that the first one comes with.
        progress: called with (done, total) voxels.

    Returns:
        A row for each such word of each voxel whose response varies.

    Source: partial correlation; its p by the normal approximation of the permutation distribution. That a word
    must survive each confound makes the largest p that of the whole (intersection-union test, Berger 1982).
    """
    presence = Presence.of(image_words)
    in_company = presence if company is None else Presence.of(company)
    first = np.unique(word_ids[:, 0][word_ids[:, 0] >= 0])
    of_first = _companions(in_company, first)
    asked = _with_company(word_ids[:, :n_words], first, of_first)
    listed = np.unique(asked[asked >= 0])
    is_first, together = np.isin(listed, first), np.empty((len(listed), N_COMPANIONS), int)
    together[is_first], together[~is_first] = of_first, _companions(in_company, listed[~is_first])
    names, bases = [], []
    for name, values in (confounds or {}).items():
        names.append(name)
        bases.append(np.linalg.qr(standardized(np.atleast_2d(values.T).T))[0])
    parts = []
    for block in blocks(len(word_ids), _VOXELS_AT_ONCE):
        response = finite(measured[:, block])
        voxel, rank = np.nonzero((asked[block] >= 0) & (response != 0).any(0)[:, None])
        place = np.searchsorted(listed, asked[block][voxel, rank])
        tested = _tested(presence, response, voxel, listed[place], together[place], bases)
        parts.append((block.start + voxel, listed[place], together[place], *tested))
        progress(block.stop, len(word_ids))
    voxel, word, beside, r, r_given, z, which = (np.concatenate(part) for part in zip(*parts, strict=True))
    confound = np.array([*names, *[""] * (N_COMPANIONS + 2)], object)[which]
    for row in np.flatnonzero((which >= len(names)) & (which <= len(names) + N_COMPANIONS)):
        number = which[row] - len(names)
        company_of = beside[row] if number == N_COMPANIONS else beside[row, number : number + 1]
        confound[row] = f"with {', '.join(words[company_of[company_of >= 0]].tolist())}"
    p = _upper_tail(z)
    return Ledger(voxel, word, r, confound.astype(str), r_given, p, false_discovery_rate(p))


class _Taken(NamedTuple):
    """What a confound of k regressors takes away from R rows of (voxel, word).

    Attributes:
        of_word: [R, k] mean products of the word's presence and the regressors.
        of_response: [R, k] those of the voxel's response.
        inverse: [R, k, k] inverse of the regressors' mean products; None where they are orthonormal.
        n_values: [R] or a number, regressors of each row; 0 for rows that do not have this confound.
    """

    of_word: np.ndarray
    of_response: np.ndarray
    inverse: np.ndarray | None
    n_values: np.ndarray | int

    def products(self) -> tuple[np.ndarray, ...]:
        """Mean products [R] of what is taken: word and response, word and word, response and response."""
        word, response = self.of_word, self.of_response
        if self.inverse is not None:
            word, response = (np.einsum("rkl,rl->rk", self.inverse, part) for part in (word, response))
        pairs = ((word, self.of_response), (word, self.of_word), (response, self.of_response))
        return tuple((one * other).sum(1) for one, other in pairs)


def _tested(
    presence: Presence,
    response: np.ndarray,
    voxel: np.ndarray,
    word: np.ndarray,
    together: np.ndarray,
    bases: list[np.ndarray],
) -> tuple[np.ndarray, ...]:
    """Tests rows of (voxel, word): r, r given the worst confound, its z, and which it is (after the last: none)."""
    listed, row = np.unique(word, return_inverse=True)
    x, y, n_images = presence.of_words(listed), np.ascontiguousarray(response.T), len(response)
    r = pair_products(x, y, row, voxel)
    confounds = [
        _Taken(*((part @ basis / np.sqrt(n_images))[of] for part, of in ((x, row), (y, voxel))), None, basis.shape[1])
        for basis in bases
    ]
    confounds += _company(presence, x, y, row, voxel, together, listed)
    r_given, z, which = np.full(len(r), np.inf), np.full(len(r), np.inf), np.full(len(r), len(confounds))
    for number, taken in enumerate(confounds):
        # lengths and products of what is left follow from those of what is taken away
        shared, of_word, of_response = taken.products()
        x_left, y_left = 1 - of_word, 1 - of_response
        # what the confound says altogether leaves rounding errors
        is_left = (x_left > 1e-12) & (y_left > 1e-12)
        given = np.where(is_left, (r - shared) / np.sqrt(np.where(is_left, x_left * y_left, 1)), 0.0)
        strength = given * np.sqrt(np.maximum(n_images - 2 - taken.n_values, 1))
        worse = (np.asarray(taken.n_values) > 0) & (strength < z)
        z, r_given, which = (
            np.where(worse, strength, z),
            np.where(worse, given, r_given),
            np.where(worse, number, which),
        )
    alone = ~np.isfinite(z)
    z, r_given = np.where(alone, r * np.sqrt(max(n_images - 2, 1)), z), np.where(alone, r, r_given)
    return r, r_given, z, which


def _company(
    presence: Presence,
    x: np.ndarray,
    y: np.ndarray,
    row: np.ndarray,
    voxel: np.ndarray,
    together: np.ndarray,
    listed: np.ndarray,
) -> list[_Taken]:
    """What each of the words that a word comes with takes away, and what they all take away together."""
    shown = together >= 0
    # where there is none, the word stands for it, and takes nothing below
    together = np.where(shown, together, listed[row, None])
    others = np.unique(together)
    beside, shapes = np.searchsorted(others, together), _shapes(presence, others)
    alone = [
        _Taken(
            np.stack([pair_products(x, shape, row, beside[:, k]) for shape in shapes], 1),
            np.stack([pair_products(shape, y, beside[:, k], voxel) for shape in shapes], 1),
            None,
            len(shapes) * shown[:, k],
        )
        for k in range(together.shape[1])
    ]
    # regressors that a word lacks take nothing
    has = np.repeat(shown, len(shapes), axis=1)
    _, of_listed = np.unique(row, return_index=True)
    inverse = np.empty((len(listed), has.shape[1], has.shape[1]))
    for part in blocks(len(listed), BLOCK_BYTES // (16 * has.shape[1] * shapes.shape[2])):
        regressors = shapes[:, beside[of_listed[part]]].transpose(1, 2, 0, 3).reshape(-1, has.shape[1], shapes.shape[2])
        regressors = regressors * has[of_listed[part], :, None]
        inverse[part] = np.linalg.pinv(regressors @ regressors.transpose(0, 2, 1) / shapes.shape[2], 1e-9, True)
    of_all = (np.concatenate([getattr(one, name) for one in alone], 1) * has for name in ("of_word", "of_response"))
    return [*alone, _Taken(*of_all, inverse[row], has.sum(1))]


def _shapes(presence: Presence, words: np.ndarray) -> np.ndarray:
    """Share, its square root and whether it is above 0 of some words, [3, n, N], standardised and uncorrelated.

    A response grows less and less with the area that a thing covers: the share alone would leave some of it.
    """
    share = presence.by_word[words].toarray().T
    linear = standardized(share)
    root = without(np.sqrt(share), linear[..., None])
    shown = without(share > 0, np.stack([linear, root], 2))
    return np.stack([linear.T, root.T, shown.T])


def _companions(presence: Presence, words: np.ndarray) -> np.ndarray:
    """Positions [n, N_COMPANIONS] of the words that some words come with most; -1 where there are fewer."""
    n_words, n_images = len(presence.mean), presence.by_image.shape[0]
    found = np.full((len(words), N_COMPANIONS), -1)
    for block in blocks(len(words), BLOCK_BYTES // (8 * n_words)):
        some = words[block]
        together = (presence.by_word[some] @ presence.by_image).toarray() / n_images
        together -= np.outer(presence.mean[some], presence.mean)
        together *= presence.scale[some][:, None] * presence.scale
        row = np.arange(len(some))
        together[row, some] = -1
        for rank in range(min(N_COMPANIONS, n_words)):
            best = together.argmax(1)
            found[block, rank] = np.where(together[row, best] >= _MIN_COMPANY, best, -1)
            together[row, best] = -1
    return found


def _with_company(word_ids: np.ndarray, first: np.ndarray, together: np.ndarray) -> np.ndarray:
    """Words [V, L], and the companions of the first, each once; those of the words `first` are known."""
    own = word_ids[:, 0]
    if not len(first):
        return word_ids
    beside = np.where((own >= 0)[:, None], together[np.searchsorted(first, np.maximum(own, first[0]))], -1)
    is_new = ~(beside[:, :, None] == word_ids[:, None]).any(2)
    return np.concatenate([word_ids, np.where(is_new, beside, -1)], 1)


def _upper_tail(z: np.ndarray) -> np.ndarray:
    from scipy.stats import norm

    return norm.sf(z)
