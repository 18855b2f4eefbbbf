"""The head of a language model as a lens: which row is which word."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from mine_jax.errors import DataError, WeightsError

_log = logging.getLogger("mine_jax")


def vocabulary(tokenizer: Any, directory: Path, rows: int, *, quiet: bool = False) -> np.ndarray:
    """Returns the pieces of a tokenizer in the order of the head's rows.

    Heads are often padded to a round number of rows; rows without a piece are left out, and so
    never win. Ids without a piece between others are `<unused ID>`.

    Args:
        tokenizer: of transformers.
        directory: the checkpoint, for messages.
        rows: of the head.
        quiet: whether a difference in size is not logged again.

    Returns:
        Pieces [W <= rows] str.

    Raises:
        WeightsError: if the head has far fewer or far more rows than the tokenizer has pieces.
    """
    pieces = {int(i): piece for piece, i in tokenizer.get_vocab().items()}
    n_pieces = max(pieces, default=-1) + 1
    # an image token added without a row of its own is usual; a whole vocabulary is not
    if not n_pieces / 2 <= rows <= 2 * n_pieces:
        raise WeightsError(
            f"the tokenizer in {directory} has {n_pieces} tokens, but the head has {rows} rows. "
            "Are its files missing, or of another checkpoint?"
        )
    if n_pieces != rows and not quiet:
        what = "rows without a token are left out" if rows > n_pieces else "tokens without a row are left out"
        _log.warning("%s: the tokenizer has %d tokens, the head %d rows; %s", directory, n_pieces, rows, what)
    return np.asarray([pieces.get(i, f"<unused {i}>") for i in range(min(rows, n_pieces))], dtype=str)


def rows_of_words(tokenizer: Any, directory: Path, words: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Returns the head's row of each word, or the mean row of its pieces.

    Args:
        tokenizer: of transformers.
        directory: the checkpoint, for messages.
        words: [W] str; the whole vocabulary gives the head itself.
        head: [rows, D] float32.

    Returns:
        [W, D] float32.

    Raises:
        DataError: if a word has no piece with a row.
    """
    pieces = vocabulary(tokenizer, directory, len(head), quiet=True)
    if np.array_equal(words, pieces):
        return head[: len(pieces)]
    matrix = np.empty((len(words), head.shape[1]), np.float32)
    # a leading space makes the word-start piece of byte-level vocabularies
    ids = tokenizer([f" {word.strip()}" for word in words.tolist()], add_special_tokens=False)["input_ids"]
    marks = {pieces[i] for i in range(len(pieces)) if pieces[i] in ("▁", "Ġ")}
    unknown = getattr(tokenizer, "unk_token_id", None)
    for row, (word, parts) in enumerate(zip(words.tolist(), ids, strict=True)):
        real = [i for i in parts if i < len(pieces) and i != unknown and pieces[i] not in marks]
        if not real:
            raise DataError(f"the tokenizer in {directory} has no piece for the word {word!r}. Drop it from the list.")
        matrix[row] = head[real].mean(0)
    return matrix
