"""All that an accelerator has to show runs at the smallest size, and what breaks does not stop the rest."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import accelerator, publish, run

# The programs run once: how fast they are does not matter here.
_UNOPTIMISED = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def test_every_part_runs_at_the_smallest_size(tmp_path):
    arguments = ["bench", "--suite", "accelerator", "--size", "smoke", "--out", str(tmp_path)]
    environment = os.environ | {"XLA_FLAGS": _UNOPTIMISED, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "mine_jax", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "accelerator_smoke.json").read_text())
    assert [part["part"] for part in content["parts"]] == list(accelerator.PARTS)
    rows = {(row["what"], row["implementation"]): row for row in content["rows"]}
    kernels = [row for (what, _), row in rows.items() if what.startswith("kernels:")]
    # forms for accelerators are not run in an interpreter
    assert len(kernels) == 12 and not any("pallas" in row["what"] for row in kernels)
    # of gradients through a trunk, one is nearly zero and counts as a thousandth of the largest
    assert all(row["max_abs_err"] < 2e-4 for row in rows.values())
    ridge, fit, ig = rows["ridge", "mine_jax"], rows["fit", "mine_jax"], rows["ig", "mine_jax_top_50"]
    assert (ridge["reference"], ridge["same_penalty"]) == ("numpy_float64", 1.0)
    assert all(row["planned_mib"] > 0 and 0 < row["roofline"] < 1.5 for row in (ridge, fit, ig))
    assert all(row["late_compile_s"] == 0 for row in (*kernels, ridge, fit, ig)) and "epoch_s" in fit
    assert content["platform"] == "cpu" and len(content["commit"]) == 40 and "jax" in content["versions"]
    page = publish.render(tmp_path)
    assert "## Everything on one device" in page and "| ridge | `mine_jax` | " in page and "` failed: " not in page


def test_a_part_that_fails_is_reported_and_the_suite_goes_on(monkeypatch, tmp_path, capsys):
    def benchmark(step, case, *, rounds, skip):
        del case, rounds, skip
        if step == "features:tiny":
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand a long list")
        return [{"what": step, "implementation": "mine_jax", "reference": "mine_jax", "peak_mib": 1.0}]

    monkeypatch.setattr(run, "benchmark", benchmark)
    code = accelerator.main(["--size", "smoke", "--parts", "features,lens", "--out", str(tmp_path)])
    content = json.loads((tmp_path / "accelerator_smoke.json").read_text())
    error = "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    assert code == 1 and content["parts"][0]["failures"] == [{"step": "features:tiny", "error": error}]
    assert [row["what"] for row in content["rows"]] == ["features:llava_tiny", "lens"]
    assert f"- `features:tiny` failed: {error}" in publish.render(tmp_path) and "1 failures" in capsys.readouterr().out


def test_a_part_that_dies_or_hangs_is_stopped(monkeypatch, tmp_path):
    monkeypatch.setattr(accelerator.sys, "executable", "/bin/false")
    made = accelerator.suite("roi", tmp_path / "a.json", parts=["ig"], limit_s=60)
    assert made["parts"][0]["failures"] == [{"step": "ig", "error": "exit code 1: no message"}]

    def hang(command, *, timeout, **_):
        assert 20 <= timeout <= 60
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(accelerator.subprocess, "run", hang)
    made = accelerator.suite("roi", tmp_path / "a.json", parts=["ig"], limit_s=60)
    assert made["parts"][0]["failures"] == [{"step": "ig", "error": "stopped after 60 s"}]


def test_unknown_parts_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        accelerator.main(["--parts", "ridge,nonsense", "--out", str(tmp_path)])
    assert "unknown parts: nonsense" in capsys.readouterr().err
