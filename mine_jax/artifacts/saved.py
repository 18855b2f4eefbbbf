"""Types of `mine_jax.types` as folders: `load(directory)` gives back what `save(value, directory)` wrote."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from mine_jax import types
from mine_jax._progress import silenced
from mine_jax.artifacts.disk import (
    described_by,
    member,
    read_array,
    read_json,
    sha256,
    write_array,
    write_json,
    write_text,
)
from mine_jax.errors import CheckpointError, ResourceError

SCHEMA = 1
# Texts of fixed length that are written as an array: as JSON they would be in memory one by one.
_LONG_TEXT = 1 << 20
# What the store of encoders needs beside the arrays: some twenty small files.
_STORE_BYTES = 1 << 20
# A folder that threads of the store may still write to is deleted this often, this far apart, until it stayed away for
# a number of looks: a file that is written late brings its folders back.
_TRIES, _PAUSE_S, _LOOKS = 30, 0.1, 6
# Arrays of sparse rows.
_SPARSE = ("starts", "columns", "values")
_TYPES = {
    cls.__name__: cls
    for cls in (
        types.Attributions,
        types.CriticalTokens,
        types.Descriptions,
        types.Faithfulness,
        types.ImageTokens,
        types.Lens,
        types.Profiles,
        types.Responses,
        types.Scores,
    )
}


def names(kind: Any) -> tuple[str, ...]:
    """Returns globs of the files that `save` writes for a type, encoders excepted."""
    fields = [field.name for field in dataclasses.fields(kind)]
    arrays = [f"{name}{rest}" for name in fields for rest in (".npy", ".json", ".*.npy", ".*.json")]
    return ("meta.json", *arrays)


def delete(kind: Any, directory: Path) -> None:
    """Deletes what `save` writes for a type, and the folder if nothing else is in it."""
    for pattern in names(kind):
        for path in directory.glob(pattern):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()


def save(value: Any, directory: str | Path) -> Path:
    """Writes a value of `mine_jax.types` to a folder: `meta.json` last, arrays beside it.

    Args:
        value: an instance of one of the types; arrays of any dtype but object.
        directory: made if needed; files of the same name are replaced.

    Returns:
        The folder.

    Raises:
        TypeError: for a type that has no file form.
        ResourceError: if the disk refuses.
    """
    directory = Path(directory)
    if isinstance(value, types.Encoders):
        return _save_encoders(value, directory)
    if type(value).__name__ not in _TYPES:
        raise TypeError(f"{type(value).__name__} has no file form; the types that do: {', '.join(sorted(_TYPES))}.")
    plain: dict[str, Any] = {}
    arrays: dict[str, str] = {}
    sparse: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if isinstance(item, dict):
            for key, array in item.items():
                arrays[f"{field.name}/{key}"] = _write_field(directory, f"{field.name}.{key}", array)
        elif isinstance(item, types.SparseRows) or (isinstance(item, tuple) and _are_sparse(item)):
            tables = item if isinstance(item, tuple) else (item,)
            sparse[field.name] = {"width": tables[0].width, "n": len(tables), "is_one": item is tables[0]}
            for number, table in enumerate(tables):
                for part in _SPARSE:
                    file = _write_field(directory, f"{field.name}.{number}.{part}", getattr(table, part))
                    arrays[f"{field.name}/{number}.{part}"] = file
        elif hasattr(item, "dtype") and hasattr(item, "shape"):
            arrays[field.name] = _write_field(directory, field.name, item)
        elif isinstance(item, types.Volume):
            plain[field.name] = {"shape": list(item.shape), "affine": np.asarray(item.affine).tolist()}
        elif isinstance(item, types.Surface):
            plain[field.name] = {"name": item.name, "n_vertices": list(item.n_vertices)}
        else:
            plain[field.name] = item
    write_json(
        directory / "meta.json",
        {
            "schema": SCHEMA,
            "type": type(value).__name__,
            "fields": plain,
            "arrays": arrays,
            "sparse": sparse,
            "sha256": {name: sha256(directory / name) for name in arrays.values()},
        },
    )
    return directory


def load(directory: str | Path, *, verify: bool = True) -> Any:
    """Reads back what `save` wrote.

    Args:
        directory: a folder with `meta.json`.
        verify: whether to compare every file with its recorded sha256.

    Returns:
        An instance of one of the types of `mine_jax.types`; large arrays are memory-mapped.

    Raises:
        MissingInputError: if there is no `meta.json`.
        CheckpointError: if a file differs from its recorded hash, or the schema is unknown.
    """
    directory = Path(directory)
    meta = read_json(directory / "meta.json")
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        found = meta.get("schema") if isinstance(meta, dict) else None
        raise CheckpointError(f"{directory}/meta.json has schema {found!r}; this version reads {SCHEMA}.")
    with described_by(directory / "meta.json"):
        if verify:
            _verify(directory, meta.get("sha256", {}))
        if meta.get("type") == "Encoders":
            return _load_encoders(directory, meta)
        if meta.get("type") in _TYPES:
            return _load_plain(directory, meta)
    raise CheckpointError(f"{directory}/meta.json holds {meta.get('type')!r}, which is not a type of this package.")


def _load_plain(directory: Path, meta: dict[str, Any]) -> Any:
    """Reads back all types but encoders."""
    values: dict[str, Any] = dict(meta["fields"])
    for name, file in meta["arrays"].items():
        array = _read_field(member(directory, file))
        field, _, key = name.partition("/")
        if key:
            values.setdefault(field, {})[key] = array
        else:
            values[field] = array
    for name, form in meta.get("sparse", {}).items():
        parts = [[values[name][f"{number}.{part}"] for part in _SPARSE] for number in range(form["n"])]
        tables = tuple(types.SparseRows(*arrays, form["width"]) for arrays in parts)
        values[name] = tables[0] if form["is_one"] else tables
    if values.get("volume"):
        volume = values["volume"]
        values["volume"] = types.Volume(tuple(volume["shape"]), np.asarray(volume["affine"]))
    if values.get("surface"):
        surface = values["surface"]
        values["surface"] = types.Surface(surface["name"], tuple(surface["n_vertices"]))
    if values.get("grid"):
        values["grid"] = tuple(values["grid"])
    kind = _TYPES[meta["type"]]
    fields = dataclasses.fields(kind)
    needed = {field.name for field in fields if field.default is field.default_factory is dataclasses.MISSING}
    if unknown := (values.keys() - {field.name for field in fields}) | (needed - values.keys()):
        raise CheckpointError(
            f"{directory} was written by another version of this package ({', '.join(sorted(unknown))} of "
            f"{meta['type']} differ). Run the stage again."
        )
    return kind(**values)


def _are_sparse(items: tuple) -> bool:
    return len(items) > 0 and all(isinstance(item, types.SparseRows) for item in items)


def _verify(directory: Path, hashes: dict[str, str]) -> None:
    for name, expected in hashes.items():
        file = member(directory, name)
        if sha256(file) != expected:
            raise CheckpointError(
                f"{file} differs from the sha256 in meta.json: damaged or edited. Run the stage again."
            )


def _write_field(directory: Path, name: str, array: Any) -> str:
    array = np.asarray(array)
    if array.dtype.kind == "O" or (array.dtype.kind == "U" and array.nbytes < _LONG_TEXT):
        write_text(directory / f"{name}.json", json.dumps(array.astype(str).tolist()))
        return f"{name}.json"
    if array.dtype.name == "bfloat16":
        write_array(directory / f"{name}.bfloat16.npy", array.view(np.uint16))
        return f"{name}.bfloat16.npy"
    write_array(directory / f"{name}.npy", array)
    return f"{name}.npy"


def _read_field(path: Path) -> np.ndarray:
    if path.suffix == ".json":
        return np.asarray(read_json(path), dtype=str)
    array = read_array(path, mmap=True)
    if path.name.endswith(".bfloat16.npy"):
        import ml_dtypes

        return array.view(ml_dtypes.bfloat16)
    return array


def _checkpointer() -> Any:
    """Returns orbax's checkpointer of this process alone: of several, one writes and each reads when it likes."""
    import jax
    import orbax.checkpoint as orbax

    if not jax.distributed.is_initialized():
        return orbax.StandardCheckpointer()
    own = jax.process_index()
    options = orbax.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
    )
    return orbax.StandardCheckpointer(
        multiprocessing_options=options,
        async_options=orbax.options.AsyncOptions(create_directories_asynchronously=False),
    )


