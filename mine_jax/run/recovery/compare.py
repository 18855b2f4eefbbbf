"""The measures of recovery, with the target of each where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mine_jax.run import files
from mine_jax.run.recovery.areas import areas_table
from mine_jax.run.recovery.claims import RUNGS, claims_table, false_discovery_proportion, uniformity
from mine_jax.run.recovery.evidence import evidence_table, of_evidence
from mine_jax.run.recovery.opened import Opened, opened
from mine_jax.run.recovery.pairs import pairs_table, random_tokens
from mine_jax.run.recovery.voxels import MIN_CEILING, UNUSABLE, voxels_table
from mine_jax.types import Profiles

# Measure, comparison of the validation stage, its column, target; for each maker of images, n counts pairs.
_TESTED = (
    ("generated above random-token words: pairs", "description minus random", "share", None),
    ("inserted words raise the response: pairs", "insert minus no-op", "share", 0.8),
    ("removed words lower it: pairs", "no-op minus remove", "share", 0.8),
    ("predicted and true shift of edits: r", "correlation of predicted and true shift", "effect", 0.7),
)
# Kind -> share of its voxels that should reach "words".
_POWER = {"concept": 0.95, "category": 0.9, "place": 0.85, "attribute": 0.8, "pair": None, "conjunction": None}
_MAX_FALSE = 0.05
# A control area is named rightly where more than this share of its voxels was planted with what is said of it.
_MOST = 0.5


class Compared(NamedTuple):
    """One run, or several, beside the truth: tables of `recovery`, and the profiles of decoys."""

    voxels: pd.DataFrame
    areas: pd.DataFrame
    pairs: pd.DataFrame
    tests: pd.DataFrame
    evidence: pd.DataFrame
    causal: pd.DataFrame
    decoys: Profiles | None


def truth(directory: str | Path) -> str:
    """Scores one run, or all runs of a folder, against the planted truth.

    Args:
        directory: a run directory on a phantom, or a folder of such; receives `truth.tsv` and
            `truth_claims.tsv`, each run also `truth_voxels.tsv`.

    Returns:
        The summary, ready to print.

    Raises:
        MissingInputError: if there is no run, or its phantom is gone.
        DataError: if the run is not on a phantom.
    """
    directory = Path(directory)
    runs = [opened(path) for path in files.run_directories(directory)]
    compared = []
    for run in runs:
        one = compare_run(run)
        files.save_recovery(run.directory, measures(one), claims_table(one.voxels, one.decoys), one.voxels)
        compared.append(one)
    together = joined(compared)
    table, claims = measures(together), claims_table(together.voxels, together.decoys)
    files.save_recovery(directory, table, claims)
    return _text(table, claims, [run.directory.name for run in runs])


def compare_run(run: Opened) -> Compared:
    """Compares one run with its truth."""
    control = random_tokens(run)
    voxels = voxels_table(run, control.profiles)
    pairs = pairs_table(run, voxels, control)
    evidence, causal = evidence_table(run, voxels), files.causal_table(run.directory)
    return Compared(voxels, areas_table(run), pairs, _tests(run), evidence, causal, run.decoys)


def joined(compared: Sequence[Compared]) -> Compared:
    """Puts several runs together, as if they were one."""
    tables = [pd.concat(parts, ignore_index=True) for parts in zip(*(one[:-1] for one in compared), strict=True)]
    decoys = [one.decoys for one in compared if one.decoys is not None]
    return Compared(*tables, _joined_decoys(decoys) if decoys else None)


def measures(compared: Compared) -> pd.DataFrame:
    """Computes every measure.

    Args:
        compared: one run or several.

    Returns:
        One row per measure: metric, value, n cases behind it, target, sign (+1 at least, -1 at most), met.
    """
    voxels = compared.voxels
    counted = voxels[voxels["counted"]]
    linear = counted["r2"] - counted["r2_ridge"]
    rows: list[tuple[str, Any, float | None, int]] = [
        ("mean test R2 / true ceiling", counted["r2"] / counted["true_ceiling"], 0.7, 1),
        ("mean R2 above that of ridge on the mean token", linear, 0.0, 1),
        ("planted word is the profile's first", counted["hit1"], 0.7, 1),
        ("planted word is among the first five", counted["hit5"], 0.9, 1),
        ("control: first word from random tokens of the same images", counted["control_hit1"], None, 1),
        *_of_claims(compared),
        *_of_areas(compared.areas),
        *of_evidence(compared.evidence),
        ("image shows the concept: first word is right", compared.pairs["first"], None, 1),
        ("control: the same from random tokens", compared.pairs["first_control"], None, 1),
        ("critical tokens on the planted thing", compared.pairs["inside"], None, 1),
        ("control: share of all tokens on it", compared.pairs["area"], None, 1),
    ]
    rows += _of_validation(compared.tests, compared.causal)
    table = []
    for metric, values, target, sign in rows:
        value = float(np.mean(values)) if len(values) else np.nan
        met = "" if target is None else str(bool(sign * value >= sign * target)).lower()
        table.append({"metric": metric, "value": value, "n": len(values), "target": target, "sign": sign, "met": met})
    return pd.DataFrame(table)


def _of_claims(compared: Compared) -> list[tuple[str, Any, float | None, int]]:
    voxels, rows = compared.voxels, []
    strong = voxels[voxels["true_ceiling"] >= MIN_CEILING]
    for kind, target in _POWER.items():
        group = strong[strong["kind"] == kind]
        if len(group):
            rows.append((f"{kind} voxels that reach `words`", group["explained"], target, 1))
    worded = strong[strong["kind"].isin(_POWER) & strong["explained"]]
    rows += [
        ("of those, planted word first", worded["hit1"], 0.9, 1),
        ("of those, planted word among the first five", worded["hit5"], 0.98, 1),
        ("low-level voxels that reach `words`", voxels.loc[voxels["kind"] == "lowlevel", "explained"], _MAX_FALSE, -1),
        ("voxels claimed to have words that have none", [false_discovery_proportion(voxels)], 0.07, -1),
    ]
    noise = voxels[voxels["kind"] == "noise"]
    for rung in RUNGS:
        if f"q_{rung}" in noise:
            rows.append((f"noise voxels with q <= .05 at `{rung}`", noise[f"q_{rung}"] <= 0.05, _MAX_FALSE, -1))
    if compared.decoys is not None:
        for rung, q in compared.decoys.q_values.items():
            rows.append((f"decoys with q <= .05 at `{rung}`", q <= 0.05, _MAX_FALSE, -1))
        for rung, p in uniformity(compared.decoys).items():
            rows.append((f"p of decoys at `{rung}` are uniform: Kolmogorov-Smirnov p", [p], 0.01, 1))
    silent = voxels[voxels["kind"].isin(UNUSABLE)]
    concept = strong[strong["kind"] == "concept"]
    return [
        *rows,
        ("constant or invalid voxels claimed to have words", silent["explained"], 0.0, -1),
        ("noise voxels with a reliability above .3", noise["reliability"] > 0.3, _MAX_FALSE, -1),
        ("reliability of concept voxels: median", [concept["reliability"].median()], 0.8, 1),
    ]


def _of_areas(areas: pd.DataFrame) -> list[tuple[str, Any, float | None, int]]:
    planted = areas[areas["planted"] != ""]
    control = areas[areas["planted"] == ""]
    prefers = ~control["right"].astype(bool)
    return [
        ("area prefers the planted category", planted["right"], 1.0, 1),
        ("control areas that prefer a category", prefers, 0.0, -1),
        ("control areas that prefer one that most voxels do not", prefers & (control["own_found"] <= _MOST), 0.0, -1),
        ("areas with patches in which structure is found", areas.loc[areas["has_patches"] == 1, "structured"], 1.0, 1),
        ("areas without in which it is", areas.loc[areas["has_patches"] == 0, "structured"], 0.05, -1),
        ("face areas that a query for faces names", areas.loc[areas["planted"] == "face", "named"], 1.0, 1),
        ("control areas that it names", control["named"], 0.0, -1),
        ("control areas that it names wrongly", control["named"] & (control["own_asked"] <= _MOST), 0.0, -1),
    ]


def _of_validation(tests: pd.DataFrame, causal: pd.DataFrame) -> list[tuple[str, Any, float | None, int]]:
    """Every maker of images by itself: the exact ones and those with true masks are upper bounds."""
    rows = []
    for metric, comparison, column, target in _TESTED:
        for maker, found in tests[tests["comparison"] == comparison].groupby("maker", sort=False):
            # each pair counts alike, of whichever run
            values = np.repeat(found[column].to_numpy(float), found["n_pairs"].to_numpy(int))
            rows.append((f"{metric} ({maker})", values, target, 1))
    if len(causal):
        rows.append(("drawn voxels that their words move, by another judge", causal["causal"], None, 1))
    return rows


def _joined_decoys(decoys: list[Profiles]) -> Profiles:
    """Puts the decoys of several runs together; arrays whose axes differ between runs stay those of the first."""
    first = decoys[0]
    listed = {
        field.name: np.concatenate([getattr(one, field.name) for one in decoys])
        for field in fields(first)
        if field.name in ("voxel_ids", "claims", "reasons", "reliability")
    }
    numbers = {
        name: {rung: np.concatenate([getattr(one, name)[rung] for one in decoys]) for rung in getattr(first, name)}
        for name in ("effects", "p_values", "q_values")
    }
    return replace(first, **listed, **numbers)


def _tests(run: Opened) -> pd.DataFrame:
    """The comparisons of the validation stage with the describing encoder and the words of the profile."""
    table = files.comparisons_table(run.directory)
    if table is None:
        return pd.DataFrame(columns=["comparison", "maker", "effect", "share", "n_pairs"])
    is_first = table["source"].fillna("").isin(["", "profile", "description", "both"])
    table = table[table["evaluator"].str.endswith("(describing)") & (table["voxels"] == "described") & is_first]
    return table.drop_duplicates(["comparison", "maker"])


def _text(table: pd.DataFrame, claims: pd.DataFrame, names: list[str]) -> str:
    lines = [
        f"Recovery of the planted truth ({', '.join(names)}); "
        f"selective voxels with a true ceiling of at least {MIN_CEILING}:"
    ]
    for row in table.to_dict("records"):
        goal = ""
        if row["met"]:
            sign = "<=" if row["sign"] < 0 else ">="
            goal = f"  target {sign} {row['target']:g}  {'met' if row['met'] == 'true' else 'NOT MET'}"
        lines.append(f"  {row['metric']:<60} {row['value']:6.3f}  n={row['n']:<6}{goal}")
    shown = [*RUNGS, "first", "first_five"]
    lines += ["", "Share of voxels at each rung of the ladder or above it; of `words`, planted word first, among five:"]
    lines.append("  " + f"{'kind':<12}{'n':>6}" + "".join(f"{name:>12}" for name in shown))
    for row in claims.to_dict("records"):
        cells = "".join(f"{'' if np.isnan(row[name]) else format(row[name], '.3f'):>12}" for name in shown)
        lines.append(f"  {row['kind']:<12}{row['n']:>6}{cells}")
    return "\n".join(lines)
