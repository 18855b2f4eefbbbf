"""What a survey gives, and what all surveys of data sets with one root do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mine_jax.errors import ConfigError, MissingInputError


class Found(NamedTuple):
    """What is known of a section [data].

    Attributes:
        values: key -> value.
        notes: key -> what was seen, for people.
    """

    values: dict[str, Any]
    notes: dict[str, str]


def root_and_photos(paths: Sequence[Path]) -> tuple[Path, dict[str, str]]:
    """Takes the first path as the root of a data set, and a second one as its photos.

    Args:
        paths: what the user gave.

    Returns:
        The root, and the key `images` where photos are given.

    Raises:
        ConfigError: if there are more paths, or the first is no folder.
    """
    root, *photos = paths
    if not root.is_dir() or len(photos) > 1:
        raise ConfigError("give the folder of the data set, and its photos (a folder or ZIP) where they lie elsewhere.")
    return root, {"images": str(photos[0])} if photos else {}


def first_subject(paths: Iterable[Path], name: str, *, root: Path, layout: str) -> Found:
    """Finds the subjects of a data set in names of files.

    Args:
        paths: files or folders that subjects have.
        name: regular expression whose group is the name of the subject, of the start of a file name.
        root: of the data set.
        layout: where these files should be, for the error.

    Returns:
        Found: `root` and the first subject, with all of them in the note.

    Raises:
        MissingInputError: if there is none.
    """
    subjects = sorted({match[1] for path in paths if (match := re.match(name, path.name))})
    if not subjects:
        raise MissingInputError(f"no subject in {root}: {layout} is expected there. Is it the root of the data set?")
    return Found({"root": str(root), "subject": subjects[0]}, {"subject": f"found: {', '.join(subjects)}"})
