"""Critical tokens and their words to a description of every (voxel, image) pair."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.description.lens import TokenWords
from mine_jax.errors import DataError
from mine_jax.types import CriticalTokens, Descriptions

# Pseudo-share of every word in the log-odds: a word must be seen to count.
SMOOTHING = 1e-3


def describe(
    critical: CriticalTokens,
    words: TokenWords,
    *,
    corpus: np.ndarray,
    n_words: int = 20,
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
        rewrite: turns the plain sentence into another, for instance by a language model.
        progress: called with (done, total) voxels.

    Returns:
        Descriptions of V x I pairs over the C canonical words.

    Raises:
        DataError: if an image has no token words.

    Source: MINE, descriptions; the weighting is ours.
    """
    n_voxels, n_images, _ = critical.indices.shape
    rows = _rows(words.image_ids, critical.image_ids)
    n_words = min(n_words, len(words.vocabulary.words))
    word_ids = np.full((n_voxels, n_images, n_words), -1, np.int32)
    weights = np.zeros((n_voxels, n_images, n_words), np.float32)
    n_tokens = np.zeros((n_voxels, n_images, n_words), np.int32)
    sentences = np.empty((n_voxels, n_images), dtype=object)
    for v in range(n_voxels):
        for i in range(n_images):
            table, support = _share(
                words.word_ids[rows[v, i], critical.indices[v, i]],
                words.shares[rows[v, i], critical.indices[v, i]],
                critical.scores[v, i],
                len(corpus),
            )
            best = np.argsort(-salience(table, corpus), kind="stable")[:n_words]
            best = best[table[best] > 0]
            word_ids[v, i, : len(best)] = best
            weights[v, i, : len(best)] = table[best]
            n_tokens[v, i, : len(best)] = support[best]
            text = sentence(words.vocabulary.words[best], support[best], critical.indices.shape[2])
            sentences[v, i] = rewrite(text) if rewrite else text
        progress(v + 1, n_voxels)
    return Descriptions(
        voxel_ids=critical.voxel_ids,
        image_ids=critical.image_ids,
        words=words.vocabulary.words,
        word_ids=word_ids,
        weights=weights,
        n_tokens=n_tokens,
        sentences=sentences.astype(str),
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


def _share(word_ids: np.ndarray, shares: np.ndarray, scores: np.ndarray, n_words: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weight [C] of each word over one pair's critical tokens, and the tokens that support it."""
    positive = np.maximum(np.nan_to_num(scores), 0)
    total = positive.sum()
    weighted = shares * (positive / total if total > 0 else positive)[:, None]
    real = word_ids >= 0
    table = np.bincount(word_ids[real], weights=weighted[real], minlength=n_words)
    supports = real & (positive > 0)[:, None]
    return table, np.bincount(word_ids[supports], minlength=n_words)


def _rows(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    order = np.argsort(known)
    rows = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(order) - 1)]
    wrong = known[rows] != wanted
    if wrong.any():
        raise DataError(
            f"image {str(wanted[wrong][0])!r} has no token words; pass all attributed images to `top_words`."
        )
    return rows
