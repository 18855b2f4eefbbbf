"""The report stage: one file that shows what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mine_jax import data
from mine_jax._progress import Progress
from mine_jax.config import Config
from mine_jax.run import files
from mine_jax.run.execute import Step

if TYPE_CHECKING:
    from mine_jax.report.plates import Plates


def compute(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Writes the report, with photos where there are any."""
    from mine_jax import report

    path = report.write_report(directory, read_images=_reader(config, directory), progress=progress)
    return {"report": path.name}


def draw_figures(directory: Path, out: Path, *, kind: str) -> str:
    """Writes the figures of a run for papers.

    Args:
        directory: of the run.
        out: folder of the figures.
        kind: of the files: pdf, svg or png.

    Returns:
        What was written and what was left out, ready to print.

    Raises:
        MissingInputError: if there is no run.
        IntegrityError: if one of its tables is not the one that was written.
    """
    plates = write_plates(directory, out, kind=kind)
    lines = [f"wrote {path}" for path in plates.written]
    return "\n".join(lines + [f"left out {name}: {why}" for name, why in plates.left_out.items()])


def write_plates(directory: Path, out: Path, *, kind: str) -> Plates:
    """Does the work of `draw_figures`; returns the files, and why figures were left out."""
    from mine_jax import report
    from mine_jax.run.finished import open_run

    config = open_run(directory).config
    files.verify(directory, "*.tsv", "attribution/*.npy")
    return report.write_figures(directory, out, kind=kind, read_images=_reader(config, directory))


def _reader(config: Config, directory: Path) -> Callable[[Sequence[str]], list[np.ndarray]] | None:
    """Returns what reads the photos of a run; None where the data have none."""
    source = files.data_source(config, directory)
    return data.open_stimuli(source).read if source.has_photos else None


STEP = Step(
    compute=compute,
    needs=("profile", "validation", "roi"),
    sections=("data.unit_name", "data.zscore"),
    outputs=files.OUTPUTS["report"],
    # pages are made anew in seconds; how numbers are written is code of its own
    code=("mine_jax.report", "mine_jax._numbers"),
    found=("{report}",),
)
