"""Runs benchmarks and prints a table; every row carries an error against the reference.

python -m benchmarks.run --list
python -m benchmarks.run --case cpu --what ridge,query,ig --json benchmarks/results/cpu.json
python -m benchmarks.run --smoke
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import peaks
from benchmarks.cases import CASES, Case
from benchmarks.timing import Timing, time_in_turn
from mine_jax import artifacts

WHAT = ("kernels", "ridge", "query", "fit", "ig", "lens", "features", "end_to_end")
# The reference where that of a benchmark is left out, or not installed: NumPy in float64, on some voxels.
ORACLE = "numpy_float64"
# Measures that stand in the table where a benchmark gives them.
SHOWN = (
    "same_penalty",
    "completeness_gap",
    "same_description",
    "signal_r2",
    "roofline",
    "images_per_s",
    "tokens_per_s",
)
PACKAGES = ("jax", "numpy", "torch", "himalaya", "scikit-learn", "fracridge", "captum", "transformers")


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
    parser.add_argument(
        "--scale", default="", metavar="SIZE=N,N,N", help="only our implementation, over several values of one size"
    )
    parser.add_argument("--json", type=Path, help="file that receives the rows")
    parser.add_argument("--list", action="store_true", help="print cases and benchmarks")
    parser.add_argument("--smoke", action="store_true", help="the smallest case once: does everything run?")
    parser.add_argument("--cores", type=int, default=1, help="processor cores that all may use, on a CPU (default: 1)")
    args = parser.parse_args()
    if args.list:
        print("\n".join(f"{name:12s} {case}" for name, case in CASES.items()), "\nbenchmarks:", ", ".join(WHAT))
        return
    unknown = sorted({what.partition(":")[0] for what in args.what.split(",")} - set(WHAT))
    if unknown:
        parser.error(f"--what {', '.join(unknown)}: no such benchmark; there are {', '.join(WHAT)}")
    if jax.default_backend() == "cpu":
        _restart_on(args.cores)
    sizes: dict[str, Any] = {key: int(value) for key, value in (item.split("=") for item in args.set)}
    case = CASES["smoke" if args.smoke else args.case]._replace(**sizes)
    rows: list[dict[str, Any]] = []
    rounds = 1 if args.smoke else args.rounds
    for what in args.what.split(","):
        for name in variants(what, case):
            if args.scale:
                size, _, values = args.scale.partition("=")
                found = scaling(name, case, size=size, values=[int(v) for v in values.split(",")], rounds=rounds)
            else:
                found = benchmark(name, case, rounds=rounds, skip=args.skip.split(","))
            print(table(found))
            rows += found
    if args.json:
        content = {"case": args.case, "sizes": case._asdict(), **environment(), "rows": rows}
        artifacts.write_json(args.json, content)


def benchmark(
    what: str, case: Case, *, rounds: int = 3, skip: Sequence[str] = (), only: str = ""
) -> list[dict[str, Any]]:
    """Times all implementations of one benchmark in turn.

    Args:
        what: one of `WHAT`, or `features:vit_b32` for one of several variants.
        case: sizes.
        rounds: counted runs of each.
        skip: implementations left out.
        only: first letters of the one that is kept, the first of such a name; "" for all.

    Returns:
        One row per implementation: seconds, ratio to the reference in CPU seconds (wall
        seconds on accelerators), memory, and errors against the reference; the share of the
        roofline where the module says how much work an implementation cannot do without.

    A module has `inputs`, `implementations` and `compare`, and may have `variants`, `finish`,
    `work(case, data)`, which returns `peaks.Work` by implementation, `planned(case, data)`, the bytes on the
    device that plans count with by implementation, and `products(case, data)`, the matrix products that show
    what the device can multiply.
    """
    module = importlib.import_module(f"benchmarks.bench_{what.partition(':')[0]}")
    variant = what.partition(":")[2]
    data = module.inputs(case, variant=variant) if variant else module.inputs(case)
    calls = module.implementations(case, data)
    names = [name for name in calls if name not in skip and name.startswith(only)]
    chosen = {name: calls[name] for name in (names[:1] if only else names)}
    timings = time_in_turn(chosen, rounds=rounds)
    name = next((name for name in (module.REFERENCE, ORACLE) if name in timings), next(iter(timings)))
    reference = timings[name]
    rows: list[dict[str, Any]] = [
        {
            "what": what,
            "implementation": key,
            "reference": name,
            "header": module.HEADER,
            "first_s": timing.first_s,
            "compile_s": timing.compile_s,
            "late_compile_s": timing.late_compile_s,
            "seconds": _seconds(timing),
            "ratio": _seconds(reference) / _seconds(timing),
            "spread": [min(_times(timing)), max(_times(timing))],
            "first_peak_mib": timing.first_peak_bytes / 2**20,
            "peak_mib": timing.peak_bytes / 2**20,
            **module.compare(timing.result, reference.result),
        }
        for key, timing in timings.items()
    ]
    for row in rows:
        on_device = timings[row["implementation"]].device_peak_bytes
        row |= {} if on_device is None else {"device_peak_mib": on_device / 2**20}
    if hasattr(module, "planned"):
        plans = module.planned(case, data)
        for row in rows:
            row |= {"planned_mib": plans[row["implementation"]] / 2**20} if row["implementation"] in plans else {}
    if hasattr(module, "work"):
        products = module.products(case, data) if hasattr(module, "products") else peaks.squares(case)
        rates, work = peaks.measure(products, side=case.product, rounds=rounds), module.work(case, data)
        for row in rows:
            if row["implementation"] in work:
                row |= peaks.roofline(work[row["implementation"]], rates, seconds=row["seconds"])
    return module.finish(rows, data) if hasattr(module, "finish") else rows


def scaling(what: str, case: Case, *, size: str, values: list[int], rounds: int = 3) -> list[dict[str, Any]]:
    """Times our implementation over several values of one size.

    Args:
        what: as in `benchmark`.
        case: all other sizes.
        size: name of the size that varies.
        values: at least two, ascending.
        rounds: counted runs of each.

    Returns:
        One row per value; `scale` holds the size, its value and the exponent of cost ~ value^exponent,
        the slope of a straight line through the logarithms.
    """
    rows: list[dict[str, Any]] = []
    for value in values:
        sizes: dict[str, Any] = {size: value}
        row = benchmark(what, case._replace(**sizes), rounds=rounds, only="mine_jax")[0]
        rows.append({**row, "implementation": f"{row['implementation']}, {size} {value}"})
    seconds = np.log([row["seconds"] for row in rows])
    exponent = float(np.polyfit(np.log(values), seconds, 1)[0])
    for row, value in zip(rows, values, strict=True):
        row["scale"] = {"size": size, "value": value, "exponent": exponent}
        row["ratio"] = rows[0]["seconds"] / row["seconds"]
    return rows


def variants(what: str, case: Case) -> list[str]:
    """Returns the benchmark itself, or one name for each of its variants.

    Args:
        what: one of `WHAT`, or already one variant.
        case: sizes.
    """
    if ":" in what:
        return [what]
    module = importlib.import_module(f"benchmarks.bench_{what}")
    return [f"{what}:{name}" for name in module.variants(case)] if hasattr(module, "variants") else [what]


def table(rows: list[dict[str, Any]]) -> str:
    """Formats rows for the terminal; absolute seconds stay in the JSON."""
    what = rows[0].get("model", rows[0]["what"])
    lines = [f"{what}: {rows[0]['header']}; ratio of seconds of {rows[0]['reference']} to this one"]
    for row in rows:
        extra = "".join(f"  {k} {row[k]:.4g}" for k in SHOWN if k in row)
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
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
    }


def _restart_on(n_cores: int) -> None:
    """Starts anew on so many cores: libraries choose their threads when they are loaded, and waiting threads count."""
    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(own) > n_cores:
        os.sched_setaffinity(0, own[-n_cores:])
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.run", *sys.argv[1:]])


def _times(timing: Timing) -> list[float]:
    """Seconds of all voxels: peers that did only some are scaled."""
    scale = timing.result.get("scale", 1.0) if isinstance(timing.result, dict) else 1.0
    return [scale * s for s in timing.seconds()]


def _seconds(timing: Timing) -> float:
    return float(np.median(_times(timing)))


if __name__ == "__main__":
    main()
