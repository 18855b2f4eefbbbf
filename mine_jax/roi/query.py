"""Which voxels prefer a word, a list of words, or what a sentence speaks of."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mine_jax.errors import DataError
from mine_jax.memory import sparse_rows
from mine_jax.roi.categories import shares_of_words
from mine_jax.statistics import false_discovery_rate, rank_p
from mine_jax.types import Profiles

# Sets of words that decoys are asked for: what a few decoys hold of one set says little.
_WORD_SETS = 200
# Of more decoys than these, as many are drawn.
_MAX_DECOYS = 5000


class Answer(NamedTuple):
    """What a query finds.

    Attributes:
        words: those of the vocabulary that the query stands for.
        values: [V] share of the positive salience of each voxel's profile that falls on them, 0 to 1.
        p: [V] against decoys; 1 for voxels whose claim is below "words".
        q: [V] Benjamini-Hochberg over all these voxels.
    """

    words: tuple[str, ...]
    values: np.ndarray
    p: np.ndarray
    q: np.ndarray


def query(
    profiles: Profiles,
    text: str,
    *,
    corpus: np.ndarray,
    decoys: Profiles | None,
    categories: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> Answer:
    """Finds the voxels that prefer what a text names.

    A voxel without words would have to pass twice by chance: its profile would have to predict
    held-out responses (p of the claim "words"), and to fall on the words asked for (rank of the
    value among decoys' values for as many words drawn at random, times how much more decoys speak
    of these words than of others, where they do). p is the square of the larger of the two.

    Args:
        profiles: of V voxels over C words.
        text: a word, words separated by commas, or a sentence.
        corpus: [C] mean shares of words over a corpus.
        decoys: profiles of voxels without a signal; without them a voxel is compared with the voxels without words.
        categories: names that stand for lists of words, beside themselves.
        seed: of the other words.

    Returns:
        The answer for all V voxels.

    Raises:
        DataError: if nothing in the text is known, with the nearest words.
    """
    names = words_of(text, vocabulary=profiles.words, categories=categories or {})
    columns = np.flatnonzero(np.isin(profiles.words, names))
    rng, explained = np.random.default_rng(seed), profiles.explained
    null = sparse_rows(profiles.distribution if decoys is None else decoys.distribution)
    if decoys is None:
        null = null.take(~explained)
    if len(null) > _MAX_DECOYS:
        null = null.take(np.sort(rng.choice(len(null), _MAX_DECOYS, replace=False)))
    sets = [rng.choice(len(corpus), len(columns), replace=False) for _ in range(_WORD_SETS)]
    (values,) = shares_of_words(profiles.distribution, corpus, [columns]).T
    own, *others = shares_of_words(null, corpus, [columns, *sets]).T
    favour = max(1.0, float(own.sum() / max(np.mean(others, axis=0).sum(), 1e-12)))
    p = np.minimum(favour * rank_p(values, np.concatenate(others)), 1)
    if "words" in profiles.p_values:
        p = np.maximum(p, np.nan_to_num(profiles.p_values["words"], nan=1.0)) ** 2
    p = np.where(explained, p, 1.0)
    return Answer(names, values, p, false_discovery_rate(p))


def words_of(text: str, *, vocabulary: np.ndarray, categories: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Reads which words of a vocabulary a text names, in the order of the text.

    Args:
        text: a word, words separated by commas, or a sentence; of a sentence, unknown words are passed over.
        vocabulary: [C] str.
        categories: names that stand for lists of words, beside themselves.

    Returns:
        Words of the vocabulary, each once. Longer expressions come before their parts; plurals find singulars.

    Raises:
        DataError: if there are none, or if one of a list is unknown, with the nearest words.
    """
    return _read(text, vocabulary, categories)[0]


def passed_over(text: str, *, vocabulary: np.ndarray, categories: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Reads which parts of a sentence `words_of` passes over, in its order.

    Args:
        text: as of `words_of`.
        vocabulary: [C] str.
        categories: names that stand for lists of words, beside themselves.

    Returns:
        Parts of the text, each once, in lower case.

    Raises:
        DataError: as of `words_of`.
    """
    return _read(text, vocabulary, categories)[1]


def _read(
    text: str, vocabulary: np.ndarray, categories: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words of the vocabulary that a text names, and the parts that name none."""
    known = {str(word).lower(): str(word) for word in vocabulary}
    expand = {name.lower(): [known[w.lower()] for w in (name, *words) if w.lower() in known] for name, words in
              categories.items()}  # fmt: skip
    items = [item.strip().lower() for item in text.split(",") if item.strip()]
    longest = max(len(name.split()) for name in [*known, *expand, ""] or [""])
    found, unknown = list[str](), list[str]()
    for item in items:
        parts = re.findall(r"[^\s.,;:!?\"()]+", item)
        here, start = [], 0
        while start < len(parts):
            for n in range(min(longest, len(parts) - start) or 1, 0, -1):
                words = _known(" ".join(parts[start : start + n]), known, expand)
                if words:
                    break
            here += words
            unknown += [] if words else [parts[start]]
            start += n if words else 1
        if not here:
            raise DataError(_unknown(item, [*known, *expand]))
        found += here
    if not found:
        raise DataError("the query is empty. Give a word, words separated by commas, or a sentence.")
    return tuple(dict.fromkeys(found)), tuple(dict.fromkeys(unknown))


def _known(name: str, known: Mapping[str, str], expand: Mapping[str, list[str]]) -> list[str]:
    for form in (name, name.removesuffix("s"), name.removesuffix("es")):
        if expand.get(form):
            return expand[form]
        if form in known:
            return [known[form]]
    return []


def _unknown(item: str, names: list[str]) -> str:
    close = [name for part in item.split() for name in difflib.get_close_matches(part, names, n=3, cutoff=0.5)]
    near = f" The nearest: {', '.join(dict.fromkeys(close))}." if close else ""
    return f"no word of the vocabulary is in {item!r}.{near} The words are in profile/words.tsv."
