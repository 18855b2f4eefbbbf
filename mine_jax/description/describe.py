"""Critical tokens and their words to a description of every (voxel, image) pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.description.lens import TokenWords
from mine_jax.errors import DataError
from mine_jax.types import CriticalTokens, Descriptions

# Pseudo-share of every word in the log-odds: a word must be seen to count.
SMOOTHING = 1e-3
# Entries of the lens that are weighed at once: critical tokens times their words.
_BLOCK_ENTRIES = 1 << 21


def describe(
    critical: CriticalTokens,
    words: TokenWords,
    *,
    corpus: np.ndarray,
    n_words: int = 20,
    with_sentences: bool = True,
    rewrite: Callable[[str], str] | None = None,
    progress: Progress = silent,
) -> Descriptions:
    """Describes what drives each voxel in each image.

    A word's weight is the share of the critical attribution that falls on tokens which the
    lens reads as that word: sum of score times lens share over critical tokens, divided by
    the summed scores. Words are ranked by weight times log-odds against the corpus, so that
    words common to all images do not win. Tokens with a negative score say nothing.

    Args:
        critical: K critical tokens of V x I pairs.
        words: token words of at least those images.
        corpus: [C] mean share of each canonical word over a corpus of images.
        n_words: words kept per pair, L.
        with_sentences: whether to write the sentences; they are "" otherwise.
        rewrite: turns the plain sentence into another, for instance by a language model.
        progress: called with (done, total) voxels.

    Returns:
        Descriptions of V x I pairs over the C canonical words.

    Raises:
        DataError: if an image has no token words.

    Source: MINE, descriptions; the weighting is ours.
    """
    n_voxels, n_images, k = critical.indices.shape
    rows = _rows(words.image_ids, critical.image_ids)
    n_words = min(n_words, len(words.vocabulary.words))
    shape = (n_voxels * n_images, n_words)
    word_ids, weights, n_tokens = np.full(shape, -1, np.int32), np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    at_once = max(1, _BLOCK_ENTRIES // (k * words.word_ids.shape[2] * n_images)) * n_images
    for start in range(0, len(word_ids), at_once):
        pairs = slice(start, min(start + at_once, len(word_ids)))
        tokens = (rows.reshape(-1)[pairs, None], critical.indices.reshape(-1, k)[pairs])
        scores = critical.scores.reshape(-1, k)[pairs]
        found = _weighed(words.word_ids[tokens], words.shares[tokens], scores, corpus)
        kept = found.rank < n_words
        place = (start + found.pair[kept], found.rank[kept])
        word_ids[place], weights[place], n_tokens[place] = found.word[kept], found.weight[kept], found.n_tokens[kept]
        progress(pairs.stop // n_images, n_voxels)
    texts = np.full(len(word_ids), "", dtype=object)
    if with_sentences:
        for pair, (ids, support) in enumerate(zip(word_ids, n_tokens, strict=True)):
            real = ids >= 0
            text = sentence(words.vocabulary.words[ids[real]], support[real], k)
            texts[pair] = rewrite(text) if rewrite else text
    return Descriptions(
        voxel_ids=critical.voxel_ids,
        image_ids=critical.image_ids,
        words=words.vocabulary.words,
        word_ids=word_ids.reshape(n_voxels, n_images, n_words),
        weights=weights.reshape(n_voxels, n_images, n_words),
        n_tokens=n_tokens.reshape(n_voxels, n_images, n_words),
        sentences=texts.astype(str).reshape(n_voxels, n_images),
    )


def salience(shares: np.ndarray, corpus: np.ndarray) -> np.ndarray:
    """Ranks words: share times log-odds against the corpus.

    Args:
        shares: [..., C] shares of words.
        corpus: [C] mean shares over a corpus.

    Returns:
        Salience [..., C]; negative for words rarer than in the corpus.
    """
    return shares * np.log((shares + SMOOTHING) / (corpus + SMOOTHING))


def sentence(words: np.ndarray, n_tokens: np.ndarray, k: int) -> str:
    """Writes the plain sentence of one description.

    Args:
        words: [<= L] str, best first.
        n_tokens: [<= L] critical tokens that support each word.
        k: number of critical tokens.
    """
    if len(words) == 0:
        return "No word describes what drives the response here."
    rest = [str(word) for word in words[1:4]]
    text = f"The response to this image is driven by {words[0]} ({n_tokens[0]} of {k} critical tokens)"
    return text + (f", then {join(rest)}." if rest else ".")


def join(words: list[str]) -> str:
    """Joins words as in prose: "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


class _Weighed(NamedTuple):
    """Words of some pairs: position of the pair, of the word, its weight, its tokens, and its rank from 0."""

    pair: np.ndarray
    word: np.ndarray
    weight: np.ndarray
    n_tokens: np.ndarray
    rank: np.ndarray


def _weighed(word_ids: np.ndarray, shares: np.ndarray, scores: np.ndarray, corpus: np.ndarray) -> _Weighed:
    """Weighs the words of the critical tokens of B pairs, of which the lens gives [B, K, M] and attribution [B, K]."""
    positive = np.maximum(np.nan_to_num(scores), 0).astype(np.float64)
    total = positive.sum(1, keepdims=True)
    importance = positive / np.where(total > 0, total, 1)
    real = (word_ids >= 0) & (importance > 0)[..., None]
    # one row per pair and word: entries of equal words stand together
    pair, _, _ = np.nonzero(real)
    key = pair * len(corpus) + word_ids[real]
    order = np.argsort(key, kind="stable")
    key, starts = np.unique(key[order], return_index=True)
    if not len(key):
        return _Weighed(*(np.zeros(0, int) for _ in range(5)))
    weight = np.add.reduceat((shares * importance[..., None])[real][order], starts)
    n_tokens = np.diff(np.append(starts, len(order)))
    pair, word = np.divmod(key, len(corpus))
    value = salience(weight, corpus[word])
    # a word that is rarer than in the corpus comes after those that are not there at all
    absent = len(corpus) - np.bincount(pair, minlength=len(scores))
    best = np.lexsort((word, -value, pair))
    first = np.searchsorted(pair[best], np.arange(len(scores)))
    rank = np.arange(len(best)) - first[pair[best]] + np.where(value[best] < 0, absent[pair[best]], 0)
    return _Weighed(pair[best], word[best], weight[best], n_tokens[best], rank)


def _rows(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    order = np.argsort(known)
    rows = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(order) - 1)]
    wrong = known[rows] != wanted
    if wrong.any():
        raise DataError(
            f"image {str(wanted[wrong][0])!r} has no token words; pass all attributed images to `top_words`."
        )
    return rows
