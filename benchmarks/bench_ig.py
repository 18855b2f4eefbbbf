"""Integrated gradients over image-tokens, beside captum and torch.func.vmap."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from benchmarks.cases import Case
from benchmarks.peaks import Work
from mine_jax import attribution
from mine_jax.attribution import blocks
from mine_jax.types import Architecture, Encoders, ImageTokens

if TYPE_CHECKING:
    import torch

HEADER = "Gauss-Legendre steps from the mean token, 32 in peers; slow peers are timed on one voxel and scaled to all"
REFERENCE = "captum_loop"
N_STEPS = 32
# Pairs whose completeness gap exceeds this share of the voxel's range get more steps.
TOLERANCE = 1e-4
# Voxels the slow peers are timed on; their time is scaled to all voxels.
PEER_VOXELS = 1
# Voxels that torch.func.vmap does at once.
VMAP_VOXELS = 4
# Voxels whose scores are known in float64.
_CHECKED_VOXELS = 256
# Pairs of these at most, since NumPy does one voxel after the other.
_CHECKED_PAIRS = 4096
# Critical tokens kept.
K = 50


def inputs(case: Case, *, seed: int = 0) -> dict[str, Any]:
    """Makes V encoders of H heads and the tokens of I images."""
    rng = np.random.default_rng(seed)
    heads, per_head = case.heads, case.width // case.heads

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    tokens = normal(case.ig_images, case.tokens, case.width)
    v = case.ig_voxels
    encoders = Encoders(
        shared={
            "key_weight": normal(case.width, heads, per_head, scale=case.width**-0.5),
            "key_bias": np.zeros((heads, per_head), np.float32),
            "value_weight": normal(case.width, heads, per_head, scale=case.width**-0.5),
            "value_bias": np.zeros((heads, per_head), np.float32),
        },
        per_voxel={
            "query": normal(v, heads, per_head),
            "position": normal(v, heads, case.tokens, scale=0.3),
            "readout": normal(v, heads, per_head, scale=per_head**-0.5),
            "intercept": normal(v),
        },
        baseline=tokens.mean((0, 1)),
        voxel_ids=np.arange(v),
        status=np.zeros(v, np.int8),
        architecture=Architecture("query"),
    )
    return {"encoders": encoders, "tokens": ImageTokens(tokens, np.array([str(i) for i in range(len(tokens))]))}


def implementations(case: Case, data: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Returns name -> call; results hold `scores` [V, I, P], and `scale` where only some voxels were done."""
    encoders, tokens = data["encoders"], data["tokens"]
    few = encoders.take(np.arange(min(PEER_VOXELS, case.ig_voxels)))
    factor, k = case.ig_voxels / len(few.voxel_ids), min(K, case.tokens // 2)

    def ours(
        chosen: Encoders, method: Literal["exact", "autodiff"] = "exact", scale: float = 1.0, n_steps: int = N_STEPS
    ) -> dict[str, Any]:
        with jax.default_matmul_precision("highest"):
            made = attribution.integrated_gradients(
                chosen, tokens, n_steps=n_steps, tolerance=TOLERANCE, max_steps=8 * n_steps, method=method
            )
        return {"scores": made.scores, "gap": made.completeness_gap, "scale": scale, "exact": exact, "range": spread}

    def top_k() -> dict[str, Any]:
        with jax.default_matmul_precision("highest"):
            critical, made = attribution.find_critical_tokens(encoders, tokens, k=k, n_steps=N_STEPS)
        expected = -np.sort(-exact, -1)[..., : critical.scores.shape[-1]]
        return {"scores": critical.scores, "gap": made.completeness_gap, "exact": expected, "range": spread}

    checked = encoders.take(np.arange(min(case.ig_voxels, _CHECKED_VOXELS, max(1, _CHECKED_PAIRS // case.ig_images))))
    exact, spread = _float64(checked, tokens)
    calls: dict[str, Callable[[], Any]] = {
        "mine_jax_exact": lambda: ours(encoders),
        "mine_jax_16_steps": lambda: ours(encoders, n_steps=16),
        "mine_jax_8_steps": lambda: ours(encoders, n_steps=8),
        f"mine_jax_top_{K}": top_k,
        "jax_vmap_of_grad": lambda: ours(few, "autodiff", factor),
    }
    if importlib.util.find_spec("captum") and importlib.util.find_spec("torch"):
        known = {"scale": factor, "exact": exact, "range": spread}
        some = encoders.take(np.arange(min(VMAP_VOXELS, case.ig_voxels)))
        calls["torch_func_vmap"] = _torch_vmap(some, tokens, known | {"scale": case.ig_voxels / len(some.voxel_ids)})
        calls["captum_loop"] = _captum(few, tokens, known)
    return calls


def compare(result: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Returns the largest error against float64 relative to the largest score, and the gap as a share of the range."""
    del reference
    n = min(len(result["scores"]), len(result["exact"]))
    error = np.abs(result["scores"][:n] - result["exact"][:n]).max() / np.abs(result["exact"][:n]).max()
    gap = (np.abs(result["gap"][:n]) / result["range"][:n, None]).max()
    return {"max_abs_err": float(error), "completeness_gap": float(gap)}


def flop(case: Case, n_steps: int) -> float:
    """Counts the FLOP of the closed form, for all pairs of V voxels and I images.

    With P tokens of width E (also that of all H heads together) and S steps:
        4 I P E^2      tokens projected to keys and values;
        4 V I P E      logits and value scalars;
        13 S V I P H   the sweeps, for each step, head and token: exponent 3, value scalar 2, their two
                       sums over tokens 3, attention 1, its two integrals 4.
    """
    pairs = case.ig_voxels * case.ig_images
    projected = 4.0 * case.ig_images * case.tokens * case.width**2
    return projected + case.tokens * pairs * (4.0 * case.width + 13.0 * n_steps * case.heads)


def work(case: Case, data: dict[str, Any]) -> dict[str, Work]:
    """Counts `flop`, tokens and scores once, and one exponential per step, head and token.

    Steps that are added for pairs above the tolerance are not counted.
    """
    pairs, n_tokens = case.ig_voxels * case.ig_images, case.tokens
    kept = {f"mine_jax_top_{K}": (N_STEPS, 2 * K), "mine_jax_exact": (N_STEPS, n_tokens)}
    kept |= {f"mine_jax_{n_steps}_steps": (n_steps, n_tokens) for n_steps in (16, 8)}
    return {
        name: Work(
            flop(case, n_steps),
            data["tokens"].tokens.nbytes + 4 * pairs * n_kept,
            pairs * n_tokens * case.heads * n_steps,
        )
        for name, (n_steps, n_kept) in kept.items()
    }


def planned(case: Case, data: dict[str, Any]) -> dict[str, int]:
    """Returns the bytes of the largest block of pairs, as attribution counts them."""
    pairs = min(blocks.pairs_at_once(data["encoders"], data["tokens"]), case.ig_voxels * case.ig_images)
    n_bytes = pairs * case.tokens * case.heads * blocks.BYTES_PER_ELEMENT
    return dict.fromkeys((f"mine_jax_top_{K}", "mine_jax_exact"), n_bytes)


def _float64(encoders: Encoders, tokens: ImageTokens, n_steps: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Scores [V, I, P] by NumPy in float64 with twice the steps, and the range of each voxel's predictions [V]."""
    shared, voxels = (
        {name: np.asarray(value, np.float64) for name, value in part.items()}
        for part in (encoders.shared, encoders.per_voxel)
    )
    states = np.concatenate([np.asarray(tokens.tokens, np.float64), np.asarray(encoders.baseline)[None, None] +
                             np.zeros((1, *tokens.tokens.shape[1:]))])  # fmt: skip
    keys, values = (np.einsum("ipd,dhe->ihpe", states, shared[f"{name}_weight"], optimize=True)
                    for name in ("key", "value"))  # fmt: skip
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    scores, spread = [], []
    for query, position, readout in zip(voxels["query"], voxels["position"], voxels["readout"], strict=True):
        logits = np.einsum("he,ihpe->ihp", query, keys) / query.shape[1] ** 0.5 + position
        scalars = np.einsum("he,ihpe->ihp", readout, values)
        change_l, change_u = logits[:-1] - logits[-1:], scalars[:-1] - scalars[-1:]
        predicted = (_softmax(logits) * scalars).sum((1, 2))
        total = np.zeros(change_l.shape)
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            attention = _softmax(logits[-1:] + node * change_l)
            moved = scalars[-1:] + node * change_u
            head = (attention * moved).sum(-1, keepdims=True)
            total += weight * attention * (change_u + change_l * (moved - head))
        scores.append(total.sum(1))
        spread.append(np.ptp(predicted))
    return np.stack(scores), np.array(spread)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def _torch_parts(encoders: Encoders, tokens: ImageTokens) -> tuple[Any, ...]:
    import torch

    shared = {name: torch.from_numpy(np.asarray(value)) for name, value in encoders.shared.items()}
    voxels = {name: torch.from_numpy(np.asarray(value)) for name, value in encoders.per_voxel.items()}
    images = torch.from_numpy(np.asarray(tokens.tokens))
    baseline = torch.from_numpy(np.asarray(encoders.baseline)).expand_as(images)

    def predict(voxel: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        keys = torch.einsum("bpd,dhe->bhpe", x, shared["key_weight"])
        values = torch.einsum("bpd,dhe->bhpe", x, shared["value_weight"])
        logits = torch.einsum("he,bhpe->bhp", voxel["query"], keys) / keys.shape[-1] ** 0.5
        attention = torch.softmax(logits + voxel["position"], -1)
        return (attention * torch.einsum("he,bhpe->bhp", voxel["readout"], values)).sum((1, 2))

    return voxels, images, baseline, predict


def _torch_vmap(encoders: Encoders, tokens: ImageTokens, known: dict[str, Any]) -> Callable[[], Any]:
    import torch

    voxels, images, baseline, predict = _torch_parts(encoders, tokens)
    nodes, weights = np.polynomial.legendre.leggauss(N_STEPS)
    gradient = torch.func.vmap(torch.func.grad(lambda voxel, x: predict(voxel, x).sum(), argnums=1), in_dims=(0, None))
    change = images - baseline

    def run() -> dict[str, Any]:
        total = torch.zeros(())
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            total = total + float(weight) * (gradient(voxels, baseline + float(node) * change) * change).sum(-1)
        ends = [torch.func.vmap(predict, in_dims=(0, None))(voxels, x) for x in (images, baseline)]
        gap = ends[0] - ends[1] - total.sum(-1)
        return {"scores": total.numpy(), "gap": gap.numpy(), **known}

    return run


def _captum(encoders: Encoders, tokens: ImageTokens, known: dict[str, Any]) -> Callable[[], Any]:
    from captum.attr import IntegratedGradients

    voxels, images, baseline, predict = _torch_parts(encoders, tokens)

    def run() -> dict[str, Any]:
        scores, gaps = [], []
        for v in range(len(voxels["query"])):
            one = {name: value[v] for name, value in voxels.items()}
            method = IntegratedGradients(lambda x, one=one: predict(one, x))
            made, gap = method.attribute(
                images, baseline, n_steps=N_STEPS, method="gausslegendre", return_convergence_delta=True,
                internal_batch_size=N_STEPS,
            )  # fmt: skip
            scores.append(made.sum(-1).numpy())
            gaps.append(gap.numpy())
        return {"scores": np.stack(scores), "gap": np.stack(gaps), **known}

    return run
