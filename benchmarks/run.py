"""Runs benchmarks and prints a table; every row carries an error against the reference.

python -m benchmarks.run --list
python -m benchmarks.run --case cpu --what ridge,query,ig --json benchmarks/results/cpu.json
python -m benchmarks.run --smoke
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.cases import CASES, Case
from benchmarks.timing import Timing, time_in_turn

WHAT = ("ridge", "query", "ig", "lens")
PACKAGES = ("jax", "numpy", "torch", "himalaya", "scikit-learn", "captum")


def main() -> None:
    """Parses the arguments, runs, prints, and writes JSON on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=sorted(CASES), default="smoke", help="sizes (default: smoke)")
    parser.add_argument("--what", default=",".join(WHAT), help=f"comma-separated, of {', '.join(WHAT)}")
    parser.add_argument("--rounds", type=int, default=3, help="counted runs of each implementation")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SIZE=N", help="another size, for instance batch=8"
    )
    parser.add_argument("--skip", default="", help="implementations left out, comma-separated")
    parser.add_argument("--json", type=Path, help="file that receives the rows")
    parser.add_argument("--list", action="store_true", help="print cases and benchmarks")
    parser.add_argument("--smoke", action="store_true", help="the smallest case once: does everything run?")
    args = parser.parse_args()
    if args.list:
        print("\n".join(f"{name:12s} {case}" for name, case in CASES.items()), "\nbenchmarks:", ", ".join(WHAT))
        return
    sizes = {key: int(value) for key, value in (item.split("=") for item in args.set)}
    case = CASES["smoke" if args.smoke else args.case]._replace(**sizes)
    rows: list[dict[str, Any]] = []
    for what in args.what.split(","):
        rows += benchmark(what, case, rounds=1 if args.smoke else args.rounds, skip=args.skip.split(","))
        print(table([row for row in rows if row["what"] == what]))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        content = {"case": args.case, "sizes": case._asdict(), **environment(), "rows": rows}
        args.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def benchmark(
    what: str, case: Case, *, rounds: int = 3, skip: list[str] | tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Times all implementations of one benchmark in turn.

    Args:
        what: one of `WHAT`.
        case: sizes.
        rounds: counted runs of each.
        skip: implementations left out.

    Returns:
        One row per implementation: seconds, ratio to the reference in CPU seconds (wall
        seconds on accelerators), memory, and errors against the reference.
    """
    module = importlib.import_module(f"benchmarks.bench_{what}")
    calls = module.implementations(case, module.inputs(case))
    timings = time_in_turn({name: call for name, call in calls.items() if name not in skip}, rounds=rounds)
    name = module.REFERENCE if module.REFERENCE in timings else next(iter(timings))
    reference = timings[name]
    return [
        {
            "what": what,
            "implementation": key,
            "reference": name,
            "header": module.HEADER,
            "first_s": timing.first_s,
            "seconds": _seconds(timing),
            "ratio": _seconds(reference) / _seconds(timing),
            "spread": [min(_times(timing)), max(_times(timing))],
            "peak_mib": timing.peak_bytes / 2**20,
            **module.compare(timing.result, reference.result),
        }
        for key, timing in timings.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Formats rows for the terminal; absolute seconds stay in the JSON."""
    lines = [f"{rows[0]['what']}: {rows[0]['header']}; ratio of seconds of {rows[0]['reference']} to this one"]
    for row in rows:
        extra = "".join(f"  {k} {row[k]:.4g}" for k in ("same_penalty", "completeness_gap") if k in row)
        lines.append(
            f"  {row['implementation']:<20} ratio {row['ratio']:9.2f}  memory {row['peak_mib']:8.0f} MiB"
            f"  error {row['max_abs_err']:.2g}{extra}"
        )
    return "\n".join(lines)


def environment() -> dict[str, Any]:
    """Returns device, versions and commit."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": commit,
    }


def _times(timing: Timing) -> list[float]:
    """Seconds of all voxels: peers that did only some are scaled."""
    scale = timing.result.get("scale", 1.0) if isinstance(timing.result, dict) else 1.0
    measured = timing.cpu_s if jax.default_backend() == "cpu" else timing.wall_s
    return [scale * s for s in measured]


def _seconds(timing: Timing) -> float:
    return float(np.median(_times(timing)))


if __name__ == "__main__":
    main()
