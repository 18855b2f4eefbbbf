"""What do fewer digits of matrix products cost? Whole runs on a phantom, each in another arithmetic, compared.

    python -m benchmarks.check_precision [--images 1000] [--only tf32,bf16] [--json FILE]

On a CPU `run.precision` changes nothing: every product is one of float32. So the products of accelerators are
emulated: each product of float32 that was not asked for exactly is compiled with operands rounded as a tensor
core rounds them, and sums in float32. `tf32` is what a GPU makes of `run.precision = "high"` and "default",
`bf16_3x` what a TPU makes of "high", `bf16` what it makes of "default". On an accelerator its own arithmetic
runs, and the rows are those settings. One row more computes the backbone in bfloat16.

Printed for each row, against `highest`: how test R2 changes (mean, and in the worst voxel), the share of critical
tokens that stay, the share of voxels whose claim stays, and whether it passes: R2 within 1e-3 in every voxel, the
same critical tokens in 99 %.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.run import environment
from mine_jax import artifacts
from mine_jax.config import Config, from_dict
from mine_jax.phantom.write_nsd import write_phantom
from mine_jax.run import files, graph
from mine_jax.run.execute import execute
from mine_jax.run.recovery.study import Point, configuration

MAX_R2_CHANGE, MIN_SAME_TOKENS = 1e-3, 0.99
# exponent and mantissa bits
TF32, BF16 = (8, 10), (8, 7)


class Arithmetic(NamedTuple):
    """One row: the settings of the run, and what its products are emulated as on a CPU ("" for float32)."""

    precision: str
    weights: str = "float32"
    emulated: str = ""


ROWS = {
    "highest": Arithmetic("highest"),
    "tf32": Arithmetic("high", emulated="tf32"),
    "bf16_3x": Arithmetic("high", emulated="bf16_3x"),
    "bf16": Arithmetic("default", emulated="bf16"),
    "bf16_backbone": Arithmetic("highest", weights="bfloat16"),
}
ON_ACCELERATORS = {"highest": ROWS["highest"], "high": Arithmetic("high"), "default": Arithmetic("default")}
ON_ACCELERATORS["bf16_backbone"] = ROWS["bf16_backbone"]


class Found(NamedTuple):
    """What a run found.

    Attributes:
        r2: test R2 by voxel id.
        tokens: (voxel id, image id) -> its critical tokens.
        claims: claim by voxel id.
    """

    r2: dict[int, float]
    tokens: dict[tuple[int, str], frozenset[int]]
    claims: dict[int, str]


def main() -> int:
    """Runs each row in a process of its own, since what is compiled once stays, and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="images of the phantom (default: 1000)")
    parser.add_argument("--only", default="", help="rows beside `highest`, comma-separated")
    parser.add_argument("--json", type=Path, help="file that receives the numbers")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    rows = ROWS if jax.default_backend() == "cpu" else ON_ACCELERATORS
    if args.row:
        run(rows[args.row], args.into, args.row, n_images=args.images)
        return 0
    wanted = ["highest", *(name for name in rows if name != "highest" and name in (args.only or name).split(","))]
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            command = [sys.executable, "-m", "benchmarks.check_precision", "--row", name, "--into", folder]
            subprocess.run([*command, "--images", str(args.images)], check=True)
            print(f"{name}: done", flush=True)
        found = {name: read(Path(folder) / name) for name in wanted}
    numbers = {name: compare(found["highest"], one) for name, one in found.items() if name != "highest"}
    print(table(numbers))
    if args.json:
        content = {**environment(), "images": args.images, "precision": numbers}
        artifacts.write_json(args.json, content)
    return 0


