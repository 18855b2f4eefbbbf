"""F-75: files are written whole or not at all, and a full disk is an error before values are written to memory."""

import ast
import errno
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mine_jax
from mine_jax import artifacts, errors, memory
from mine_jax.validation.makers import pictures

PACKAGE = Path(mine_jax.__file__).parent
WRITERS = {"write_text", "write_bytes", "savefig", "to_csv", "to_parquet", "tofile", "savez", "open_memmap", "copytree"}
WRITERS |= {"copyfile", "save"}
# Objects whose `save` writes atomically.
OURS = {"artifacts", "figures", "run", "self"}
# What may write in place, and why.
IN_PLACE = {
    "artifacts/disk.py": "is the helper itself",
    "artifacts/saved.py": "writes a folder under a temporary name, and renames it",
    "run/record/lock.py": "a lock exists from its creation on",
    "memory/files.py": "its callers name the file",
    "data/trials.py": "a name of its own until it is whole",
    "features/ports/untrained.py": "a temporary folder",
    "validation/makers/worker.py": "a count in a folder that goes with the job",
    "validation/makers/process.py": "the log of a job, which goes with it",
    "validation/makers/pictures.py:_append": "lines, of which a torn one is left out",
}


def writes(path):
    """Names of functions in a file that write outside of `with artifacts.atomic(...)`."""
    found = set()

    def walk(node, name, is_atomic):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            name = node.name
        if isinstance(node, ast.With):
            is_atomic = is_atomic or any("atomic(" in ast.unparse(item.context_expr) for item in node.items)
        if isinstance(node, ast.Call) and not is_atomic:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            owner = ast.unparse(node.func.value).split(".")[0] if isinstance(node.func, ast.Attribute) else ""
            text = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
            opens = called in ("open", "fdopen", "File") and any(
                isinstance(t, str) and t[:1] in ("w", "a", "x") for t in text
            )
            has_target = bool(node.args) and not (called == "save" and ast.unparse(node.args[0]) == "buffer")
            if opens or (called in WRITERS and owner not in OURS and (has_target or called == "copytree")):
                found.add(f"{name}: {ast.unparse(node)[:60]}")
        for child in ast.iter_child_nodes(node):
            walk(child, name, is_atomic)

    walk(ast.parse(path.read_text(encoding="utf-8")), "", False)
    return found


def test_files_are_written_through_the_helper():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name in IN_PLACE or name.startswith("phantom/training/"):
            continue
        wrong += [f"{name}: {w}" for w in writes(path) if f"{name}:{w.split(':')[0]}" not in IN_PLACE]
    assert not wrong


def test_the_search_finds_what_writes_in_place(tmp_path):
    (tmp_path / "a.py").write_text(
        "def f(path, image, table):\n    image.save(path)\n    table.to_csv(path)\n    path.open('w')\n"
        "    with artifacts.atomic(path) as temporary:\n        temporary.write_text('x')\n"
    )
    assert writes(tmp_path / "a.py") == {"f: image.save(path)", "f: table.to_csv(path)", "f: path.open('w')"}


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path, photo = tmp_path / "a" / "b.png", np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    pictures.write_png(path, photo)
    before = path.read_bytes()

    def torn(image, target, **options):
        Path(target).write_bytes(b"\x89PNG")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        pictures.write_png(path, photo + 1)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["b.png"]


def test_a_folder_is_copied_file_by_file(tmp_path):
    (tmp_path / "from" / "deep").mkdir(parents=True)
    (tmp_path / "from" / "deep" / "a").write_bytes(b"1")
    (tmp_path / "from" / "b").write_bytes(b"2")
    artifacts.copy_folder(tmp_path / "from", tmp_path / "to")
    found = {
        p.relative_to(tmp_path / "to").as_posix(): p.read_bytes() for p in (tmp_path / "to").rglob("*") if p.is_file()
    }
    assert found == {"deep/a": b"1", "b": b"2"}
    # a file where a folder must be made: the error of a disk, with its name
    with pytest.raises(errors.ResourceError, match="cannot write"):
        artifacts.copy_folder(tmp_path / "from", tmp_path / "from" / "b")


def test_space_is_taken_before_values_are_written_to_memory(tmp_path):
    """On a full disk, a write to the memory of a file that has holes ends the process with SIGBUS."""
    n_bytes = 3_000_000
    array = memory.mapped_npy(tmp_path / "a.npy", (n_bytes // 4,), np.float32)
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= n_bytes
    array[:] = 1
    array.flush()
    assert np.load(tmp_path / "a.npy").sum() == n_bytes // 4


def test_a_growing_file_on_a_full_disk_is_an_error_with_its_number(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with memory.Growing(tmp_path) as growing, pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            for _ in range(100):
                growing.append(np.zeros(10_000, np.float32))
            growing.array()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not any(tmp_path.iterdir())
