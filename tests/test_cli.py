"""The command line: what it accepts, what it prints, and its exit codes."""

import importlib.metadata
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import warnings

import pytest

import mine_jax
from mine_jax import artifacts, cli, errors, run

COMMANDS = (
    "demo",
    "phantom",
    "run",
    *mine_jax.STAGES,
    "check",
    "new",
    "config",
    "truth",
    "query",
    "figures",
    "subjects",
    "doctor",
    "bench",
)


@pytest.fixture
def call(monkeypatch, capsys):
    """Calls the command line in this process; gives exit code, stdout and stderr."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = {number: signal.getsignal(number) for number in numbers}
    logger = logging.getLogger("mine_jax")
    before = logger.handlers, logger.level, logger.propagate

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def call_(*arguments):
        monkeypatch.setattr(sys, "argv", ["mine-jax", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.command_line()
        captured = capsys.readouterr()
        return exit_.value.code or 0, captured.out, captured.err

    yield call_
    for number, handler in handlers.items():
        signal.signal(number, handler)
    logger.handlers, logger.level, logger.propagate = before


@pytest.fixture
def steps(monkeypatch):
    """Replaces the stages by ones that write a file each."""

    def step(name):
        def compute(config, directory, progress):
            artifacts.write_text(directory / name / "out.txt", f"{name} {config.encoder.width}")
            return {"n_voxels": 12_000, "r2": 0.123456, "no": None}

        sections = ("encoder",) if name == "encoder" else ()
        return run.Step(
            compute,
            sections=sections,
            outputs=(f"{name}/**",),
            plan=lambda *given: ["40 images"],
            found=("{n_voxels} voxels", "mean R2 {r2}", "{no} words"),
        )

    made = {name: step(name) for name in mine_jax.STAGES}
    monkeypatch.setattr(cli, "_steps", lambda: made)
    return made


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("[encoder]\nwidth = 8\n")
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_an_example_and_says_what_it_reads_and_writes(call, command):
    code, out, err = call(command, "--help")
    assert code == 0 and "--help" in out and not err
    (example,) = re.findall(r"^  Example: (.*)$", out, re.MULTILINE)
    assert example.startswith(f"mine-jax {command}")
    assert re.search(r"\b[Rr]eads\b", out) and re.search(r"\b[Ww]rites\b", out)


def test_no_line_of_the_help_is_cut_at_80_columns(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = call("--help")
    listed = out.split("Commands:")[1].splitlines()
    assert code == 0 and len(listed) > 20 and not [line for line in listed if line.endswith("...")]


def test_help_lists_every_command_and_loads_nothing_heavy():
    code = (
        "import sys, mine_jax.cli as cli\nsys.argv = ['mine-jax', '--help']\n"
        "try:\n    cli.command_line()\nfinally:\n"
        "    print([n for n in ('jax', 'numpy', 'pandas', 'pydantic') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"  {command} " in result.stdout for command in COMMANDS)
    assert result.stdout.strip().endswith("[]")


def cpu_seconds(code, repeats=3, **environment):
    """Runs code in processes of its own; gives what it printed, and the least CPU seconds that it took."""
    seconds = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return result.stdout, min(seconds)


RUN = """
import sys, mine_jax.cli as cli
sys.argv = ["mine-jax"{}]
try:
    cli.command_line()
finally:
    assert "jax" not in sys.modules