def _save_encoders(encoders: types.Encoders, directory: Path) -> Path:
    tree = _encoder_tree(encoders)
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        _check_space(temporary, sum(array.nbytes for arrays in tree.values() for array in arrays.values()))
        # the store logs errors that it raises, too
        with silenced("absl"), _without_globs(temporary.resolve()) as plain, _checkpointer() as checkpointer:
            checkpointer.save(plain / "params", tree)
        files = sorted(p for p in (temporary / "params").rglob("*") if p.is_file())
        meta = {
            "schema": SCHEMA,
            "type": "Encoders",
            "architecture": dataclasses.asdict(encoders.architecture),
            "arrays": {
                k: {n: [list(np.shape(a)), str(np.asarray(a).dtype)] for n, a in v.items()} for k, v in tree.items()
            },
            "sha256": {str(p.relative_to(temporary)): sha256(p) for p in files},
        }
        write_json(temporary / "meta.json", meta)
        directory.mkdir(parents=True, exist_ok=True)
        # other files of the folder stay; without meta.json it holds no encoders
        (directory / "meta.json").unlink(missing_ok=True)
        shutil.rmtree(directory / "params", ignore_errors=True)
        for name in ("params", "meta.json"):
            (temporary / name).replace(directory / name)
        temporary.rmdir()
    except (OSError, ValueError) as error:
        # the store raises ValueError for what the disk refuses, a page that names the cause last
        why = str(error) if len(str(error)) < 300 else f"...{str(error)[-120:]}"
        raise ResourceError(f"cannot write {directory}: {why}. Free space or choose another folder.") from error
    finally:
        if temporary.exists():
            _remove(temporary)
    return directory


