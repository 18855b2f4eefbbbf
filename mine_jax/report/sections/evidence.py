"""What stands beside a voxel's profile: words that survive confounds, what lowers it, what it wants together, where."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mine_jax.report import page, reading

_MAX_Q = 0.05


def of_voxels(run: reading.Run, voxel_ids: Sequence[int]) -> dict[int, list[str]]:
    """Writes sentences about some voxels.

    Args:
        run: opened run.
        voxel_ids: which voxels.

    Returns:
        Voxel id -> sentences; none where the run has no such tables, or nothing was found.
    """
    said: dict[int, list[str]] = {int(voxel): [] for voxel in voxel_ids}
    for name, columns, write in (
        ("ledger", ("word", "confound", "survives"), _ledger),
        ("drivers", ("role", "word", "q"), _drivers),
        ("conjunctions", ("first", "second", "q"), _conjunctions),
        ("field", ("x", "y", "size", "q"), _field),
    ):
        rows = run.rows(f"profile/{name}.tsv", list(voxel_ids), columns)
        if rows is None:
            continue
        for voxel, part in rows.groupby("voxel_id"):
            said[int(str(voxel))] += write(part)
    return said


def _ledger(rows: pd.DataFrame) -> list[str]:
    survives = reading.is_true(rows["survives"])
    gone = [f"{row['word']} ({row['confound'] or 'alone'})" for row in rows[~survives].to_dict("records")]
    lines = [f"Holds against confounds: {', '.join(rows.loc[survives, 'word'])}."] if survives.any() else []
    return lines + ([f"Does not hold: {', '.join(gone)}."] if gone else [])


def _drivers(rows: pd.DataFrame) -> list[str]:
    found = rows[rows["q"] <= _MAX_Q]
    heads = {"lowers": "Lowered by", "attribute": "Attributes that raise it:"}
    words = {role: found.loc[found["role"] == role, "word"].tolist() for role in heads}
    return [f"{head} {', '.join(words[role])}." for role, head in heads.items() if words[role]]


def _conjunctions(rows: pd.DataFrame) -> list[str]:
    return [
        f"{row['first']} and {row['second']} together raise it beyond both."
        for row in rows[rows["q"] <= _MAX_Q].to_dict("records")
    ]


def _field(rows: pd.DataFrame) -> list[str]:
    return [
        f"Looks at {page.share(row['x'])} from the left, {page.share(row['y'])} from the top."
        for row in rows[rows["q"] <= _MAX_Q].to_dict("records")
    ]
