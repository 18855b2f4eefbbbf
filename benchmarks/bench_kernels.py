"""The fused operations, each form beside the definition that it must equal.

Forms that a device is not written for are left out; on a CPU the kernels would run in an interpreter, which says
nothing about them. Sizes are those at which the definition still fits into memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np

from benchmarks import bench_ig
from benchmarks.cases import Case
from benchmarks.peaks import Product, Work, squares

HEADER = "equal work: one call of the operation; the reference is its definition in plain jax"
REFERENCE = "reference"
# Voxels, and pairs of a voxel and an image, at most: the definitions hold all numbers at once.
_MOST_VOXELS, _MOST_PAIRS = 4096, 4096
_CANDIDATES, _K = 3, 50


class _Kernel(NamedTuple):
    """How an operation is called, what it is given, what it cannot do without, and the forms that it has."""

    call: Callable[..., Any]
    inputs: Callable[[Case, np.random.Generator], dict[str, Any]]
    work: Callable[[Case], Work]
    forms: tuple[str, ...] = ("xla", "pallas")


def variants(case: Case) -> tuple[str, ...]:
    """Returns operation and form, such as "token_ig/xla", of all that this device runs."""
    del case
    others = () if jax.default_backend() == "gpu" else ("pallas",)
    return tuple(f"{name}/{form}" for name, kernel in _KERNELS.items() for form in kernel.forms if form not in others)


def inputs(case: Case, *, variant: str, seed: int = 0) -> dict[str, Any]:
    """Makes the arguments of one operation, on the device."""
    name, _, form = variant.partition("/")
    made = _KERNELS[name].inputs(case, np.random.default_rng(seed))
    return {"name": name, "form": form, "arguments": jax.tree.map(jnp.asarray, made)}


def implementations(case: Case, data: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Returns name -> call; results are all arrays that the operation gives."""
    del case
    forms = (data["form"], REFERENCE)
    programs = {form: jax.jit(functools.partial(_KERNELS[data["name"]].call, implementation=form)) for form in forms}

    def call(form: str) -> dict[str, Any]:
        with jax.default_matmul_precision("highest"):
            made = programs[form](**data["arguments"])
        return {"arrays": jax.tree.leaves(made)}

    return {form: functools.partial(call, form) for form in forms}


