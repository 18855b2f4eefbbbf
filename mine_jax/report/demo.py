"""An index page over several runs: how each recovers its truth, and links to the reports."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from mine_jax import artifacts
from mine_jax.report import canvas, page, reading, report
from mine_jax.report.sections import answer, recovery

NAME = "report.html"
SHEET = 24


def write_demo_report(directory: Path, runs: Sequence[Path], *, read_images: reading.ReadImages | None = None) -> Path:
    """Writes `report.html` over the reports of several runs.

    Args:
        directory: where the page goes; its `truth.tsv`, if there, is the overall recovery.
        runs: run directories, for instance one per subject.
        read_images: takes image ids, returns one uint8 [height, width, 3] RGB array for each;
            with it, the page shows the first test images.

    Returns:
        The path of the page.

    Raises:
        MissingInputError: if one of `runs` is no run directory.
        IntegrityError: if a table is damaged.
        MissingExtraError: if matplotlib or jinja2 is not installed.
    """
    directory = Path(directory)
    opened = [reading.open_run(Path(path), read_images=read_images) for path in runs]
    overall = directory / "truth.tsv"
    told = [run for run in opened if run.voxels is not None]
    unit = opened[0].unit if opened else page.Unit()
    context = {
        "unit": unit,
        "answer": {**answer.content_of(opened), "map": _map(told[0])} if told else None,
        "claims_by_run": _claims(told),
        "met": recovery.targets_met(recovery.load(overall)) if overall.is_file() else "",
        "overall": _overall(overall) if overall.is_file() else None,
        "recovered": recovery.claims(directory, unit),
        "pictures": recovery.worth_of_claims(opened),
        "subjects": _by_run(opened),
        "runs": [_facts(run, directory) for run in opened],
        "scenes": _contact_sheet(opened),
    }
    title, script = directory.resolve().name, page.script("page.js")
    html = page.render("demo.html.j2", title=title, script=script, **context)
    return artifacts.write_text(directory / NAME, html)


def _map(run: reading.Run) -> dict[str, Any] | None:
    """Draws the map of one run and says whose it is: subjects have spaces of their own."""
    figure = answer.map_of(run)
    if figure is None:
        return None
    shown = figure["picture"]
    return {**figure, "picture": replace(shown, caption=f"{_name(run)}, the first subject. {shown.caption}")}


def _claims(runs: list[reading.Run]) -> page.Table | None:
    """Builds the table of how many voxels of each run reach each claim; None where none was tested."""
    rows = []
    for run in runs:
        rungs = answer.ladder([run])
        if rungs:
            rows.append((_name(run), *(f"{page.count(rung.n)} ({page.share(rung.share)})" for rung in rungs)))
    heads = ("Run", *(text.capitalize() for text, _ in answer.RUNGS.values()))
    return (
        page.Table(f"{page.capital(runs[0].unit.many)} of each run that reach each claim or a higher one.", heads, rows)
        if rows
        else None
    )


def _overall(path: Path) -> page.Table:
    table = recovery.load(path)
    caption = f"All {page.count(len(table), 'measure')} of truth.tsv over all runs."
    return page.Table(caption, recovery.COLUMNS, recovery.rows_of(table))


def _by_run(runs: list[reading.Run]) -> page.Table | None:
    tables = {_name(run): recovery.load(run.truth) for run in runs if run.truth.is_file()}
    if not tables:
        return None
    metrics = list(dict.fromkeys(metric for table in tables.values() for metric in table["metric"]))
    rows = []
    for metric in metrics:
        rows.append([recovery.measure(metric), *(_cell(table[table["metric"] == metric]) for table in tables.values())])
    return page.Table(
        "The same measures in each run, with the verdict where there is a target.", ("Measure", *tables), rows
    )


def _cell(rows: pd.DataFrame) -> str:
    if rows.empty:
        return ""
    value = recovery.written(rows["value"].iloc[0])
    if not recovery.has_target(rows).iloc[0]:
        return value
    return f"{value} ({'met' if reading.is_true(rows['met']).iloc[0] else 'not met'})"


def _facts(run: reading.Run, directory: Path) -> dict[str, Any]:
    facts, voxels = [], run.voxels
    if voxels is not None:
        usable = voxels.loc[voxels["status"] == "ok", "r2"].dropna()
        facts.append(run.unit.count(len(usable)))
        facts += [f"mean R² {page.decimal(usable.mean())}"] if len(usable) else []
        facts.append(f"{page.count(int(voxels['explained'].sum()))} explained")
    target = run.directory / report.NAME
    relative = os.path.relpath(target.resolve(), directory.resolve()).replace(os.sep, "/")
    return {"name": _name(run), "facts": facts, "link": page.Uri(quote(relative)) if target.is_file() else None}


def _name(run: reading.Run) -> str:
    return run.directory.resolve().name


def _contact_sheet(runs: list[reading.Run]) -> list[page.Picture]:
    for run in runs:
        images = run.table("images.tsv", ("image_id", "split"))
        if run.read_images is None or images is None:
            continue
        ids = images.loc[images["split"] == "test", "image_id"].head(SHEET).tolist()
        return [canvas.pixels(photo, alt=f"Scene {name}.") for name, photo in run.photos(ids).items()]
    return []
