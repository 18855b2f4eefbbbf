"""Files below a run directory: what is there, what changed, what may be deleted."""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mine_jax import artifacts
from mine_jax.errors import CheckpointError, ConfigError, IntegrityError, ResourceError
from mine_jax.run.record import lock
from mine_jax.run.record import manifest as manifest_file

_TEMPORARY = re.compile(r"^\..+\.\d+\.tmp$")  # names that artifacts.atomic gives
_OWN = (manifest_file.NAME, lock.NAME)
logger = logging.getLogger("mine_jax")


def make(directory: Path) -> Path:
    """Makes the folder if needed and returns it.

    Raises:
        ConfigError: if it is a file.
        ResourceError: if it cannot be made.
    """
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory} must be a folder, but is a file.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot make the folder {directory}: {error}. Choose another one.") from error
    return directory


def opened(directory: Path, owned: Iterable[str], *, resume: bool, overwrite: bool) -> dict[str, Any]:
    """Returns the manifest to go on with, after the checks that protect other people's files.

    Args:
        directory: of the run.
        owned: globs of all that stages write; `run.json` could list other files.
        resume: whether to go on with the run.
        overwrite: whether to delete it first.

    Returns:
        The content of `run.json`, or that of a run that has not started.

    Raises:
        ConfigError: if there are files and neither `resume` nor `overwrite`, or files of no run.
        CheckpointError: if `run.json` cannot be trusted.
    """
    if overwrite:
        _delete_run(directory, owned)
        return manifest_file.empty()
    names = {path.name for path in directory.iterdir() if not path.name.startswith(".")}
    # run.json alone is what is left of a run that ended before anything was made: nothing to protect
    if not names or (names == {manifest_file.NAME} and not resume):
        return manifest_file.empty()
    if not resume:
        raise ConfigError(f"{directory} is not empty. Use --resume to go on, --overwrite, or another folder.")
    manifest = manifest_file.read(directory)
    if manifest is None:
        raise ConfigError(f"{directory} has files but no run.json, so it is no run to go on with. Use another folder.")
    sweep(directory)
    return manifest


def snapshot(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Returns what identifies the present version of every file, by its relative name."""
    states = {}
    for path in directory.rglob("*"):
        name = path.relative_to(directory).as_posix()
        # files of others may go at any time
        with contextlib.suppress(FileNotFoundError):
            if name not in _OWN and path.is_file():
                states[name] = state(path)
    return states


def state(path: Path) -> tuple[int, int, int]:
    """Returns inode, time of change and size: another tuple after any write."""
    status = path.stat()
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def verify(directory: Path, globs: Iterable[str]) -> None:
    """Compares files of a run with what `run.json` says of them, before a command answers from them.

    Args:
        directory: of a run; one that is being written is not looked at.
        globs: of its files, as in `matches`.

    Raises:
        IntegrityError: naming a file that is not the one that its stage wrote.
        CheckpointError: if `run.json` cannot be trusted.
    """
    record = manifest_file.read(directory) or {}
    if record.get("state") == "running":
        return
    for name, entry in record.get("files", {}).items():
        path = directory / name
        if matches(name, globs) and path.is_file() and artifacts.sha256(path) != entry.get("sha256"):
            raise IntegrityError(
                f"{path} is damaged or was edited: its sha256 is not the one in run.json. mine-jax run CONFIG --out "
                f"{directory} --resume makes it anew."
            )


def matches(file: str, globs: Iterable[str]) -> bool:
    """Tells whether a file is among the globs; a Parquet table counts as the TSV it stands for."""
    names = {file, re.sub(r"\.parquet$", ".tsv", file)}
    return any(fnmatch.fnmatchcase(name, glob) for name in names for glob in globs)


def remove(directory: Path, files: Iterable[str]) -> None:
    """Removes files and the folders that are empty after it; none behind a link that leads out of the directory."""
    for file in files:
        if not (directory / file).parent.resolve().is_relative_to(directory.resolve()):
            logger.warning("%s stays: its folder is a link to outside of the run", directory / file)
            continue
        (directory / file).unlink(missing_ok=True)
        for parent in (directory / file).parents:
            if parent == directory:
                break
            with contextlib.suppress(OSError):
                parent.rmdir()


def sweep(directory: Path) -> None:
    """Removes temporary files and folders that a killed process left."""
    for path in [path for path in directory.rglob(".*.tmp") if _TEMPORARY.match(path.name)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _delete_run(directory: Path, owned: Iterable[str]) -> None:
    """Deletes the files that `run.json` lists and stages write, and no others."""
    try:
        manifest = manifest_file.read(directory)
    except CheckpointError as error:
        logger.warning("%s Files of that run stay until they are replaced.", error)
        manifest = None
    if manifest is not None:
        remove(directory, [file for file in manifest["files"] if matches(file, owned)])
        sweep(directory)
    (directory / manifest_file.NAME).unlink(missing_ok=True)
