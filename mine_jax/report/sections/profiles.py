"""Functional profiles: the words of single voxels over many images, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mine_jax.report import page, reading

MAX_PROFILES = 24
PER_AREA = 3
WORDS = 8
MAX_Q = 0.05


def build(run: reading.Run) -> page.Section:
    """Builds the section with profiles of some explained voxels of each area."""
    anchor, title = "profiles", "Functional profiles"
    name = "profile/words.tsv"
    if run.voxels is None:
        return page.Section(anchor, title, missing=run.why_missing("encoder", "voxels.tsv"))
    explained = run.voxels[run.voxels["explained"]]
    if explained.empty:
        return page.Section(
            anchor, title, missing=f"No {run.unit} of this run is explained, so there is no profile to show."
        )
    picked = reading.spread_over_areas(explained, limit=MAX_PROFILES, per_area=PER_AREA)
    words = run.rows(name, picked["voxel_id"].tolist(), ("voxel_id", "rank", "word", "weight"))
    if words is None or words.empty:
        return page.Section(anchor, title, missing=run.why_missing("profile", name))
    sentences = _by_voxel(run.rows("profile/sentences.tsv", picked["voxel_id"].tolist(), ("voxel_id", "sentence")))
    facts = _by_voxel(run.rows("profile/voxels.tsv", picked["voxel_id"].tolist(), ("voxel_id",)))
    said = _evidence(run, picked["voxel_id"].tolist())
    bars = {voxel: _bars(part) for voxel, part in words.sort_values("rank").groupby("voxel_id")}
    highest = max(part.span()[1] for part in bars.values())
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in reading.records(picked.sort_values("area", kind="stable")):
        if row.voxel_id not in bars:
            continue
        shown = page.Bars("Weight of each word", bars[row.voxel_id].items, None, highest)
        sentence = sentences.get(row.voxel_id, {}).get("sentence", "")
        numbers = _facts(row, facts.get(row.voxel_id, {}))
        beside = said.get(int(row.voxel_id), [])
        card = {"voxel": row, "bars": shown, "sentence": sentence, "facts": numbers, "beside": beside}
        groups.setdefault(run.area_name(row.area), []).append(card)
    rule = (
        f"{run.unit.count(sum(map(len, groups.values())))} of {page.count(len(explained))} explained ones: in "
        f"each area the up to {PER_AREA} best predicted (R²), at most {MAX_PROFILES} in all. Bars: mean share of the "
        f"critical attribution that a word explains, the first {WORDS} words; lines: bootstrap interval over images. "
        "All bars share one scale; #: rank in the profile, where words common in all images count less. Below: tests "
        "on held-out measured responses, with q at most .05; a word holds if it says something beyond each confound, "
        "which is named where it does not."
    )
    return page.Section(anchor, title, {"groups": groups, "rule": rule})


def _bars(words: pd.DataFrame) -> page.Bars:
    bars = []
    first = words.sort_values("rank").head(WORDS).sort_values("weight", ascending=False, kind="stable")
    for row in first.to_dict("records"):
        low, high = row.get("low"), row.get("high")
        known = low is not None and high is not None and pd.notna(low) and pd.notna(high)
        note = f"#{int(row['rank'])} · {page.decimal(row['weight'])}"
        bars.append(page.Bar(row["word"], row["weight"], low if known else None, high if known else None, note))
    return page.Bars("Weight of each word", bars)


def _by_voxel(table: pd.DataFrame | None) -> dict[int, dict[str, Any]]:
    return {} if table is None else {row["voxel_id"]: row for row in table.to_dict("records")}


def _facts(voxel: Any, row: dict[str, Any]) -> list[str]:
    facts = [f"claim {voxel.claim}"] if hasattr(voxel, "claim") else []
    facts.append(f"R² {page.decimal(voxel.r2)}")
    if "n_images" in row:
        facts.append(page.count(int(row["n_images"]), "image"))
    for name, text in (("reliability", "reliability over two refits"), ("r_measured", "r with measured responses")):
        if name in row:
            facts.append(f"{text} {page.decimal(row[name])}")
    if "q_words" in row:
        facts.append(f"q {page.p_value(row['q_words'])}")
    return facts


def _evidence(run: reading.Run, voxel_ids: Sequence[int]) -> dict[int, list[str]]:
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
    return lines + ([f"Not shown beyond what comes with it: {', '.join(gone)}."] if gone else [])


def _drivers(rows: pd.DataFrame) -> list[str]:
    found = rows[rows["q"] <= MAX_Q]
    heads = {"lowers": "Lowered by", "attribute": "Attributes that raise it:"}
    words = {role: found.loc[found["role"] == role, "word"].tolist() for role in heads}
    return [f"{head} {', '.join(words[role])}." for role, head in heads.items() if words[role]]


def _conjunctions(rows: pd.DataFrame) -> list[str]:
    return [
        f"{row['first']} and {row['second']} together raise it beyond both."
        for row in rows[rows["q"] <= MAX_Q].to_dict("records")
    ]


def _field(rows: pd.DataFrame) -> list[str]:
    return [
        f"Looks at {page.share(row['x'])} from the left, {page.share(row['y'])} from the top."
        for row in rows[rows["q"] <= MAX_Q].to_dict("records")
    ]