def _remove(folder: Path) -> None:
    """Deletes a folder that threads of the store may still be writing to, after one of them failed."""
    looks = 0
    for _ in range(_TRIES):
        looks = 0 if folder.exists() else looks + 1
        if looks == _LOOKS:
            return
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_PAUSE_S)


def _check_space(directory: Path, n_bytes: int) -> None:
    """Raises OSError where the disk has too little: the store finds out in threads, each of which says so."""
    if shutil.disk_usage(directory).free < n_bytes + _STORE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _encoder_tree(encoders: types.Encoders) -> dict[str, dict[str, np.ndarray]]:
    return {
        "shared": {k: np.asarray(v) for k, v in encoders.shared.items()},
        "per_voxel": {k: np.asarray(v) for k, v in encoders.per_voxel.items()},
        "voxels": {
            "baseline": np.asarray(encoders.baseline),
            "voxel_ids": np.asarray(encoders.voxel_ids),
            "status": np.asarray(encoders.status),
            **({} if encoders.selection_r2 is None else {"selection_r2": np.asarray(encoders.selection_r2)}),
        },
    }


@contextlib.contextmanager
def _without_globs(path: Path) -> Generator[Path, None, None]:
    """Gives a name of a folder that is no pattern: the store takes brackets in a path for one, and loses arrays."""
    if glob.escape(str(path)) == str(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / path.name
        link.symlink_to(path, target_is_directory=True)
        yield link


def _load_encoders(directory: Path, meta: dict[str, Any]) -> types.Encoders:
    import jax

    declared = {k: {n: (tuple(s), np.dtype(d)) for n, (s, d) in v.items()} for k, v in meta["arrays"].items()}
    path = (directory / "params").resolve()
    try:
        with _without_globs(path) as plain, _checkpointer() as checkpointer:
            # of other shapes the store would give arrays that are cut, or filled up with zeros
            held = {k: _shapes(v) for k, v in checkpointer.metadata(plain).item_metadata.tree.items()}
            if held != {k: v for k, v in declared.items() if v or k in held}:
                raise CheckpointError(f"{directory}/meta.json declares other arrays than params/ holds: edited.")
            template = {k: {n: np.zeros(*given) for n, given in v.items()} for k, v in declared.items()}
            tree = checkpointer.restore(plain, template)
    except (CheckpointError, MemoryError, jax.errors.JaxRuntimeError):
        # of memory and devices, not of the files
        raise
    except Exception as error:
        # the store raises pages of text in plain exceptions
        raise CheckpointError(f"{path} cannot be read ({error!s:.300}). Run the stage again.") from error
    architecture = dict(meta["architecture"])
    architecture["grid"] = tuple(architecture["grid"]) if architecture["grid"] else None
    return types.Encoders(
        shared=tree["shared"],
        per_voxel=tree["per_voxel"],
        baseline=tree["voxels"]["baseline"],
        voxel_ids=tree["voxels"]["voxel_ids"],
        status=tree["voxels"]["status"],
        architecture=types.Architecture(**architecture),
        selection_r2=tree["voxels"].get("selection_r2"),
    )


def _shapes(described: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    return {name: (tuple(array.shape), np.dtype(array.dtype)) for name, array in described.items()}
