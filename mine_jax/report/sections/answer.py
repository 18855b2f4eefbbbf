"""The first screen: how far voxels climb the ladder of claims, what each area responds to, and a map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mine_jax.report import page, reading
from mine_jax.report.sections import areas
from mine_jax.statistics import mean_r2
from mine_jax.types import CLAIMS, reaches

MAX_AREAS = 24
WORDS_PER_AREA = 4
# Of these the first that the run has.
MAPS = ("top_category", "r2")
RUNGS = {
    "predicted": ("predicted", "responses to images that chose the encoder are predicted better than those of decoys"),
    "reliable": ("reliable", "two encoders, fitted on disjoint images, give the same profile"),
    "words": ("explained", "described in words that predict responses to new images"),
    "localised": ("localised", "the words come from the critical tokens, not from the whole image"),
    "causal": ("causal", "inserting or removing what the words name moves the response"),
}


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: how many voxels reach it or a higher one.

    Attributes:
        name: the claim, in one word.
        meaning: what holds, in one line.
        n: voxels.
        share: of the usable voxels.
        decoys: decoys that reach it, of how many; None where there are none.
        note: how many were tested, where not all were.
    """

    name: str
    meaning: str
    n: int
    share: float
    decoys: tuple[int, int] | None
    note: str = ""


def build(run: reading.Run) -> page.Section:
    """Builds the section with the answer of the run."""
    anchor, title = "answer", "What was found"
    if run.voxels is None or run.voxels.empty:
        return page.Section(anchor, title, missing=run.why_missing("encoder", "voxels.tsv"))
    content = {**content_of([run]), "map": map_of(run)}
    return page.Section(anchor, title, content)


def map_of(run: reading.Run) -> dict[str, Any] | None:
    """Draws the map of the first screen; None without maps of a volume."""
    return next(filter(None, (areas.one_map(run, name) for name in MAPS)), None)


def content_of(runs: Sequence[reading.Run]) -> dict[str, Any]:
    """Collects the answer of one run, or of several together.

    Args:
        runs: opened runs; those without voxels say nothing.

    Returns:
        `sentence`, `warnings` of stages, each once, `rungs` and `areas` of the template.
    """
    warnings = list(dict.fromkeys(stage.warning for run in runs for stage in run.stages() if stage.warning))
    told = [(run, run.voxels) for run in runs if run.voxels is not None and len(run.voxels)]
    if not told:
        return {"sentence": "", "warnings": warnings, "rungs": [], "areas": None}
    voxels = pd.concat([table for _, table in told], ignore_index=True)
    usable = voxels[voxels["status"] == "ok"]
    r2 = usable["r2"].dropna()
    accuracy = f", with a mean R² of {page.decimal(mean_r2(r2.to_numpy()))} on held-out images" if len(r2) else ""
    n_explained = int(voxels["explained"].sum())
    sentence = (
        f"{told[0][0].unit.count(len(usable))} of {page.count(len(voxels))} were fitted{accuracy}; "
        f"{page.count(n_explained)} are explained: described in words that predict responses to new images."
    )
    why = usable.loc[usable["reason"] != "", "reason"].value_counts()
    if not n_explained and len(why):
        sentence += f" What stops most ({page.count(int(why.iloc[0]))}): {why.index[0]}."
    shown = [run for run, _ in told]
    return {"sentence": sentence, "warnings": warnings, "rungs": ladder(shown), "areas": _areas(shown)}


