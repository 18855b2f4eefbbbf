"""Critical tokens and their words to a description of every (voxel, image) pair."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mine_jax._checks import takes
from mine_jax._progress import Progress, silent
from mine_jax.description.lens import TokenWords
from mine_jax.errors import DataError
from mine_jax.memory import SparseRows, blocks, scratch, sparse_rows
from mine_jax.types import CriticalTokens, Descriptions

# Pseudo-share of every word in the log-odds: a word must be seen to count.
SMOOTHING = 1e-3
# Entries of the lens that are weighed at once: critical tokens times their words.
_BLOCK_ENTRIES = 1 << 19


@takes(
    "mine_jax.attribution.critical_tokens and mine_jax.description.top_words make them.",
    critical=CriticalTokens,
    words=TokenWords,
)
def describe(
    critical: CriticalTokens,
    words: TokenWords,
    *,
    corpus: np.ndarray,
    n_words: int = 20,
    folder: Path | None = None,
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
        folder: where the descriptions lie, in files without a name; None holds them in memory.
        progress: called with (done, total) voxels.

    Returns:
        Descriptions of V x I pairs over the C canonical words.

    Raises:
        DataError: if an image has no token words.

    Source: MINE, descriptions; the weighting is ours.
    """
    n_voxels, n_images, k = critical.indices.shape
    order = np.argsort(words.image_ids)
    n_words = min(n_words, len(words.vocabulary.words))
    shape = (n_voxels * n_images, n_words)
    # files cannot be empty
    room = np.zeros if folder is None or 0 in shape else functools.partial(scratch, folder=folder)
    word_ids, weights, n_tokens = room(shape, np.int32), room(shape, np.float32), room(shape, np.int32)
    tokens_each, m = words.word_ids.shape[1:]
    of_tokens = [part.reshape(-1, m) for part in (words.word_ids, words.shares)]
    for voxels in blocks(n_voxels, _BLOCK_ENTRIES // (k * m * max(1, n_images))):
        pairs = slice(voxels.start * n_images, voxels.stop * n_images)
        rows = _rows(words.image_ids, order, critical.image_ids[voxels])
        word_ids[pairs] = -1
        tokens = rows.reshape(-1, 1) * tokens_each + critical.indices[voxels].reshape(-1, k)
        ids, shares = (np.take(part, tokens, 0) for part in of_tokens)
        found = _weighed(ids, shares, critical.scores[voxels].reshape(-1, k), corpus)
        kept = found.rank < n_words
        place = (pairs.start + found.pair[kept], found.rank[kept])
        word_ids[place], weights[place], n_tokens[place] = found.word[kept], found.weight[kept], found.n_tokens[kept]
        progress(voxels.stop, n_voxels)
    return Descriptions(
        voxel_ids=critical.voxel_ids,
        image_ids=critical.image_ids,
        words=words.vocabulary.words,
        word_ids=word_ids.reshape(n_voxels, n_images, n_words),
        weights=weights.reshape(n_voxels, n_images, n_words),
        n_tokens=n_tokens.reshape(n_voxels, n_images, n_words),
        k=k,
    )


def sentences(
    descriptions: Descriptions,
    *,
    voxels: np.ndarray | slice = slice(None),
    rewrite: Callable[[str], str] | None = None,
) -> np.ndarray:
    """Writes the sentences of some voxels.

    Args:
        descriptions: of V x I pairs.
        voxels: positions, mask or slice; all by default.
        rewrite: turns the plain sentence into another, for instance by a language model.

    Returns:
        A sentence for every pair of these voxels, [v, I] object.
    """
    ids, support = descriptions.word_ids[voxels], descriptions.n_tokens[voxels]
    # of each pair four words are named
    names, texts = descriptions.words.tolist(), np.empty(ids.shape[:2], object)
    for place in np.ndindex(texts.shape):
        words = [names[word] for word in ids[place][:4].tolist() if word >= 0]
        text = sentence(words, support[place], descriptions.k)
        texts[place] = rewrite(text) if rewrite else text
    return texts


def salience(shares: np.ndarray, corpus: np.ndarray) -> np.ndarray:
    """Ranks words: share times log-odds against the corpus.

    Args:
        shares: [..., C] shares of words.
        corpus: [C] mean shares over a corpus.

    Returns:
        Salience [..., C]; negative for words rarer than in the corpus.
    """
    return shares * np.log((shares + SMOOTHING) / (corpus + SMOOTHING))


def saliences(shares: SparseRows | np.ndarray, corpus: np.ndarray, *, positive: bool = False) -> SparseRows:
    """Ranks the words of many rows of shares; a word that is not there has salience 0.

    Args:
        shares: [R, C], dense or sparse.
        corpus: [C] mean shares over a corpus.
        positive: whether only saliences above 0 are wanted.

    Returns:
        Saliences [R, C] float64.
    """
    rows = sparse_rows(shares)
    values = salience(np.asarray(rows.values, np.float64), np.asarray(corpus, np.float64)[rows.columns])
    found = rows.with_values(values)
    return found.positive() if positive else found


def sentence(words: Sequence[str], n_tokens: np.ndarray, k: int) -> str:
    """Writes the plain sentence of one description.

    Args:
        words: the first words, best first; four are named.
        n_tokens: critical tokens that support each word.
        k: number of critical tokens.
    """
    if len(words) == 0:
        return "No word describes what drives the response here."
    rest = [str(word) for word in words[1:4]]
    text = f"The critical tokens of this image read as {words[0]} ({n_tokens[0]} of {k})"
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
    n_pairs, n_entries = len(scores), word_ids[0].size
    # an entry that says nothing is of the word after the last
    none = len(corpus)
    ids = np.where((word_ids >= 0) & (importance > 0)[..., None], word_ids, none).reshape(n_pairs, n_entries)
    # equal words of a pair stand together: the word above, its place among the entries in the lower bits
    bits = max(1, (n_entries - 1).bit_length())
    kind = np.int32 if (none + 1) << bits < 1 << 31 else np.int64
    key = np.sort((ids.astype(kind) << bits) | np.arange(n_entries, dtype=kind), axis=1)
    word, entry = key >> bits, key & ((1 << bits) - 1)
    weight = np.take_along_axis((shares * importance[..., None]).reshape(n_pairs, n_entries), entry, 1)
    is_first = np.ones(word.shape, bool)
    is_first[:, 1:] = word[:, 1:] != word[:, :-1]
    starts = np.flatnonzero(is_first)
    weight, n_tokens = np.add.reduceat(weight.ravel(), starts), np.diff(starts, append=word.size)
    word, pair = word.ravel()[starts], starts // n_entries
    real = word < none
    word, pair, weight, n_tokens = word[real], pair[real], weight[real], n_tokens[real]
    value, count = salience(weight, corpus[word]), np.bincount(pair, minlength=n_pairs)
    begin = np.cumsum(count) - count
    # one row per pair, in the order of words, which decides between equal values
    table = np.full((n_pairs, int(count.max(initial=0))), np.inf)
    table[pair, np.arange(len(pair)) - begin[pair]] = -value
    order = np.argsort(table, axis=1, kind="stable")
    row, rank = np.nonzero(np.arange(table.shape[1]) < count[:, None])
    best = begin[row] + order[row, rank]
    # a word that is rarer than in the corpus comes after those that are not there at all
    rank = rank + np.where(value[best] < 0, none - count[row], 0)
    return _Weighed(row, word[best], weight[best], n_tokens[best], rank)


def _rows(known: np.ndarray, order: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Positions of the wanted ids among the known ones, which `order` sorts."""
    rows = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(order) - 1)]
    wrong = known[rows] != wanted
    if wrong.any():
        raise DataError(
            f"image {str(wanted[wrong][0])!r} has no token words; pass all attributed images to `top_words`."
        )
    return rows
