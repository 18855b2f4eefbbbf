"""The report stage: one file that shows what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mine_jax import data
from mine_jax._progress import Progress
from mine_jax.config import Config
from mine_jax.run import files
from mine_jax.run.execute import Step


def compute(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Writes the report, with photos where there are any."""
    from mine_jax import report

    source = files.data_source(config, directory)
    has_photos = source.has_photos
    read_images = data.open_stimuli(source).read if has_photos else None
    path = report.write_report(directory, read_images=read_images, progress=progress)
    return {"report": path.name}


STEP = Step(
    compute=compute,
    needs=("profile", "validation", "roi"),
    sections=("data.unit_name", "data.zscore"),
    outputs=files.OUTPUTS["report"],
    found=("{report}",),
)
