"""Image ids: one way in which every list of a run is read, written alike, and joined with photos.

Ids of responses, tokens, test images and photos are cleaned by the same rule, so that suffixes,
Unicode forms and numbers written as floats make no difference, and count from the same base.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePosixPath

import numpy as np

from mine_jax import artifacts
from mine_jax.data import tables
from mine_jax.data.images import SUFFIXES
from mine_jax.errors import AlignmentError, DataError

_NUMBER = re.compile(r"\d+(\.\d*)?([eE][+-]?\d+)?")
# Names of files end before; whole numbers that are longer than a few thousand digits are not read at all.
_MAX_LENGTH = 1000
_LAST_NUMBER = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)


@dataclass(frozen=True)
class Naming:
    """Which image the ids of a user's list mean; calls take a list and give image ids.

    Attributes:
        known: names of all photos, ascending; None without photos, where ids are names.
        index_base: number of the first image, 0 or 1; None where ids are names, or count from 0.
        size: images of a data set that numbers them itself, from 0; None for others.
    """

    known: tuple[str, ...] | None = None
    index_base: int | None = None
    size: int | None = None
    _positions: dict[int, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        known = self.known or ()
        is_numbered = all(name.isdecimal() for name in known)
        numbered = {int(name): name for name in known} if is_numbered else dict(enumerate(known))
        object.__setattr__(self, "_positions", numbered)

    def __call__(
        self, ids: np.ndarray, source: str, *, index_base: int | None = None, key: str = "index_base", part: bool = True
    ) -> np.ndarray:
        """Turns numbers into names of photos: numbers in the names, else positions in their sorted list.

        Args:
            ids: [T] str, cleaned.
            source: for messages.
            index_base: of this list; None for that of the data.
            key: name of the key that sets the base, for messages.
            part: whether every id must be that of a photo.

        Returns:
            np.ndarray: [T] str; ids that are no numbers, or names already, stay as they are.

        Raises:
            AlignmentError: if numbers might count from 1 and `index_base` does not say so, or point outside.
        """
        base = self.index_base if index_base is None else index_base
        if not all(text.isdecimal() for text in ids.tolist()):
            return ids
        numbers = np.array([int(text) for text in ids.tolist()])
        if self.size is not None and numbers.max() - (base or 0) >= self.size:
            hint = f" They seem to count from 1: set `{key}` to 1." if numbers.max() == self.size else ""
            raise AlignmentError(
                f"{source} holds the id {numbers.max()}, but the data set has {self.size} images, counted from 0.{hint}"
            )
        if self.known is None:
            if base and numbers.min() < base:
                raise AlignmentError(f"{source} holds the id 0, but `{key}` is {base}. Set `{key}` to 0.")
            return (numbers - base).astype(str) if base else ids
        return self._photos(ids, numbers, source, base, key, part)

    def _photos(
        self, ids: np.ndarray, numbers: np.ndarray, source: str, base: int | None, key: str, part: bool
    ) -> np.ndarray:
        """Names of the photos that numbers mean."""
        known = self.known or ()
        is_name = np.isin(ids, known)
        if base is None and is_name.all():
            return ids
        shift, name_of, n = base or 0, self._positions, len(known)
        wanted = (numbers - shift).tolist()
        outside = [row for row, number in enumerate(wanted) if number not in name_of]
        from_one = numbers.max() == n or (numbers.min() == 1 and 0 not in numbers)
        if base is None and from_one and (outside or not set(known) <= {str(number) for number in name_of}):
            raise AlignmentError(
                f"the ids of {source} run from {numbers.min()} to {numbers.max()} for {n} photos: they seem to count "
                f"from 1. Set `{key}` to 1 or 0."
            )
        if outside and base is None and is_name.any():
            check_not_shifted(ids, known, source=source, other="the photos")
            return ids
        if outside and part:
            raise AlignmentError(
                f"row {outside[0]} of {source} has the id {numbers[outside[0]]}, which is neither the name of a photo "
                f"nor a number among {n} counted from {shift}. Set `{key}`, or name photos by their files."
            )
        return np.array([name_of.get(number, str(number)) for number in wanted], str)


def read(path: str | Path) -> np.ndarray:
    """Reads image ids: one per line of a text file, or a `.npy` of numbers or text.

    Args:
        path: the file.

    Returns:
        np.ndarray: [N] str, cleaned as by `clean`.

    Raises:
        MissingInputError: if the file is not there.
        DataError: if a `.npy` holds anything else.
        AlignmentError: with the line of an empty, NaN or negative id.
    """
    path = Path(path)
    if path.suffix == ".npy":
        values = artifacts.read_array(path)
        if values.ndim != 1 or values.dtype.kind not in "iufUS":
            raise DataError(f"{path} must be [N] integers or strings, but is {values.dtype}{list(values.shape)}.")
        texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values.tolist()]
        return clean(texts, str(path), first_line=0, unit="entry")
    lines = tables.read_text(path).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return clean(lines, str(path), first_line=1)


def read_split(path: str | Path) -> np.ndarray:
    """Reads the test images of a predefined split.

    Args:
        path: JSON with `test_ids`, or with one of `variants` that has them (as LAION-fMRI ships them).

    Returns:
        np.ndarray: [N] str, cleaned.

    Raises:
        MissingInputError: if the file is not there.
        DataError: if it holds no test images, or several variants.
    """
    found = artifacts.read_json(Path(path))
    variants = found.get("variants") if isinstance(found, dict) else None
    if isinstance(variants, list) and len(variants) == 1:
        found = variants[0]
    test = found.get("test_ids") if isinstance(found, dict) else None
    if not isinstance(test, list) or not test:
        raise DataError(f"{path} must hold `test_ids`, itself or in its only variant.")
    return clean([str(text) for text in test], str(path), first_line=0, unit="entry")


def clean(values: Sequence[str], source: str, *, first_line: int | Sequence[int] = 1, unit: str = "line") -> np.ndarray:
    """Writes ids alike: in Unicode NFC, without folder and suffix of a photo, whole numbers without a point.

    Args:
        values: ids as a file holds them.
        source: for messages.
        first_line: number of the first, or of each.
        unit: what is numbered.

    Returns:
        np.ndarray: [N] str.

    Raises:
        AlignmentError: for an empty, NaN or negative id, or if two files would have one id.
    """
    lines = range(first_line, first_line + len(values)) if isinstance(first_line, int) else first_line
    texts = [unicodedata.normalize("NFC", str(value).strip()) for value in values]
    if not texts:
        raise AlignmentError(f"{source} holds no image id.")
    for line, text in zip(lines, texts, strict=True):
        if len(text) > _MAX_LENGTH:
            raise AlignmentError(
                f"{unit} {line} of {source} has {len(text)} characters, beginning {text[:20]!r}. Is it a list of ids?"
            )
        if "\0" in text:
            # arrays of texts drop them at the end, and two ids would be one
            raise AlignmentError(f"{unit} {line} of {source} has the image id {text!r}, with a NUL character.")
        is_negative = text.startswith("-") and _NUMBER.fullmatch(text[1:])
        if text.lower() in tables.NO_VALUE or is_negative:
            raise AlignmentError(
                f"{unit} {line} of {source} has the image id {text!r}. Every row needs the id of an image."
            )
    if all(_NUMBER.fullmatch(text) for text in texts) and not all(text.isdecimal() for text in texts):
        numbers = [_whole(text) for text in texts]
        return np.array(texts if None in numbers else numbers, str)
    file_of: dict[str, str] = {}
    for text in dict.fromkeys(texts):
        path = PurePosixPath(text.replace("\\", "/"))
        if path.suffix.lower() in SUFFIXES:
            other = file_of.setdefault(path.stem, text)
            if other.replace("\\", "/").lower() != text.replace("\\", "/").lower():
                raise AlignmentError(
                    f"{source} names the photos {other} and {text}, which would both have the id {path.stem!r}. "
                    "Give photos names that differ without their folder and suffix."
                )
    return np.array([without_suffix(text) for text in texts], str)


def distinct(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Orders the different ids: by number where all are numbers, else as text.

    Args:
        ids: [T] str.

    Returns:
        Triple of ids [N], position of each row's id among them [T] int, and number of rows of each [N] int.
    """
    names, index, counts = np.unique(ids, return_inverse=True, return_counts=True)
    if all(name.isdecimal() for name in names.tolist()):
        order = np.argsort([int(name) for name in names.tolist()], kind="stable")
        names, index, counts = names[order], np.argsort(order, kind="stable")[index], counts[order]
    return names, index, counts


