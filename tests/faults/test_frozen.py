"""F-47, F-72: inputs that were frozen are compared; what changed, went or came is named."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mine_jax import artifacts, errors, run
from mine_jax.config import from_dict
from mine_jax.phantom.write_nsd import write_phantom
from mine_jax.run import graph
from mine_jax.run.execute import inputs_of
from mine_jax.run.record import frozen, manifest
from mine_jax.run.reporter import Reporter
from mine_jax.run.stages.features import extract_part


@pytest.fixture
def inputs(tmp_path):
    """A configuration's name, an array and a folder of photos, of which one has an odd name."""
    np.save(tmp_path / "tokens.npy", np.arange(6.0))
    (tmp_path / "photos").mkdir()
    for name in ("a b.png", "c\nd\\e.png", "é.png"):
        (tmp_path / "photos" / name).write_bytes(name.encode())
    return tmp_path / "subject.toml", [tmp_path / "tokens.npy", tmp_path / "photos", tmp_path / "absent.txt"]


def test_the_list_is_one_that_sha256sum_reads(inputs):
    source, paths = inputs
    path, n_files = frozen.freeze(source, paths)
    assert path.name == "subject.sha256" and n_files == 4
    subprocess.run(["sha256sum", "--strict", "-c", path.name], cwd=path.parent, check=True, capture_output=True)
    frozen.verify(source, paths)


def test_without_a_list_nothing_is_compared(inputs):
    assert frozen.verify(*inputs) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "tokens.npy").write_bytes(b"x"), r"tokens\.npy changed"),
        (lambda folder: (folder / "photos" / "a b.png").unlink(), r"photos/a b\.png is missing"),
        (lambda folder: (folder / "photos" / "new.png").write_bytes(b""), r"photos/new\.png is new"),
        (lambda folder: (folder / "subject.sha256").write_text("nonsense\n"), "line 1: not a line"),
        (lambda folder: (folder / "subject.sha256").write_bytes(b"\xff"), "not text"),
    ],
)
def test_changes_are_named(inputs, change, message):
    """F-47, F-72: what changed, went or came."""
    source, paths = inputs
    frozen.freeze(source, paths)
    change(source.parent)
    with pytest.raises(errors.IntegrityError, match=message):
        frozen.verify(source, paths)


def test_a_large_file_is_read_once_while_it_stays(inputs, monkeypatch):
    source, paths = inputs
    monkeypatch.setattr(manifest, "MAX_HASHED_BYTES", 100)
    monkeypatch.setattr(manifest, "BLOCK_BYTES", 8)
    read, seen = [], []
    sha256 = artifacts.sha256
    monkeypatch.setattr(artifacts, "sha256", lambda path, **named: read.append(path.name) or sha256(path, **named))
    frozen.freeze(source, paths)
    known = frozen.verify(source, paths, progress=lambda done, total: seen.append(done / total))
    assert read.count("tokens.npy") == 2 and seen and max(seen) <= 1
    assert frozen.verify(source, paths, known=known) == known and read.count("tokens.npy") == 2
    os.utime(paths[0], (1, 1))
    frozen.verify(source, paths, known=known)
    assert read.count("tokens.npy") == 3


def test_check_and_run_compare(tmp_path):
    """The command line: freeze, change, and both commands refuse by name."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "tokens.npy", rng.standard_normal((40, 4, 3)).astype(np.float32))
    np.save(tmp_path / "responses.npy", rng.standard_normal((40, 2)).astype(np.float32))
    (tmp_path / "ids.txt").write_text("".join(f"im{i:03d}\n" for i in range(40)))
    config = tmp_path / "c.toml"
    config.write_text(
        '[data]\nresponses = "responses.npy"\nimage_ids = "ids.txt"\ntest = 0.25\n'
        '[features]\nkind = "precomputed"\ntokens = "tokens.npy"\ntoken_image_ids = "ids.txt"\n[attribution]\nk = 2\n'
    )

    def command(*arguments):
        given = [sys.executable, "-m", "mine_jax", *map(str, arguments)]
        return subprocess.run(given, capture_output=True, text=True)

    assert "3 input files are frozen" in command("check", config, "--freeze").stdout
    (tmp_path / "ids.txt").write_text("".join(f"im{i:03d}\n" for i in range(39, -1, -1)))
    for arguments in (("check", config), ("run", config, "--out", tmp_path / "run")):
        ended = command(*arguments)
        assert ended.returncode == errors.EXIT_INTEGRITY
        assert "IntegrityError: inputs are not those of" in ended.stderr and "ids.txt changed" in ended.stderr


def test_a_part_of_the_features_compares_too(tmp_path):
    """F-47, F-72: `features --shard` reads photos that must not have changed."""
    write_phantom(tmp_path / "nsd", subjects=("subj01",), n_images=30, n_shared=6, shape=(8, 8, 8))
    values = {"data": {"kind": "nsd", "root": "nsd", "roi": []}, "features": {"model": "phantom"}}
    settings, source = from_dict(values, base=tmp_path), tmp_path / "c.toml"
    frozen.freeze(source, inputs_of(settings, graph.STEPS))
    run.execute(settings, tmp_path / "run", graph.STEPS, until="data", source=source)
    part = {"part": (0, 2), "reporter": Reporter(), "source": source}
    assert "done" in extract_part(settings, tmp_path / "run", graph.STEPS, **part)[0]
    (photos,) = (tmp_path / "nsd").rglob("nsd_stimuli.hdf5")
    with photos.open("ab") as file:
        file.write(b"x")
    with pytest.raises(errors.IntegrityError, match=r"nsd_stimuli\.hdf5 changed"):
        extract_part(settings, tmp_path / "run", graph.STEPS, **{**part, "part": (1, 2)})
