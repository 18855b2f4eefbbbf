"""Does a whole brain go through every stage in little memory, and in a time that grows like its voxels?

    python -m benchmarks.check_whole_brain [--voxels 1000,3000,10000] [--images 2000] [--encoder ridge]

Writes planted responses [N, V], image-tokens [N, 64, D] and a lens of 20,000 words to disk, and runs every stage on
them as `mine-jax run` does, once for each number of voxels, up to 300,000. Printed for each stage: CPU seconds as a
power of V between the last two sizes, and the most memory that no file backs, above what was held before the stage.
Voxels look for a word each, so that there is something to find.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.run import environment
from benchmarks.timing import PeakMemory
from mine_jax import artifacts
from mine_jax.config import Config, from_dict
from mine_jax.run.execute import Step, execute
from mine_jax.run.graph import STEPS

GRID, WIDTH, N_WORDS, BLOCK = (8, 8), 32, 20_000, 2048
# What every stage may hold above its inputs.
LIMIT_BYTES = 4 << 30


def main() -> None:
    """Parses the arguments, runs every size, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", default="1000,3000,10000", metavar="V,...", help="ascending")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--encoder", choices=("ridge", "query"), default="ridge")
    parser.add_argument("--epochs", type=int, default=2, help="of query encoders")
    parser.add_argument("--directory", type=Path, help="where the files are written (default: the system's)")
    parser.add_argument("--json", type=Path, help="file that receives the numbers")
    args = parser.parse_args()
    sizes = [int(size) for size in args.voxels.split(",")]
    measured = {}
    for n_voxels in sizes:
        with tempfile.TemporaryDirectory(dir=args.directory) as folder:
            config = write_inputs(Path(folder), n_voxels, args.images, encoder=args.encoder, epochs=args.epochs)
            measured[n_voxels] = run_stages(config, Path(folder) / "run")
        print(
            f"{n_voxels} voxels: {sum(stage['cpu_s'] for stage in measured[n_voxels].values()):.0f} CPU s", flush=True
        )
    print(table(measured))
    if args.json:
        numbers = {"images": args.images, "encoder": args.encoder, "voxels": sizes[-1], **summary(measured)}
        content = {"check": "whole_brain", **environment(), "numbers": numbers}
        artifacts.write_json(args.json, content)


