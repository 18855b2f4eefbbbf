"""A checkpoint directory -> checked float32 tensors and a hash; safetensors only.

Nothing is allocated before the headers of all files agree with what the model expects,
and no file outside the directory is opened.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mine_jax import artifacts
from mine_jax._numbers import count
from mine_jax.errors import MissingInputError, WeightsError

_log = logging.getLogger("mine_jax")

MAX_JSON_BYTES = 1 << 20
MAX_INDEX_BYTES = 64 << 20
# Keys of config.json that make a loader run or fetch foreign code.
FOREIGN_CODE = ("auto_map", "_attn_implementation_internal", "custom_pipelines", "quantization_config")
# safetensors names of the dtypes that we read.
FLOATS = ("F64", "F32", "F16", "BF16")
LFS_HEADER = b"version https://git-lfs"
# The hub's cache names a file that is kept outside of git by its sha256, and links to it.
SHA256 = re.compile(r"[0-9a-f]{64}")


def read_model_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Reads one JSON object of a checkpoint, with a size limit and no foreign code.

    Raises:
        MissingInputError: if the file is not there.
        WeightsError: if it is too large, not a UTF-8 JSON object, or asks for foreign code.
    """
    if not path.is_file():
        raise MissingInputError(
            f"no {path.name} in {path.parent}. A checkpoint directory of Hugging Face is expected: "
            "`hf download NAME --local-dir FOLDER` brings one into a folder."
        )
    check_inside(path, path.parent)
    if path.stat().st_size > max_bytes:
        raise WeightsError(
            f"{path} has {path.stat().st_size} bytes; at most {max_bytes} are read. Is it the right file?"
        )
    content = path.read_bytes()
    if content.startswith(LFS_HEADER):
        raise WeightsError(f"{path} is a git-LFS pointer, not the file itself. Run `git lfs pull` in the checkpoint.")
    try:
        values = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not UTF-8 JSON ({error}). Copy the checkpoint again.") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path} must hold a JSON object, but holds a {type(values).__name__}.")
    foreign = [key for key in FOREIGN_CODE if values.get(key) is not None]
    if foreign:
        raise WeightsError(
            f"{path} sets {', '.join(foreign)}: foreign code and quantized models are not run. "
            "Use a checkpoint of a built-in architecture in float32, float16 or bfloat16."
        )
    return values


def check_inside(path: Path, directory: Path) -> None:
    """Refuses a file that lies, or links, outside the directory.

    Links into the `blobs` folder of the same Hugging Face cache entry are allowed.

    Raises:
        WeightsError: if the resolved path is elsewhere.
    """
    target, home = path.resolve(), directory.resolve()
    blobs = home.parent.parent / "blobs"
    if not target.is_relative_to(home) and not target.is_relative_to(blobs):
        raise WeightsError(f"{path} leads outside the checkpoint directory, to {target}. Copy the file into {home}.")


