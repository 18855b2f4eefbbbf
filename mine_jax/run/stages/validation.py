"""The validation stage: makes and scores generated and edited images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mine_jax import validation
from mine_jax._progress import Progress
from mine_jax.config import Config
from mine_jax.run import files
from mine_jax.run.execute import Step


def compute(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Makes and scores generated and edited images; writes validation/."""
    source = files.data_source(config, directory)
    return validation.validate(config, directory, source=source, progress=progress)


def inputs(config: Config) -> list[Path]:
    """Names the files of the user that the stage reads."""
    return [Path(v) for v in (config.validation.generator, config.validation.editor) if Path(v).is_dir()]


STEP = Step(
    compute=compute,
    needs=("features", "encoder", "attribution", "description", "profile"),
    sections=("validation", "run.seed", "run.precision"),
    outputs=("validation/*",),
    inputs=inputs,
    partial=("validation/images/*", "validation/.work/*"),
)
