"""Cleans a lens's vocabulary: which entries are words, and which of them are the same word.

A word list passes nearly as it is. The vocabulary of a language model is made of pieces: special
tokens, bytes, punctuation, fragments of words, function words and code are dropped and counted;
pieces that differ only in case, a word-start mark or a regular plural count as one word.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mine_jax.errors import DataError

# Word-start marks of SentencePiece and of byte-level BPE; CLIP's BPE marks word ends instead.
_SENTENCEPIECE, _BYTE_LEVEL = "▁", "Ġ"
_STARTS = (_SENTENCEPIECE, _BYTE_LEVEL)
_END = "</w>"
_SPECIAL = re.compile(r"^(<.*>|\[.*\]|<0x[0-9A-Fa-f]{2}>)$", re.DOTALL)
_LETTERS = re.compile(r"[^\W\d_]", re.UNICODE)
_CODE = re.compile(r"[a-z][A-Z]|[=(){}<>/\\|*+#@$%^~`;]")
# Punctuation around a word: ASCII, typographic quotes and dashes.
_EDGES = ".,;:!?'\"()[]{}-\u2013\u2014\u2018\u2019\u201c\u201d"
_MIN_MARKED_SHARE = 0.05
# A piece without a word-start mark counts as a word of that spelling from this length on.
_MIN_UNMARKED = 3
_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "feet": "foot",
    "teeth": "tooth",
    "geese": "goose",
    "mice": "mouse",
    "oxen": "ox",
    "leaves": "leaf",
    "loaves": "loaf",
    "halves": "half",
    "calves": "calf",
    "scarves": "scarf",
    "shelves": "shelf",
    "wolves": "wolf",
    "knives": "knife",
    "wives": "wife",
}
# Not plurals of the word that they would be regular plurals of.
_NO_PLURALS = frozenset(
    "atlas canvas christmas clothes glasses goggles goods jeans lens means news oats overalls pajamas "
    "pants ruins scales series shorts species suspenders tights woods works".split()
)
# Function words of English; dropped from vocabularies of pieces, never from a word list.
_FUNCTION_WORDS = frozenset(
    "a about above after again against all also am an and any are as at be because been before being below between "
    "both but by can could did do does doing down during each either else etc ever every few for from further had has "
    "have having he her here hers herself him himself his how however i if in into is it its itself just let like may "
    "me might more most much must my myself neither no nor not now of off on once one only or other our ours ourselves "
    "out over own per same shall she should since so some such than that the their theirs them themselves then there "
    "these they this those though through thus to too under until up upon us very via was we were what when where "
    "whether which while who whom whose why will with within without would yet you your yours yourself".split()
)


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

    Raises:
        DataError: if no entry is a word.
    """
    entries = [str(word) for word in words]
    byte_level = _share(entries, lambda word: word.startswith(_BYTE_LEVEL)) >= _MIN_MARKED_SHARE
    marked = byte_level or _share(entries, lambda word: word.startswith(_SENTENCEPIECE)) >= _MIN_MARKED_SHARE
    ended = _share(entries, lambda word: word.endswith(_END)) >= _MIN_MARKED_SHARE
    pieces = marked or ended
    cleaned = [_clean(_decoded(word) if byte_level else word, pieces=pieces) for word in entries]
    if pieces:
        whole = [word.startswith(_STARTS) if marked else word.endswith(_END) for word in entries]
        spelled = {word for word, is_whole in zip(cleaned, whole, strict=True) if is_whole}
        # a fragment of a word is no word, but "cat" without a mark is the word of "▁cat"
        cleaned = [
            word if is_whole or (word in spelled and len(word) >= _MIN_UNMARKED and not ended) else ""
            for word, is_whole in zip(cleaned, whole, strict=True)
        ]
    known = {word for word in cleaned if word}
    canonical = [_singular(word, known) if word else "" for word in cleaned]
    positions: dict[str, int] = {}
    index = np.full(len(canonical), -1, np.int32)
    for i, word in enumerate(canonical):
        if word:
            index[i] = positions.setdefault(word, len(positions))
    if not positions:
        raise DataError(
            f"none of the {len(entries)} entries of the lens is a word (first: {', '.join(map(repr, entries[:3]))}): a "
            "word has at least two letters, or one ideograph, and is no special token. Name things that photos show."
        )
    dropped = int((index < 0).sum())
    return Vocabulary(np.array(list(positions), dtype=str), index, dropped, len(index) - dropped - len(positions))


def _share(words: list[str], test: Callable[[str], bool]) -> float:
    return sum(map(test, words)) / max(len(words), 1)


def _clean(word: str, *, pieces: bool) -> str:
    """Returns the word in plain lower case, or "" for an entry that is no word."""
    if _SPECIAL.match(word):
        return ""
    word = word.removesuffix(_END).lstrip("".join(_STARTS)).replace("_", " ")
    if pieces and _CODE.search(word):
        return ""
    word = unicodedata.normalize("NFKC", word)
    # control characters and marks of writing direction are not part of a word
    word = "".join(" " if c.isspace() else c for c in word if c.isspace() or unicodedata.category(c)[0] != "C")
    word = " ".join(word.split()).strip(_EDGES).lower()
    letters = _LETTERS.findall(word)
    # one ideograph is a word, one letter is not
    if len(letters) < 2 and not any(unicodedata.name(c, "").startswith("CJK") for c in letters):
        return ""
    return "" if pieces and word in _FUNCTION_WORDS else word


def _singular(word: str, known: set[str]) -> str:
    """Returns the singular if it is in the vocabulary too, else the word itself."""
    if word in _NO_PLURALS or word.endswith(("ss", "us", "is")):
        return word
    candidates = [_IRREGULAR[word]] if word in _IRREGULAR else []
    if word.endswith("ies"):
        candidates.append(word[:-3] + "y")
    if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        candidates.append(word[:-2])
    if word.endswith("s"):
        candidates.append(word[:-1])
    return next((c for c in candidates if len(c) > 2 and c in known), word)


def _decoded(piece: str) -> str:
    """Returns the text of a byte-level piece; "" for a part of a character."""
    if _SPECIAL.match(piece):
        return piece
    mark = _BYTE_LEVEL if piece.startswith(_BYTE_LEVEL) else ""
    table = _byte_table()
    body = piece[len(mark) :]
    # an added token is plain text, not bytes
    if any(character not in table for character in body):
        return piece
    try:
        return mark + bytes(table[character] for character in body).decode("utf-8")
    except UnicodeDecodeError:
        return ""


@functools.cache
def _byte_table() -> dict[str, int]:
    """Returns the characters that stand for bytes in byte-level BPE.

    Source: `bytes_to_unicode` of GPT-2 (openai/gpt-2, encoder.py).
    """
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}
