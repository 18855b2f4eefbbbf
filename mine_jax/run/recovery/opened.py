"""A run on a phantom, opened to be compared with its truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mine_jax.config import Config, FolderConfig
from mine_jax.errors import DataError, MissingInputError
from mine_jax.phantom.write_nsd import read_truth
from mine_jax.run import files
from mine_jax.types import Profiles


@dataclass(frozen=True)
class Opened:
    """A run, what was planted in its phantom, and its profiles.

    Attributes:
        directory: of the run.
        config: what it was made from.
        root: of the phantom.
        planted: one row of truth per voxel of the subject.
        profiles: of the voxels.
        decoys: of the decoys; None where none were fitted.
    """

    directory: Path
    config: Config
    root: Path
    planted: pd.DataFrame
    profiles: Profiles
    decoys: Profiles | None


def opened(directory: Path) -> Opened:
    """Opens one run.

    Raises:
        MissingInputError: if its phantom or its profiles are not there.
        DataError: if the run is not on a phantom.
        IntegrityError: if one of its tables is not the one that was written.
    """
    files.verify(directory, "*.tsv", "attribution/*.npy", "description/*.npy", "phantom/*.json*")
    config = files.load_configuration(directory)
    root = files.phantom_folder(config, directory)
    if root is None:
        source = files.data_source(config, directory)
        if isinstance(source, FolderConfig) or not source.root:
            raise DataError(f"{directory} is a run on {config.data.kind} data; only phantoms have a known truth.")
        raise MissingInputError(f"no phantom_truth.tsv at {Path(source.root)}. Was it moved?")
    profiles = files.load_profiles(directory)
    if profiles is None:
        raise MissingInputError(f"{directory} has no profiles yet. Finish the run first: mine-jax run ... --resume")
    planted = read_truth(root)
    planted = planted[planted["subject"] == config.data.subject]
    return Opened(directory, config, root, planted, profiles, files.load_profiles(directory, decoys=True))
