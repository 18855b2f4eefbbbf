"""What a comparison with a phantom's truth reads and writes: runs and their tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mine_jax import artifacts
from mine_jax.config import Config, FolderConfig, from_dict
from mine_jax.errors import MissingInputError
from mine_jax.run.record import directory as run_directory
from mine_jax.run.record import manifest


def is_run(directory: Path) -> bool:
    """Says whether a folder is a run directory."""
    return (directory / manifest.NAME).is_file()


def run_directories(directory: Path) -> list[Path]:
    """Returns the folder itself if it is a run, else the runs in it.

    Raises:
        MissingInputError: if there are none.
    """
    if is_run(directory):
        return [directory]
    runs = sorted(path.parent for path in directory.glob(f"*/{manifest.NAME}"))
    if not runs:
        raise MissingInputError(f"no run.json in {directory} or its folders. Is this the folder given to --out?")
    return runs


def verify(directory: Path, *globs: str) -> None:
    """Raises IntegrityError if a file of a run, of those that fit, is not the one that its stage wrote."""
    run_directory.verify(directory, globs)


def load_configuration(directory: Path) -> Config:
    """Reads the configuration that a run was made from.

    Raises:
        MissingInputError: if the folder is no run directory.
    """
    if not is_run(directory):
        raise MissingInputError(f"{directory} is no run directory: it has no {manifest.NAME}.")
    return from_dict(artifacts.read_json(directory / manifest.NAME)["configuration"])


def phantom_folder(config: Config, directory: Path) -> Path | None:
    """Finds the phantom of a run: where its data are said to be, in the run, or beside it; None if it is nowhere."""
    named = [] if isinstance(config.data, FolderConfig) or not config.data.root else [Path(config.data.root)]
    roots = [*named, directory / "phantom", directory.parent / "phantom"]
    return next((root for root in roots if (root / "phantom_truth.tsv").is_file()), None)


def voxels_table(directory: Path) -> pd.DataFrame:
    """Reads what is known of the voxels."""
    return artifacts.read_table(directory / "voxels.tsv")


def selectivity_table(directory: Path) -> pd.DataFrame:
    """Reads what areas prefer."""
    return artifacts.read_table(directory / "roi" / "selectivity.tsv")


def structure_table(directory: Path) -> pd.DataFrame:
    """Reads what is inside areas."""
    return artifacts.read_table(directory / "roi" / "structure.tsv")


def comparisons_table(directory: Path) -> pd.DataFrame | None:
    """Reads the comparisons of the validation stage; None where it tested nothing."""
    path = directory / "validation" / "summary.tsv"
    return artifacts.read_table(path) if path.is_file() else None


def causal_table(directory: Path) -> pd.DataFrame:
    """Reads the voxels that the validation stage drew and tested; without rows where it tested none."""
    path = directory / "validation" / "voxels.tsv"
    return artifacts.read_table(path) if path.is_file() else pd.DataFrame({"causal": np.zeros(0, bool)})


def save_recovery(
    directory: Path, measures: pd.DataFrame, claims: pd.DataFrame, voxels: pd.DataFrame | None = None
) -> None:
    """Writes the measures and claims of a run or of several, and for one also its voxels."""
    artifacts.write_table(directory / "truth_claims.tsv", claims)
    if voxels is not None:
        artifacts.write_table(directory / "truth_voxels.tsv", voxels)
    artifacts.write_table(directory / "truth.tsv", measures)
