"""The stage graph, on stages that write one small file each."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import jax
import pytest

from mine_jax import artifacts, config, errors, run
from mine_jax.run.record import manifest

DATA = config.from_dict({"run": {"seed": 3}})


class Stages:
    """Three stages in a row, a shared file, and a count of how often each ran."""

    def __init__(self, source):
        self.source = source
        self.calls = []
        self.fault = {}

    def _compute(self, name, reads):
        def compute(config_, directory, progress):
            self.calls.append(name)
            progress(0, 2)
            text = "".join((directory / file).read_text() for file in reads)
            artifacts.write_text(directory / name / "out.txt", f"{name}({text}{config_.encoder.width})")
            if name in ("data", "encoder"):
                path = directory / "voxels.tsv"
                before = path.read_text() if name == "encoder" else ""
                artifacts.write_text(path, f"{before}{name}\n")
            if name in self.fault:
                (directory / name / "half.npy").write_bytes(b"half")
                raise self.fault[name]
            progress(2, 2)
            return {"n": len(text), "r2": 0.25, "list": [1, 2]}

        return compute

    def steps(self):
        return {
            "data": run.Step(
                self._compute("data", ()),
                sections=("data",),
                outputs=("data/**", "voxels.tsv"),
                inputs=lambda config_: [self.source],
                plan=lambda config_, directory: ["10 images"],
            ),
            "encoder": run.Step(
                self._compute("encoder", ("data/out.txt",)),
                needs=("data",),
                sections=("encoder", "run.seed"),
                outputs=("encoder/**", "voxels.tsv"),
            ),
            "report": run.Step(
                self._compute("report", ("encoder/out.txt",)),
                needs=("data", "encoder"),
                sections=("roi",),
                outputs=("report/**",),
            ),
        }


@pytest.fixture
def stages(tmp_path):
    source = tmp_path / "responses.npy"
    source.write_bytes(b"betas")
    return Stages(source)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "with space é" / "run"


def execute(stages, out, configuration=DATA, **options):
    stages.calls.clear()
    return run.execute(configuration, out, stages.steps(), **options)


def changed(section, **values):
    return DATA.model_copy(update={section: getattr(DATA, section).model_copy(update=values)})


def files(out):
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def test_runs_every_stage_and_records_it(stages, out):
    record = execute(stages, out)
    saved = json.loads((out / "run.json").read_text())
    assert stages.calls == record["ran"] == ["data", "encoder", "report"]
    assert saved["schema"] == 1 and saved["state"] == "done" and saved["seed"] == 3
    assert saved["precision"] == "highest" and saved["configuration"]["encoder"]["width"] == 96
    assert saved["versions"]["jax"] == jax.__version__ and saved["devices"] and saved["command"]
    assert saved["inputs"] == {str(stages.source): artifacts.sha256(stages.source)}
    assert {s["state"] for s in saved["stages"].values()} == {"done"}
    assert saved["stages"]["report"]["summary"]["r2"] == 0.25 and saved["stages"]["report"]["seconds"] >= 0
    assert {name: entry["sha256"] for name, entry in saved["files"].items()} == {
        name: artifacts.sha256(out / name) for name in files(out) - {"run.json"}
    }
    assert saved["files"]["voxels.tsv"]["stage"] == "encoder"


def test_resume_skips_what_is_unchanged(stages, out):
    execute(stages, out)
    before = {name: (out / name).read_bytes() for name in files(out) - {"run.json"}}
    assert execute(stages, out, resume=True)["ran"] == [] == stages.calls
    assert {name: (out / name).read_bytes() for name in before} == before


def test_moved_run_stays_valid(stages, out, tmp_path):
    """F-79: a run in another place."""
    execute(stages, out)
    out.rename(tmp_path / "moved")
    assert execute(stages, tmp_path / "moved", resume=True)["ran"] == []


def test_moved_input_with_the_same_content_stays_valid(stages, out, tmp_path):
    stages_config = changed("data", responses=str(stages.source))
    execute(stages, out, stages_config)
    (tmp_path / "elsewhere").mkdir()
    stages.source = stages.source.rename(tmp_path / "elsewhere" / "responses.npy")
    assert execute(stages, out, changed("data", responses=str(stages.source)), resume=True)["ran"] == []


def test_changed_configuration_runs_the_stages_that_read_it_and_those_after(stages, out):
    """F-72: a changed setting."""
    execute(stages, out)
    record = execute(stages, out, changed("encoder", width=8), resume=True)
    assert record["ran"] == ["encoder", "report"]
    assert (out / "report" / "out.txt").read_text() == "report(encoder(data(96)8)8)"
    assert execute(stages, out, changed("encoder", width=8), resume=True)["ran"] == []


def test_configuration_that_no_stage_reads_changes_nothing(stages, out):
    """F-73: another chunk."""
    execute(stages, out)
    assert execute(stages, out, changed("run", voxel_chunk=7), resume=True)["ran"] == []


def test_what_pages_call_a_voxel_changes_no_result(stages, out):
    execute(stages, out)
    assert execute(stages, out, changed("data", unit_name="neuron"), resume=True)["ran"] == []
    parts = manifest.depends_on(changed("data", unit_name="neuron"), sections=["data.unit_name"], inputs={}, needs={})
    assert parts["config"] == {"data.unit_name": "neuron"}


def test_changed_input_runs_all_that_depends_on_it(stages, out):
    """F-72: changed data."""
    execute(stages, out)
    stages.source.write_bytes(b"others")
    assert execute(stages, out, resume=True)["ran"] == ["data", "encoder", "report"]


def test_of_inputs_only_those_that_a_stage_makes_are_read_after_it(stages, out, tmp_path):
    made, steps = tmp_path / "made.txt", stages.steps()
    data = steps["data"]

    def compute(*arguments):
        stages.source.write_text("replaced while the stage runs")
        made.write_text("made")
        return data.compute(*arguments)

    inputs = {"inputs": lambda config_: [stages.source, made], "makes_inputs": lambda config_: [made]}
    steps["data"] = run.Step(**{**vars(data), **inputs, "compute": compute})
    record = run.execute(DATA, out, steps)
    assert record["inputs"][str(made)] == artifacts.sha256(made)
    assert run.stale(DATA, out, steps)["data"] == f"input {stages.source.name} changed"


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """A package with a template and a module beside it, whose source a stage can name."""
    for file, text in {"pages/__init__.py": "", "pages/templates/page.html.j2": "<p>", "numbers_.py": "X = 1"}.items():
        (tmp_path / "code" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "code" / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "code")
    yield tmp_path / "code"
    manifest.code_hash.cache_clear()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("pages/templates/page.html.j2", "pages"),
        ("pages/more.py", "pages"),
        ("numbers_.py", "numbers_"),
        ("pages/README.md", None),
        ("pages/.page.swp", None),
        ("pages/__pycache__/more.pyc", None),
    ],
)
def test_stage_that_names_code_runs_again_where_its_source_changed(stages, out, pages, file, name):
    steps = stages.steps()
    steps["report"] = replace(steps["report"], code=("pages", "numbers_"))
    run.execute(DATA, out, steps)
    kept = json.loads((out / "run.json").read_text())["stages"]
    assert (
        set(kept["report"]["depends_on"]["code"]) == {"pages", "numbers_"} and "code" not in kept["data"]["depends_on"]
    )
    (pages / file).parent.mkdir(exist_ok=True)
    (pages / file).write_text("<p>anew")
    manifest.code_hash.cache_clear()
    reasons = run.stale(DATA, out, steps)
    assert reasons == {"data": None, "encoder": None, "report": None if name is None else f"the code of {name} changed"}
    assert run.execute(DATA, out, steps, resume=True)["ran"] == ([] if name is None else ["report"])


def test_code_that_an_earlier_version_did_not_record_counts_as_changed_once(stages, out, pages):
    run.execute(DATA, out, stages.steps())
    steps = stages.steps()
    steps["report"] = replace(steps["report"], code=("pages",))
    assert run.stale(DATA, out, steps)["report"] == "the code of pages changed"
    assert [run.execute(DATA, out, steps, resume=True)["ran"] for _ in range(2)] == [["report"], []]


def test_stage_that_was_stopped_says_what_changed_since(stages, out):
    stages.fault["encoder"] = errors.Stopped(signal.SIGINT)
    with pytest.raises(errors.Stopped):
        execute(stages, out, changed("encoder", epochs=60))
    assert run.stale(changed("encoder", epochs=60), out, stages.steps())["encoder"] == "stopped before"
    assert run.stale(DATA, out, stages.steps())["encoder"] == "stopped before; encoder.epochs: 60 -> 16"


def test_source_of_the_report_is_read_once_and_needs_no_import():
    code = (
        "import sys, mine_jax\nfrom mine_jax.run.record import manifest\n"
        "first = manifest.code_hash('mine_jax.report')\n"
        "print(len(first), 'mine_jax.report' in sys.modules, manifest.code_hash.cache_info().misses)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["64", "False", "1"]
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        manifest.code_hash("no_such")


def test_input_that_is_gone_keeps_results_with_a_warning(stages, out, caplog):
    execute(stages, out)
    stages.source.unlink()
    assert execute(stages, out, resume=True)["ran"] == []
    assert "responses.npy is no longer there" in caplog.text


def test_large_input_is_identified_without_reading_it_whole(stages, out, monkeypatch):
    monkeypatch.setattr("mine_jax.run.record.manifest.MAX_HASHED_BYTES", 3)
    monkeypatch.setattr("mine_jax.run.record.manifest.BLOCK_BYTES", 2)
    execute(stages, out)
    assert execute(stages, out, resume=True)["ran"] == []
    os.utime(stages.source, (1, 1))
    assert execute(stages, out, resume=True)["ran"][0] == "data"


@pytest.mark.parametrize("damage", ["flip", "delete", "truncate"])
def test_damaged_file_runs_its_stage_again(stages, out, damage, caplog):
    """F-70, F-71: flipped, gone, or cut short."""
    execute(stages, out)
    path = out / "encoder" / "out.txt"
    good = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(good[:-1] if damage == "truncate" else b"E" + good[1:])
    record = execute(stages, out, resume=True)
    # The same result again, so the report made from it stands.
    assert record["ran"] == ["encoder"] and path.read_bytes() == good
    assert damage == "delete" or "encoder/out.txt is damaged" in caplog.text


def test_file_that_two_stages_write_is_made_anew_by_both(stages, out):
    execute(stages, out)
    (out / "voxels.tsv").write_text("damaged")
    assert execute(stages, out, resume=True)["ran"] == ["data", "encoder"]
    assert (out / "voxels.tsv").read_text() == "data\nencoder\n"


def test_leftovers_of_an_earlier_version_are_removed(stages, out):
    steps = stages.steps()
    original = steps["report"].compute

    def compute(config_, directory, progress):
        for index in range(config_.roi.min_voxels):
            artifacts.write_text(directory / "report" / "pages" / f"{index}.txt", "page")
        return original(config_, directory, progress)

    steps["report"] = run.Step(**{**vars(steps["report"]), "compute": compute})
    run.execute(DATA, out, steps)
    assert "report/pages/4.txt" in files(out)
    record = run.execute(changed("roi", min_voxels=2), out, steps, resume=True)
    assert {name for name in files(out) if "pages" in name} == {"report/pages/0.txt", "report/pages/1.txt"}
    assert "report/pages/4.txt" not in record["files"]


def test_directory_with_files_is_not_touched(stages, out):
    """F-77: a directory of someone else."""
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("mine")
    for options in ({}, {"resume": True}, {"only": "data"}):
        with pytest.raises(errors.ConfigError, match=r"not empty|no run to go on with"):
            execute(stages, out, **options)
    assert files(out) == {"thesis.txt"}
    execute(stages, out, overwrite=True)
    assert (out / "thesis.txt").read_text() == "mine"


def test_second_run_needs_resume_or_overwrite(stages, out):
    """F-77: a second run."""
    execute(stages, out)
    with pytest.raises(errors.ConfigError, match="--resume"):
        execute(stages, out)
    with pytest.raises(errors.ConfigError, match="exclude"):
        execute(stages, out, resume=True, overwrite=True)
    assert execute(stages, out, overwrite=True)["ran"] == ["data", "encoder", "report"]


def test_a_run_that_ended_before_anything_was_made_begins_anew_without_resume(stages, out):
    def check(config_, directory):
        raise errors.MissingInputError("no pipeline")

    steps = stages.steps()
    with pytest.raises(errors.MissingInputError):
        run.execute(DATA, out, {**steps, "report": replace(steps["report"], check=check)})
    stages.fault["data"] = errors.DataError("odd")
    with pytest.raises(errors.DataError):
        execute(stages, out)
    stages.fault.clear()
    assert files(out) == {"run.json"} and execute(stages, out)["ran"] == ["data", "encoder", "report"]


def test_until_stops_there_and_resume_goes_on(stages, out):
    record = execute(stages, out, until="encoder")
    assert record["ran"] == ["data", "encoder"] and record["state"] == "incomplete"
    assert execute(stages, out, resume=True)["ran"] == ["report"]


def test_one_stage_needs_those_before_it(stages, out):
    """F-72: the difference is named."""
    with pytest.raises(errors.CheckpointError, match="needs stage data, which is not up to date: not run yet"):
        execute(stages, out, only="encoder")
    assert execute(stages, out, only="data")["ran"] == ["data"]
    assert execute(stages, out, only="encoder")["ran"] == ["encoder"]
    assert execute(stages, out, only="encoder")["ran"] == []
    with pytest.raises(errors.CheckpointError, match=r"stage encoder.*encoder\.width: 96 -> 8"):
        execute(stages, out, changed("encoder", width=8), only="report")
    (out / "data" / "out.txt").write_text("damaged")
    with pytest.raises(errors.CheckpointError, match=r"data/out\.txt is damaged"):
        execute(stages, out, only="report")


def test_unknown_stage_names_the_nearest(stages, out):
    with pytest.raises(errors.ConfigError, match="Did you mean 'encoder'"):
        execute(stages, out, until="encoders")
    assert not out.exists()


def test_failed_stage_leaves_nothing_half_done(stages, out):
    """F-75: nothing half written."""
    stages.fault["encoder"] = errors.DataError("voxel 7")
    with pytest.raises(errors.DataError, match="voxel 7"):
        execute(stages, out)
    saved = json.loads((out / "run.json").read_text())
    assert saved["state"] == saved["stages"]["encoder"]["state"] == "failed"
    assert "voxel 7" in saved["stages"]["encoder"]["error"]
    assert files(out) == {"run.json", "data/out.txt", "voxels.tsv"}
    assert not (out / "encoder").exists()
    stages.fault.clear()
    assert execute(stages, out, resume=True)["ran"] == ["encoder", "report"]


def test_partial_outputs_survive_a_failure(stages, out):
    stages.fault["encoder"] = errors.DataError("voxel 7")
    steps = stages.steps()
    steps["encoder"] = run.Step(**{**vars(steps["encoder"]), "partial": ("encoder/half.npy",)})
    with pytest.raises(errors.DataError):
        run.execute(DATA, out, steps)
    assert "encoder/half.npy" in files(out)
    stages.fault.clear()
    record = run.execute(DATA, out, steps, resume=True)
    assert record["files"]["encoder/half.npy"]["stage"] == "encoder"
    assert run.execute(DATA, out, steps, resume=True)["ran"] == []


def test_temporary_files_of_a_killed_process_are_swept(stages, out):
    """F-71: temporary files."""
    execute(stages, out, until="data")
    (out / "data" / ".out.txt.123.tmp").write_text("half")
    (out / ".encoder.123.tmp").mkdir()
    execute(stages, out, resume=True)
    assert not [name for name in files(out) if name.endswith(".tmp")] and not (out / ".encoder.123.tmp").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_full_disk_is_a_resource_error(stages, out, number):
    """F-75: a full or read-only disk."""
    stages.fault["data"] = OSError(number, os.strerror(number))
    with pytest.raises(errors.ResourceError, match="--resume"):
        execute(stages, out)


@pytest.mark.parametrize(
    "fault",
    [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory allocating 9 bytes"), MemoryError("9 bytes")],
)
def test_out_of_memory_is_a_resource_error_and_nothing_is_done_twice(stages, out, fault):
    """Smaller chunks are the business of the stages: see tests/run/test_exhausted.py and tests/memory."""
    stages.fault["data"] = fault
    with pytest.raises(
        errors.ResourceError, match=r"out of .*memory.* 9 bytes.*run\.voxel_chunk|out of memory: 9 bytes"
    ):
        execute(stages, out)
    assert stages.calls == ["data"]


def test_other_jax_errors_pass(stages, out):
    stages.fault["data"] = jax.errors.JaxRuntimeError("INTERNAL: fault")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        execute(stages, out)


def test_lock_of_a_live_process_is_respected(stages, out):
    """F-74: two processes."""
    out.mkdir(parents=True)
    (out / ".lock").write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": "now"}))
    with pytest.raises(errors.ResourceError, match=f"in use by process {os.getpid()}"):
        execute(stages, out)
    (out / ".lock").write_text(json.dumps({"host": "another-machine", "pid": 1, "since": "now"}))
    with pytest.raises(errors.ResourceError, match="on another-machine"):
        execute(stages, out)
    assert (out / ".lock").exists()


def test_lock_of_a_dead_process_is_taken_over(stages, out, caplog):
    """F-74: a lock that was left."""
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    out.mkdir(parents=True)
    (out / ".lock").write_text(json.dumps({"host": socket.gethostname(), "pid": int(process.stdout), "since": "then"}))
    execute(stages, out)
    assert "which is gone" in caplog.text and not (out / ".lock").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable JSON"),
        ('{"schema": 99}', "schema 99"),
        ('{"schema": 1, "stages": [], "files": {}}', "no valid table `stages`"),
        ('{"schema": 1, "stages": {}, "files": {"../x": {}}}', "outside of the run"),
    ],
)
def test_untrustworthy_run_json(stages, out, text, message):
    """F-71, F-78, F-96: no JSON, another schema, paths outside."""
    execute(stages, out)
    (out / "run.json").write_text(text)
    with pytest.raises(errors.CheckpointError, match=message):
        execute(stages, out, resume=True)
    assert execute(stages, out, overwrite=True)["state"] == "done"


def test_plan_computes_nothing(stages, out):
    lines = run.plan(DATA, out, stages.steps())
    assert lines[:2] == ["data: runs (not run yet)", "    10 images"]
    assert stages.calls == [] and not out.exists()
    execute(stages, out, until="data")
    assert run.plan(DATA, out, stages.steps())[0] == "data: up to date, skipped"
    reasons = run.stale(changed("data", zscore="none"), out, stages.steps())
    assert "data.zscore" in reasons["data"]


def test_precision_holds_inside_stages_only(out):
    seen = []

    def compute(config_, directory, progress):
        seen.append(jax.config.jax_default_matmul_precision)
        return {}

    run.execute(DATA, out, {"data": run.Step(compute)})
    assert seen == ["highest"] and jax.config.jax_default_matmul_precision is None


SLOW = textwrap.dedent(
    """
    import sys, time
    from mine_jax import artifacts, config, run
    from mine_jax.errors import Stopped

    def quick(config_, directory, progress):
        artifacts.write_text(directory / "data" / "out.txt", "data")
        return {}

    def slow(config_, directory, progress):
        artifacts.write_text(directory / "encoder" / "out.txt", "half")
        for step in range(int(sys.argv[2])):
            if step == 1:
                print("started", flush=True)
            progress(step, 1000)
            time.sleep(0.02)
        artifacts.write_text(directory / "encoder" / "out.txt", "whole")
        return {}

    steps = {
        "data": run.Step(quick, outputs=("data/**",)),
        "encoder": run.Step(slow, needs=("data",), outputs=("encoder/**",)),
    }
    try:
        run.execute(config.Config(), sys.argv[1], steps, resume=True)
    except Stopped as stop:
        sys.exit(stop.exit_code)
    """
)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_signal_saves_and_resumes(out, number, code):
    """F-68, F-69, F-87: SIGKILL, SIGTERM and Ctrl-C."""
    with subprocess.Popen([sys.executable, "-c", SLOW, str(out), "1000"], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(timeout=60) == code
    saved = json.loads((out / "run.json").read_text())
    assert saved["stages"]["data"]["state"] == "done"
    if number != signal.SIGKILL:
        assert saved["state"] == saved["stages"]["encoder"]["state"] == "stopped"
        assert files(out) == {"run.json", "data/out.txt"}
    subprocess.run([sys.executable, "-c", SLOW, str(out), "3"], check=True, stdout=subprocess.DEVNULL)
    saved = json.loads((out / "run.json").read_text())
    assert saved["state"] == "done" and (out / "encoder" / "out.txt").read_text() == "whole"


def test_second_process_fails_fast(out):
    """F-74: two processes."""
    with subprocess.Popen([sys.executable, "-c", SLOW, str(out), "1000"], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        start = time.monotonic()
        with pytest.raises(errors.ResourceError, match=f"in use by process {process.pid}"):
            run.execute(DATA, out, {"data": run.Step(lambda *_: {})}, resume=True)
        assert time.monotonic() - start < 5
        process.terminate()