def weight_files(directory: Path) -> list[Path]:
    """Returns the safetensors files of a checkpoint, sorted by name.

    Raises:
        MissingInputError: if the directory is not there.
        WeightsError: if there are none, a shard is missing or outside, or a file is a pointer.
    """
    if not directory.is_dir():
        raise MissingInputError(f"no checkpoint directory at {directory}. Give a local folder.")
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.is_file():
        names = {single.name}
    elif index.is_file():
        names = _indexed_names(index)
    else:
        others = sorted(p.name for p in directory.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".msgpack"))
        hint = f" Only {', '.join(others[:3])} found: convert to safetensors." if others else ""
        raise WeightsError(f"no model.safetensors in {directory}.{hint} Pickled weights are never read.")
    paths = [directory / name for name in sorted(names)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise WeightsError(
            f"{directory} lacks {count(len(missing), 'weight file')}: {', '.join(missing[:5])}. Copy them again."
        )
    for path in paths:
        check_inside(path, directory)
        with path.open("rb") as file:
            if file.read(len(LFS_HEADER)) == LFS_HEADER:
                raise WeightsError(f"{path} is a git-LFS pointer, not the weights. Run `git lfs pull` in {directory}.")
    return paths


def model_hash(directory: Path, *choices: str) -> str:
    """Returns one sha256 over weights, config.json and the choices that change what is computed.

    Raises:
        WeightsError: as `hash_files`.
    """
    files = hash_files(directory, [*weight_files(directory), directory / "config.json"])
    return hashlib.sha256("\n".join((files, *choices)).encode()).hexdigest() if choices else files


def hash_files(directory: Path, paths: Collection[Path]) -> str:
    """Returns one sha256 over files, after verifying `weights.sha256` and the names of the hub's cache.

    `weights.sha256` has the lines of `sha256sum`: digest, two spaces, file name.

    Raises:
        WeightsError: if a file differs from its line in `weights.sha256`, or from the sha256 in the hub's cache.
    """
    digests = {path.name: artifacts.sha256(path) for path in paths}
    for path in paths:
        check_blob(path, digests[path.name])
    listed = directory / "weights.sha256"
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8").splitlines():
            digest, _, name = line.strip().partition(" ")
            name = name.strip(" *")
            if name in digests and digests[name] != digest:
                raise WeightsError(f"{directory / name} differs from {listed.name}: damaged or changed. Copy it again.")
    return hashlib.sha256("".join(f"{name}\0{digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


def check_blob(path: Path, digest: str) -> None:
    """Compares a file of the hub's cache with the sha256 that the hub gave for it; any other file passes.

    Raises:
        WeightsError: if it differs.
    """
    blob = path.resolve()
    if blob.parent.name == "blobs" and SHA256.fullmatch(blob.name) and blob.name != digest:
        raise WeightsError(
            f"{path} is damaged: its sha256 is not that of the hub. Delete {blob}, to which it links, and fetch the "
            "model again."
        )


class Tensors:
    """Exactly the expected tensors of a checkpoint, read one at a time.

    Attributes:
        directory: the checkpoint.
        bad: names of tensors read so far that hold NaN or infinity.
    """

    def __init__(
        self,
        directory: Path,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        unused: Collection[str] = (),
        rename: Mapping[str, str] | None = None,
    ) -> None:
        """Compares the headers of all files with what is expected; reads no tensor yet.

        Args:
            directory: the checkpoint.
            shapes: expected key -> shape.
            unused: parts at either end of keys that may be there and are ignored, for instance
                `"position_ids"` or `"vision_model.head."`.
            rename: prefix in the file -> prefix in `shapes`; the first that fits is used.

        Raises:
            WeightsError: for missing, unexpected, wrongly shaped or quantized tensors (all keys of
                one kind at once), and for damaged files.
        """
        import safetensors

        self.directory, self.bad, self._places = directory, [], {}
        problems: list[str] = []
        try:
            for path in weight_files(directory):
                with safetensors.safe_open(path, framework="numpy") as file:
                    for key in file.keys():
                        name = _renamed(key, rename or {})
                        if name not in shapes and _is_unused(name, unused):
                            continue
                        self._places[name] = (path, key)
                        if name in shapes:
                            problems += _header_problems(key, file.get_slice(key), shapes[name])
        except safetensors.SafetensorError as error:
            raise WeightsError(f"the weights in {directory} cannot be read ({error}). Copy them again.") from error
        missing, unexpected = sorted(shapes.keys() - self._places), sorted(self._places.keys() - shapes)
        if missing:
            problems.insert(0, f"{len(missing)} missing: {', '.join(missing[:8])}")
        if unexpected:
            problems.append(f"{len(unexpected)} unexpected: {', '.join(unexpected[:8])}")
        if problems:
            raise WeightsError(
                f"the tensors in {directory} do not fit its config.json: {'; '.join(problems[:12])}. "
                "Is this the whole checkpoint, of this architecture?"
            )

    def __contains__(self, name: str) -> bool:
        """Returns whether the checkpoint has the tensor."""
        return name in self._places

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """Reads one tensor, or a part of it, as float32; only that part is in memory.

        Raises:
            WeightsError: if the file is damaged.
        """
        import safetensors

        path, key = self._places[name]
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                part = index and any(piece != slice(None) for piece in index)
                raw = np.asarray(file.get_slice(key)[index] if part else file.get_tensor(key))
        except safetensors.SafetensorError as error:
            raise WeightsError(f"the weights in {self.directory} cannot be read ({error}). Copy them again.") from error
        with np.errstate(over="ignore"):
            tensor = raw.astype(np.float32)
        if not np.isfinite(tensor).all():
            self.bad.append(name)
        elif not part and tensor.ndim > 1 and not tensor.any():
            _log.warning("%s in %s is all zero; was the checkpoint saved before training?", name, path)
        return tensor

    def check_finite(self) -> None:
        """Looks back on what was read.

        Raises:
            WeightsError: if any of it holds NaN or infinity.
        """
        if self.bad:
            bad = sorted(set(self.bad))
            raise WeightsError(
                f"NaN or infinity in {count(len(bad), 'tensor')}: {', '.join(bad[:8])}. Copy the checkpoint again."
            )


def _is_unused(name: str, unused: Collection[str]) -> bool:
    return any(name.startswith(part) if part.endswith(".") else name.rpartition(".")[2] == part for part in unused)


def _indexed_names(index: Path) -> set[str]:
    weight_map = read_model_json(index, max_bytes=MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(n, str) for n in weight_map.values()):
        raise WeightsError(f"{index} must map tensor names to file names under `weight_map`.")
    names = set(weight_map.values())
    for name in sorted(names):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise WeightsError(
                f"{index} names {name!r}: shards must be .safetensors files in the checkpoint directory."
            )
    return names


def _renamed(key: str, rename: Mapping[str, str]) -> str:
    for old, new in rename.items():
        if key.startswith(old):
            return new + key[len(old) :]
    return key


def _header_problems(key: str, header: Any, shape: tuple[int, ...]) -> list[str]:
    problems = []
    if header.get_dtype() not in FLOATS:
        problems.append(f"{key} is {header.get_dtype()} (quantized weights are not supported; convert to float16)")
    if tuple(header.get_shape()) != tuple(shape):
        problems.append(f"{key} has shape {tuple(header.get_shape())}, expected {tuple(shape)}")
    return problems
