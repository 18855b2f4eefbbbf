"""Functional profiles: the words of single voxels over many images, with their intervals."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mine_jax.report import page, reading
from mine_jax.report.sections import evidence

MAX_PROFILES = 24
PER_AREA = 3
WORDS = 8


def build(run: reading.Run) -> page.Section:
    """Builds the section with profiles of some explained voxels of each area."""
    anchor, title = "profiles", "Functional profiles"
    name = "profile/words.tsv"
    if run.voxels is None:
        return page.Section(anchor, title, missing=run.why_missing("encoder", "voxels.tsv"))
    explained = run.voxels[run.voxels["explained"]]
    if explained.empty:
        return page.Section(anchor, title, missing="No voxel of this run is explained, so there is no profile to show.")
    picked = reading.spread_over_areas(explained, limit=MAX_PROFILES, per_area=PER_AREA)
    words = run.rows(name, picked["voxel_id"].tolist(), ("voxel_id", "rank", "word", "weight"))
    if words is None or words.empty:
        return page.Section(anchor, title, missing=run.why_missing("profile", name))
    sentences = _by_voxel(run.rows("profile/sentences.tsv", picked["voxel_id"].tolist(), ("voxel_id", "sentence")))
    facts = _by_voxel(run.rows("profile/voxels.tsv", picked["voxel_id"].tolist(), ("voxel_id",)))
    said = evidence.of_voxels(run, picked["voxel_id"].tolist())
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
        groups.setdefault(row.area, []).append(card)
    rule = (
        f"{page.count(sum(map(len, groups.values())), 'voxel')} of {page.count(len(explained))} explained ones: in "
        f"each area the up to {PER_AREA} best predicted (R²), at most {MAX_PROFILES} in all. Bars: mean share of the "
        f"critical attribution that a word explains, the first {WORDS} words; lines: bootstrap interval over images. "
        "All bars share one scale. Below: tests on held-out measured responses, with q at most .05; a word holds if it "
        "says something beyond each confound, which is named where it does not."
    )
    return page.Section(anchor, title, {"groups": groups, "rule": rule})


def _bars(words: pd.DataFrame) -> page.Bars:
    bars = []
    for row in words.head(WORDS).to_dict("records"):
        low, high = row.get("low"), row.get("high")
        known = low is not None and high is not None and pd.notna(low) and pd.notna(high)
        interval = f" ({low:.2f} to {high:.2f})" if known else ""
        note = f"{row['weight']:.2f}{interval}"
        bars.append(page.Bar(row["word"], row["weight"], low if known else None, high if known else None, note))
    return page.Bars("Weight of each word", bars)


def _by_voxel(table: pd.DataFrame | None) -> dict[int, dict[str, Any]]:
    return {} if table is None else {row["voxel_id"]: row for row in table.to_dict("records")}


def _facts(voxel: Any, row: dict[str, Any]) -> list[str]:
    facts = [f"claim {voxel.claim}"] if hasattr(voxel, "claim") else []
    facts.append(f"R² {voxel.r2:.2f}")
    if "n_images" in row:
        facts.append(page.count(int(row["n_images"]), "image"))
    for name, text in (("reliability", "reliability over two refits"), ("r_measured", "r with measured responses")):
        if name in row:
            facts.append(f"{text} {page.number(row[name], 2)}")
    if "q_words" in row:
        facts.append(f"q {page.p_value(row['q_words'])}")
    return facts
