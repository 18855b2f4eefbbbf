"""Integrated gradients of predicted responses over image-tokens, for all voxels and images.

Two paths with equal results: `exact` uses that keys and values are linear in a token, so
no gradient tensor [P, D] is ever formed; `autodiff` differentiates any encoder and is the
reference. Both are written for one voxel and one image and vmapped over the pairs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np

from mine_jax import encoder
from mine_jax._progress import Progress, silent
from mine_jax._quadrature import nodes_and_weights
from mine_jax.attribution import _pairs
from mine_jax.types import Architecture, Attributions, Encoders, ImageTokens


def integrated_gradients(
    encoders: Encoders,
    tokens: ImageTokens,
    *,
    image_ids: np.ndarray | None = None,
    baseline: Any = None,
    n_steps: int = 32,
    max_steps: int = 256,
    tolerance: float = 1e-3,
    method: str = "exact",
    quadrature: str = "gausslegendre",
    reduce: str = "sum",
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    progress: Progress = silent,
) -> Attributions:
    """Attributes each voxel's predicted response to image-tokens.

    Integrates the gradient of h(v, x) along the straight line from the baseline to the
    image's tokens and sums over token width.

    Args:
        encoders: V fitted encoders.
        tokens: image-tokens [N, P, D], any float dtype; computed in float32.
        image_ids: [V, I] images of each voxel; None for all images.
        baseline: start of the path, [D] or [P, D], "mean" or "zero". Default: mean training token.
        n_steps: quadrature points S.
        max_steps: pairs whose completeness gap exceeds `tolerance` get more points, up to this.
        tolerance: allowed gap as a share of the range of the voxel's predictions.
        method: "exact" or "autodiff".
        quadrature: "gausslegendre" or "midpoint".
        reduce: "sum" keeps the sign and completeness; "abs" sums absolute values over D (autodiff only).
        voxel_chunk: voxels held in memory at once. Memory only, never the result.
        image_chunk: images of a voxel held at once. Memory only, never the result.
        progress: called with (done, total) voxels.

    Returns:
        Attributions: scores [V, I, P] float32 in units of predicted response (z-scored beta),
        completeness_gap [V, I] = h(x) - h(baseline) - sum of scores, 0 when exact.

    Raises:
        DataError: if the tokens have another width than the encoders, or an image has none.
        ValueError: for an unknown method or a reduction the method cannot do.

    Source: Sundararajan et al. 2017, eq. 1; MINE, critical tokens. Differs from the parent
    method: signed sum over D; pass `reduce="abs"`, `method="autodiff"` for the absolute sum.
    """
    if method not in ("exact", "autodiff") or reduce not in ("sum", "abs") or (method, reduce) == ("exact", "abs"):
        raise ValueError(f"`method` {method!r} with `reduce` {reduce!r}: use exact with sum, or autodiff with either.")
    n_voxels, n_tokens = len(encoders.voxel_ids), tokens.tokens.shape[1]
    rows = _pairs.image_rows(tokens, image_ids, n_voxels)
    start = _pairs.baseline_states(encoders, baseline, n_tokens)
    shape = rows.shape
    out = {
        "scores": np.zeros((*shape, n_tokens), np.float32),
        "predicted": np.zeros(shape, np.float32),
        "predicted_baseline": np.zeros(shape, np.float32),
    }
    one, path = _one_pair(encoders.architecture, method, reduce), _path(start, n_steps, quadrature)
    for v, i, block in _pairs.map_pairs(
        one, encoders, tokens, rows, path, voxel_chunk=voxel_chunk, image_chunk=image_chunk, progress=progress
    ):
        for name, value in zip(out, block, strict=True):
            out[name][v, i] = value
    steps = n_steps
    while reduce == "sum" and steps < max_steps and len(late := _above_tolerance(out, tolerance)):
        steps = min(2 * steps, max_steps)
        _refine(out, late, one, _path(start, steps, quadrature), encoders, tokens, rows)
    return Attributions(
        voxel_ids=np.asarray(encoders.voxel_ids),
        image_ids=tokens.image_ids[rows],
        completeness_gap=_gap(out),
        **out,
    )


def _path(start: jax.Array, n_steps: int, quadrature: str) -> dict[str, jax.Array]:
    nodes, weights = nodes_and_weights(n_steps, quadrature)
    return {"start": start, "nodes": jnp.asarray(nodes, jnp.float32), "weights": jnp.asarray(weights, jnp.float32)}


@functools.lru_cache(maxsize=32)
def _one_pair(architecture: Architecture, method: str, reduce: str) -> Callable[..., Any]:
    """Returns the function of one voxel and one image: scores [P], h(x), h(x')."""
    model = encoder.model(architecture)

    def exact(shared, path, voxel, states, mask):
        cells = _pairs.cell_weights(architecture, len(states), mask)
        logits_1, scalars_1 = model.token_terms_one(shared, voxel, states, cells, architecture)
        logits_0, scalars_0 = model.token_terms_one(shared, voxel, path["start"], cells, architecture)
        after = model.readout_one(shared, logits_1, scalars_1, voxel, cells, architecture)
        before = model.readout_one(shared, logits_0, scalars_0, voxel, cells, architecture)
        if architecture.kind == "ridge":
            # the gradient of a linear encoder is the same all along the path
            return (scalars_1 - scalars_0)[0], after, before
        terms = (logits_0, logits_1, scalars_0, scalars_1)
        scores = mine_kernels.token_ig(*terms, voxel["position"], path["nodes"], path["weights"], cells=cells)
        return scores, after, before

    def autodiff(shared, path, voxel, states, mask):
        start = path["start"]

        def predict(x):
            return model.predict_one(shared, voxel, x, mask, architecture)

        def step(total, node):
            share, weight = node
            return total + weight * jax.grad(predict)(start + share * (states - start)), None

        gradient, _ = jax.lax.scan(step, jnp.zeros_like(states), (path["nodes"], path["weights"]))
        scores = gradient * (states - start)
        return (jnp.abs(scores) if reduce == "abs" else scores).sum(-1), predict(states), predict(start)

    return exact if method == "exact" else autodiff


def _gap(out: dict[str, np.ndarray]) -> np.ndarray:
    return (out["predicted"] - out["predicted_baseline"] - out["scores"].sum(-1, dtype=np.float64)).astype(np.float32)


def _above_tolerance(out: dict[str, np.ndarray], tolerance: float) -> np.ndarray:
    """Positions [n, 2] of pairs whose gap exceeds the tolerated share of the voxel's range."""
    every = np.concatenate([out["predicted"], out["predicted_baseline"]], 1)
    allowed = tolerance * np.maximum(np.ptp(every, axis=1), 1e-12)
    return np.argwhere(np.abs(_gap(out)) > allowed[:, None])


def _refine(out, late, one, path, encoders, tokens, rows) -> None:
    """Computes some pairs again; each counts as a voxel of its own with a single image."""
    chosen = encoders.take(late[:, 0])
    for v, _, block in _pairs.map_pairs(
        one, chosen, tokens, rows[late[:, 0], late[:, 1]][:, None], path, voxel_chunk=64, image_chunk=1, progress=silent
    ):
        for name, value in zip(out, block, strict=True):
            out[name][late[v, 0], late[v, 1]] = value[:, 0]
