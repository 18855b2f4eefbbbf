"""Arrays of numbers in MATLAB files: a file and names of variables enter; their shapes or values leave.

Files of version 5 to 7 are read here, every length compared with what is there: damaged ones end the process in the
reader of SciPy. Those of version 7.3 are HDF5, with axes in reverse order.

Source: MathWorks, "MAT-File Format", level 5.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from mine_jax.data.containers import hdf5
from mine_jax.errors import DataError, IntegrityError, MissingInputError

_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
# Codes of stored numbers, and of the classes of arrays.
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = 0x0800
# What comes before the values of an array: flags, dimensions, name.
_MOST_AXES, _MOST_BEFORE = 32, 1024
_VERSION_7_3 = 0x0200


class _Variable(NamedTuple):
    """An array before its values: `code` and `n_bytes` of the values, `start` of them and the `content` around."""

    name: str
    shape: tuple[int, ...]
    flags: int
    code: int
    n_bytes: int
    start: int
    content: _Content


class _Content(NamedTuple):
    """One element of a file, which may be compressed."""

    raw: bytes
    is_compressed: bool

    def start(self, n_bytes: int) -> bytes:
        """The first bytes of it."""
        return zlib.decompressobj().decompress(self.raw, n_bytes) if self.is_compressed else self.raw[:n_bytes]

    def whole(self, n_bytes: int) -> bytes:
        """All of it, which is said to be `n_bytes` and less than 8 to fill up."""
        if not self.is_compressed:
            return self.raw
        inflate = zlib.decompressobj()
        found = inflate.decompress(self.raw, n_bytes + 8)
        # what is left, if only the checksum, is compared
        inflate.decompress(inflate.unconsumed_tail, 8)
        if not inflate.eof:
            raise ValueError("the compressed values have another length or checksum")
        return found


def shapes(path: Path, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Reads the shapes of some variables; no values.

    Args:
        path: `.mat`.
        names: of variables.

    Returns:
        Name -> shape of those that are there.

    Raises:
        MissingInputError: if the file is not there.
        IntegrityError: if it is damaged.
        DataError: if one of them holds no real numbers.
    """
    if _is_hdf5(path):
        with hdf5.opened(path, why="read MATLAB files of version 7.3") as file:
            return {name: hdf5.numbers(file, name, path).shape[::-1] for name in names if name in file}
    return {variable.name: variable.shape for variable in _variables(path, names)[0]}


def read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads some variables.

    Args:
        path: `.mat`.
        names: of variables.

    Returns:
        Name -> values of those that are there, in the type of their class in MATLAB.

    Raises:
        MineError: as `shapes`.
    """
    if _is_hdf5(path):
        with hdf5.opened(path, why="read MATLAB files of version 7.3") as file:
            return {name: np.asarray(hdf5.numbers(file, name, path)).T for name in names if name in file}
    variables, order = _variables(path, names)
    try:
        return {variable.name: _values(variable, order) for variable in variables}
    except (ValueError, zlib.error, MemoryError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: object) -> IntegrityError:
    return IntegrityError(f"{path} is not a readable MATLAB file ({error}). Copy it again, or save it with -v7.")


def _is_hdf5(path: Path) -> bool:
    if not path.is_file():
        raise MissingInputError(f"no file at {path}.")
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    return _VERSION_7_3.to_bytes(2, "little") == header[124:126] or header.startswith(b"\x89HDF")


def _variables(path: Path, names: Sequence[str]) -> tuple[list[_Variable], str]:
    """The variables of these names, and the order of bytes, "<" or ">"."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            header = file.read(_HEADER_BYTES)
            order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
            if order is None:
                raise ValueError("it does not begin as one of version 5 to 7")
            found = [_variable(content, order) for content in _contents(file, size, order)]
    except (ValueError, zlib.error) as error:
        raise _damaged(path, error) from error
    variables = [variable for variable in found if variable is not None and variable.name in names]
    wrong = [v.name for v in variables if v.flags & 0xFF not in _CLASSES or v.flags & _COMPLEX or v.code not in _STORED]
    if wrong:
        raise DataError(f"`{wrong[0]}` of {path} must hold real numbers.")
    return variables, order


def _contents(file: BinaryIO, size: int, order: str) -> Generator[_Content]:
    """The elements of a file."""
    while file.tell() < size:
        tag = np.frombuffer(file.read(8), f"{order}u4")
        if len(tag) < 2 or tag[1] > size - file.tell():
            raise ValueError("it is cut short")
        content = _Content(file.read(int(tag[1])), int(tag[0]) == _COMPRESSED)
        if int(tag[0]) in (_MATRIX, _COMPRESSED):
            yield content


def _variable(content: _Content, order: str) -> _Variable | None:
    """What an element says before its values; None where it is no array."""
    start = content.start(_MOST_BEFORE)
    offset, parts = 0, []
    if content.is_compressed:
        if len(start) < 8 or np.frombuffer(start[:4], f"{order}u4")[0] != _MATRIX:
            return None
        offset = 8
    for code in (6, 5, 1):
        found, n_bytes, first, offset = _tag(start, offset, order)
        if found != code or n_bytes > _MOST_BEFORE or first + n_bytes > len(start):
            raise ValueError("the head of an array makes no sense")
        parts.append(start[first : first + n_bytes])
    flags = np.frombuffer(parts[0][:4], f"{order}u4")
    shape = np.frombuffer(parts[1][: len(parts[1]) // 4 * 4], f"{order}i4").tolist()
    if len(flags) != 1 or not 2 <= len(shape) <= _MOST_AXES or min(shape) < 0:
        raise ValueError("the head of an array makes no sense")
    name = parts[2].decode("ascii", "replace")
    code, n_bytes, first, _ = _tag(start, offset, order) if offset + 8 <= len(start) else (0, 0, offset, offset)
    return _Variable(name, tuple(shape), int(flags[0]), code, n_bytes, first, content)


def _tag(content: bytes, offset: int, order: str) -> tuple[int, int, int, int]:
    """Type, bytes and start of a part, and where the next one starts; short parts lie in their own tag."""
    numbers = np.frombuffer(content[offset : offset + 8], f"{order}u4")
    if len(numbers) < 2:
        raise ValueError("it is cut short")
    first, second = int(numbers[0]), int(numbers[1])
    if first >> 16:
        return first & 0xFFFF, min(first >> 16, 4), offset + 4, offset + 8
    return first, second, offset + 8, offset + 8 + -(-second // 8) * 8


def _values(variable: _Variable, order: str) -> np.ndarray:
    """The values of an array."""
    stored = np.dtype(order + _STORED[variable.code])
    if math.prod(variable.shape) * stored.itemsize != variable.n_bytes:
        raise ValueError(f"{variable.name} of shape {variable.shape} has {variable.n_bytes} bytes")
    end = variable.start + variable.n_bytes
    content = variable.content.whole(end)
    if len(content) < end:
        raise ValueError(f"{variable.name} is cut short")
    values = np.frombuffer(content[variable.start : end], stored).reshape(variable.shape, order="F")
    return values.astype(_CLASSES[variable.flags & 0xFF])
