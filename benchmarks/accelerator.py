"""Everything that an accelerator has to show, in one command and ten minutes.

python -m benchmarks.accelerator --size subject --out DIR      (the same as mine-jax bench --suite accelerator ...)

Kernels against their definitions, ridge, a step and whole epochs of the query encoder, integrated gradients with top-K,
lens, frozen models, the whole job. Each part runs in a process of its own, so that one that breaks or takes too long
takes no other with it, and the memory measured is its own; at "smoke" size all share this process. Written after every
part: DIR/accelerator_SIZE.json, with seconds until results are ready, seconds of the compiler apart, error against an
independent reference, share of the roofline, memory planned and used, device, versions and commit. Copied to
benchmarks/results, `python -m benchmarks.publish` makes a table of it. Exit code 1 if a part failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, Case
from mine_jax import artifacts

PARTS = ("kernels", "ridge", "query", "fit", "ig", "lens", "features", "end_to_end")
SIZES = ("smoke", "roi", "subject", "whole_brain")
# Peers on processors, and our own variants that say nothing about a device: this is no comparison.
SKIPPED = (
    *("himalaya_torch", "scikit_learn_loo", "fracridge", "torch_mha", "torch", "captum_loop", "torch_func_vmap"),
    *("mine_jax_exact", "mine_jax_16_steps", "mine_jax_8_steps", "jax_vmap_of_grad"),
)
# At "smoke" size, which is to show that all runs, also the reference that compiles the whole job again.
_SKIPPED_AT_SMOKE = ("loop_over_voxels",)
# Where one step is compared with a plain form that holds everything at once, no more voxels.
_MOST_VOXELS = {"query": 15_000}
# A part gets what is left, but not what the ones after it need at least.
_LIMIT_S, _LEAST_S = 600.0, 20.0


def main(arguments: list[str] | None = None) -> int:
    """Parses the arguments, runs all parts or one, writes JSON, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="subject")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the JSON file goes")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"comma-separated, of {', '.join(PARTS)}")
    parser.add_argument("--limit", type=float, default=_LIMIT_S, metavar="SECONDS", help="of all parts together")
    parser.add_argument("--alone", type=Path, metavar="FILE", help="measure the first part in this process, for FILE")
    args = parser.parse_args(arguments)
    parts = args.parts.split(",")
    unknown = sorted({*parts} - {*PARTS})
    if unknown:
        parser.error(f"unknown parts: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if args.alone:
        args.alone.write_text(json.dumps(_with_environment(measure(parts[0], CASES[args.size]))), encoding="utf-8")
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    content = suite(args.size, args.out / f"accelerator_{args.size}.json", parts=parts, limit_s=args.limit)
    failed = [failure for part in content["parts"] for failure in part["failures"]]
    print(f"{len(parts)} parts, {len(content['rows'])} rows, {len(failed)} failures")
    return 1 if failed else 0


def suite(size: str, path: Path, *, parts: list[str], limit_s: float) -> dict[str, Any]:
    """Runs parts one after the other; a part that fails is reported, and the others go on.

    Args:
        size: of `SIZES`.
        path: file that is written after every part.
        parts: of `PARTS`.
        limit_s: seconds of all parts together.

    Returns:
        The content of the file: `rows` of `benchmarks.run.benchmark`, and for each of the `parts` its seconds and
        `failures`, each with the step and the error.
    """
    case, start = CASES[size], time.perf_counter()
    content: dict[str, Any] = {"suite": "accelerator", "case": size, "sizes": case._asdict(), "parts": [], "rows": []}
    for i, part in enumerate(parts):
        began = time.perf_counter()
        if size == "smoke":
            made = _with_environment(measure(part, case))
        else:
            left = limit_s - (began - start) - _LEAST_S * (len(parts) - i - 1)
            made = _in_process(part, size, max(_LEAST_S, left))
        seconds = time.perf_counter() - began
        content["rows"] += made.pop("rows")
        content["parts"].append({"part": part, "seconds": seconds, "failures": made.pop("failures")})
        content |= made
        artifacts.write_json(path, content)
        print(f"{part}: {seconds:.0f} s", *(f"\n  {f['step']}: {f['error']}" for f in content["parts"][-1]["failures"]))
    return content


def measure(part: str, case: Case) -> dict[str, Any]:
    """Measures one part in this process.

    Args:
        part: of `PARTS`.
        case: sizes.

    Returns:
        `rows`, and `failures` with the step and the error of each.
    """
    from benchmarks import run

    rows: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    case = case._replace(voxels=min(case.voxels, _MOST_VOXELS.get(part, case.voxels)))
    skip, step = SKIPPED + (_SKIPPED_AT_SMOKE if case == CASES["smoke"] else ()), part
    try:
        for step in run.variants(part, case):
            try:
                rows += run.benchmark(step, case, rounds=1, skip=skip)
            except Exception as error:  # whatever it is, the other steps are measured
                failures.append(_failure(step, error))
    except Exception as error:
        failures.append(_failure(step, error))
    return {"rows": rows, "failures": failures}


def _in_process(part: str, size: str, limit_s: float) -> dict[str, Any]:
    """Measures one part in a process of its own, which is stopped after so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "part.json"
        options = ["--size", size, "--out", folder, "--parts", part, "--alone", str(file)]
        command = [sys.executable, "-m", "benchmarks.accelerator", *options]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            return {"rows": [], "failures": [{"step": part, "error": f"stopped after {limit_s:.0f} s"}]}
        if done.returncode or not file.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return {"rows": [], "failures": [{"step": part, "error": f"exit code {done.returncode}: {last}"}]}
        return json.loads(file.read_text(encoding="utf-8"))


def _with_environment(made: dict[str, Any]) -> dict[str, Any]:
    from benchmarks import run

    return made | run.environment()


def _failure(step: str, error: Exception) -> dict[str, str]:
    lines = str(error).strip().splitlines() or ["no message"]
    return {"step": step, "error": f"{type(error).__name__}: {lines[0][:300]}"}


if __name__ == "__main__":
    sys.exit(main())
