"""Inputs that must not change: a list of their sha256 beside the configuration, which `sha256sum -c` reads too."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mine_jax import artifacts
from mine_jax._progress import Progress, silent
from mine_jax.errors import IntegrityError, MissingInputError
from mine_jax.run.record import manifest as manifest_file

_LINE = re.compile(r"(\\?)([0-9a-f]{64}) [ *](.+)")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_SHOWN = 5


def list_of(source: Path) -> Path:
    """Returns where the list of a configuration file stands, whether it is there or not."""
    return source.with_suffix(".sha256")


def freeze(source: Path, inputs: Iterable[Path], *, progress: Progress = silent) -> tuple[Path, int]:
    """Writes the list.

    Args:
        source: the configuration file.
        inputs: files and folders that it reads.
        progress: called with MiB read and in all.

    Returns:
        Where the list is, and how many files it names.

    Raises:
        MissingInputError: if there is no file to list.
    """
    files = _files(inputs)
    if not files:
        raise MissingInputError(f"{source} reads no file that is there, so there is nothing to freeze.")
    hashes, _ = _hashes(files, progress)
    base = source.resolve().parent
    lines = (_line(os.path.relpath(file.resolve(), base), hashes[file]) for file in files)
    return artifacts.write_text(list_of(source), "".join(lines)), len(files)


def verify(
    source: Path, inputs: Iterable[Path], *, known: dict[str, Any] | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Compares inputs with the list, where there is one.

    Args:
        source: the configuration file.
        inputs: files and folders that it reads.
        known: what an earlier call returned. A large file is not read again while it is, by its size, time of change,
            first and last block, the one that was compared then.
        progress: called with MiB read and in all.

    Returns:
        Path -> identity and sha256 of every large file, for the next call.

    Raises:
        IntegrityError: if a file changed, is missing or is new, or the list cannot be read.
    """
    path = list_of(source)
    if not path.is_file():
        return {}
    base = source.resolve().parent
    listed = {(base / name).resolve(): sha256 for name, sha256 in _read(path)}
    present = [file.resolve() for file in _files(inputs)]
    there = [file for file in listed if file.is_file()]
    hashes, large = _hashes(there, progress, known or {})
    found = [(file, "changed") for file in there if hashes[file] != listed[file]]
    found += [(file, "is missing") for file in listed if file not in hashes]
    found += [(file, "is new") for file in present if file not in listed]
    if found:
        shown = "; ".join(f"{os.path.relpath(file, base)} {what}" for file, what in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise IntegrityError(
            f"inputs are not those of {path}: {shown}{more}. Put the files back or, if the change is meant, freeze "
            f"them anew: mine-jax check {source} --freeze."
        )
    return large


def _files(inputs: Iterable[Path]) -> list[Path]:
    """Returns the files, and those below the folders, in order and each once."""
    files: set[Path] = set()
    for path in inputs:
        files.update(artifacts.files_below(path) if path.is_dir() else [path])
    return sorted(file for file in files if file.is_file())


def _hashes(
    files: list[Path], progress: Progress, known: dict[str, Any] | None = None
) -> tuple[dict[Path, str], dict[str, Any]]:
    """Returns the sha256 of each file, and path -> [identity, sha256] of the large ones; `known` are not read."""
    sizes = [file.stat().st_size for file in files]
    before, total = 0, max(1, sum(sizes) >> 20)
    hashes: dict[Path, str] = {}
    large: dict[str, Any] = {}
    for file, size in zip(files, sizes, strict=True):
        progress(before >> 20, total)
        identity = hashes[file] = manifest_file.input_hash(file)
        if manifest_file.is_partial(identity):
            last_identity, last_sha256 = (known or {}).get(str(file), (None, None))
            if last_identity == identity:
                hashes[file] = last_sha256
            else:
                hashes[file] = artifacts.sha256(
                    file, on_block=lambda n_bytes, start=before: progress((start + n_bytes) >> 20, total)
                )
            large[str(file)] = [identity, hashes[file]]
        before += size
    return hashes, large


def _line(name: str, sha256: str) -> str:
    escaped = "".join(_ESCAPES.get(letter, letter) for letter in name)
    return f"{'' if escaped == name else chr(92)}{sha256}  {escaped}\n"


def _read(path: Path) -> list[tuple[str, str]]:
    """Returns name and sha256 of every line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{path} is not text ({error}). Write it anew by --freeze.") from error
    listed = []
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            if line.strip():
                raise IntegrityError(f"{path}, line {number}: not a line of a sha256 list. Write it anew by --freeze.")
            continue
        is_escaped, sha256, name = match.groups()
        if is_escaped:
            name = re.sub(r"\\([\\nr])", lambda m: {"\\": "\\", "n": "\n", "r": "\r"}[m[1]], name)
        listed.append((name, sha256))
    return listed