def without_suffix(text: str) -> str:
    """Returns the name of a photo without folder and suffix; other texts as they are."""
    path = PurePosixPath(text.replace("\\", "/"))
    return path.stem if path.suffix.lower() in SUFFIXES else text


def check_not_shifted(ids: Iterable[str], known: Iterable[str], *, source: str, other: str) -> None:
    """Checks that ids which are not known do not become so when all are counted one further.

    Args:
        ids: of one list.
        known: of the other.
        source: name of the first list.
        other: name of the second.

    Raises:
        AlignmentError: if all ids plus (or less) one are known, but not all ids.
    """
    wanted, there = set(ids), set(known)
    if not wanted or wanted <= there:
        return
    for step in (1, -1):
        moved = {_moved(text, step) for text in wanted}
        if moved <= there:
            first = min(wanted, key=lambda text: (len(text), text))
            raise AlignmentError(
                f"the ids of {source} and of {other} differ by one: {first} is not there, but {_moved(first, step)} "
                "is, and so on for all. One list counts from 0, the other from 1. Write the ids of both alike (or set "
                "`index_base`); if it is right that the first or last is not there, take its row out."
            )


def why_differ(ids: Iterable[str], known: Iterable[str]) -> str:
    """Says in one sentence what separates ids from known ones; "" where nothing simple does."""
    wanted, there = list(dict.fromkeys(ids)), set(known)
    forms = {
        "upper and lower case": str.lower,
        "zeros at the start of numbers": lambda text: re.sub(r"(?<!\d)0+(?=\d)", "", text),
        "their folder": lambda text: PurePosixPath(text.replace("\\", "/")).name,
        "what follows the last point": lambda text: text.rpartition(".")[0] or text,
        "quotes around them": lambda text: text.strip("\"'"),
    }
    for name, form in forms.items():
        plain = {form(text) for text in there}
        if all(form(text) in plain for text in wanted):
            example = next((text for text in wanted if text not in there), wanted[0])
            like = next(text for text in there if form(text) == form(example))
            return f"Ids differ by {name}: {example} and {like}."
    return ""


def plain_number(text: str) -> str:
    """Returns a whole number without spaces, point and exponent; other texts without spaces at their ends."""
    text = text.strip()
    return (_whole(text) if _NUMBER.fullmatch(text) and not text.isdecimal() else None) or text


def _whole(text: str) -> str | None:
    """A whole number written as a float, without its point; None for others."""
    try:
        number = Decimal(text)
        # compared first: as a whole number, 1e999999999 has as many digits
        return str(int(number)) if number < 10**18 and number == int(number) else None
    except (InvalidOperation, OverflowError, ValueError):
        return None


def _moved(text: str, step: int) -> str:
    """The id that follows or precedes an id with a number in it; "" without."""
    match = _LAST_NUMBER.fullmatch(text)
    if match is None or int(match[2]) + step < 0:
        return ""
    width = len(match[2]) if match[2].startswith("0") else 1
    return f"{match[1]}{int(match[2]) + step:0{width}d}{match[3]}"
