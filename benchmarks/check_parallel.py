"""How much of the speed of several devices reaches the work? The same work on one device and on n.

    python -m benchmarks.check_parallel [--devices 2] [--processes] [--case smoke] [--set SIZE=N] [--json FILE]

Printed for each step: the parallel efficiency t_1 / (n t_n) of wall seconds, the best of several
rounds, and the largest difference between both results relative to the largest value, which must
be at most 1e-6. With `--processes` each device has a process of its own. On a CPU the devices
are virtual, one core each, so the cores must be idle: the time of a busy machine says nothing.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import bench_end_to_end
from benchmarks.cases import CASES, Case
from benchmarks.run import environment
from mine_jax import artifacts, attribution, encoder, sharding
from mine_jax.config import EncoderConfig, QueryConfig, RidgeConfig
from mine_jax.types import Split

LARGEST_ERROR = 1e-6
RIDGE = RidgeConfig()
QUERY = QueryConfig(width=64, epochs=4, position_order=0, reference=False)


def main() -> int:
    """Parses the arguments, measures in processes of their own, prints and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2, help="n")
    parser.add_argument("--processes", action="store_true", help="one process for each device")
    parser.add_argument("--case", choices=sorted(CASES), default="smoke", help="sizes (default: smoke)")
    parser.add_argument("--set", action="append", default=[], metavar="SIZE=N", help="another size")
    parser.add_argument("--rounds", type=int, default=3, help="counted runs, of which the fastest counts")
    parser.add_argument("--json", type=Path, help="file that receives the numbers")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sizes: dict[str, Any] = {key: int(value) for key, value in (item.split("=") for item in args.set)}
    case = CASES[args.case]._replace(**sizes)
    if args.measure:
        sharding.start()
        with sharding.telling_others():
            made: dict[str, Any] = measure(case, n_devices=args.devices, rounds=args.rounds)
            if sharding.process_id() == 0:
                np.savez(args.measure, **made)
            sharding.exchange()
        return 0
    is_cpu = _is_cpu()
    if is_cpu and (n_cores := len(os.sched_getaffinity(0))) < args.devices:
        parser.error(f"{args.devices} devices need {args.devices} cores, but this process may use {n_cores}.")
    n_processes = args.devices if args.processes else 1
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("one.npz", "all.npz")]
        _launch(paths[0], n_devices=1, n_processes=1, is_cpu=is_cpu)
        _launch(paths[1], n_devices=args.devices, n_processes=n_processes, is_cpu=is_cpu)
        numbers = compared(*(dict(np.load(path)) for path in paths), n_devices=args.devices)
    print("\n".join(f"{name:24s} {value:.4g}" for name, value in numbers.items()))
    if args.json:
        content = {"check": "parallel", **environment(), "sizes": case._asdict()}
        content |= {"devices": args.devices, "processes": n_processes, "numbers": numbers}
        artifacts.write_json(args.json, content)
    return int(any(value > LARGEST_ERROR for name, value in numbers.items() if name.endswith("_error")))


def measure(case: Case, *, n_devices: int, rounds: int) -> dict[str, np.ndarray]:
    """Fits and attributes on so many devices of this process, or on all processes.

    Args:
        case: sizes, as for the benchmark `end_to_end`.
        n_devices: of the mesh.
        rounds: counted runs of each step, after one that compiles.

    Returns:
        `<step>_s`, wall seconds of each round, and `<step>/<name>`, the results [V, ...].
    """
    mesh = sharding.mesh({sharding.VOXEL: n_devices})
    data = bench_end_to_end.inputs(case)
    rows = data["rows"]
    train, valid = (
        Split(data["tokens"].take_images(rows[name]), data["responses"].take_images(rows[name]), name)
        for name in ("train", "val")
    )
    chosen = data["tokens"].take_images(np.arange(case.ig_images))

    def fit(config: EncoderConfig) -> Any:
        return encoder.fit(train, validation=valid, key=jax.random.key(0), config=config, mesh=mesh)

    encoders = fit(QUERY)
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "ridge": lambda: fit(RIDGE).per_voxel,
        "query": lambda: fit(QUERY).per_voxel,
        "ig": lambda: {"scores": attribution.integrated_gradients(encoders, chosen, mesh=mesh).scores},
    }
    made = {}
    for name, step in steps.items():
        seconds = []
        for _ in range(rounds + 1):
            sharding.exchange()
            start = time.perf_counter()
            result = {key: np.asarray(value) for key, value in step().items()}
            seconds.append(time.perf_counter() - start)
        made |= {f"{name}_s": np.array(seconds[1:]), **{f"{name}/{key}": value for key, value in result.items()}}
    return made


def compared(one: dict[str, np.ndarray], several: dict[str, np.ndarray], *, n_devices: int) -> dict[str, float]:
    """Compares what `measure` gives on one device and on n.

    Args:
        one: on one device.
        several: on n.
        n_devices: n.

    Returns:
        `<step>_efficiency`, t_1 / (n t_n), and `<step>_error` for each step.
    """
    numbers = {}
    for name in (key.removesuffix("_s") for key in one if key.endswith("_s")):
        numbers[f"{name}_efficiency"] = float(one[f"{name}_s"].min() / (n_devices * several[f"{name}_s"].min()))
        numbers[f"{name}_error"] = max(
            float(np.abs(several[key] - value).max() / max(np.abs(value).max(), np.finfo(np.float32).tiny))
            for key, value in one.items()
            if key.startswith(f"{name}/")
        )
    return numbers


def _is_cpu() -> bool:
    """Asks another process: this one would take memory of the accelerators that its children need."""
    command = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "cpu"


def _launch(path: Path, *, n_devices: int, n_processes: int, is_cpu: bool) -> None:
    """Measures in new processes, since devices and threads are chosen when jax starts."""
    cores = sorted(os.sched_getaffinity(0)) if is_cpu else []
    command = [sys.executable, "-m", "benchmarks.check_parallel", *sys.argv[1:]]
    command += ["--devices", str(n_devices), "--measure", str(path)]
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    started = []
    for process in range(n_processes):
        own = {key: value for key, value in os.environ.items() if not key.startswith("MINE_")}
        if n_processes > 1:
            own |= {"MINE_COORDINATOR": f"localhost:{port}", "MINE_N_PROCESSES": str(n_processes)}
            own |= {"MINE_PROCESS_ID": str(process), "CUDA_VISIBLE_DEVICES": str(process)}
        if is_cpu:
            n_local = n_devices // n_processes
            flags = f"{own.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={n_local}"
            own["XLA_FLAGS"] = flags.strip()
            # children inherit the cores that their parent has when they start
            os.sched_setaffinity(0, cores[process * n_local : (process + 1) * n_local])
        started.append(subprocess.Popen(command, env=own))
    if is_cpu:
        os.sched_setaffinity(0, cores)
    codes = [process.wait() for process in started]
    if any(codes):
        raise SystemExit(f"measuring on {n_devices} devices failed with exit codes {codes}.")


if __name__ == "__main__":
    sys.exit(main())
