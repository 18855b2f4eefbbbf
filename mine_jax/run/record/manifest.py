"""`run.json`: what a run was made from, how far it is, and the sha256 of every file.

Paths of results are relative to the run directory, so a moved run stays valid.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mine_jax
from mine_jax import artifacts
from mine_jax.config import Config, paths
from mine_jax.errors import CheckpointError, IntegrityError

NAME = "run.json"
SCHEMA = 1
# Larger input files are identified by size, time of change, first and last block.
MAX_HASHED_BYTES = 64 << 20
BLOCK_BYTES = 1 << 20
# Folders of more files are recorded by one hash.
MAX_LISTED = 2000
MISSING = "missing"
_PARTIAL = "partial:"
# Files of a package that decide nothing: what Python compiled, and what people read.
_NO_CODE = (".pyc", ".md")
_PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "orbax-checkpoint", "nibabel", "pandas", "torch", "diffusers")
logger = logging.getLogger("mine_jax")


def now() -> str:
    """Returns the time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def empty() -> dict[str, Any]:
    """Returns the manifest of a run that has not started."""
    return {"stages": {}, "files": {}, "inputs": {}, "started": now()}


def read(directory: Path) -> dict[str, Any] | None:
    """Reads `run.json`; None where there is none.

    Raises:
        CheckpointError: if it is damaged, of another schema, or names files outside the directory.
    """
    path = directory / NAME
    if not path.is_file():
        return None
    remedy = "Use another folder, or --overwrite to start again."
    try:
        manifest = artifacts.read_json(path)
    except IntegrityError as error:
        raise CheckpointError(f"{path} is not readable JSON ({error.__cause__}). {remedy}") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise CheckpointError(f"{path} has schema {found!r}; this version of mine_jax reads {SCHEMA}. {remedy}")
    for key in ("stages", "files"):
        if not isinstance(manifest.get(key), dict) or not all(isinstance(v, dict) for v in manifest[key].values()):
            raise CheckpointError(f"{path} has no valid table `{key}`: damaged or edited. {remedy}")
    outside = [
        name for name in manifest["files"] if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name
    ]
    if outside:
        raise CheckpointError(f"{path} names files outside of the run: {outside[:3]}. It was edited. {remedy}")
    return manifest


def write(directory: Path, manifest: dict[str, Any]) -> None:
    """Writes `run.json` atomically."""
    manifest["updated"] = now()
    artifacts.write_json(directory / NAME, manifest)


def header(config: Config) -> dict[str, Any]:
    """Returns what `run.json` says about the software, the machine and the configuration."""
    import jax

    return {
        "schema": SCHEMA,
        "package": {"name": "mine_jax", "version": mine_jax.__version__, "git_commit": git_commit()},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {"python": platform.python_version(), **versions(_PACKAGES)},
        "devices": [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()],
        "precision": config.run.precision,
        "seed": config.run.seed,
        "configuration": config.model_dump(mode="json"),
    }


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Returns the installed version of each distribution, None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_commit() -> str | None:
    """Returns the commit of the checkout the package runs from ("-dirty" if changed), or None."""
    root = Path(mine_jax.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def input_hash(path: Path) -> str:
    """Identifies a file, or every file below a folder, without reading large ones whole.

    Args:
        path: a file or folder.

    Returns:
        The sha256 of a file of at most `MAX_HASHED_BYTES`; otherwise of its size, time of change, first
        and last block; "missing" where there is nothing.
    """
    if path.is_dir():
        digest = hashlib.sha256()
        for file in artifacts.files_below(path):
            digest.update(f"{file.relative_to(path).as_posix()}\0{input_hash(file)}\n".encode())
        return digest.hexdigest()
    if not path.is_file():
        return MISSING
    status = path.stat()
    if status.st_size <= MAX_HASHED_BYTES:
        return _sha256(path, (status.st_ino, status.st_mtime_ns, status.st_size))
    digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode())
    with path.open("rb") as file:
        digest.update(file.read(BLOCK_BYTES))
        file.seek(-BLOCK_BYTES, 2)
        digest.update(file.read())
    return f"{_PARTIAL}{digest.hexdigest()}"


def is_partial(identity: str) -> bool:
    """Says whether `input_hash` gave this for a file that it did not read whole."""
    return identity.startswith(_PARTIAL)