def write_inputs(
    folder: Path, n_voxels: int, n_images: int, *, encoder: str, epochs: int = 2, n_words: int = N_WORDS
) -> Config:
    """Writes a data set and says how to run it.

    Args:
        folder: where the files go.
        n_voxels: V.
        n_images: N.
        encoder: "ridge" or "query".
        epochs: of query encoders.
        n_words: W.
    """
    rng = np.random.default_rng(0)
    n_tokens = GRID[0] * GRID[1]
    tokens = rng.standard_normal((n_images, n_tokens, WIDTH), dtype=np.float32)
    unembedding = rng.standard_normal((n_words, WIDTH), dtype=np.float32)
    unembedding /= np.linalg.norm(unembedding, axis=1, keepdims=True)
    np.save(folder / "tokens.npy", tokens.astype(np.float16))
    np.save(folder / "unembedding.npy", unembedding)
    (folder / "words.txt").write_text("".join(f"{_letters(i)}\n" for i in range(n_words)), encoding="utf-8")
    ids = "".join(f"image{i:06d}\n" for i in range(n_images))
    (folder / "image_ids.txt").write_text(ids, encoding="utf-8")
    responses = np.lib.format.open_memmap(folder / "responses.npy", "w+", np.float32, (n_images, n_voxels))
    means = tokens.mean(1) * np.float32(n_tokens**0.5)
    for start in range(0, n_voxels, BLOCK):
        stop = min(start + BLOCK, n_voxels)
        wanted = unembedding[np.arange(start, stop) % n_words]
        noise = np.random.default_rng([1, start]).standard_normal((n_images, stop - start), dtype=np.float32)
        responses[:, start:stop] = means @ wanted.T + 0.7 * noise
    del responses
    settings = {"kind": encoder, "width": WIDTH}
    settings |= {"epochs": epochs, "position_order": 0} if encoder == "query" else {}
    values = {
        "data": {"kind": "folder", "responses": "responses.npy", "image_ids": "image_ids.txt", "test": 0.167},
        "features": {
            "kind": "precomputed",
            "tokens": "tokens.npy",
            "token_image_ids": "image_ids.txt",
            "unembedding": "unembedding.npy",
            "words": "words.txt",
            "grid": list(GRID),
        },
        "encoder": settings,
        "attribution": {"k": min(16, n_tokens // 2), "keep_scores": False},
    }
    return from_dict(values, base=folder)


def run_stages(config: Config, directory: Path) -> dict[str, dict[str, float]]:
    """Runs every stage of a configuration.

    Args:
        config: what to run.
        directory: of the run.

    Returns:
        Stage -> `cpu_s`, `wall_s` and `peak_bytes`, those that no file backs.
    """
    measured: dict[str, dict[str, float]] = {}

    def watched(name: str, step: Step) -> Step:
        def compute(*arguments: Any) -> dict[str, Any]:
            with PeakMemory() as memory:
                wall, cpu = time.perf_counter(), time.process_time()
                made = step.compute(*arguments)
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            measured[name] = {"cpu_s": cpu, "wall_s": wall, "peak_bytes": float(memory.peak["RssAnon"])}
            return made

        return replace(step, compute=compute)

    execute(config, directory, {name: watched(name, step) for name, step in STEPS.items()})
    return measured


def powers(measured: dict[int, dict[str, dict[str, float]]]) -> dict[str, float]:
    """Returns for each stage x of cost ~ V^x between the last two sizes; NaN where there is one."""
    sizes = sorted(measured)
    if len(sizes) < 2:
        return dict.fromkeys(measured[sizes[0]], float("nan"))
    before, last = (measured[size] for size in sizes[-2:])
    step = np.log(sizes[-1] / sizes[-2])
    return {name: float(np.log(last[name]["cpu_s"] / before[name]["cpu_s"]) / step) for name in last}


def summary(measured: dict[int, dict[str, dict[str, float]]]) -> dict[str, float]:
    """Returns power (of two sizes or more) and memory of each stage, and that of the largest, at the last size."""
    last = measured[max(measured)]
    found = {f"{name} power": power for name, power in powers(measured).items() if np.isfinite(power)}
    found |= {f"{name} mib": stage["peak_bytes"] / 2**20 for name, stage in last.items()}
    return found | {"peak mib": max(stage["peak_bytes"] for stage in last.values()) / 2**20}


def table(measured: dict[int, dict[str, dict[str, float]]]) -> str:
    """Formats one line for each stage."""
    sizes, power = sorted(measured), powers(measured)
    lines = [f"{'stage':12s}{'power of V':>12s}" + "".join(f"{f'{size} V':>26s}" for size in sizes)]
    for name in measured[sizes[0]]:
        cells = (measured[size][name] for size in sizes)
        shown = "".join(f"{cell['cpu_s']:12.1f} s{cell['peak_bytes'] / 2**20:8.0f} MiB" for cell in cells)
        lines.append(f"{name:12s}{power[name]:12.2f}{shown}")
    largest = max(stage["peak_bytes"] for stage in measured[sizes[-1]].values())
    within = "within" if largest <= LIMIT_BYTES else "MORE THAN"
    return "\n".join([*lines, f"most memory above the inputs: {largest / 2**20:.0f} MiB, {within} 4 GiB"])


def _letters(number: int) -> str:
    """Writes a number as letters, so that it counts as a word."""
    return "w" + "".join(chr(ord("a") + int(digit)) for digit in f"{number:06d}")


if __name__ == "__main__":
    main()
