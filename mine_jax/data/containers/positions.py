"""Masks and labels of voxels or vertices, in any container, and files named by a pattern."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mine_jax import artifacts
from mine_jax._progress import silent
from mine_jax.data import masks, tables
from mine_jax.data.containers import grayordinates
from mine_jax.data.containers.series import Series, check_same_space, open_hemispheres, open_series
from mine_jax.errors import AlignmentError, DataError, GeometryError, MissingInputError

_log = logging.getLogger(__name__)
# How files name the left and the right hemisphere.
HEMISPHERES = (("lh", "rh"), ("L", "R"), ("left", "right"))
# Names of a label that mean "in no area".
NO_AREA = frozenset(("", "-1", "0", "unknown", "???", "background", "medial_wall", "none"))


def expand(pattern: str) -> list[str]:
    """Lists the files of a pattern.

    Args:
        pattern: a path; `*` and `?` in its last part stand for any characters, `{hemi}` for a hemisphere.

    Returns:
        Paths, `{hemi}` still in them, numbers in their names in ascending order; the path itself without a pattern.

    Raises:
        MissingInputError: if no file fits.
    """
    path = Path(pattern)
    if not re.search(r"[*?]", path.name):
        return [pattern]
    found = []
    for hemi in HEMISPHERES[0] if "{hemi}" not in pattern else [pair[0] for pair in HEMISPHERES]:
        files = Path(str(path.parent).replace("{hemi}", hemi)).glob(path.name.replace("{hemi}", hemi))
        fixed = [re.escape(part).replace(r"\*", "(.*)").replace(r"\?", "(.)") for part in path.name.split("{hemi}")]
        for file in files:
            match = re.fullmatch(re.escape(hemi).join(fixed), file.name)
            if match and file.is_file():
                held = iter(match.groups())
                found.append(str(path.parent / re.sub(r"[*?]", lambda _, held=held: next(held), path.name)))
    if not found:
        raise MissingInputError(f"no file fits {pattern}.")
    return sorted(set(found), key=natural)


def natural(text: str) -> list[tuple[int, str]]:
    """Sorts names with numbers in them by number: the key of one name."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def hemispheres_of(path: str) -> tuple[Path, Path] | None:
    """Finds the two files of a path with `{hemi}` in it.

    Args:
        path: as in the configuration.

    Returns:
        Left and right file; None without `{hemi}`.

    Raises:
        MissingInputError: if one is not there under any usual name.
    """
    if "{hemi}" not in path:
        return None
    tried = [(Path(path.replace("{hemi}", left)), Path(path.replace("{hemi}", right))) for left, right in HEMISPHERES]
    for left, right in tried:
        if left.is_file() and right.is_file():
            return left, right
    one = next((pair for pair in tried if pair[0].is_file() or pair[1].is_file()), tried[0])
    raise MissingInputError(f"no files at {one[0]} and {one[1]}: both hemispheres are needed.")


def open_path(path: str, *, name: str = "surface") -> Series:
    """Opens one file, or both hemispheres of a path with `{hemi}`.

    Args:
        path: as in the configuration.
        name: of the surface.

    Returns:
        Series: as `open_series` or `open_hemispheres`.
    """
    both = hemispheres_of(path)
    return open_series(path) if both is None else open_hemispheres(*both, name=name)


def open_paths(paths: Sequence[str | Path], *, names: Sequence[str] | None = None) -> list[Series]:
    """Opens the files of several sessions, of one space.

    Args:
        paths: S paths, as `open_path` takes them.
        names: S names of surfaces; None for "surface".

    Returns:
        The series of each session.

    Raises:
        GeometryError: if one has another space than the first.
        MineError: as `open_series`.
    """
    names = ["surface"] * len(paths) if names is None else names
    sessions = [open_path(str(path), name=name) for path, name in zip(paths, names, strict=True)]
    for session in sessions[1:]:
        check_same_space(session, sessions[0])
    return sessions


def read_mask(path: str, like: Series) -> np.ndarray:
    """Reads which positions of a series a mask selects.

    Args:
        path: a volume, `.npy`, or surface files, of 0 and 1.
        like: the series.

    Returns:
        np.ndarray: [V] int64, ascending.

    Raises:
        GeometryError: if it is of another space, or no mask.
    """
    return np.flatnonzero(masks.whole_mask(_first_row(path, like).ravel(), path))


