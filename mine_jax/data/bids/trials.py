"""Tables of trials of BIDS data sets -> the image, session and run of each row of betas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mine_jax.data import ids, tables
from mine_jax.data.trials import Rows
from mine_jax.errors import AlignmentError, ConfigError

# Columns that may name the image, in the order in which they are looked for.
IMAGE_COLUMNS = (
    "image_id",
    "stim_file",
    "image_name",
    "image",
    "stimulus",
    "label",
    "stim_id",
    "condition",
    "trial_type",
)


def read_rows(
    files: Sequence[Path], n_rows: int, *, session: str, image_column: str | None, zscore: str, source: str
) -> tuple[Rows, np.ndarray]:
    """Reads what each row of one file of betas belongs to.

    Rows without an image ("n/a") are left out: betas are those of all rows of the tables, or of those with an image.

    Args:
        files: tables of its runs, in their order.
        n_rows: betas in the file.
        session: its name.
        image_column: column that names the image; None for the first usual one.
        zscore: "session", "run" or "none".
        source: name of the file of betas.

    Returns:
        Pair of rows [n_rows] and the positions [K] of those with an image.

    Raises:
        ConfigError: if no column names images.
        AlignmentError: if tables and betas differ in their number of rows.
    """
    parts = []
    for number, file in enumerate(files, start=1):
        table = tables.read_tsv(file)
        table["_run"] = [ids.plain_number(text) for text in table["run"]] if "run" in table else str(number)
        table["_file"], table["_line"] = str(file), table.index
        parts.append(table)
    table = pd.concat(parts, ignore_index=True)
    column = image_column or next((name for name in IMAGE_COLUMNS if name in table), None)
    if column is None or column not in table:
        raise ConfigError(
            f"{files[0]} has no column {image_column or 'that names images'}; it has "
            f"{', '.join(name for name in table if not name.startswith('_'))}. Set `image_column`."
        )
    if "beta_index" in table:
        table = _ordered(table, files[0])
    has_image = ~table[column].fillna("").str.strip().str.lower().isin(tables.NO_VALUE).to_numpy()
    if len(table) != n_rows:
        if int(has_image.sum()) != n_rows:
            raise AlignmentError(
                f"{source} has {n_rows} betas, but its tables ({', '.join(file.name for file in files[:3])}) have "
                f"{len(table)} rows, {int(has_image.sum())} of them with an image in {column!r}."
            )
        table, has_image = table[has_image], np.ones(n_rows, bool)
    keep = np.flatnonzero(has_image)
    if not len(keep):
        raise AlignmentError(f"{files[0]}: no row has an image in {column!r}. Set `image_column`.")
    chosen = table.iloc[keep]
    names = ids.clean(chosen[column].tolist(), str(files[0]), first_line=chosen["_line"].tolist())
    image_ids = np.full(n_rows, "", dtype=object)
    image_ids[keep] = names
    if zscore == "none":
        return Rows(image_ids.astype(str), np.zeros(n_rows, np.int64), ("all",)), keep
    runs = table["_run"].to_numpy(str) if zscore == "run" else np.full(n_rows, "")
    labels = np.array([f"{session or 'all'} run {run}" if zscore == "run" else session or "all" for run in runs])
    groups, index = np.unique(labels, return_inverse=True)
    return Rows(image_ids.astype(str), index.astype(np.int64), tuple(groups.tolist())), keep


def _ordered(table: pd.DataFrame, file: Path) -> pd.DataFrame:
    """Rows in the order of the betas that `beta_index` gives, from 0 or from 1."""
    numbers = tables.whole_numbers(table["beta_index"].set_axis(table["_line"]), file)
    ordered = np.sort(numbers)
    if not np.array_equal(ordered - ordered[0], np.arange(len(ordered))) or ordered[0] not in (0, 1):
        raise AlignmentError(f"beta_index of {file} must be 0, 1, ... (or from 1), each once, but is not.")
    return table.iloc[np.argsort(numbers, kind="stable")]
