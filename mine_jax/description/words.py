"""Cleans a lens's vocabulary: which entries are words, and which of them are the same word.

Special, byte and punctuation pieces are dropped and counted; pieces that differ only in
case, a word-start mark or a regular plural count as one word.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import numpy as np

# Word-start marks of SentencePiece and of byte-level BPE; CLIP's BPE marks word ends instead.
_STARTS = ("▁", "Ġ")
_END = "</w>"
_SPECIAL = re.compile(r"^(<.*>|\[.*\]|<0x[0-9A-Fa-f]{2}>)$")
_LETTERS = re.compile(r"[^\W\d_]", re.UNICODE)
_MIN_MARKED_SHARE = 0.05


@dataclass(frozen=True)
class Vocabulary:
    """Canonical words of a lens.

    Attributes:
        words: [C] str, canonical words.
        index: [W] int32, position in `words` of every entry of the lens; -1 where dropped.
        n_dropped: entries that are no words.
        n_merged: entries that share their word with an earlier one.
    """

    words: np.ndarray
    index: np.ndarray
    n_dropped: int
    n_merged: int


def clean_vocabulary(words: np.ndarray) -> Vocabulary:
    """Finds the canonical word of every vocabulary entry.

    Args:
        words: [W] str, entries of the lens in row order.

    Returns:
        The vocabulary; canonical words keep the order in which they first appear.
    """
    marked = np.mean([str(w).startswith(_STARTS) for w in words]) >= _MIN_MARKED_SHARE
    ended = np.mean([str(w).endswith(_END) for w in words]) >= _MIN_MARKED_SHARE
    cleaned = [_clean(str(word), marked=bool(marked), ended=bool(ended)) for word in words]
    known = {word for word in cleaned if word}
    canonical = [_singular(word, known) if word else "" for word in cleaned]
    positions: dict[str, int] = {}
    index = np.full(len(canonical), -1, np.int32)
    for i, word in enumerate(canonical):
        if word:
            index[i] = positions.setdefault(word, len(positions))
    dropped = int((index < 0).sum())
    return Vocabulary(np.array(list(positions), dtype=str), index, dropped, len(index) - dropped - len(positions))


def _clean(word: str, *, marked: bool, ended: bool) -> str:
    """Returns the word in plain lower case, or "" for a piece that is no word."""
    if _SPECIAL.match(word) or (marked and not word.startswith(_STARTS)) or (ended and not word.endswith(_END)):
        return ""
    word = unicodedata.normalize("NFKC", word.removesuffix(_END).lstrip("".join(_STARTS)).replace("_", " "))
    word = " ".join(word.split()).strip(".,;:!?'\"()[]{}").lower()
    return word if len(_LETTERS.findall(word)) >= 2 else ""


def _singular(word: str, known: set[str]) -> str:
    """Returns the singular if it is in the vocabulary too, else the word itself."""
    candidates = []
    if word.endswith("ies"):
        candidates.append(word[:-3] + "y")
    if word.endswith(("ses", "xes", "zes", "ches", "shes")):
        candidates.append(word[:-2])
    if word.endswith("s") and not word.endswith("ss"):
        candidates.append(word[:-1])
    return next((c for c in candidates if len(c) > 2 and c in known), word)