@functools.cache
def code_hash(name: str) -> str:
    """Identifies the source of a package, with its templates, or of one module; its pages of text do not count.

    Args:
        name: as it is imported; it is not imported here.

    Returns:
        The sha256 of all its files, read once in a process.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no source of {name}", name=name)
    if spec.submodule_search_locations is None:
        return artifacts.sha256(Path(spec.origin))
    digest, root = hashlib.sha256(), Path(spec.origin).parent
    for file in artifacts.files_below(root):
        if file.suffix not in _NO_CODE and not any(part.startswith(".") for part in file.relative_to(root).parts):
            digest.update(f"{file.relative_to(root).as_posix()}\0{artifacts.sha256(file)}\n".encode())
    return digest.hexdigest()


@functools.cache
def _sha256(path: Path, state: tuple[int, int, int]) -> str:
    """Reads each version of a file once in a process."""
    del state
    return artifacts.sha256(path)


def input_state(path: Path) -> str | dict[str, str]:
    """Identifies an input; a folder by the hash of each file below it, so that a change can be named.

    Args:
        path: a file or folder.

    Returns:
        As `input_hash`; of a folder of at most `MAX_LISTED` files, relative name -> hash.
    """
    files = artifacts.files_below(path) if path.is_dir() else []
    if not files or len(files) > MAX_LISTED:
        return input_hash(path)
    return {file.relative_to(path).as_posix(): input_hash(file) for file in files}


# What only names things on pages, and leave to fetch a model, count where a stage asks for them alone.
_ALONE = ("data.unit_name", "features.allow_download")


def depends_on(
    config: Config,
    *,
    sections: Iterable[str],
    inputs: Mapping[Path, str | dict[str, str]],
    needs: Mapping[str, str],
    code: Iterable[str] = (),
) -> dict[str, Any]:
    """Collects everything that decides a stage's result.

    A path whose content is among the inputs counts by its name alone, so that data may be moved.

    Args:
        config: the configuration.
        sections: names of sections, or `section.key`.
        inputs: `input_state` of each input.
        needs: fingerprint of each stage whose outputs are read.
        code: packages and modules whose source counts.

    Returns:
        Plain values; equal ones mean an equal result.
    """
    values: dict[str, Any] = {}
    for name in sections:
        section, _, key = name.partition(".")
        held = getattr(config, section)
        for field, value in held.model_dump(mode="json").items():
            if field != key if key else f"{section}.{field}" in _ALONE:
                continue
            if field in paths(held) and any(Path(path).is_relative_to(value) for path in inputs):
                value = Path(value).name
            values[f"{section}.{field}"] = value
    named: dict[str, str | dict[str, str]] = {}
    for path, value in inputs.items():
        # Two inputs of one name are both kept.
        name = path.name if path.name not in named else str(path)
        named[name] = value
    sources = {name: code_hash(name) for name in code}
    # Through JSON, so that fresh values compare equal to those read back.
    return json.loads(
        json.dumps(
            {
                "schema": SCHEMA,
                "version": mine_jax.__version__,
                "config": values,
                "inputs": named,
                "needs": dict(needs),
                **({"code": sources} if sources else {}),
            }
        )
    )


def fingerprint(parts: dict[str, Any]) -> str:
    """Returns the sha256 of what `depends_on` collected."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Says in words what changed between two results of `depends_on`.

    An input that is no longer there is not a change: the result made from it is kept, with a warning. Code that was not
    recorded, by an earlier version, counts as changed.
    """
    changes = []
    for key in ("schema", "version"):
        if old.get(key) != new[key]:
            changes.append(f"{key}: {old.get(key)} -> {new[key]}")
    for key in sorted({*old.get("config", {}), *new["config"]}):
        before, after = old.get("config", {}).get(key), new["config"].get(key)
        if before != after:
            changes.append(f"{key}: {before!r} -> {after!r}")
    for name in sorted({*old.get("inputs", {}), *new["inputs"]}):
        before, after = old.get("inputs", {}).get(name, MISSING), new["inputs"].get(name, MISSING)
        if before != after and after == MISSING:
            logger.warning("input %s is no longer there; what was made from it is kept unchecked", name)
        elif before != after:
            changes.append(f"input {name} changed{_which(before, after)}")
    changes.extend(
        f"the code of {name} changed"
        for name, value in new.get("code", {}).items()
        if old.get("code", {}).get(name) != value
    )
    changes.extend(
        f"stage {name} was made anew" for name, value in new["needs"].items() if old.get("needs", {}).get(name) != value
    )
    return changes


def _which(before: Any, after: Any) -> str:
    """Names the files by which two states of a folder differ."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return ""
    files = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return f" ({', '.join(files[:3])}{f' and {len(files) - 3} more' if len(files) > 3 else ''})"
