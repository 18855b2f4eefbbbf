"""File names of BIDS derivatives: entities, and the files that a configuration means.

Source: BIDS 1.10, "File name structure" and "BIDS derivatives".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mine_jax.data.containers.positions import HEMISPHERES, natural
from mine_jax.errors import ConfigError, MissingInputError

BETA_EXTENSIONS = (".nii.gz", ".nii", ".dscalar.nii", ".dtseries.nii", ".func.gii", ".shape.gii", ".mgh")
# Of files that hold no betas.
_OTHER_SUFFIXES = frozenset(("mask", "dseg", "probseg", "boldref", "T1w", "T2w", "bold", "sbref", "xfm", "events"))
_TABLE_SUFFIXES = ("trials", "conditions", "events")
_EXTENSIONS = re.compile(r"(\.(?:dscalar|dtseries|dlabel|func|shape|label)\.(?:nii|gii)|\.nii\.gz|\.[A-Za-z0-9]+)$")


@dataclass(frozen=True)
class Named:
    """One file (or both hemispheres of it, with `{hemi}` in the path)."""

    path: str
    entities: Mapping[str, str]
    suffix: str
    extension: str

    @property
    def session(self) -> str:
        """Its session; "" without."""
        return self.entities.get("ses", "")


def parse(path: Path) -> Named | None:
    """Reads the entities of a file name.

    Args:
        path: any file.

    Returns:
        Named: with `{hemi}` in place of its hemisphere; None for names that are not of BIDS.
    """
    match = _EXTENSIONS.search(path.name)
    parts = path.name[: match.start()].split("_") if match else []
    if not match or len(parts) < 2 or not all("-" in part for part in parts[:-1]):
        return None
    entities = dict(part.split("-", 1) for part in parts[:-1])
    name = path.name
    if entities.get("hemi") in HEMISPHERES[1]:
        name = name.replace(f"hemi-{entities['hemi']}", "hemi-{hemi}", 1)
    return Named(str(path.parent / name), entities, parts[-1], match[1])


def subject_folder(root: Path, subject: str) -> Path:
    """Returns the folder of a subject, which is named with or without "sub-".

    Args:
        root: the data set.
        subject: "01" or "sub-01".

    Returns:
        Path: the folder.

    Raises:
        MissingInputError: with the subjects that are there.
    """
    folder = root / f"sub-{subject.removeprefix('sub-')}"
    if not folder.is_dir():
        known = ", ".join(sorted(path.name for path in root.glob("sub-*") if path.is_dir())) or "none"
        raise MissingInputError(f"no folder {folder}. Subjects that are there: {known}. Set `root` and `subject`.")
    return folder


def find_betas(root: Path, *, subject: str, wanted: Mapping[str, str | None], suffix: str | None) -> list[Named]:
    """Finds one file of betas per session (and run).

    Args:
        root: the derivatives.
        subject: "01" or "sub-01".
        wanted: entity -> value; None for any.
        suffix: last part of the name, such as "statmap" or "betas"; None for any that can hold betas.

    Returns:
        Files by session and run, numbers in ascending order.

    Raises:
        MissingInputError: if there are none.
        ConfigError: if several fit one session, with the keys that tell them apart.
    """
    folder = subject_folder(root, subject)
    found: dict[str, Named] = {}
    for path in sorted(folder.rglob("*")):
        named = parse(path) if path.name.endswith(BETA_EXTENSIONS) else None
        if named is None or (named.suffix != suffix if suffix else named.suffix in _OTHER_SUFFIXES):
            continue
        if all(value is None or named.entities.get(key) == value for key, value in wanted.items()):
            found.setdefault(named.path, named)
    if not found:
        asked = ", ".join(f"{key}-{value}" for key, value in wanted.items() if value) or "any entities"
        raise MissingInputError(f"no betas below {folder} with {asked} and suffix {suffix or 'any'}.")
    places: dict[tuple[str, str], list[Named]] = {}
    for named in found.values():
        places.setdefault((named.session, named.entities.get("run", "")), []).append(named)
    for (session, run), files in places.items():
        if len(files) > 1:
            raise ConfigError(
                f"session {session or '-'} run {run or '-'} of {folder.name} has {len(files)} files that could be "
                f"betas: {', '.join(Path(file.path).name for file in files[:4])}. {_differing(files)}"
            )
    return sorted((files[0] for files in places.values()), key=lambda n: (natural(n.session), natural(n.path)))


def find_tables(folders: Sequence[Path], betas: Named) -> list[Path]:
    """Finds the tables of trials of one file of betas: `_trials`, `_conditions` or `_events`, of one or more runs.

    Args:
        folders: data sets that are looked into, in this order.
        betas: the file.

    Returns:
        Tables by run.

    Raises:
        MissingInputError: if there are none.
    """
    subject = f"sub-{betas.entities.get('sub', '')}"
    for folder in folders:
        tables = [named for path in (folder / subject).rglob("*.tsv") if (named := parse(path)) is not None]
        for suffix in _TABLE_SUFFIXES:
            fitting = [table for table in tables if table.suffix == suffix and _fits(table, betas)]
            if fitting:
                return [Path(table.path) for table in sorted(fitting, key=lambda table: natural(table.path))]
    places = ", ".join(str(folder) for folder in folders)
    kinds = " or ".join(f"_{suffix}.tsv" for suffix in _TABLE_SUFFIXES)
    raise MissingInputError(
        f"no table of trials for {Path(betas.path).name} below {places}: {kinds} "
        "with the same sub, ses, task and run. Set `events` to the data set that holds them."
    )


def _fits(table: Named, betas: Named) -> bool:
    """Whether a table is of the session (and run) of betas."""
    same = all(table.entities.get(key, "") == betas.entities.get(key, "") for key in ("sub", "ses"))
    told = ("task", "run", "desc")
    known = [key for key in told if key in table.entities and key in betas.entities]
    return same and all(table.entities[key] == betas.entities[key] for key in known)


def _differing(files: Sequence[Named]) -> str:
    """Which keys of the configuration tell files apart."""
    keys = [
        f"`{key}` ({', '.join(sorted({file.entities.get(key, '-') for file in files}))})"
        for key in ("task", "space", "desc", "stat")
        if len({file.entities.get(key) for file in files}) > 1
    ]
    if len({file.suffix for file in files}) > 1:
        keys.append(f"`suffix` ({', '.join(sorted({file.suffix for file in files}))})")
    return f"Set {' or '.join(keys)}." if keys else "Move those that are not meant elsewhere."
