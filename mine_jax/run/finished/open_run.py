"""Opens a run directory: tables as pandas, arrays as the types of this package, predictions for new photos."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd

from mine_jax import artifacts
from mine_jax.errors import MissingInputError
from mine_jax.run import files
from mine_jax.run.finished.model import FittedModel
from mine_jax.types import Encoders, Lens, Profiles, Scores


class Run(FittedModel):
    """A run directory, opened by `open_run`; nothing is read before it is asked for."""

    def __repr__(self) -> str:
        """Says where, and which tables there are."""
        return f"Run({str(self.directory)!r}; tables: {', '.join(self.tables)})"

    @property
    def tables(self) -> list[str]:
        """Names of the tables, such as "voxels" or "profile/words"."""
        found = {path.relative_to(self.directory).with_suffix("") for path in self.directory.rglob("*.tsv")}
        found |= {path.relative_to(self.directory).with_suffix("") for path in self.directory.rglob("*.parquet")}
        return sorted(path.as_posix() for path in found)

    def table(self, name: str) -> pd.DataFrame:
        """Reads a table.

        Args:
            name: as in `tables`, with or without its suffix.

        Returns:
            The table; ids of images are strings.

        Raises:
            MissingInputError: if there is none of that name.
        """
        name = name.removesuffix(".tsv").removesuffix(".parquet")
        if name not in self.tables:
            raise MissingInputError(f"{self.directory} has no table {name!r}; it has {', '.join(self.tables)}.")
        return artifacts.read_table(self.directory / f"{name}.tsv")

    @property
    def voxels(self) -> pd.DataFrame:
        """One row for each voxel: place, areas, accuracy, claim and its reason."""
        return self.table("voxels")

    def plot(self, folder: str | Path, *, kind: str = "png") -> list[Path]:
        """Draws the figures of the run for papers, as `mine-jax figures` does.

        Args:
            folder: receives one file per figure.
            kind: of the files: pdf, svg or png.

        Returns:
            The files; figures of what the run does not have are left out.

        Raises:
            ConfigError: if `kind` is none of these.
            IntegrityError: if one of the run's tables is not the one that was written.
            MissingExtraError: if matplotlib is not installed.
        """
        from mine_jax.run.stages.report import write_plates

        return write_plates(self.directory, Path(folder), kind=kind).written

    @functools.cached_property
    def encoders(self) -> Encoders:
        """Encoders of V voxels."""
        return files.load_encoders(self.directory)

    @functools.cached_property
    def scores(self) -> Scores:
        """Accuracy of V voxels on test images."""
        return files.load_scores(self.directory)

    @functools.cached_property
    def profiles(self) -> Profiles | None:
        """Profiles of the voxels that were described; None where none was."""
        return files.load_profiles(self.directory)

    @functools.cached_property
    def lens(self) -> Lens | None:
        """What reads image-tokens as words; None where there is none."""
        return files.load_lens(self.directory)

    @functools.cached_property
    def corpus(self) -> np.ndarray:
        """Mean share [C] of each word over the images of the fit."""
        return files.corpus(self.directory)


def open_run(directory: str | Path) -> Run:
    """Opens a run directory.

    Args:
        directory: of `mine-jax run`.

    Returns:
        The run.

    Raises:
        MissingInputError: if it is none.
    """
    directory = Path(directory)
    return Run(directory, files.load_configuration(directory))
