"""F-74, F-77, F-79: a run touches the files that it made, and no others."""

import json
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from mine_jax import artifacts, config, errors, run
from mine_jax.phantom.write_nsd import read_parameters
from mine_jax.run import files, graph
from mine_jax.run.record import directory as run_directory
from mine_jax.types import Architecture, Encoders

# A stage of the real layout that writes, tells, waits to be stopped, and writes again.
STAGE = textwrap.dedent(
    """
    import sys, time
    from mine_jax import artifacts, config, run
    from mine_jax.errors import Stopped
    from mine_jax.run import files

    def compute(config_, directory, progress):
        artifacts.write_text(directory / "encoder" / "meta.json", "half")
        print("started", flush=True)
        for step in range(int(sys.argv[2])):
            progress(step, 1000)
            time.sleep(0.02)
        artifacts.write_text(directory / "encoder" / "layers.tsv", "whole")
        return {}

    steps = {"encoder": run.Step(compute, outputs=files.OUTPUTS["encoder"])}
    try:
        run.execute(config.Config(), sys.argv[1], steps, resume=True)
    except Stopped as stop:
        sys.exit(stop.exit_code)
    """
)
FOREIGN = (
    "note.txt",
    "slurm-17.out",
    "encoder/note.txt",
    "encoder/mine.npy",
    "encoder/params.bak/x",
    "own/deep/a.json",
)


def put(folder):
    for name in FOREIGN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"mine: {name}")


def are_there(folder):
    return all((folder / name).read_text() == f"mine: {name}" for name in FOREIGN)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_files_of_others_outlive_stop_resume_and_overwrite(tmp_path, number):
    """F-74, F-77: what others put there."""
    out = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", STAGE, str(out), "5000"], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        put(out)
        process.send_signal(number)
        process.wait(timeout=60)
    assert are_there(out) and (out / "encoder/meta.json").exists() == (number == signal.SIGKILL)
    subprocess.run([sys.executable, "-c", STAGE, str(out), "1"], check=True, stdout=subprocess.DEVNULL)
    record = json.loads((out / "run.json").read_text())
    assert are_there(out) and set(record["files"]) == {"encoder/meta.json", "encoder/layers.tsv"}

    def other(config_, directory, progress):
        artifacts.write_text(directory / "encoder" / "meta.json", "again")
        return {}

    steps = {"encoder": run.Step(other, outputs=files.OUTPUTS["encoder"])}
    run.execute(config.Config(), out, steps, overwrite=True)
    assert are_there(out) and not (out / "encoder/layers.tsv").exists()


def test_files_that_appear_during_a_stage_are_not_recorded(tmp_path):
    def compute(config_, directory, progress):
        artifacts.write_text(directory / "encoder" / "meta.json", "new")
        put(directory)
        return {}

    steps = {"encoder": run.Step(compute, outputs=files.OUTPUTS["encoder"])}
    record = run.execute(config.Config(), tmp_path / "run", steps)
    assert set(record["files"]) == {"encoder/meta.json"}


def test_overwrite_deletes_only_what_stages_write_and_nothing_behind_links(tmp_path):
    def compute(config_, directory, progress):
        artifacts.write_text(directory / "encoder" / "meta.json", "of the run")
        return {}

    out, steps = tmp_path / "run", {"encoder": run.Step(compute, outputs=files.OUTPUTS["encoder"])}
    run.execute(config.Config(), out, steps)
    (out / "thesis.txt").write_text("mine")
    record = json.loads((out / "run.json").read_text())
    # as an older version recorded what lay beside its files
    record["files"]["thesis.txt"] = record["files"]["encoder/meta.json"]
    (out / "run.json").write_text(json.dumps(record))
    (out / "encoder").rename(tmp_path / "archive")
    (out / "encoder").symlink_to(tmp_path / "archive")
    run_directory.opened(out, files.OUTPUTS["encoder"], resume=False, overwrite=True)
    assert (out / "thesis.txt").read_text() == "mine"
    assert (tmp_path / "archive" / "meta.json").read_text() == "of the run"


def test_saved_encoders_leave_other_files_of_their_folder(tmp_path):
    encoders = Encoders(
        shared={"a": np.ones(2, np.float32)},
        per_voxel={"b": np.ones((3, 2), np.float32)},
        baseline=np.zeros(2, np.float32),
        voxel_ids=np.arange(3),
        status=np.zeros(3, np.int8),
        architecture=Architecture(kind="ridge"),
    )
    put(tmp_path)
    for _ in range(2):
        artifacts.save(encoders, tmp_path / "encoder")
    assert are_there(tmp_path)
    np.testing.assert_array_equal(artifacts.load(tmp_path / "encoder").per_voxel["b"], np.ones((3, 2)))


PHANTOM = {"kind": "phantom", "n_images": 30, "n_shared": 6, "shape": [8, 8, 8], "roi": []}


def data_stage(out, *, seed=0, resume=False, **changes):
    values = {"data": {**PHANTOM, **changes}, "run": {"seed": seed}}
    run.execute(config.from_dict(values), out, graph.STEPS, until="data", resume=resume)


def hashes(folder):
    return {path.relative_to(folder): artifacts.sha256(path) for path in folder.rglob("*") if path.is_file()}


def test_a_phantom_inside_a_run_survives_resume_and_is_completed(tmp_path):
    data_stage(tmp_path)
    before = hashes(tmp_path / "phantom")
    data_stage(tmp_path, resume=True, val=0.2)
    assert hashes(tmp_path / "phantom") == before and len(before) > 20
    # half-written: most areas are missing
    for path in (tmp_path / "phantom").rglob("roi/*.nii.gz"):
        path.unlink()
    data_stage(tmp_path, resume=True, val=0.25)
    assert hashes(tmp_path / "phantom") == before
    data_stage(tmp_path, resume=True, n_images=40, seed=3)
    parameters = read_parameters(tmp_path / "phantom")
    assert (parameters["n_images"], parameters["seed"]) == (40, 3)


def test_another_phantom_in_a_folder_of_the_user_is_refused(tmp_path):
    root = str(tmp_path / "phantom")
    data_stage(tmp_path / "one", root=root)
    before = hashes(tmp_path / "phantom")
    for name, changes in (
        ("n_images", {"n_images": 40}),
        ("ceiling", {"ceiling": 0.3}),
        ("subjects", {"subject": "subj02"}),
        ("seed", {"seed": 5}),
    ):
        with pytest.raises(errors.DataError, match=f"another phantom: {name}"):
            data_stage(tmp_path / name, root=root, **changes)
    assert hashes(tmp_path / "phantom") == before
    # keys that are not set are those of the phantom that is there
    values = {"data": {"kind": "phantom", "root": root, "roi": []}}
    run.execute(config.from_dict(values), tmp_path / "two", graph.STEPS, until="data")
