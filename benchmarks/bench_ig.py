"""Integrated gradients over image-tokens, beside captum on one voxel at a time."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.cases import Case
from mine_jax import attribution
from mine_jax.types import Architecture, Encoders, ImageTokens

HEADER = "equal work: 32 Gauss-Legendre steps from the mean token; slow peers are timed on one voxel and scaled to all"
REFERENCE = "captum_loop"
N_STEPS = 32
# Voxels the slow peers are timed on; their time is scaled to all voxels.
PEER_VOXELS = 1


def inputs(case: Case, *, seed: int = 0) -> dict[str, Any]:
    """Makes V encoders of H heads and the tokens of I images."""
    rng = np.random.default_rng(seed)
    heads, per_head = case.heads, case.width // case.heads

    def normal(*shape, scale=1.0):
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
    factor = case.ig_voxels / len(few.voxel_ids)

    def ours(chosen, method, scale=1.0):
        with jax.default_matmul_precision("highest"):
            made = attribution.integrated_gradients(chosen, tokens, n_steps=N_STEPS, max_steps=N_STEPS, method=method)
        return {"scores": made.scores, "gap": made.completeness_gap, "scale": scale}

    calls: dict[str, Callable[[], Any]] = {
        "mine_jax_exact": lambda: ours(encoders, "exact"),
        "jax_vmap_of_grad": lambda: ours(few, "autodiff", factor),
    }
    if importlib.util.find_spec("captum") and importlib.util.find_spec("torch"):
        calls["captum_loop"] = _captum(few, tokens, factor)
    return calls


def compare(result: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Returns the largest difference relative to the largest score, over the voxels both did."""
    n = min(len(result["scores"]), len(reference["scores"]))
    scale = np.abs(reference["scores"][:n]).max()
    error = np.abs(result["scores"][:n] - reference["scores"][:n]).max() / scale
    return {"max_abs_err": float(error), "completeness_gap": float(np.abs(result["gap"]).max())}


def _captum(encoders: Encoders, tokens: ImageTokens, scale: float) -> Callable[[], Any]:
    import torch
    from captum.attr import IntegratedGradients

    shared = {name: torch.from_numpy(np.asarray(value)) for name, value in encoders.shared.items()}
    voxels = {name: torch.from_numpy(np.asarray(value)) for name, value in encoders.per_voxel.items()}
    images = torch.from_numpy(np.asarray(tokens.tokens))
    baseline = torch.from_numpy(np.asarray(encoders.baseline)).expand_as(images)

    def predict(v, x):
        keys = torch.einsum("bpd,dhe->bhpe", x, shared["key_weight"])
        values = torch.einsum("bpd,dhe->bhpe", x, shared["value_weight"])
        logits = torch.einsum("he,bhpe->bhp", voxels["query"][v], keys) / keys.shape[-1] ** 0.5
        attention = torch.softmax(logits + voxels["position"][v], -1)
        return (attention * torch.einsum("he,bhpe->bhp", voxels["readout"][v], values)).sum((1, 2))

    def run():
        scores, gaps = [], []
        for v in range(len(voxels["query"])):
            method = IntegratedGradients(lambda x, v=v: predict(v, x))
            made, gap = method.attribute(
                images, baseline, n_steps=N_STEPS, method="gausslegendre", return_convergence_delta=True,
                internal_batch_size=N_STEPS,
            )  # fmt: skip
            scores.append(made.sum(-1).numpy())
            gaps.append(gap.numpy())
        return {"scores": np.stack(scores), "gap": np.stack(gaps), "scale": scale}

    return run
