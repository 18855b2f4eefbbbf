"""Comma-separated tables that data sets ship: some columns of them, checked line by line."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mine_jax.data import tables
from mine_jax.errors import DataError, MissingInputError


def read_columns(path: str | Path, names: Sequence[str], *, optional: Sequence[str] = ()) -> pd.DataFrame:
    """Reads columns of a table, all cells as text.

    Args:
        path: the file, UTF-8, with a header; fields may be quoted.
        names: columns that must be there.
        optional: columns that may be there.

    Returns:
        The table; its index holds the line on which each row ends.

    Raises:
        MissingInputError: if it is not there.
        DataError: if a column is missing, or a line has more or fewer fields than the header.
    """
    # with their line feeds, which belong to fields that are quoted
    reader = csv.reader(io.StringIO(tables.read_text(Path(path)), newline="\n"), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        twice = [name for name in (*names, *optional) if header.count(name) > 1]
        if twice:
            raise DataError(f"{path} has more than one column {twice[0]!r}.")
        missing = [name for name in names if name not in header]
        if missing:
            raise DataError(f"{path} must have the columns {', '.join(names)}, but lacks {', '.join(missing)}.")
        wanted = [name for name in (*names, *optional) if name in header]
        at = [header.index(name) for name in wanted]
        rows, lines = [], []
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"line {reader.line_num} of {path} has {len(cells)} fields, but the header has {len(header)}."
                )
            rows.append([cells[column] for column in at])
            lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} of {path} is not comma-separated text ({error}).") from error
    if not rows:
        raise DataError(f"{path} has no rows.")
    return pd.DataFrame(rows, columns=wanted, index=lines, dtype=str)


def read_header(path: str | Path) -> list[str]:
    """Reads the names of the columns of a table.

    Args:
        path: the file.

    Returns:
        Their names in order.

    Raises:
        MissingInputError: if it is not there.
        DataError: if it is empty.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"no file at {path}.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not comma-separated text ({error}).") from error
    if not names:
        raise DataError(f"{path} is empty.")
    return [name.strip() for name in names]


def read_numbers(path: str | Path, names: Sequence[str]) -> pd.DataFrame:
    """Reads columns of numbers of a table that may be large.

    Args:
        path: the file.
        names: columns.

    Returns:
        The table, in the order of the columns asked for; NaN where a cell is empty.

    Raises:
        DataError: if a line has more or fewer fields than the header, or a cell is no number.
    """
    n_columns = len(read_header(path))
    try:
        # pandas passes over what a line has too much, once some columns are asked for.
        with Path(path).open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if '"' not in line and line.strip() and line.count(",") != n_columns - 1:
                    raise DataError(
                        f"line {number} of {path} has {line.count(',') + 1} fields, but the header has {n_columns}."
                    )
        table = pd.read_csv(path, usecols=list(names), index_col=False, encoding="utf-8-sig")[list(names)]
    except DataError:
        raise
    except (ValueError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table of numbers ({error}).") from error
    text = [name for name in names if table[name].dtype.kind not in "biuf"]
    if text:
        raise DataError(f"column {text[0]} of {path} must hold numbers.")
    return table
