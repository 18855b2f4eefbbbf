"""The features command as a process of its own: killed without warning, then resumed."""

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


@pytest.fixture
def project(tmp_path):
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


def test_killed_extraction_resumes_to_the_same_bytes(project):
    config, whole, cut = project / "run.toml", project / "whole", project / "cut"
    finish(start("run", config, "--out", whole, "--until", "features"))
    process = start("run", config, "--out", cut, "--until", "features")
    deadline = time.monotonic() + 600
    while process.poll() is None and not tokens_in(cut / "features") and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    expected, before = tokens_in(whole / "features"), tokens_in(cut / "features")
    assert 0 < len(before) < len(expected) == 3
    finish(start("features", config, "--out", cut))
    assert tokens_in(cut / "features") == expected
    for name in ("meta.json", "lens/meta.json"):
        assert (cut / "features" / name).read_bytes() == (whole / "features" / name).read_bytes()
    assert not list((cut / "features").rglob("*.tmp"))