def read_atlas(path: str, labels: str | None, like: Series) -> tuple[np.ndarray, dict[int, str]]:
    """Reads the area of each position of a series.

    Args:
        path: label volume, surface files (`.label.gii`, `.annot`, `.mgz`) or `.dlabel.nii`.
        labels: table of code and name (`index` and `name` of BIDS, or a colour table); None for that in or beside
            the file, else numbers.
        like: the series.

    Returns:
        Pair of codes [positions] int64, and code -> name; codes of no area are not in it.

    Raises:
        GeometryError: if it is of another space.
        DataError: if it holds what is no label.
    """
    names: dict[int, str] = {}
    both = hemispheres_of(path)
    files = [Path(path)] if both is None else list(both)
    if path.endswith((".label.gii", ".label.gii.gz", ".annot", ".dlabel.nii")):
        read = {".annot": read_annot, ".nii": grayordinates.read_cifti_labels}.get(
            files[0].suffix, grayordinates.read_gifti_labels
        )
        parts = []
        for file in files:
            codes, table = read(file)
            if any(names.get(code, name) != name for code, name in table.items()):
                raise DataError(f"{path}: the hemispheres have different names for one code. Give them one table.")
            names |= table
            parts.append(codes)
        codes = np.concatenate(parts)
        if len(codes) != like.n_positions:
            raise GeometryError(f"{path} has {len(codes)} vertices, but {like.path} has {like.n_positions}.")
    else:
        codes = masks.whole_labels(_first_row(path, like), path).ravel()
    if labels is not None:
        names = read_label_table(labels)
    elif not names:
        beside = table_beside(path)
        names = read_label_table(beside) if Path(beside).is_file() else {}
        names = names or {int(code): f"area-{code}" for code in np.unique(codes) if code > 0}
    nameless = [int(code) for code in np.unique(codes) if code > 0 and code not in names]
    if nameless:
        text = "%d codes of %s have no name, first %d: their voxels lie in no area"
        _log.warning(text, len(nameless), path, nameless[0])
    return codes, {code: name for code, name in names.items() if name.strip().lower() not in NO_AREA and code != 0}


def table_beside(path: str) -> str:
    """Returns the table of code and name that is read where it lies beside an atlas."""
    return re.sub(r"(\.nii|\.mgz|\.mgh|\.gii)?(\.gz)?$", ".tsv", path, count=1)


def read_annot(path: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Reads an annotation of FreeSurfer.

    Args:
        path: `.annot`.

    Returns:
        Pair of codes [vertices] int64, 0 without a label, and the name of each code.

    Raises:
        MissingInputError: if it is not there.
        DataError: if it is damaged.
    """
    import nibabel

    if not path.is_file():
        raise MissingInputError(f"no file at {path}.")
    try:
        codes, _, names = nibabel.freesurfer.read_annot(path)
    except (ValueError, OSError, EOFError, IndexError) as error:
        raise DataError(f"{path} is not a readable annotation ({error}). Copy it again.") from error
    return codes.astype(np.int64) + 1, {n: name.decode("utf-8", "replace") for n, name in enumerate(names, start=1)}


def read_label_table(path: str | Path) -> dict[int, str]:
    """Reads which name each code has.

    Args:
        path: a table with a header (`index` and `name`, or `value` and `label`), or lines of code and name as in
            the colour tables of FreeSurfer.

    Returns:
        Code -> name.

    Raises:
        DataError: with the line that is neither.
    """
    lines = tables.read_text(Path(path)).split("\n")
    header = [name.strip().lower() for name in lines[0].split("\t")]
    code = next((name for name in ("index", "value", "code", "id") if name in header), None)
    label = next((name for name in ("name", "label", "roi", "abbreviation") if name in header), None)
    if code and label:
        table = tables.read_tsv(path).rename(columns=str.lower)
        numbers = tables.whole_numbers(table[code], path)
        return _one_name_each(zip(numbers.tolist(), table[label].str.strip(), strict=True), path)
    pairs = []
    for number, line in enumerate(lines, start=1):
        parts = line.split()
        if not parts or parts[0].startswith("#"):
            continue
        if len(parts) < 2 or not re.fullmatch(r"-?[0-9]{1,18}", parts[0]):
            raise DataError(f"line {number} of {path} must read `code name`, but is {line[:200]!r}.")
        pairs.append((int(parts[0]), parts[1]))
    return _one_name_each(pairs, path)


def _one_name_each(pairs: Iterable[tuple[int, str]], path: str | Path) -> dict[int, str]:
    """Code -> name; an error for a code with two names."""
    names: dict[int, str] = {}
    for code, name in pairs:
        if names.setdefault(code, name) != name:
            raise DataError(f"{path} gives the code {code} two names, {names[code]!r} and {name!r}.")
    return names


def area_names(codes: np.ndarray, names: dict[int, str]) -> np.ndarray:
    """Returns the name [V] of each code [V]; "" for those without."""
    known = {code: name.replace(";", ",") for code, name in names.items()}
    return np.array([known.get(int(code), "") for code in codes], str)


def join_names(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Joins the areas [V] of several atlases with ";", each once."""
    rows = zip(*(part.tolist() for part in parts), strict=True)
    return np.array([";".join(dict.fromkeys(name for name in row if name)) for row in rows], str)


def split_names(areas: np.ndarray) -> list[str]:
    """Returns the names in areas [V] that were joined with ";", each once, sorted."""
    return sorted({name for text in areas.tolist() for name in text.split(";") if name})


def _first_row(path: str, like: Series) -> np.ndarray:
    """Values [positions] of a file that must have the space of a series."""
    if path.endswith(".npy"):
        values = artifacts.read_array(Path(path))
        if values.size != like.n_positions or values.dtype.kind not in "biuf":
            raise GeometryError(
                f"{path} must hold {like.n_positions} numbers, one for each voxel of {like.path}, but is "
                f"{values.dtype}{list(values.shape)}."
            )
        return values.ravel().astype(np.float64)
    found = open_path(path)
    if found.n_rows != 1:
        raise AlignmentError(f"{path} must hold one map, but holds {found.n_rows}.")
    check_same_space(found, like)
    return found.read(np.arange(found.n_positions), silent)[:, 0]
