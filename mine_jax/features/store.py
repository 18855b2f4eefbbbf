"""Image-tokens on disk: `meta.json` and memory-mapped .npy shards.

A shard is final once its sha256 stands in `meta.json`, so a killed extraction goes on
where it stopped. Several processes may write shards of one store: each notes its own in a `part-*.json`,
and the last merges them into `meta.json`. Tokens that the user already has in a file are referred
to, not copied.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from mine_jax import artifacts
from mine_jax.errors import CheckpointError, MissingInputError
from mine_jax.memory.rows import ChosenRows
from mine_jax.types import ImageTokens

_log = logging.getLogger("mine_jax")

SCHEMA = 1
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# The one part of a store that no other process works on.
WHOLE = (0, 1)
# What must agree before shards of an older extraction are used again, and how a message calls it.
_IDENTITY = {
    "image_ids": "image ids",
    "images_sha256": "image contents",
    "model_sha256": "model weights",
    "layer": "layer",
    "dtype": "dtype",
    "precision": "precision",
    "processor": "preprocessing",
    "shape": "shape",
}


class ShardedTokens(ChosenRows):
    """Read-only array [N, P, D] over memory-mapped parts of the first axis; `ChosenRows` says what it supports."""

    def __init__(self, parts: Sequence[np.ndarray], rows: np.ndarray | None = None) -> None:
        """Joins parts [n, P, D]; `rows` [N] int picks and orders rows of the whole."""
        joined = _Joined(parts)
        super().__init__(joined, np.arange(joined.shape[0]) if rows is None else rows)

    @property
    def picked(self) -> np.ndarray | None:
        """Rows [N] of the parts; None where all are there in their order."""
        return None if np.array_equal(self.rows, np.arange(self.source.shape[0])) else self.rows

    def __repr__(self) -> str:
        return f"ShardedTokens({self.dtype}{list(self.shape)}, {len(self.source.parts)} parts)"


class _Joined:
    """Parts of an array one after the other; gives copies of rows that are asked for by number."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.parts = tuple(parts)
        self.stops = np.cumsum([len(part) for part in parts])
        self.shape = (int(self.stops[-1]), *parts[0].shape[1:])
        self.dtype = parts[0].dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, *others = key if isinstance(key, tuple) else (key,)
        flat = np.asarray(rows).reshape(-1)
        out = np.empty((len(flat), *self.shape[1:]), self.dtype)
        part_of = np.searchsorted(self.stops, flat, side="right")
        for number in np.unique(part_of):
            here = part_of == number
            start = self.stops[number] - len(self.parts[number])
            out[here] = self.parts[number][flat[here] - start]
        chosen = out.reshape(*np.shape(rows), *self.shape[1:])
        return chosen[(*(slice(None),) * np.ndim(rows), *others)]


