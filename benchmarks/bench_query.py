"""One training step of the query encoder with a learned trunk, beside torch's multi-head attention.

The peer is the straightforward form: project queries, keys and values, scaled dot-product
attention for every voxel, output projection, readout and backward. Same mathematics:
here queries and readouts are folded through the projections, and forward, loss and
backward happen in one pass over voxel chunks.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np

from benchmarks.cases import Case
from benchmarks.peaks import Product, Work, squares

if TYPE_CHECKING:
    import torch

HEADER = "equal work: one step on one batch; loss and the gradients of all parameters"
REFERENCE = "torch_mha"
_NAMES = ("query", "readout", "intercept", "key_weight", "value_weight", "query_weight", "output_weight")


def inputs(case: Case, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Makes tokens [B, P, E], responses [B, V] and parameters."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    width, spread = case.width, case.width**-0.5
    return {
        "tokens": normal(case.batch, case.tokens, width),
        "responses": normal(case.batch, case.voxels),
        "query": normal(case.voxels, width),
        "readout": normal(case.voxels, width, scale=spread),
        "intercept": normal(case.voxels),
        **{name: normal(width, width, scale=spread) for name in _NAMES[3:]},
    }


def implementations(case: Case, data: dict[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
    """Returns name -> call that gives the loss and the gradients."""
    on_device = {name: jnp.asarray(value) for name, value in data.items()}
    calls: dict[str, Callable[[], Any]] = {
        "mine_jax": lambda: _step(on_device, heads=case.heads),
        "jax_naive": lambda: _naive_step(on_device, heads=case.heads),
    }
    if importlib.util.find_spec("torch"):
        calls["torch_mha"] = _torch(case, data)
    return calls


def compare(result: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Returns the largest difference of any gradient, relative to the largest entry of that gradient."""
    errors = [
        np.abs(np.asarray(result[name]) - np.asarray(reference[name])).max() / np.abs(np.asarray(reference[name])).max()
        for name in _NAMES
    ]
    return {"max_abs_err": float(max(errors))}


def flop(case: Case) -> float:
    """Counts the FLOP of the matrix products of one fused step with a learned trunk.

    With B images, P tokens, width E and V voxels:
        12 V E^2    queries and readouts folded through two projections, and both gradients of each;
        4 B P E^2   tokens projected to keys and values;
        12 B P V E  logits, value scalars, and the gradients of queries, readouts, keys and values;
        4 B P E^2   gradients of the key and value weights.
    """
    b, p, e, v = case.batch, case.tokens, case.width, case.voxels
    return 12.0 * v * e**2 + 8.0 * b * p * e**2 + 12.0 * b * p * v * e


def work(case: Case, data: dict[str, np.ndarray]) -> dict[str, Work]:
    """Counts `flop`, all inputs and gradients once, and one exponential per logit."""
    parameters = sum(data[name].nbytes for name in _NAMES)
    n_bytes = data["tokens"].nbytes + data["responses"].nbytes + 2 * parameters
    return {"mine_jax": Work(flop(case), n_bytes, case.batch * case.tokens * case.voxels * case.heads)}


def products(case: Case, data: dict[str, np.ndarray]) -> tuple[Product, ...]:
    """Returns products in the default precision of the device, which the step uses."""
    del data
    return squares(case, precision=None)


@functools.partial(jax.jit, static_argnames=("heads",))
def _step(d: dict[str, jax.Array], *, heads: int) -> dict[str, jax.Array]:
    width = d["query"].shape[1]
    per_head = width // heads

    def fold(p: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        query = (p["query"] @ p["query_weight"]).reshape(-1, heads, per_head) * per_head**-0.5
        return query, (p["readout"] @ p["output_weight"].T).reshape(-1, heads, per_head)

    folded = ("query", "readout", "query_weight", "output_weight")
    (query, readout), pull = jax.vjp(fold, {name: d[name] for name in folded})
    trunk = {name: d[name].reshape(width, heads, per_head) for name in ("key_weight", "value_weight")}
    trunk |= dict.fromkeys(("key_bias", "value_bias"), jnp.zeros((heads, per_head)))
    loss, g = mine_kernels.voxel_attention_trunk_gradients(
        query, None, readout, d["intercept"], trunk, d["tokens"], d["responses"]
    )
    (gradients,) = pull((g["query"], g["readout"]))
    projections = {name: g[name].reshape(width, width) for name in ("key_weight", "value_weight")}
    return {"loss": loss.sum(), **gradients, **projections, "intercept": g["intercept"]}


@functools.partial(jax.jit, static_argnames=("heads",))
def _naive_step(d: dict[str, jax.Array], *, heads: int) -> dict[str, jax.Array]:
    def loss(p: dict[str, jax.Array]) -> jax.Array:
        return ((_attend(p, d["tokens"], heads) - d["responses"]) ** 2).mean(0).sum()

    value, gradients = jax.value_and_grad(loss)({name: d[name] for name in _NAMES})
    return {"loss": value, **gradients}


def _attend(p: dict[str, jax.Array], tokens: jax.Array, heads: int) -> jax.Array:
    batch, n_tokens, width = tokens.shape
    per_head = width // heads
    query = (p["query"] @ p["query_weight"]).reshape(-1, heads, per_head)
    keys = (tokens @ p["key_weight"]).reshape(batch, n_tokens, heads, per_head)
    values = (tokens @ p["value_weight"]).reshape(batch, n_tokens, heads, per_head)
    attention = jax.nn.softmax(jnp.einsum("vhe,bphe->bhvp", query, keys) * per_head**-0.5, -1)
    attended = jnp.einsum("bhvp,bphe->bvhe", attention, values).reshape(batch, -1, width)
    return jnp.einsum("bve,ve->bv", attended @ p["output_weight"], p["readout"]) + p["intercept"][None]


def _torch(case: Case, data: dict[str, np.ndarray]) -> Callable[[], Any]:
    import torch

    d = {name: torch.from_numpy(value) for name, value in data.items()}
    parameters = {name: d[name].clone().requires_grad_() for name in _NAMES}
    per_head = case.width // case.heads

    def split(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(*x.shape[:-1], case.heads, per_head).transpose(-2, -3)

    def step() -> dict[str, Any]:
        p = parameters
        query = split(p["query"] @ p["query_weight"]).expand(case.batch, -1, -1, -1)
        keys, values = (split(d["tokens"] @ p[name]) for name in ("key_weight", "value_weight"))
        attended = torch.nn.functional.scaled_dot_product_attention(query, keys, values)
        attended = attended.transpose(1, 2).reshape(case.batch, case.voxels, case.width) @ p["output_weight"]
        predicted = (attended * p["readout"]).sum(-1) + p["intercept"]
        loss = ((predicted - d["responses"]) ** 2).mean(0).sum()
        gradients = torch.autograd.grad(loss, list(p.values()))
        return {"loss": loss.detach(), **{n: g.numpy() for n, g in zip(p, gradients, strict=True)}}

    return step
