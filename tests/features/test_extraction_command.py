"""The features command as a process of its own: killed and resumed, or shared by several."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mine_jax.config import read
from mine_jax.errors import CheckpointError
from mine_jax.run import execute
from mine_jax.run.graph import STEPS
from mine_jax.run.reporter import Reporter
from mine_jax.run.stages.features import extract_part

N_IMAGES = 560
CONFIG = """
[data]
kind = "folder"
images = "photos.zip"
responses = "responses.npy"
image_ids = "image_ids.txt"
test = 0.2
[features]
kind = "clip"
model = "phantom"
batch_size = 32
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    names = [f"im{i:04d}.png" for i in range(N_IMAGES)]
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in names:
            content = BytesIO()
            Image.fromarray(rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)).save(content, "PNG")
            archive.writestr(name, content.getvalue())
    (tmp_path / "image_ids.txt").write_text("\n".join(names))
    np.save(tmp_path / "responses.npy", rng.standard_normal((N_IMAGES, 2)).astype(np.float32))
    (tmp_path / "run.toml").write_text(CONFIG)
    return tmp_path


def start(*arguments):
    command = [sys.executable, "-m", "mine_jax", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ)


def finish(process):
    error = process.communicate(timeout=600)[1]
    assert process.returncode == 0, error


def tokens_in(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.glob("tokens-*.npy"))}


def test_two_processes_write_the_bytes_of_one(project):
    """F-76: two parts make the whole."""
    config, out = project / "run.toml", project / "shared"
    options = ("--out", out, "--set", "features.reduce=8", "--set", "features.more_layers=[1]")
    reduced = project / "reduced"
    with pytest.raises(CheckpointError, match="needs stage data, which is not up to date: not run yet"):
        extract_part(read(config), out, STEPS, part=(0, 2), reporter=Reporter())
    settings = read(config, overrides=options[3::2])
    execute(settings, out, STEPS, until="data")
    parts = [start("features", config, *options, "--shard", f"{i}/2") for i in range(2)]
    for process in parts:
        finish(process)
    # merged by whichever was last
    assert not list((out / "features").rglob("part-*"))
    shards = tokens_in(out / "features")
    assert len(shards) == 3
    execute(settings, out, STEPS, only="features")
    assert tokens_in(out / "features") == shards
    execute(settings, reduced, STEPS, until="features")
    names = sorted(path.relative_to(reduced) for path in (reduced / "features").rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(out) for path in (out / "features").rglob("*") if path.is_file())
    assert len(names) > 12
    for name in names:
        assert (out / name).read_bytes() == (reduced / name).read_bytes(), name


def test_killed_extraction_resumes_to_the_same_bytes(project):
    """F-68: SIGKILL during extraction."""
    config, whole, cut = project / "run.toml", project / "whole", project / "cut"
    execute(read(config), whole, STEPS, until="features")
    process = start("run", config, "--out", cut, "--until", "features")
    deadline = time.monotonic() + 600
    while process.poll() is None and not tokens_in(cut / "features") and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    expected, before = tokens_in(whole / "features"), tokens_in(cut / "features")
    assert 0 < len(before) < len(expected) == 3
    execute(read(config), cut, STEPS, only="features")
    assert tokens_in(cut / "features") == expected
    for name in ("meta.json", "lens/meta.json"):
        assert (cut / "features" / name).read_bytes() == (whole / "features" / name).read_bytes()
    assert not list((cut / "features").rglob("*.tmp"))
