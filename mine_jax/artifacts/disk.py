"""Single files: atomic writes of text, JSON and arrays, reading them back, and their sha256.

Every write goes to a temporary name beside the target, is flushed to disk and renamed, so a reader sees the old file
or the new one, never half of either.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np

from mine_jax.errors import CheckpointError, IntegrityError, MineError, MissingInputError, ResourceError


@contextlib.contextmanager
def atomic(path: str | Path, *, is_synced: bool = True) -> Generator[Path, None, None]:
    """Gives a temporary path; renames it to `path` when the block ends without an error.

    Args:
        path: final name; its folder is made.
        is_synced: whether the file is on disk before it has its name. Without, a loss of power may leave it torn: for
            many small files that a sha256 vouches for.

    Yields:
        The temporary path, in the same folder.

    Raises:
        ResourceError: if the disk is full, read-only or over quota.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if is_synced:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if isinstance(error, (CheckpointError, IntegrityError, MissingInputError)):
            raise
        raise ResourceError(f"cannot write {path}: {error}. Free space or choose another folder.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Writes UTF-8 text atomically and returns the path."""
    path = Path(path)
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def files_below(folder: str | Path) -> list[Path]:
    """Lists the files in a folder and its subfolders, linked ones too.

    Args:
        folder: where to look; each folder that links lead to counts once.

    Returns:
        Files, sorted.
    """
    files, seen = [], set()
    for place, subfolders, names in os.walk(folder, followlinks=True):
        real = Path(place).resolve()
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        files += [Path(place) / name for name in names]
    return sorted(file for file in files if file.is_file())


def copy_folder(source: Path, target: Path) -> None:
    """Copies the files of a folder, and of those in it, each atomically."""
    for path in files_below(source):
        with atomic(target / path.relative_to(source)) as temporary:
            shutil.copyfile(path, temporary)


def write_json(path: str | Path, value: Any) -> Path:
    """Writes indented JSON atomically and returns the path; NaN becomes null."""
    return write_text(path, json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads JSON.

    Raises:
        MissingInputError: if the file is not there.
        IntegrityError: if it is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise MissingInputError(f"no file at {path}.") from error
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} is not readable JSON ({error}). Delete it and run the stage again.") from error


@contextlib.contextmanager
def described_by(path: Path) -> Generator[None, None, None]:
    """Turns what comes of a description that lacks keys, or holds values of other types, into one error.

    Raises:
        CheckpointError: instead of the errors of Python.
    """
    try:
        yield
    except MineError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(
            f"{path} is damaged or was edited ({type(error).__name__}: {error!s:.300}). Run the stage again, or copy "
            "the folder again."
        ) from error


def member(directory: Path, name: Any) -> Path:
    """Returns the file of a folder that a description in it names.

    Raises:
        CheckpointError: if it lies elsewhere, or is not there.
    """
    if not isinstance(name, str) or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise CheckpointError(f"{directory}/meta.json names {name!r:.100}, which is no file of its folder: edited.")
    path = directory / name
    if not path.is_file():
        raise CheckpointError(f"{path} is missing. Run the stage again.")
    is_plain = len(Path(name).parts) == 1 and not path.is_symlink()
    if not is_plain and not path.resolve().is_relative_to(directory.resolve()):
        raise CheckpointError(f"{path} leads outside of its folder, to {path.resolve()}. Copy the file there.")
    return path


def write_array(path: str | Path, array: np.ndarray) -> Path:
    """Writes one .npy atomically and returns the path."""
    path = Path(path)
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.asarray(array), allow_pickle=False)
    return path


def read_array(path: str | Path, *, mmap: bool = False) -> np.ndarray:
    """Reads one .npy, memory-mapped on request.

    Raises:
        MissingInputError: if the file is not there.
        IntegrityError: if it is truncated or not a plain array.
    """
    path = Path(path)
    with _readable(path):
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        array.close()
        raise IntegrityError(f"{path} is an archive of arrays (.npz), not one array. Save the array by `numpy.save`.")
    return array


def read_array_dtype(path: str | Path) -> np.dtype:
    """Reads the type of numbers of one .npy from its header, also where `read_array` would refuse them.

    Raises:
        MissingInputError: if the file is not there.
        IntegrityError: if the header is damaged.
    """
    path = Path(path)
    with _readable(path), path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return read(file)[2]


@contextlib.contextmanager
def _readable(path: Path) -> Generator[None, None, None]:
    """Turns what numpy raises of a damaged .npy into one error."""
    if not path.is_file():
        raise MissingInputError(f"no file at {path}.")
    try:
        yield
    except Exception as error:
        if "object" in str(error).lower():
            raise IntegrityError(
                f"{path} holds Python objects, which are never read. Save numbers or texts, such as "
                "numpy.save(path, array.astype(str))."
            ) from error
        # the parser of headers raises whatever damaged bytes lead it to
        raise IntegrityError(f"{path} is not a readable .npy array ({error}). Was the copy cut short?") from error


def sha256(path: str | Path, *, on_block: Callable[[int], None] = lambda n_bytes: None) -> str:
    """Returns the sha256 of a file's bytes, as 64 hex digits.

    Args:
        path: the file.
        on_block: called with the number of bytes read so far, after each block; may raise to stop.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            on_block(file.tell())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
