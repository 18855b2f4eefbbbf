"""Tables as TSV, long ones as Parquet: what is written is read back, texts of any content included."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from mine_jax.artifacts.disk import atomic
from mine_jax.errors import IntegrityError, MissingInputError

# Larger tables are Parquet with the same columns.
MAX_TSV_ROWS = 100_000
# Spreadsheets take a cell that begins so for a formula, unless an apostrophe stands before it; numbers are numbers.
_FORMULA = re.compile(r"'*(?![-+]?\.?\d)[=+\-@\t\r]")
_MISSING = ["", "nan", "NaN", "NA", "N/A", "None", "null"]


def write_table(path: str | Path, table: pd.DataFrame) -> Path:
    """Writes a table as TSV, or as Parquet beside that name above 100,000 rows.

    A text that a spreadsheet would take for a formula gets an apostrophe, which `read_table` takes away.

    Args:
        path: name that ends in `.tsv`.
        table: the rows.

    Returns:
        The path written, `.tsv` or `.parquet`.
    """
    path = Path(path)
    parquet = path.with_suffix(".parquet")
    target, other = (parquet, path) if len(table) > MAX_TSV_ROWS else (path, parquet)
    with atomic(target) as temporary:
        if target is parquet:
            table.to_parquet(temporary, index=False)
        else:
            _with_texts(table, lambda text: f"'{text}").to_csv(temporary, sep="\t", index=False, float_format="%.7g")
    other.unlink(missing_ok=True)
    return target


def write_parts(path: str | Path, parts: Iterable[pd.DataFrame], n_rows: int) -> Path:
    """Writes a long table part after part, so that it is never whole in memory.

    Args:
        path: name that ends in `.tsv`.
        parts: at least one, of the same columns.
        n_rows: rows of all parts together; decides between TSV and Parquet as in `write_table`.

    Returns:
        The path written, `.tsv` or `.parquet`.
    """
    path = Path(path)
    if n_rows <= MAX_TSV_ROWS:
        return write_table(path, pd.concat(list(parts), ignore_index=True))
    import pyarrow
    from pyarrow import parquet

    target, writer = path.with_suffix(".parquet"), None
    with atomic(target) as temporary:
        for part in parts:
            table = pyarrow.Table.from_pandas(part, preserve_index=False)
            writer = writer or parquet.ParquetWriter(temporary, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
    path.unlink(missing_ok=True)
    return target


def read_table(path: str | Path, **kinds: Any) -> pd.DataFrame:
    """Reads a table written by `write_table`, given its `.tsv` name.

    Args:
        path: name that ends in `.tsv`; the Parquet beside it is read where that exists instead.
        **kinds: dtype of columns; ids, words and sentences are always strings.

    Returns:
        The table; empty cells of text columns are "".

    Raises:
        MissingInputError: if neither file is there.
        IntegrityError: if it cannot be parsed.
    """
    path = Path(path)
    parquet = path.with_suffix(".parquet")
    text = ("image_id", "rois", "status", "reason", "word", "words", "sentence", "roi", "split", "prompt")
    try:
        if path.is_file():
            # "null", "nan" and "None" are words like any other; only in other columns are they missing values.
            columns = pd.read_csv(path, sep="\t", nrows=0).columns
            missing = {column: [""] if column in text else _MISSING for column in columns}
            dtypes: dict[Any, Any] = {**dict.fromkeys(text, str), **kinds}
            table = pd.read_csv(path, sep="\t", dtype=dtypes, keep_default_na=False, na_values=missing)
            table = _with_texts(table, lambda text: text.removeprefix("'"))
        elif parquet.is_file():
            table = pd.read_parquet(parquet)
        else:
            raise MissingInputError(f"no table at {path} (nor {parquet.name}). Run the stage that writes it first.")
    except (ValueError, pd.errors.ParserError) as error:
        raise IntegrityError(f"{path} cannot be read as a table: {error}.") from error
    for column in table.columns.intersection(pd.Index(text)):
        table[column] = table[column].fillna("")
    return table


def _with_texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Changes the texts of a table that begin as formulas do; columns without any stay as they are."""
    for name in table.select_dtypes(exclude=["number", "bool"]).columns:
        is_formula = table[name].map(lambda value: isinstance(value, str) and _FORMULA.match(value) is not None)
        if is_formula.any():
            table = table.assign(**{name: table[name].mask(is_formula, table.loc[is_formula, name].map(change))})
    return table
