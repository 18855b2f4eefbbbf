"""Text tables beside responses: image ids, trials and ROI memberships, each row checked."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from mine_jax.data.images import SUFFIXES
from mine_jax.errors import AlignmentError, ConfigError, DataError, IntegrityError, MissingInputError

# Texts that mean "no value" in a column of ids.
_NO_ID = frozenset(("", "nan", "na", "n/a", "none", "null"))
# Labels that mean "in no area".
_NO_AREA = frozenset(("", "-1", "0", "unknown"))


@dataclass(frozen=True)
class Rows:
    """What each row of `responses` belongs to.

    Attributes:
        image_ids: [T] str.
        groups: [T] int, session or run; None where rows are averages already.
        names: name of each group.
    """

    image_ids: np.ndarray
    groups: np.ndarray | None = None
    names: tuple[str, ...] = ()


def read_ids(path: str | Path) -> np.ndarray:
    """Reads one image id per line, [N] str in Unicode NFC, without the suffix of a photo.

    Raises:
        MissingInputError: if the file is not there.
        AlignmentError: with the line of an empty, NaN or negative id.
    """
    return _clean_ids(_read_text(Path(path)).splitlines(), str(path), first_line=1)


def read_trials(path: str | Path, *, zscore: str) -> Rows:
    """Reads `image_id`, `session` and `run` of each trial.

    Args:
        path: tab-separated, with a header.
        zscore: "session", "run" or "none": which columns make a group.

    Raises:
        MissingInputError: if the file is not there.
        ConfigError: if a needed column is missing.
        AlignmentError: with the line of an empty cell.
    """
    table = _read_tsv(Path(path))
    needed = {"session": ["session"], "run": ["run"], "none": []}[zscore]
    missing = [name for name in ("image_id", *needed) if name not in table]
    if missing:
        raise ConfigError(
            f"{path} must have the columns image_id{''.join(', ' + n for n in needed)} for `zscore` = {zscore!r}, "
            f"but lacks {', '.join(missing)}; it has {', '.join(table)}."
        )
    image_ids = _clean_ids(table["image_id"].tolist(), str(path), first_line=2)
    # Runs are numbered anew in every session.
    columns = (["session"] if "session" in table else []) + (["run"] if zscore == "run" else [])
    if zscore == "none" or not columns:
        return Rows(image_ids, np.zeros(len(image_ids), np.int64), ("all",))
    for name in columns:
        empty = np.flatnonzero(table[name].str.strip().str.lower().isin(_NO_ID))
        if len(empty):
            raise AlignmentError(f"line {empty[0] + 2} of {path} has no {name}. Every trial belongs to one.")
    labels = table[columns].agg(" run ".join, axis=1)
    names, groups = np.unique(labels.to_numpy(str), return_inverse=True)
    return Rows(image_ids, groups.astype(np.int64), tuple(names.tolist()))


def read_rois(path: str | Path, voxel_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads ROI memberships, one row each.

    Args:
        path: tab-separated: voxel_id, roi, and optionally i, j, k.
        voxel_ids: [V] int64.

    Returns:
        Pair of names [V] str, ";"-joined in the order of the file, and indices [V, 3] int, None unless
        every voxel has them.

    Raises:
        MissingInputError: if the file is not there.
        AlignmentError: for voxels that `responses` does not have.
        DataError: for a missing column, or a value that is no whole number.
    """
    table = _read_tsv(Path(path))
    missing = [name for name in ("voxel_id", "roi") if name not in table]
    if missing:
        raise DataError(f"{path} must have the columns voxel_id and roi, but lacks {', '.join(missing)}.")
    ids = _whole_numbers(table["voxel_id"], path)
    position_of = {int(voxel): position for position, voxel in enumerate(voxel_ids)}
    unknown = [voxel for voxel in dict.fromkeys(ids.tolist()) if voxel not in position_of]
    if unknown:
        raise AlignmentError(
            f"{path} names {len(unknown)} voxels that are not in `responses`, first "
            f"{', '.join(map(str, unknown[:5]))}. Voxel ids are column numbers from 0, or C-order "
            "positions in the mask's volume."
        )
    positions = np.array([position_of[voxel] for voxel in ids.tolist()], np.int64)
    names: list[list[str]] = [[] for _ in voxel_ids]
    for position, roi in zip(positions, table["roi"].str.strip(), strict=True):
        if ";" in roi:
            raise DataError(f"a ROI of {path} is named {roi!r}; names must not hold ';'. Write one row per membership.")
        if roi.lower() not in _NO_AREA:
            names[position].append(roi)
    indices = None
    if {"i", "j", "k"} <= set(table) and len(set(positions.tolist())) == len(voxel_ids):
        indices = np.zeros((len(voxel_ids), 3), np.int64)
        indices[positions] = np.stack([_whole_numbers(table[axis], path) for axis in "ijk"], 1)
    return np.array([";".join(dict.fromkeys(areas)) for areas in names], str), indices


