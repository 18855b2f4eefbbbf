"""The figures of a run for papers, each a file: a run directory enters, PDF, SVG or PNG files leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mine_jax.errors import ConfigError
from mine_jax.report import figures, reading
from mine_jax.report.figures import style
from mine_jax.report.sections import accuracy, answer, areas, examples, recovery, validation

# Images beside each other, and profiles on one plate.
ACROSS, PROFILES = 6, 8
WORDS = "profile/words.tsv"


class Plates(NamedTuple):
    """What was written, and what was left out: name of the figure -> why."""

    written: list[Path]
    left_out: dict[str, str]


def write_figures(
    directory: Path,
    out: Path,
    *,
    kind: str = "pdf",
    read_images: Callable[[Sequence[str]], list[np.ndarray]] | None = None,
) -> Plates:
    """Writes the figures of a run for papers.

    Args:
        directory: folder of the run.
        out: folder that receives one file per figure.
        kind: of the files: pdf, svg or png.
        read_images: takes image ids, returns one uint8 [height, width, 3] RGB array for each; without it figures
            of photos are left out.

    Returns:
        The files, and why others could not be drawn.

    Raises:
        ConfigError: if `kind` is none of these.
        MissingInputError: if `directory` is no run.
        IntegrityError: if a file of the run is damaged or lacks a needed column.
        MissingExtraError: if matplotlib is not installed.
    """
    if kind not in style.KINDS:
        raise ConfigError(f"figures are written as {', '.join(style.KINDS)}, not as {kind!r}.")
    run = reading.open_run(Path(directory), read_images=read_images)
    plates = Plates([], {})
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in _FIGURES.items():
        drawn = draw(run)
        if isinstance(drawn, str):
            plates.left_out[name] = drawn
        else:
            plates.written.append(figures.save(drawn, out / f"{name}.{kind}"))
    return plates


def _against_ceiling(run: reading.Run) -> Any:
    if run.voxels is None:
        return run.why_missing("encoder", "voxels.tsv")
    scored = accuracy.scored(run.voxels)
    if scored.empty:
        return accuracy.why_no_score(run)
    if scored["noise_ceiling"].isna().all():
        return f"The noise ceiling of no {run.unit} is known."
    return figures.accuracy_against_ceiling(scored)


def _by_area(run: reading.Run) -> Any:
    values = {} if run.voxels is None else accuracy.by_area(accuracy.scored(run.voxels))
    return figures.accuracy_by_area(values) if values else "No area has enough voxels with a score."


def _ladder(run: reading.Run) -> Any:
    spread = answer.by_area(run)
    if "claim" not in spread or spread["claim"].isna().all():
        return run.why_missing("profile", "profile/voxels.tsv")
    return figures.claims_by_area(spread[spread["status"] == "ok"], units=run.unit.many)


def _faithfulness(run: reading.Run) -> Any:
    name = "attribution/curves.tsv"
    curves = run.table(name, ("kind", "order", "k", "relative_performance"))
    if curves is None or curves.empty:
        return run.why_missing("attribution", name)
    return figures.faithfulness_curves(curves)


def _heat_maps(run: reading.Run) -> Any:
    if run.read_images is None:
        return "The photos of this run cannot be read."
    shown = examples.heat_maps(run, limit=ACROSS)
    return shown if isinstance(shown, str) else figures.heat_maps(shown)


def _no_words(run: reading.Run) -> str:
    return f"No {run.unit} is explained."


def _profiles(run: reading.Run) -> Any:
    if run.voxels is None or not run.voxels["explained"].any():
        return _no_words(run)
    picked = reading.spread_over_areas(run.voxels[run.voxels["explained"]], limit=PROFILES)
    words = run.rows(WORDS, picked["voxel_id"].tolist(), ("word", "weight"))
    if words is None or words.empty:
        return run.why_missing("profile", WORDS)
    titles = {row.voxel_id: f"{run.unit} {row.voxel_id}, {row.area}" for row in reading.records(picked)}
    tables = {titles[int(str(voxel))]: part for voxel, part in words.groupby("voxel_id", sort=False)}
    return figures.profile_bars(tables)


def _area_words(run: reading.Run) -> Any:
    if run.voxels is None or not run.voxels["explained"].any():
        return _no_words(run)
    spread = answer.by_area(run)
    explained = spread[spread["explained"]]
    words = run.rows(WORDS, explained["voxel_id"].tolist(), ("word", "weight"))
    if words is None or words.empty:
        return run.why_missing("profile", WORDS)
    return figures.area_words(words.merge(explained[["voxel_id", "area"]], on="voxel_id"))


def _area_categories(run: reading.Run) -> Any:
    table = areas.selectivity(run)
    return run.why_missing("roi", areas.SELECTIVITY) if table is None else figures.area_categories(table)


def _edit_pairs(run: reading.Run) -> Any:
    if run.read_images is None:
        return "The photos of this run cannot be read."
    pairs = validation.edit_pairs(run, limit=ACROSS)
    return pairs if isinstance(pairs, str) else figures.edit_pairs(pairs, scale=run.scale)


def _edits(run: reading.Run) -> pd.DataFrame:
    edits = run.table(validation.EDITS, (*validation.EDIT_COLUMNS, "shift"))
    return pd.DataFrame({"shift": []}) if edits is None else edits


def _edit_shifts(run: reading.Run) -> Any:
    usable = validation.usable_edits(_edits(run))
    return validation.why_missing(run) if usable.empty else figures.edit_shifts(usable, scale=run.scale)


def _true_shifts(run: reading.Run) -> Any:
    known = validation.with_truth(_edits(run))
    if known.empty:
        return "The true shift of edits is not known: only phantoms have one."
    return figures.true_shifts(known, unit=run.unit.one, scale=run.scale)


def _worth_of_claims(run: reading.Run) -> Any:
    voxels = recovery.voxels_of([run])
    return recovery.why_missing(run) if voxels is None else figures.worth_of_claims(voxels)


# Name of the file -> what draws it, or says in one sentence why it cannot.
_FIGURES: dict[str, Callable[[reading.Run], Any]] = {
    "accuracy_against_ceiling": _against_ceiling,
    "accuracy_by_area": _by_area,
    "claims_by_area": _ladder,
    "faithfulness": _faithfulness,
    "heat_maps": _heat_maps,
    "profiles": _profiles,
    "area_words": _area_words,
    "area_categories": _area_categories,
    "edit_pairs": _edit_pairs,
    "edit_shifts": _edit_shifts,
    "true_shifts": _true_shifts,
    "worth_of_claims": _worth_of_claims,
}
