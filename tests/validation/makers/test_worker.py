"""The process that makes images, killed at any moment: nothing vouched for is made again, nothing runs on."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mine_jax.validation.makers import diffusion, pictures, process

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning")]
N_ITEMS = 12
# Enough that images are made one by one while the test looks on.
STEPS = 10
LIMIT_S = 240
# What a run does, in a process that can be killed.
PARENT = """
import json, sys
from pathlib import Path
from mine_jax.validation.makers import pictures, process
job = json.loads(Path(sys.argv[1]).read_text())
items = [pictures.item_from_dict(item) for item in job["items"]]
process.make_in_process(items, job["loader"], Path(job["folder"]), name="edits", maker=job["maker"])
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A pipeline on disk and what to make with it; the folder of the images is for each test to choose."""
    spec = importlib.util.spec_from_file_location("tiny_pipelines", Path(__file__).parent / "tiny_pipelines.py")
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    home = tmp_path_factory.mktemp("killed")
    tiny.build("sd-inpaint").save_pretrained(home / "editor", safe_serialization=True)
    photo = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    source = pictures.write_png(home / "source.png", photo)
    mask = pictures.write_png(home / "mask.png", np.tri(32, 48, dtype=bool))
    items = [
        {
            "file": f"edits-{number:06d}.png",
            "text": "add cat",
            "seed": number,
            "action": "insert",
            "words": ["cat"],
            "image_id": "0",
            "strength": 1.0,
            "size": None,
            "source": source,
            "mask": mask,
        }
        for number in range(N_ITEMS)
    ]
    loader = {"directory": str(home / "editor"), "role": "editor", "steps": STEPS}
    return {"items": items, "loader": loader, "maker": diffusion.identity(**loader)}


@pytest.fixture
def start(job, tmp_path):
    """Starts a run in a process of its own; whatever is left of it is killed in the end."""
    folder = tmp_path / "images"
    (tmp_path / "run.json").write_text(json.dumps({**job, "folder": str(folder)}))
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    pids = []

    def begin():
        parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "run.json")], env=environment)
        pids.append(parent.pid)
        worker = wait_for(lambda: children(parent.pid), parent)[0]
        pids.append(worker)
        return parent, worker

    yield begin, folder
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def children(pid):
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


def is_running(pid):
    """Whether a process still does something; one that waits to be reaped does not."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(listed.stdout.strip()) and not listed.stdout.strip().startswith("Z")


def wait_for(ask, parent=None, every_s=0.2):
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        if answer := ask():
            return answer
        assert parent is None or parent.poll() is None, "the run ended before it could be killed"
        time.sleep(every_s)
    raise AssertionError("waited too long")


def test_killed_run_is_resumed_without_making_an_image_twice(job, start):
    begin, folder = start
    parent, worker = begin()
    wait_for(lambda: len(pictures.read_manifest(folder, "edits")) >= 2, parent, every_s=0.01)
    for pid in (parent.pid, worker):
        os.kill(pid, signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not is_running(worker))
    kept = list(pictures.read_manifest(folder, "edits"))
    assert 2 <= len(kept) < N_ITEMS
    # What a kill may leave as well: a line and an image cut short, an image of a row that is no more, one half written.
    manifest = folder / "edits.jsonl"
    manifest.write_text(manifest.read_text().rstrip("\n")[:-9])
    torn = kept.pop()
    half = folder / job["items"][-1]["file"]
    half.write_bytes((folder / kept[0]).read_bytes()[:100])
    (folder / "edits-000099.png").write_bytes(b"")
    (folder / f".edits-000004.png.{worker}.tmp").write_bytes(b"")
    times = {name: (folder / name).stat().st_mtime_ns for name in [*kept, torn]}

    items = [pictures.item_from_dict(item) for item in job["items"]]
    records = process.make_in_process(items, job["loader"], folder, name="edits", maker=job["maker"])

    assert [records[item.file]["status"] for item in items] == ["ok"] * N_ITEMS
    assert all((folder / name).stat().st_mtime_ns == times[name] for name in kept)
    assert (folder / torn).stat().st_mtime_ns > times[torn]
    assert sorted(path.name for path in folder.iterdir()) == [*(item.file for item in items), "edits.jsonl"]
    lines = manifest.read_text().splitlines()
    assert len(lines) == N_ITEMS and {json.loads(line)["file"] for line in lines} == set(records)
    assert len({records[item.file]["sha256"] for item in items}) == N_ITEMS  # each seed its own image


def test_worker_ends_when_the_run_is_killed(start):
    """F-84: pictures are made in a process of its own, and it ends with the run."""
    begin, folder = start
    parent, worker = begin()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not is_running(worker))
    assert len(pictures.read_manifest(folder, "edits")) < N_ITEMS