def ladder(runs: Sequence[reading.Run]) -> list[Rung]:
    """Counts the voxels of runs on each rung.

    Args:
        runs: opened runs.

    Returns:
        One entry per claim; none where no claims were tested.
    """
    claimed = [run.voxels for run in runs if run.voxels is not None and "claim" in run.voxels]
    claims = np.concatenate([v.loc[v["status"] == "ok", "claim"].fillna("").to_numpy(str) for v in claimed] or [[]])
    if not (claims != "").any():
        return []
    tables = [run.table("profile/decoys.tsv", ("claim",)) for run in runs]
    decoys = np.concatenate([t["claim"].fillna("none").to_numpy(str) for t in tables if t is not None] or [[]])
    tables = [run.table("validation/voxels.tsv", ("voxel_id",)) for run in runs]
    tests = [table.drop_duplicates("voxel_id") for table in tables if table is not None]
    tested = sum(map(len, tests))
    moved = sum(int(reading.is_true(table["causal"]).sum()) for table in tests if "causal" in table)
    rungs = []
    for claim in CLAIMS[1:]:
        reached = reaches(claims, claim)
        beside = (int(reaches(decoys, claim).sum()), len(decoys)) if len(decoys) and claim != "causal" else None
        note = ""
        if claim == "causal":
            note = f"{page.count(tested)} tested, {page.count(moved)} moved" if tested else "not tested"
            # without a word why, moved voxels beside none that is causal read as a mistake
            lower = moved - int(reached.sum())
            note += f", {page.count(lower)} of them not localised" if lower > 0 else ""
        rungs.append(Rung(*RUNGS[claim], int(reached.sum()), float(reached.mean()), beside, note))
    return rungs


def by_area(run: reading.Run) -> pd.DataFrame:
    """Returns the voxels of a run, one row for each of their areas, as `area`."""
    voxels = run.voxels if run.voxels is not None else pd.DataFrame({"rois": [], "explained": []})
    return voxels.assign(area=voxels["rois"].map(reading.areas_of)).explode("area")


def _areas(runs: Sequence[reading.Run]) -> page.Table | None:
    """One row per area: voxels with words, the preferred category and the leading words."""
    unit = runs[0].unit
    spread = pd.concat([by_area(run) for run in runs], ignore_index=True)
    words = leading_words(runs)
    preferred = [areas.preferred_categories(run) for run in runs]
    tested = [found for found in preferred if found is not None]
    if not words and (set(spread["area"]) == {reading.NO_AREA} or not any(tested)):
        return None
    sizes = spread.groupby("area").agg(n=("voxel_id", "size"), explained=("explained", "sum"))
    sizes = sizes.sort_values("explained", ascending=False, kind="stable")
    rows = []
    for name, size in list(sizes.to_dict("index").items())[:MAX_AREAS]:
        area = str(name)
        explained = f"{page.count(size['explained'])} of {page.count(size['n'])}"
        shown = f"all {unit.many}" if set(sizes.index) == {reading.NO_AREA} else area
        rows.append((shown, _preference(area, tested), ", ".join(words.get(area, [])) or "none", explained))
    left = f" The {page.count(len(rows))} areas with most explained {unit.many}." if len(sizes) > len(rows) else ""
    caption = (
        f"Words: those with the most weight over the explained {unit.many} of the area, each counted with the low end "
        f"of its interval. Preferred category: tested against maps as smooth as these.{left}"
    )
    return page.Table(caption, ("Area", "Preferred category", "Words", f"Explained {unit.many}"), rows)


def _preference(area: str, tested: list[dict[str, str]]) -> str:
    """Names the category that an area prefers, and in how many runs where there are several."""
    if not tested:
        return "not tested"
    found = Counter(preferred[area] for preferred in tested if area in preferred)
    if len(tested) == 1 or not found:
        return next(iter(found), "no preference")
    return ", ".join(f"{category} ({n} of {len(tested)})" for category, n in found.most_common())


def leading_words(runs: Sequence[reading.Run]) -> dict[str, list[str]]:
    """Finds the words that the explained voxels of each area have in common.

    Args:
        runs: opened runs.

    Returns:
        Area -> words, those with the most weight first.
    """
    weights = []
    for run in runs:
        spread = by_area(run)
        ids = spread.loc[spread["explained"], "voxel_id"].unique().tolist() if len(spread) else []
        table = run.rows("profile/words.tsv", ids, ("voxel_id", "word", "weight")) if ids else None
        if table is not None:
            # a weight counts only as far as its interval is sure of it
            sure = table.assign(sure=table["low"] if "low" in table else table["weight"])
            weights.append(sure[sure["sure"] > 0].merge(spread[["voxel_id", "area"]], on="voxel_id"))
    if not weights:
        return {}
    totals = pd.concat(weights).groupby(["area", "word"], as_index=False)["sure"].sum()
    ordered = totals.sort_values(["sure", "word"], ascending=[False, True])
    return {str(area): part["word"].head(WORDS_PER_AREA).tolist() for area, part in ordered.groupby("area")}
