"""Recovery: what the run found against what was planted in a phantom."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mine_jax import artifacts
from mine_jax.report import canvas, figures, page, reading
from mine_jax.report.figures.truth import MIN_SEEDS, WORDLESS
from mine_jax.types import CLAIMS

TRUTH, VOXELS = "truth.tsv", "truth_voxels.tsv"
VOXEL_COLUMNS = ("kind", "explained", "true_ceiling", "q_predicted", "q_reliable", "q_words")
COLUMNS = ("Measure", "Value", "n", "Target", "Met")


def build(run: reading.Run) -> page.Section:
    """Builds the section with the recovery table."""
    anchor, title = "recovery", "Recovery of the planted truth"
    if not run.truth.is_file():
        return page.Section(anchor, title, missing=why_missing(run))
    table = load(run.truth)
    caption = f"All {page.count(len(table), 'measure')} of truth.tsv; n is the number of cases behind each."
    shown = {
        "met": targets_met(table),
        "table": page.Table(caption, COLUMNS, rows_of(table)),
        "claims": claims(run.truth.parent, run.unit),
    }
    return page.Section(anchor, title, {**shown, "pictures": worth_of_claims([run])})


def why_missing(run: reading.Run) -> str:
    """Says in one sentence why a run has no truth beside it.

    Args:
        run: opened run.
    """
    is_phantom = run.setting("data", "kind") == "phantom"
    why = "the run has not been compared with its truth" if is_phantom else "only phantoms have a known truth"
    return f"There is no {TRUTH}: {why}."


def voxels_of(runs: Sequence[reading.Run]) -> pd.DataFrame | None:
    """Reads what was planted in each voxel and what is claimed of it.

    Args:
        runs: opened runs.

    Returns:
        One row per voxel and run, with the run as `seed`; None where no run was compared with its truth.
    """
    tables = [(str(run.directory), run.table(VOXELS, VOXEL_COLUMNS)) for run in runs]
    parts = [table.assign(seed=name) for name, table in tables if table is not None]
    if not parts:
        return None
    voxels = pd.concat(parts, ignore_index=True)
    return voxels.assign(explained=reading.is_true(voxels["explained"]))


def worth_of_claims(runs: Sequence[reading.Run]) -> list[page.Picture]:
    """Draws what claims are worth: claimed against true false discoveries, and power against the ceiling.

    Args:
        runs: opened runs.

    Returns:
        Two pictures; none where no run was compared with its truth.
    """
    voxels = voxels_of(runs)
    if voxels is None:
        return []
    unit = runs[0].unit
    intervals = " with 95% intervals" if len(runs) >= MIN_SEEDS else ""
    several = f", means of {page.count(len(runs), 'run')}{intervals}" if len(runs) > 1 else ""
    claimed = voxels[voxels["explained"]]
    wordless = int(claimed["kind"].isin(WORDLESS).sum())
    covers = f"{unit.count(len(voxels))} of {VOXELS}{several}"
    told = f"{page.count(wordless)} of {page.count(len(claimed))} explained {unit.many} have no words planted"
    return [
        canvas.picture(
            figures.false_discoveries(voxels),
            alt=f"Share of claimed {unit.many} without words against the claimed q: {told}.",
            caption=f"Claims that are false, {covers}. Dots: all rungs up to words at that q; star: all rules of the "
            f"claim. Below the dashed line claims are more cautious than they say. {told.capitalize()}.",
        ),
        canvas.picture(
            figures.power_against_ceiling(voxels),
            alt=f"Share of {unit.many} with planted words that are explained, by kind and noise ceiling.",
            caption=f"Planted {unit.many} that are explained, against their true noise ceiling, {covers}.",
        ),
    ]


def claims(directory: Path, unit: page.Unit) -> page.Table | None:
    """Builds the table of kinds of voxels and the rungs they reach, from `truth_claims.tsv`; None without."""
    path = directory / "truth_claims.tsv"
    if not path.is_file():
        return None
    table = artifacts.read_table(path, kind=str)
    shown = [name for name in (*CLAIMS[1:5], "first", "first_five") if name in table]
    table[shown] = table[shown].apply(pd.to_numeric, errors="coerce")
    rows = [
        (row["kind"], written(row["n"], 0), *(page.share(row[name]) if pd.notna(row[name]) else "" for name in shown))
        for row in table.to_dict("records")
    ]
    caption = (
        f"Planted kinds of {unit.many}, and the share that reaches each claim or a higher one; of those with words, "
        "how often a planted word is first, and among the first five. Kinds with words: true ceiling at least .3."
    )
    heads = [name.replace("first_five", "planted in five").replace("first", "planted first") for name in shown]
    return page.Table(caption, ("Kind", page.capital(unit.many), *heads), rows)


def load(path: Path) -> pd.DataFrame:
    """Reads a truth table: metric, value, n, target, met."""
    table = reading.checked(artifacts.read_table(path, metric=str), path, ("metric", "value"))
    return table.assign(**{name: table.get(name, "") for name in ("n", "target", "sign", "met")})


def rows_of(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Returns the cells of a truth table, ready to show."""
    aimed, met = has_target(table), reading.is_true(table["met"])
    rows = []
    for row, is_aimed, is_met in zip(table.to_dict("records"), aimed, met, strict=True):
        verdict = ("yes" if is_met else "no") if is_aimed else ""
        goal = written(row["target"], 2)
        if goal and not goal.startswith(("<", ">")):
            goal = f"{'≤' if row['sign'] in (-1, '-1') else '≥'} {goal}"
        rows.append((measure(row["metric"]), written(row["value"]), written(row["n"], 0), goal, verdict))
    return rows


def measure(metric: str) -> str:
    """Returns how a page names a measure of a truth table.

    Args:
        metric: its name in the table.
    """
    return re.sub("`(.*?)`", r"“\1”", page.squared(metric.replace("_", " ")))


def targets_met(table: pd.DataFrame) -> str:
    """Says how many targets of a truth table are met, and which are not.

    Args:
        table: of `load`.
    """
    aimed = table[has_target(table)]
    missed = [measure(name) for name in aimed.loc[~reading.is_true(aimed["met"]), "metric"]]
    told = f"{page.count(len(aimed) - len(missed))} of {page.count(len(aimed), 'target')} met."
    return told + (f" Not met: {', '.join(missed)}." if missed else "")


def has_target(table: pd.DataFrame) -> pd.Series:
    """Tells which rows of a truth table were judged [rows] bool."""
    return table["met"].notna() & (table["met"].astype(str).str.strip() != "")


def written(value: Any, digits: int = 3) -> str:
    """Writes a cell that may be a number, a text such as ">= 0.9", or empty; rates are judged in thousandths."""
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return ""
    try:
        return page.decimal(float(value), digits)
    except ValueError:
        return str(value)
