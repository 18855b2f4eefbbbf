"""Tab-separated tables and texts as they are: no column shifts, no quotes, no guesses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mine_jax.errors import DataError, IntegrityError, MissingInputError

# Texts that mean "no value" in a column.
NO_VALUE = frozenset(("", "nan", "na", "n/a", "none", "null"))


def read_tsv(path: str | Path) -> pd.DataFrame:
    """Reads a tab-separated table with a header, all cells as text; quotes are characters like others.

    Args:
        path: the file, UTF-8.

    Returns:
        The table; its index holds the line of each row. Empty lines, and an empty last field after a
        tab at the end of lines, are left out.

    Raises:
        MissingInputError: if the file is not there.
        DataError: if a line has more or fewer fields than the header, or two columns share a name.
    """
    path = Path(path)
    lines = read_text(path).split("\n")
    rows = [(number, line.split("\t")) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise DataError(f"{path} is empty.")
    (_, header), body = rows[0], rows[1:]
    names = [name.strip() for name in header]
    while len(names) > 1 and not names[-1]:
        names.pop()
    for number, cells in body:
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()
        if len(cells) != len(names):
            raise DataError(
                f"line {number} of {path} has {len(cells)} fields, but the header has {len(names)} "
                f"({', '.join(names[:8])}). Fields are separated by one tab each."
            )
    if not body:
        raise DataError(f"{path} has no rows.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has more than one column {twice[0]!r}.")
    return pd.DataFrame([cells for _, cells in body], columns=names, index=[n for n, _ in body], dtype=str)


def read_text(path: Path) -> str:
    """Reads a text file as UTF-8; lines end with a line feed alone.

    Args:
        path: the file.

    Returns:
        Its text, without a byte order mark.

    Raises:
        MissingInputError: if the file is not there.
        IntegrityError: if it is not UTF-8, or holds NUL characters.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise MissingInputError(f"no file at {path}.") from error
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from error
    if "\0" in text:
        # arrays of texts drop them at the end, and two names would be one
        line = text[: text.index("\0")].count("\n") + 1
        raise IntegrityError(
            f"line {line} of {path} holds a NUL character: it is damaged, or no text. Save it as UTF-8."
        )
    return text


def whole_numbers(column: pd.Series, path: str | Path) -> np.ndarray:
    """Reads a text column as int64.

    Args:
        column: [N] str, its index holds the line of each row.
        path: for messages.

    Returns:
        np.ndarray: [N] int64.

    Raises:
        DataError: with the line of what is no whole number.
    """
    wrong = np.flatnonzero(~column.str.strip().str.fullmatch(r"-?\d+"))
    if len(wrong):
        line, value = column.index[wrong[0]], column.iloc[wrong[0]]
        raise DataError(f"line {line} of {path}: {column.name} must be a whole number, but is {value!r}.")
    try:
        return np.array([int(text) for text in column], np.int64)
    except (OverflowError, ValueError) as error:
        raise DataError(f"{path}: {column.name} has a number of more than 64 bits ({error}).") from error