"""


@pytest.fixture(scope="module")
def smallest():
    """CPU seconds of the help of the smallest command line that the same library makes."""
    code = "import sys, typer\nsys.argv = ['small', '--help']\ntyper.run(lambda: None)"
    return cpu_seconds(code)[1]


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("mine-jax attr", ["attribution"]),
        ("mine-jax config enc", ["encoder"]),
        ("mine-jax run c.toml --dr", ["--dry-run"]),
    ],
)
def test_shells_complete_in_at_most_twice_the_time_of_a_small_command(words, completed, smallest):
    environment = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_MINE_JAX_COMPLETE": "complete_bash"}
    text, seconds = cpu_seconds(RUN.format(""), **environment)
    assert text.split() == completed and seconds < 2 * smallest


def test_help_comes_in_at_most_twice_the_time_of_a_small_command(smallest):
    text, seconds = cpu_seconds(RUN.format(', "--help"'))
    assert "--install-completion" in text and seconds < 2 * smallest


def test_entry_points_are_the_same():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="mine-jax")
    assert script.value == "mine_jax.__main__:main"
    result = subprocess.run([sys.executable, "-m", "mine_jax", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == f"mine_jax {mine_jax.__version__}"


def test_stages_are_those_of_the_configuration():
    from mine_jax.config import Config

    assert set(Config.model_fields) - {"run"} | {"report"} == set(mine_jax.STAGES)
    assert cli._sections() == list(Config.model_fields)


@pytest.mark.parametrize("arguments", [["rnu"], ["run"], ["run", "a.toml"], ["encoder", "a.toml", "--outt", "x"]])
def test_usage_errors_are_2(call, arguments):
    code, out, err = call(*arguments)
    assert code == 2 and err and not out


def test_unknown_key_is_2_with_the_nearest(call, tmp_path, config):
    """F-95: exit code 2 before any work."""
    config.write_text("[encoder]\nwidht = 8\n")
    code, _, err = call("run", config, "--out", tmp_path / "out")
    assert code == 2 and "Did you mean 'width'?" in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_missing_configuration_is_3(call, tmp_path):
    code, _, err = call("run", tmp_path / "nothing.toml", "--out", tmp_path / "out")
    assert code == 3 and "nothing.toml" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.DataError("voxel 7"), 3),
        (errors.IntegrityError("betas.nii.gz"), 4),
        (errors.WeightsError("q_proj"), 4),
        (errors.ResourceError("disk"), 5),
        (errors.MissingExtraError("torch"), 2),
        (RuntimeError("surprise"), 1),
        (KeyboardInterrupt(), 130),
        (errors.Stopped(signal.SIGINT), 130),
    ],
)
def test_exit_code_and_one_block_per_error(call, tmp_path, config, steps, monkeypatch, error, code):
    """F-87: also of Ctrl-C."""

    def compute(*arguments):
        raise error

    monkeypatch.setitem(steps, "features", run.Step(compute))
    got, _, err = call("run", config, "--out", tmp_path / "out")
    assert got == code and str(error) in err and "Traceback" not in err and "stopped: stopped" not in err
    got, _, err = call("run", config, "--out", tmp_path / "out", "--resume", "--debug")
    assert got == code and ("Traceback" in err or code == 130)


def test_run_resume_and_one_stage(call, tmp_path, config, steps):
    out = tmp_path / "out"
    code, text, _ = call("run", config, "--out", out, "--until", "encoder", "--set", "encoder.width=16")
    assert code == 0 and re.search(r"^encoder: done in \d\.\d s: 12,000 voxels, mean R2 0.12$", text, re.MULTILINE)
    command = f"mine-jax run {config} --set encoder.width=16 --out {out} --resume"
    assert text.endswith(f"results: {out}\nnext: {command}  # attribution\n")
    assert (out / "encoder" / "out.txt").read_text() == "encoder 16" and not (out / "report").exists()
    code, _, err = call("run", config, "--out", out)
    assert code == 2 and "--resume" in err
    code, text, err = call("run", config, "--out", out, "--resume")
    assert code == 0 and text.count("roi: done") == 1 and "roi: done" not in err
    assert re.search(r"^data, .*: unchanged, skipped$", err, re.MULTILINE) and "encoder.width: 16 -> 8" in err
    for options in ((), ("--resume",)):
        code, _, err = call("profile", config, "--out", out, *options)
        assert code == 0 and "profile: unchanged" in err
    assert json.loads((out / "run.json").read_text())["command"][0] == "mine-jax"
    code, _, _ = call("run", config, "--out", out, "--overwrite")
    assert code == 0


@pytest.mark.parametrize("stage", mine_jax.STAGES)
def test_every_stage_takes_resume_and_says_that_it_always_goes_on(call, tmp_path, config, steps, stage):
    out = tmp_path / "out"
    assert call("run", config, "--out", out, "--until", stage)[0] == 0
    (out / stage / "out.txt").unlink()
    code, text, _ = call(stage, config, "--out", out, "--resume")
    assert code == 0 and f"\n{stage}: done" in f"\n{text}" and (out / stage / "out.txt").is_file()
    assert "always goes on with the run in DIR" in " ".join(call(stage, "--help")[1].split())


def test_dry_run_writes_nothing(call, tmp_path, config, steps):
    code, text, _ = call("run", config, "--out", tmp_path / "out", "--dry-run")
    assert code == 0 and "data: runs (not run yet)\n    40 images" in text and not (tmp_path / "out").exists()


def test_phantom_arguments(call, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr("mine_jax.phantom.write_nsd.write_phantom", lambda *given, **named: seen.update(named))
    code, text, _ = call("phantom", tmp_path, "--subjects", "subj01,subj02", "--images", 100, "--shape", "8,9,10")
    assert code == 0 and "subj01, subj02" in text
    assert (seen["subjects"], seen["n_shared"], seen["shape"]) == (["subj01", "subj02"], 16, (8, 9, 10))
    code, _, err = call("phantom", tmp_path, "--shape", "8,9")
    assert code == 2 and "three whole numbers" in err


def test_config_explains_sections_and_keys(call):
    code, text, _ = call("config")
    assert code == 0 and all(f"[{section}]" in text for section in ("data", "encoder", "run"))
    code, text, _ = call("config", "data")
    assert code == 0 and '"bold5000"' in text and "\nval = 0.15\n    number, > 0, < 1; default: ours\n" in text
    assert 'subject = "sub-01"\n    text; default: ours\n    only kind "laion_fmri"\n' in text
    assert max(map(len, text.splitlines())) <= 80
    code, text, _ = call("config", "encoder.heads")
    assert (
        text.startswith("heads = 1\n    whole number, >= 1; default: ours (the paper: 128)\n") and "width" not in text
    )
    code, _, err = call("config", "encoder.haeds")
    assert code == 2 and "Did you mean 'heads'" in err
    code, _, err = call("config", "encodr")
    assert code == 2 and "Did you mean 'encoder'?" in err


def test_doctor(call):
    code, text, _ = call("doctor")
    assert code == 0 and "jax " in text and "cpu:0" in text and "HF_HUB_OFFLINE" in text
    assert "32,769 rows: right" in text


def test_bench_needs_a_checkout(call, tmp_path, monkeypatch):
    monkeypatch.setattr(mine_jax, "__file__", str(tmp_path / "site" / "mine_jax" / "__init__.py"))
    code, _, err = call("bench")
    assert code == 2 and "need a checkout" in err


def test_figures_of_no_run(call, tmp_path):
    code, out, said = call("figures", tmp_path, "--out", tmp_path / "figs")
    assert code == 3 and "is no run directory" in said and not out and not (tmp_path / "figs").exists()