def run(row: Arithmetic, folder: Path, name: str, *, n_images: int) -> None:
    """Runs the pipeline up to the claims, on a phantom that all rows share."""
    point = Point("phantom", 0, n_images, n_images // 5)
    root = folder / "data"
    write_phantom(root, subjects=("subj01",), n_images=n_images, n_shared=point.n_test, seed=point.seed)
    with emulated(row.emulated):
        execute(settings(root, point, row), folder / name, graph.STEPS, until="profile")


def settings(root: Path, point: Point, row: Arithmetic) -> Config:
    """Returns the configuration of a row."""
    content = configuration(root, point).model_dump(exclude_unset=True)
    content["run"] |= {"precision": row.precision, "compilation_cache": "none"}
    content["features"] |= {"weights": row.weights}
    return from_dict(content)


def read(directory: Path) -> Found:
    """Reads what a run found."""
    scores, critical = files.load_scores(directory), files.load_critical(directory)
    profiles = files.load_profiles(directory)
    if critical is None or profiles is None:
        raise SystemExit(f"{directory} described no voxel")
    tokens = {
        (int(voxel), str(image)): frozenset(critical.indices[v, i].tolist())
        for v, voxel in enumerate(critical.voxel_ids)
        for i, image in enumerate(critical.image_ids[v])
    }
    r2 = dict(zip(scores.voxel_ids.tolist(), scores.r2.tolist(), strict=True))
    return Found(r2, tokens, dict(zip(profiles.voxel_ids.tolist(), profiles.claims.tolist(), strict=True)))


def compare(exact: Found, other: Found) -> dict[str, Any]:
    """Compares two runs.

    Args:
        exact: products of float32.
        other: the same in another arithmetic.

    Returns:
        Mean and largest absolute change of R2 over the voxels of both, share of the critical tokens of their common
        pairs that stay, share of common voxels whose claim stays, and whether it passes.
    """
    voxels = [voxel for voxel in exact.r2 if np.isfinite([exact.r2[voxel], other.r2.get(voxel, np.nan)]).all()]
    change = np.array([other.r2[voxel] - exact.r2[voxel] for voxel in voxels])
    pairs = exact.tokens.keys() & other.tokens.keys()
    same = float(np.mean([len(exact.tokens[pair] & other.tokens[pair]) / len(exact.tokens[pair]) for pair in pairs]))
    claimed = exact.claims.keys() & other.claims.keys()
    largest = float(np.abs(change).max())
    return {
        "mean_r2_change": float(change.mean()),
        "largest_r2_change": largest,
        "same_critical_tokens": same,
        "same_claim": float(np.mean([exact.claims[voxel] == other.claims[voxel] for voxel in claimed])),
        "n_voxels": len(voxels),
        "n_pairs": len(pairs),
        "passes": largest <= MAX_R2_CHANGE and same >= MIN_SAME_TOKENS,
    }


def table(numbers: dict[str, dict[str, Any]]) -> str:
    """Formats the rows for the terminal."""
    lines = [f"{'arithmetic':<14}{'mean R2':>11}{'worst R2':>11}{'same tokens':>13}{'same claim':>12}  passes"]
    for name, row in numbers.items():
        shown = f"{row['mean_r2_change']:>+11.1e}{row['largest_r2_change']:>11.1e}{row['same_critical_tokens']:>13.2%}"
        lines.append(f"{name:<14}{shown}{row['same_claim']:>12.2%}  {'yes' if row['passes'] else 'no'}")
    return "\n".join(lines)


@contextlib.contextmanager
def emulated(arithmetic: str) -> Generator[None]:
    """Compiles products of float32 on this CPU as an accelerator computes them; what was compiled before stays.

    Args:
        arithmetic: "tf32", "bf16_3x" or "bf16", or "" for none. Products that ask for "highest" stay what they are.
    """
    # no public call of jax says how a primitive is lowered so far
    from jax._src.interpreters import mlir

    rules = mlir._platform_specific_lowerings["cpu"]
    before = {primitive: rules.get(primitive) for primitive in (lax.dot_general_p, lax.conv_general_dilated_p)}
    for primitive, known in before.items() if arithmetic else ():
        exact = (known or mlir._lowerings[primitive]).rule
        rule = functools.partial(_lowered, mlir.lower_fun, exact, primitive, arithmetic)
        mlir.register_lowering(primitive, rule, platform="cpu")
    try:
        yield
    finally:
        for primitive, known in before.items():
            rules.pop(primitive, None)
            if known is not None:
                rules[primitive] = known


def _lowered(
    lower_fun: Callable[..., Any],
    exact: Callable[..., Any],
    primitive: Any,
    arithmetic: str,
    ctx: Any,
    *operands: Any,
    **params: Any,
) -> Any:
    """Lowers one product: as it was where it is to be exact, else as a sum of exact products of rounded operands."""
    highest = (lax.Precision.HIGHEST,) * 2
    if params["precision"] == highest or any(aval.dtype != jnp.float32 for aval in ctx.avals_in):
        return exact(ctx, *operands, **params)

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        multiply = functools.partial(primitive.bind, **{**params, "precision": highest})
        return functools.reduce(jnp.add, [multiply(*pair) for pair in rounded(arithmetic, a, b)])

    return lower_fun(product, multiple_results=False)(ctx, *operands)


def rounded(arithmetic: str, a: jax.Array, b: jax.Array) -> Sequence[tuple[jax.Array, jax.Array]]:
    """Rounds the operands of a product.

    Args:
        arithmetic: "tf32", "bf16_3x" or "bf16".
        a: float32.
        b: float32.

    Returns:
        Pairs of operands whose products are added up: three of high and low halves for "bf16_3x", else one.
    """
    if arithmetic == "tf32":
        return [(lax.reduce_precision(a, *TF32), lax.reduce_precision(b, *TF32))]
    first, second = (lax.reduce_precision(x, *BF16) for x in (a, b))
    if arithmetic == "bf16":
        return [(first, second)]
    left, right = (lax.reduce_precision(x - high, *BF16) for x, high in ((a, first), (b, second)))
    return [(left, second), (first, right), (first, second)]


if __name__ == "__main__":
    sys.exit(main())