def compare(result: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Returns the largest difference of any array relative to its largest entry; of positions, the share that differs.

    An array that is zero but for rounding, as the gradient of a key bias, counts as a thousandth of the largest.
    """
    errors = []
    least = 1e-3 * max(np.abs(np.asarray(x)).max() for x in reference["arrays"] if np.asarray(x).dtype.kind == "f")
    for made, expected in zip(result["arrays"], reference["arrays"], strict=True):
        made, expected = np.asarray(made), np.asarray(expected)
        if expected.dtype.kind == "i":
            errors.append((made != expected).mean())
        else:
            errors.append(np.abs(made - expected).max() / max(np.abs(expected).max(), least))
    return {"max_abs_err": float(max(errors))}


def work(case: Case, data: dict[str, Any]) -> dict[str, Work]:
    """Counts the operations of the fused form; arguments are read once."""
    n_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(data["arguments"]))
    return {data["form"]: _KERNELS[data["name"]].work(case)._replace(memory=n_bytes)}


def products(case: Case, data: dict[str, Any]) -> tuple[Product, ...]:
    """Returns products of float32, in the precision of the calls."""
    del data
    return squares(case)


def finish(rows: list[dict[str, Any]], data: dict[str, Any]) -> list[dict[str, Any]]:
    """Names the operation."""
    return [{**row, "model": data["name"]} for row in rows]


def _attention_inputs(case: Case, rng: np.random.Generator) -> dict[str, Any]:
    v, heads, per_head = min(case.voxels, _MOST_VOXELS), case.heads, case.width // case.heads
    tokens = (case.batch, case.tokens, heads, per_head)
    return {
        "query": _normal(rng, v, heads, per_head) * per_head**-0.5,
        "position": _normal(rng, v, heads, case.tokens) * np.float32(0.3),
        "readout": _normal(rng, v, heads, per_head) * per_head**-0.5,
        "keys": _normal(rng, *tokens),
        "values": _normal(rng, *tokens),
    }


def _gradient_inputs(case: Case, rng: np.random.Generator) -> dict[str, Any]:
    made = _attention_inputs(case, rng)
    v = len(made["query"])
    return made | {"intercept": _normal(rng, v), "responses": _normal(rng, case.batch, v)}


def _trunk_inputs(case: Case, rng: np.random.Generator) -> dict[str, Any]:
    made = _gradient_inputs(case, rng)
    del made["keys"], made["values"]
    heads, per_head, width = case.heads, case.width // case.heads, case.width
    trunk = {f"{name}_weight": _normal(rng, width, heads, per_head) * width**-0.5 for name in ("key", "value")}
    trunk |= {f"{name}_bias": _normal(rng, heads, per_head) for name in ("key", "value")}
    return made | {"trunk": trunk, "states": _normal(rng, case.batch, case.tokens, width)}


def _attention_work(case: Case, *, products: int, projections: int = 0) -> Work:
    """So many products of voxels, tokens and width, and of tokens with the trunk; one exponential per logit."""
    logits = min(case.voxels, _MOST_VOXELS) * case.batch * case.tokens
    projected = 2.0 * projections * case.batch * case.tokens * case.width**2
    return Work(2.0 * products * logits * case.width + projected, 0.0, logits * case.heads)


def _pairs(case: Case) -> int:
    return min(case.ig_voxels * case.ig_images, _MOST_PAIRS)


def _path_inputs(case: Case, rng: np.random.Generator) -> dict[str, Any]:
    names = ("logits_0", "logits_1", "scalars_0", "scalars_1", "position")
    made = {name: _normal(rng, _pairs(case), case.heads, case.tokens) for name in names}
    nodes, weights = np.polynomial.legendre.leggauss(bench_ig.N_STEPS)
    return made | {"nodes": ((nodes + 1) / 2).astype(np.float32), "weights": (weights / 2).astype(np.float32)}


def _path_work(case: Case) -> Work:
    """The sweeps of `bench_ig.flop`."""
    sweeps = bench_ig.N_STEPS * _pairs(case) * case.tokens * case.heads
    return Work(13.0 * sweeps, 0.0, sweeps)


def _top_k(**arguments: Any) -> Any:
    return mine_kernels.token_ig_top_k(k=min(_K, arguments["logits_1"].shape[-1]), **arguments)


def _sweep_inputs(case: Case, rng: np.random.Generator) -> dict[str, Any]:
    folds, f, v = case.folds, case.width, min(case.voxels, _MOST_VOXELS)
    return {
        "factor": np.triu(_normal(rng, folds, f, f)) * np.float32(f**-0.5),
        "values": rng.uniform(0.1, 10, (folds, f)).astype(np.float32),
        "train": _normal(rng, folds, f, v),
        "valid": _normal(rng, folds, f, v),
        "share": np.full(folds, 1 / folds, np.float32),
        "penalties": np.exp(rng.uniform(-2, 4, (_CANDIDATES, v))).astype(np.float32),
    }


def _sweep_work(case: Case) -> Work:
    """Products with a triangle, and the scaling, of every voxel, fold and candidate."""
    f, v = case.width, min(case.voxels, _MOST_VOXELS)
    return Work(float(_CANDIDATES * case.folds * v * (f * (f + 1) + 6 * f)))


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


_KERNELS = {
    "voxel_attention": _Kernel(
        mine_kernels.voxel_attention, _attention_inputs, functools.partial(_attention_work, products=2)
    ),
    "voxel_attention_gradients": _Kernel(
        mine_kernels.voxel_attention_gradients, _gradient_inputs, functools.partial(_attention_work, products=6)
    ),
    "voxel_attention_trunk_gradients": _Kernel(
        mine_kernels.voxel_attention_trunk_gradients,
        _trunk_inputs,
        functools.partial(_attention_work, products=6, projections=4),
        ("xla",),
    ),
    "token_ig": _Kernel(mine_kernels.token_ig, _path_inputs, _path_work),
    "token_ig_top_k": _Kernel(_top_k, _path_inputs, _path_work),
    "ridge_sweep": _Kernel(mine_kernels.ridge_sweep, _sweep_inputs, _sweep_work),
}
