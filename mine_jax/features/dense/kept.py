"""What was fitted to tokens, kept beside their store: arrays, and a `meta.json` that says of which extraction."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mine_jax import artifacts
from mine_jax.errors import CheckpointError


def is_kept(folder: Path | None) -> bool:
    """Says whether a folder holds something fitted."""
    return folder is not None and (folder / "meta.json").is_file()


def hash_of(image_ids: Iterable[str]) -> str:
    """Returns a sha256 by which the images of a fit are told from others."""
    return hashlib.sha256("\n".join(map(str, image_ids)).encode()).hexdigest()


def write(folder: Path, kind: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Writes arrays by name, then `meta.json` with their hashes, which makes them count."""
    hashes = {}
    for name, array in arrays.items():
        path = artifacts.write_array(folder / f"{name}.npy", array)
        hashes[path.name] = artifacts.sha256(path)
    artifacts.write_json(folder / "meta.json", {"schema": artifacts.SCHEMA, "type": kind, **meta, "sha256": hashes})


def read(folder: Path, kind: str, identity: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads what `write` wrote.

    Args:
        folder: where it is.
        kind: type of what was fitted.
        identity: values of `meta.json` that must agree.

    Returns:
        Arrays by name, and `meta.json`.

    Raises:
        CheckpointError: if it is damaged, of another kind or of another extraction.
    """
    meta = artifacts.read_json(folder / "meta.json")
    if not isinstance(meta, dict) or meta.get("type") != kind or meta.get("schema") != artifacts.SCHEMA:
        raise CheckpointError(f"{folder}/meta.json does not describe a {kind.lower()}. Delete the folder.")
    differing = [key for key, value in identity.items() if meta.get(key) != value]
    if differing:
        raise CheckpointError(
            f"{folder} holds a {kind.lower()} of another extraction; different: {', '.join(differing)}. "
            "Choose another folder, or delete this one to extract again."
        )
    with artifacts.described_by(folder / "meta.json"):
        paths = {artifacts.member(folder, name): digest for name, digest in meta["sha256"].items()}
        for path, digest in paths.items():
            if artifacts.sha256(path) != digest:
                raise CheckpointError(f"{path} differs from its sha256. Delete {folder.parent} and extract again.")
        return {path.stem: artifacts.read_array(path) for path in paths}, meta