class TokenWriter:
    """Writes the shards of one extraction and remembers which are done.

    Attributes:
        shards: numbers of the shards that this writer is there for.
        missing: those of them still to be written.
        shard_images: images per shard, the last may have fewer.
        batch_size: images per call of the model in the extraction that began the store.
    """

    def __init__(
        self,
        directory: Path,
        identity: dict[str, Any],
        *,
        shard_images: int,
        batch_size: int,
        part: tuple[int, int] = WHOLE,
    ) -> None:
        """Begins a store, or goes on with one of the same identity.

        Args:
            directory: where `meta.json` and the shards go.
            identity: plain values under the keys of `_IDENTITY`, and further ones to be kept.
            shard_images: images per shard of a new store.
            batch_size: kept in `meta.json`, so that a resumed extraction computes the same bytes.
            part: (i, n): every n-th shard from the i-th, while other processes write the others.

        Raises:
            CheckpointError: if the folder holds tokens of other images, another model or layer.
        """
        identity = json.loads(json.dumps(identity))
        self._directory = directory
        self._path = directory / "meta.json"
        self._note = None if part == WHOLE else directory / f"part-{part[0]:03d}-of-{part[1]:03d}.json"
        self._meta: dict[str, Any] = {}
        noted = _parts(directory)
        if self._path.is_file():
            self._meta = _read_meta(directory)
            _check_identity(directory, self._meta, identity)
        else:
            self._meta |= {"schema": SCHEMA, "type": "TokenStore", "kind": "shards", **identity}
            self._meta |= {"shard_images": shard_images, "batch_size": batch_size, "shards": {}}
            if self._note is not None:
                # what the other processes compare themselves with
                artifacts.write_json(self._path, self._meta)
        for digests in noted.values():
            self._meta["shards"] |= digests
        self._noted = noted.get(self._note, {}) if self._note is not None else {}
        self.shard_images, self.batch_size = self._meta["shard_images"], self._meta["batch_size"]
        self._n_shards = -(-self._meta["shape"][0] // self.shard_images)
        self.shards = range(part[0], self._n_shards, part[1])
        self.missing = [shard for shard in self.shards if not self._is_done(shard)]

    def write(self, shard: int, tokens: np.ndarray) -> None:
        """Writes one shard [n, P, D] and its hash."""
        name = _shard_name(shard)
        artifacts.write_array(self._directory / name, tokens.view(np.uint16) if tokens.dtype == BFLOAT16 else tokens)
        self._meta["shards"][name] = artifacts.sha256(self._directory / name)
        if self._note is None:
            self._write_meta()
        else:
            self._noted[name] = self._meta["shards"][name]
            artifacts.write_json(self._note, self._noted)
        self.missing.remove(shard)

    def finish(self) -> bool:
        """Merges the notes of all processes if every shard is there.

        Returns:
            Whether the store is whole.
        """
        # in this order: who removed a note has written it into meta.json before
        noted = _parts(self._directory)
        if self._path.is_file():
            self._meta["shards"] = _read_meta(self._directory)["shards"]
        for digests in noted.values():
            self._meta["shards"] |= digests
        is_whole = len(self._meta["shards"]) == self._n_shards
        if is_whole and noted:
            self._write_meta()
            for path in noted:
                path.unlink(missing_ok=True)
        return is_whole

    def _write_meta(self) -> None:
        self._meta["shards"] = dict(sorted(self._meta["shards"].items()))
        artifacts.write_json(self._path, self._meta)

    def _is_done(self, shard: int) -> bool:
        name = _shard_name(shard)
        expected = self._meta["shards"].get(name)
        if expected is None or not (self._directory / name).is_file():
            return False
        if artifacts.sha256(self._directory / name) == expected:
            return True
        _log.warning("%s differs from its sha256 and is computed again", self._directory / name)
        return False


def open_store(directory: str | Path, *, verify: bool = True, moved_to: str | Path | None = None) -> ImageTokens:
    """Opens a finished token store without reading its tokens.

    Args:
        directory: the folder with `meta.json`, `DIR/features` of a run.
        verify: whether to compare every file with its recorded sha256 (reads them once). A file of the user is
            compared in any case where its size or time of change is another than when it was referred to.
        moved_to: where the user's file that the store refers to lies now; None for where it lay then.

    Returns:
        ImageTokens whose `tokens` [N, P, D] is memory-mapped; see `ShardedTokens` for what it supports.

    Raises:
        MissingInputError: if there is no store, or the file that it refers to has gone.
        CheckpointError: if it is unfinished, or a file differs from its sha256.
    """
    directory = Path(directory)
    with artifacts.described_by(directory / "meta.json"):
        return _opened(directory, _read_meta(directory), verify, moved_to)


def _opened(directory: Path, meta: dict[str, Any], verify: bool, moved_to: str | Path | None) -> ImageTokens:
    if meta["kind"] == "file":
        path = Path(meta["path"] if moved_to is None else moved_to)
        if not path.is_file():
            raise MissingInputError(f"{directory}/meta.json refers to {path}, which is not there. Was it moved?")
        if meta.get("state") != _state(path) and artifacts.sha256(path) != meta["sha256"]:
            raise CheckpointError(
                f"{path} is not the file that {directory}/meta.json was written for: its sha256 differs. Put that "
                "file back, or run the features stage again."
            )
        parts, files = [path], {path: meta["sha256"]}
    else:
        n_shards = -(-meta["shape"][0] // meta["shard_images"])
        names = [_shard_name(shard) for shard in range(n_shards)]
        unfinished = [name for name in names if name not in meta["shards"] or not (directory / name).is_file()]
        if unfinished:
            raise CheckpointError(
                f"{directory} lacks {len(unfinished)} of {n_shards} shards, first {unfinished[0]}. "
                "Run the features stage again; finished shards are kept."
            )
        parts = [directory / name for name in names]
        files = {directory / name: meta["shards"][name] for name in names}
    mask = None
    if meta.get("mask_sha256"):
        files[directory / "mask.npy"] = meta["mask_sha256"]
        mask = artifacts.read_array(directory / "mask.npy")
    for path, digest in files.items() if verify else ():
        if artifacts.sha256(path) != digest:
            raise CheckpointError(
                f"{path} differs from the sha256 in {directory}/meta.json. Run the features stage again."
            )
    rows = np.asarray(meta["rows"], np.int64) if meta.get("rows") is not None else None
    tokens = ShardedTokens([memory_map(part) for part in parts], rows)
    if list(tokens.shape) != list(meta["shape"]) or tokens.dtype.name != meta["dtype"]:
        raise CheckpointError(
            f"the tokens in {directory} are {tokens.dtype}{list(tokens.shape)}, but meta.json says "
            f"{meta['dtype']}{meta['shape']}. Run the features stage again."
        )
    return ImageTokens(
        tokens=tokens,
        image_ids=np.asarray(meta["image_ids"], dtype=str),
        mask=mask,
        grid=tuple(meta["grid"]) if meta["grid"] else None,
        layer=meta["layer"],
        model=meta["model"],
    )


def write_reference(directory: str | Path, tokens: ImageTokens, *, path: Path, rows: np.ndarray | None) -> None:
    """Writes a store that refers to the user's .npy by absolute path and sha256.

    Args:
        directory: where `meta.json` (and the mask) goes.
        tokens: what the file holds, [N, P, D].
        path: the file.
        rows: [N] rows of the file in use, or None for all.
    """
    directory = Path(directory)
    mask_sha256 = None
    if tokens.mask is not None:
        mask_sha256 = artifacts.sha256(artifacts.write_array(directory / "mask.npy", np.asarray(tokens.mask)))
    meta = {
        "schema": SCHEMA,
        "type": "TokenStore",
        "kind": "file",
        "path": str(path.resolve()),
        "sha256": artifacts.sha256(path),
        "state": _state(path),
        "rows": rows,
        "mask_sha256": mask_sha256,
        "image_ids": tokens.image_ids,
        "model": tokens.model,
        "layer": tokens.layer,
        "grid": tokens.grid,
        "dtype": tokens.tokens.dtype.name,
        "shape": tokens.tokens.shape,
    }
    artifacts.write_json(directory / "meta.json", meta)


def memory_map(path: Path) -> np.ndarray:
    """Maps one .npy of half or single precision; big-endian is converted.

    bfloat16 is stored as uint16, or as the 2-byte void type that NumPy writes for it.
    """
    array = artifacts.read_array(path, mmap=True)
    if array.dtype == np.uint16 or array.dtype == np.dtype("V2"):
        return array.view(BFLOAT16)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def images_hash(hashes: np.ndarray) -> str | None:
    """Returns one sha256 over the hashes of all images; None if any is unknown."""
    if not len(hashes) or not all(hashes.tolist()):
        return None
    return hashlib.sha256("\n".join(hashes.tolist()).encode()).hexdigest()


def _state(path: Path) -> list[int]:
    """Size and time of change."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _read_meta(directory: Path) -> dict[str, Any]:
    meta = artifacts.read_json(directory / "meta.json")
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA or meta.get("type") != "TokenStore":
        raise CheckpointError(f"{directory}/meta.json is not a token store of schema {SCHEMA}. Choose another folder.")
    return meta


def _parts(directory: Path) -> dict[Path, dict[str, str]]:
    """Returns what processes noted: their file -> shard name -> sha256."""
    notes = {}
    for path in sorted(directory.glob("part-*.json")):
        # another process may have merged it meanwhile
        with contextlib.suppress(MissingInputError):
            notes[path] = artifacts.read_json(path)
    return notes


def _check_identity(directory: Path, meta: dict[str, Any], identity: dict[str, Any]) -> None:
    if meta["kind"] != "shards":
        raise CheckpointError(f"{directory} refers to precomputed tokens. Choose another folder or delete it.")
    differing = []
    for key, label in _IDENTITY.items():
        old, new = meta.get(key), identity[key]
        if old != new:
            differing.append(f"{label} ({_difference(old, new)})")
    if differing:
        raise CheckpointError(
            f"{directory} holds image-tokens of another extraction; different: {', '.join(differing)}. "
            "Choose another folder, or delete this one to extract again."
        )


def _difference(old: Any, new: Any) -> str:
    if isinstance(old, list) and isinstance(new, list) and len(old) > 3:
        if len(old) != len(new):
            return f"{len(old)} there, {len(new)} now"
        row = next(i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b)
        return f"row {row}: {old[row]!r} there, {new[row]!r} now"
    return f"{str(old)[:60]} there, {str(new)[:60]} now"


def _shard_name(shard: int) -> str:
    return f"tokens-{shard:05d}.npy"
