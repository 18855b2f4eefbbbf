"""Does a ridge fit of a whole brain stay in little memory? A check on responses in a file.

    python -m benchmarks.check_whole_brain_ridge [--voxels 300000] [--images 10000] [--width 512] [--directory DIR]

Writes planted responses [N, V] float32 block by block (12 GB at full size), fits every voxel from
the memory-mapped file with K-fold cross-validation, writes the coefficients into a second file, and
deletes both. Printed: seconds, peak memory that no file backs, and peak memory with the pages of
files that are in use, both above what was held before the fit (features and the program itself).
Correlation of planted and fitted coefficients says whether the answer is right.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.run import environment
from benchmarks.timing import PeakMemory
from mine_jax import artifacts
from mine_jax.encoder import ridge

BLOCK = 2048


def main() -> None:
    """Parses the arguments, writes the responses, fits, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=300_000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=512, help="number of features")
    parser.add_argument("--penalties", type=int, default=20)
    parser.add_argument("--selection", choices=("kfold", "gcv", "loo"), default="kfold")
    parser.add_argument("--directory", type=Path, help="where the files are written (default: the system's)")
    parser.add_argument("--json", type=Path, help="file that receives the numbers")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    features = rng.standard_normal((args.images, args.width), dtype=np.float32)
    features *= ((1 + np.arange(args.width)) ** -0.5).astype(np.float32)
    with tempfile.TemporaryDirectory(dir=args.directory) as folder:
        responses = write_responses(Path(folder) / "responses.npy", features, args.voxels)
        out = np.lib.format.open_memmap(Path(folder) / "coef.npy", "w+", np.float32, (args.width, args.voxels))
        with PeakMemory() as memory:
            wall, cpu = time.perf_counter(), time.process_time()
            solution = ridge.solve(
                features, responses, np.logspace(-1, 6, args.penalties), selection=args.selection, out=out
            )
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        numbers = {
            "voxels": args.voxels,
            "images": args.images,
            "width": args.width,
            "selection": args.selection,
            "wall_s": wall,
            "cpu_s": cpu,
            "data_mib": (responses.nbytes + features.nbytes) / 2**20,
            "peak_anonymous_mib": memory.peak["RssAnon"] / 2**20,
            "peak_resident_mib": memory.peak["VmRSS"] / 2**20,
            "coefficient_correlation": agreement(out, features.shape[1], args.voxels),
            "mean_error": float(solution.error.mean()),
        }
        del responses, out, solution
    print("\n".join(f"{name:24s} {value}" for name, value in numbers.items()))
    if args.json:
        content = {"check": "whole_brain_ridge", **environment(), "numbers": numbers}
        artifacts.write_json(args.json, content)


def write_responses(path: Path, features: np.ndarray, n_voxels: int) -> np.ndarray:
    """Writes planted responses of signal-to-noise ratio 1, and opens them for reading."""
    responses = np.lib.format.open_memmap(path, "w+", np.float32, (len(features), n_voxels))
    for start in range(0, n_voxels, BLOCK):
        stop = min(start + BLOCK, n_voxels)
        signal = features @ planted(features.shape[1], start, stop)
        noise = np.random.default_rng([1, start]).standard_normal(signal.shape, dtype=np.float32)
        responses[:, start:stop] = signal / signal.std(0) + noise
    del responses
    return np.load(path, mmap_mode="r")


def planted(width: int, start: int, stop: int) -> np.ndarray:
    """Returns the coefficients [F, v] of a block of voxels, up to one factor per voxel."""
    return np.random.default_rng([2, start]).standard_normal((width, stop - start), dtype=np.float32)


def agreement(coef: np.ndarray, width: int, n_voxels: int) -> float:
    """Returns the mean correlation over the leading quarter of the features, over some voxels."""
    values = []
    for start in range(0, n_voxels, BLOCK * max(1, n_voxels // (8 * BLOCK))):
        stop = min(start + BLOCK, n_voxels)
        a, b = planted(width, start, stop)[: width // 4], np.asarray(coef[: width // 4, start:stop])
        a, b = a - a.mean(0), b - b.mean(0)
        values.append(float(((a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0))).mean()))
    return float(np.mean(values))


if __name__ == "__main__":
    main()