def resolve_ids(ids: np.ndarray, known: list[str], *, index_base: int | None, source: str) -> np.ndarray:
    """Turns numeric ids into the names of photos: numbers in the names, else positions in their sorted list.

    Args:
        ids: [T] str, names of photos, or numbers.
        known: names of all photos, ascending.
        index_base: number of the first photo, 0 or 1; None where ids are names, or count from 0.
        source: for messages.

    Returns:
        np.ndarray: [T] str; ids that are no numbers, or names already, stay as they are.

    Raises:
        AlignmentError: if numbers might count from 1 and `index_base` does not say so, or point outside.
    """
    is_name = np.isin(ids, known)
    if not all(text.isdecimal() for text in ids.tolist()) or (index_base is None and is_name.all()):
        return ids
    numbers, base, n = np.array([int(text) for text in ids.tolist()]), index_base or 0, len(known)
    if all(name.isdecimal() for name in known):
        name_of = {int(name): name for name in known}
    else:
        name_of = dict(enumerate(known))
    outside = np.flatnonzero([number - base not in name_of for number in numbers.tolist()])
    from_one = numbers.max() == n or (numbers.min() == 1 and 0 not in numbers)
    if index_base is None and from_one and (len(outside) or not set(known) <= {str(number) for number in name_of}):
        raise AlignmentError(
            f"the ids of {source} run from {numbers.min()} to {numbers.max()} for {n} photos: they seem to count "
            "from 1. Set `index_base` to 1 or 0."
        )
    if len(outside) and index_base is None and is_name.any():
        return ids
    if len(outside):
        raise AlignmentError(
            f"row {outside[0]} of {source} has the id {numbers[outside[0]]}, which is neither the name of a photo nor "
            f"a number among {n} counted from {base}. Set `index_base`, or name photos by their files."
        )
    return np.array([name_of[number - base] for number in numbers.tolist()], str)


def _clean_ids(values: list[str], source: str, *, first_line: int) -> np.ndarray:
    """Ids in NFC without a photo's suffix."""
    cleaned = []
    for line, value in enumerate(values, start=first_line):
        text = unicodedata.normalize("NFC", str(value).strip())
        if text.lower() in _NO_ID or (text.startswith("-") and text[1:].replace(".", "").isdecimal()):
            raise AlignmentError(
                f"line {line} of {source} has the image id {text!r}. Every row needs the id of an image."
            )
        name = PurePosixPath(text)
        cleaned.append(name.stem if name.suffix.lower() in SUFFIXES else text)
    if not cleaned:
        raise AlignmentError(f"{source} holds no image id.")
    return np.array(cleaned, str)


def _whole_numbers(column: pd.Series, path: str | Path) -> np.ndarray:
    """A text column as int64."""
    wrong = np.flatnonzero(~column.str.strip().str.fullmatch(r"-?\d+"))
    if len(wrong):
        raise DataError(
            f"line {wrong[0] + 2} of {path}: {column.name} must be a whole number, but is {column.iloc[wrong[0]]!r}."
        )
    return column.astype("int64").to_numpy()


def _read_tsv(path: Path) -> pd.DataFrame:
    """A tab-separated table, all cells as text."""
    text = _read_text(path)
    del text
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise DataError(f"{path} is not a tab-separated table ({error}).") from error
    if table.empty:
        raise DataError(f"{path} has no rows.")
    return table.rename(columns=lambda name: str(name).strip())


def _read_text(path: Path) -> str:
    """A text file as UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MissingInputError(f"no file at {path}.") from error
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from error
