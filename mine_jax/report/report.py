"""Assembles the report of one run: a run directory enters, one self-contained HTML file leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mine_jax import artifacts
from mine_jax._progress import Progress, silent
from mine_jax.report import explorer, page, reading
from mine_jax.report.sections import (
    accuracy,
    answer,
    areas,
    examples,
    faithfulness,
    overview,
    profiles,
    recovery,
    validation,
)

NAME = "report.html"
# Closed until a reader opens them.
DETAILS = ("accuracy", "faithfulness", "overview")


def write_report(
    directory: Path,
    *,
    read_images: Callable[[Sequence[str]], list[np.ndarray]] | None = None,
    truth: Path | None = None,
    max_examples: int = 12,
    progress: Progress = silent,
) -> Path:
    """Writes `report.html` of a run directory.

    Stages that have not been run are named as such. Figures say which voxels they cover; the page loads nothing
    from elsewhere and runs one script of this package, which its content security policy names by hash.

    Args:
        directory: folder of the run.
        read_images: takes image ids, returns one uint8 [height, width, 3] RGB array for each;
            without it the report has no photos.
        truth: recovery table of a phantom. Default: `truth.tsv` of the run, if it is there.
        max_examples: voxels shown with heat maps.
        progress: called after each section.

    Returns:
        The path of the page.

    Raises:
        MissingInputError: if `directory` is no run.
        IntegrityError: if a file of the run is damaged or lacks a needed column.
        MissingExtraError: if matplotlib or jinja2 is not installed.
    """
    run = reading.open_run(Path(directory), read_images=read_images, truth=truth)
    builders: list[Callable[[], page.Section]] = [
        lambda: answer.build(run),
        lambda: explorer.build(run),
        lambda: areas.build(run),
        lambda: areas.volume_maps(run),
        lambda: overview.abstentions(run),
        lambda: profiles.build(run),
        lambda: examples.build(run, max_examples=max_examples),
        lambda: validation.build(run),
        lambda: recovery.build(run),
        lambda: accuracy.build(run),
        lambda: faithfulness.build(run),
        lambda: overview.build(run),
    ]
    title, sections = _title(run), []
    for done, build in enumerate(builders, start=1):
        section = build()
        sections.append(replace(section, is_detail=section.anchor in DETAILS))
        progress(done, len(builders))
    absent = [section for section in sections if section.missing]
    script = page.script("page.js", "explorer.js")
    html = page.render("report.html.j2", title=title, unit=run.unit, sections=sections, absent=absent, script=script)
    return artifacts.write_text(run.directory / NAME, html)


def _title(run: reading.Run) -> str:
    """Names the run by its folder, its subject where the data have several, and the kind of data."""
    kind = run.setting("data", "kind")
    parts = [run.directory.resolve().name, run.setting("data", "subject") if kind in ("nsd", "phantom") else None, kind]
    return ", ".join(dict.fromkeys(str(part) for part in parts if part))
