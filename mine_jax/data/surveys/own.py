"""Anyone's own files: which of them are responses, ids, trials, masks, areas and photos."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path

from mine_jax._numbers import count
from mine_jax.data import images
from mine_jax.data.containers import csv, series, volumes
from mine_jax.data.surveys.found import Found
from mine_jax.data.surveys.published import SHARE
from mine_jax.errors import ConfigError

_IDS = "image_ids"
# Columns of a table that a message names.
_SHOWN = 4


def folder(paths: Sequence[Path]) -> Found:
    """Surveys files of anyone's own; of a folder without photos, the files and folders in it.

    Args:
        paths: files and folders.

    Returns:
        Found: files that mean the same key, such as sessions, as one name with `*`.

    Raises:
        ConfigError: if a file means nothing, or files of one key have no common name.
    """
    given = [inner for path in paths for inner in ([path] if _is_one(path) else sorted(path.iterdir()))]
    by_key: dict[str, list[Path]] = {}
    notes: dict[str, str] = {}
    for path in given:
        key, note = _meaning(path)
        if key:
            by_key.setdefault(key, []).append(path)
            notes[key] = note
        elif path in paths:
            columns = f" Its columns are {_some(note.split(', '))}." if note else ""
            raise ConfigError(
                f"cannot tell what {path} is.{columns} Understood are .npy arrays [images or trials, voxels] "
                "(numpy.save writes one), NIfTI, MGH and GIFTI files, .txt lists of image ids, .tsv or .csv tables of "
                "trials (image_id, session, run) or areas (voxel_id, roi), and folders or ZIPs of photos."
            )
    if "trials" in by_key:
        by_key.pop(_IDS, None)
    if len(by_key.get(_IDS, [])) > 1 and len(by_key.get("responses", [])) == 1:
        by_key[_IDS] = _of_rows(by_key[_IDS], by_key["responses"][0])
    values: dict[str, object] = {key: _named(key, files) for key, files in by_key.items()}
    notes = {key: note for key, note in notes.items() if note and key in values}
    if _IDS in by_key and len(by_key.get("responses", [])) == 1:
        notes["responses"] = notes.get("responses", "") + _odd(by_key["responses"][0], by_key[_IDS][0])
    if _IDS in by_key:
        notes[_IDS] = _repeated(by_key[_IDS][0])
    return Found({**values, "test": SHARE}, {**notes, "test": "no split is given: a share of all"})


def _is_one(path: Path) -> bool:
    """Whether a path means one thing: a file, or a folder of photos."""
    return path.is_file() or any(_is_photo(inner) for inner in path.iterdir())


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in images.SUFFIXES


def _meaning(path: Path) -> tuple[str, str]:
    """The key that a file belongs to, "" for none, and what its header says."""
    if path.is_dir():
        photos = sum(_is_photo(inner) for inner in path.rglob("*"))
        return ("images", f"{photos:,} photos") if photos else ("", "")
    if path.suffix == ".zip":
        return "images", ""
    if path.suffix == ".txt":
        return _IDS, ""
    if path.suffix in (".tsv", ".csv"):
        columns = _columns(path)
        return ("rois" if "roi" in columns else "trials" if "image_id" in columns else ""), ", ".join(columns)
    if path.name.endswith((".nii", ".nii.gz", *volumes.MGH_SUFFIXES)):
        shape = volumes.read_header(path).shape
        if len([n for n in shape if n > 1]) > 3:
            return "responses", f"{shape}"
        return ("mask" if "mask" in path.name else "rois"), f"{shape}"
    if path.suffix == ".npy" and "ceiling" in path.name:
        return "noise_ceiling", ""
    if path.name.endswith(series.SUFFIXES):
        opened = series.open_series(path)
        return "responses", f"[{opened.n_rows}, {opened.n_positions}]"
    return "", ""


def _odd(responses: Path, ids: Path) -> str:
    """What is odd about the rows of responses and their ids, for a note; "" where they belong together."""
    if not responses.name.endswith(series.SUFFIXES):
        return ""
    opened = series.open_series(responses)
    n_ids = len(lines_of(ids))
    if opened.n_rows == n_ids:
        return ""
    is_turned = opened.n_positions == n_ids
    return f" ODD: {ids.name} names {n_ids} images" + (": is the array transposed?" if is_turned else "")


def _of_rows(lists: Sequence[Path], responses: Path) -> list[Path]:
    """The lists that name the rows of the responses; all where that does not tell them apart.

    Raises:
        ConfigError: if another one has a line for each voxel: areas are a table.
    """
    opened = series.open_series(responses)
    n_lines = {path: len(lines_of(path)) for path in lists}
    of_rows = [path for path in lists if n_lines[path] == opened.n_rows]
    of_voxels = [path for path in lists if n_lines[path] == opened.n_positions != opened.n_rows]
    if of_rows and of_voxels:
        raise ConfigError(
            f"{of_voxels[0]} has a line for each of the {opened.n_positions} voxels of {responses.name}. Are these "
            "areas? Areas are a .tsv table with the columns voxel_id (from 0, the column of the array) and roi."
        )
    return of_rows if len(of_rows) == 1 else list(lists)


def _repeated(ids: Path) -> str:
    """What a note says of a list that names images more than once; "" for one that does not."""
    named = lines_of(ids)
    n_repeated = sum(n > 1 for n in Counter(named).values())
    if not n_repeated:
        return ""
    images = count(n_repeated, "image stands", "images stand")
    return f"ODD: {images} here more than once, so rows are trials: give a table `trials` (image_id, session, run)"


def _some(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def lines_of(path: Path) -> list[str]:
    """Reads the lines of a text that are not empty.

    Args:
        path: of the text.

    Returns:
        Lines without the spaces around them.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _columns(path: Path) -> list[str]:
    if path.suffix == ".csv":
        return csv.read_header(path)
    with path.open(encoding="utf-8") as file:
        return file.readline().rstrip("\r\n").split("\t")


def _named(key: str, files: Sequence[Path]) -> str:
    """One name for the files of a key, with `*` where they differ."""
    if len(files) == 1:
        return str(files[0])
    names = [file.name for file in files]
    # without digits, of which some files may have more than others
    start = _shared_start(names).rstrip(string.digits)
    end = _shared_start(name[::-1] for name in names)[::-1].lstrip(string.digits)
    if key not in ("responses", "trials") or len({file.parent for file in files}) > 1 or not start + end:
        raise ConfigError(f"`{key}` could be any of {', '.join(map(str, files))}. Give one of them.")
    return str(files[0].parent / f"{start}*{end}")


def _shared_start(names: Iterable[str]) -> str:
    return "".join(
        letters[0] for letters in takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    )
