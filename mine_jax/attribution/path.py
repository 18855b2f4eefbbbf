"""Integrates all pairs along the path from the baseline to the image, with more steps where they are needed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
from jax.sharding import Mesh

from mine_jax import encoder, memory, sharding
from mine_jax._progress import Progress, silent
from mine_jax.attribution import blocks
from mine_jax.attribution import terms as token_terms
from mine_jax.attribution.quadrature import nodes_and_weights
from mine_jax.types import Architecture, Encoders, ImageTokens


def integrate(
    encoders: Encoders,
    tokens: ImageTokens,
    *,
    k: int | None = None,
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
    mesh: Mesh | None = None,
    progress: Progress = silent,
) -> dict[str, np.ndarray]:
    """Attributes all pairs; arguments as for `integrated_gradients`, and `k`, how many scores are kept, None for all.

    Returns `rows` [V, I], `predicted`, `predicted_baseline`, `completeness_gap` [V, I] and `scores`
    [V, I, P], or with `k` `indices` and `scores` [V, I, K], best first.
    """
    if method not in ("exact", "autodiff") or reduce not in ("sum", "abs") or (method, reduce) == ("exact", "abs"):
        raise ValueError(f"`method` {method!r} with `reduce` {reduce!r}: use exact with sum, or autodiff with either.")
    if method == "exact" and not encoder.model(encoders.architecture).has_token_terms:
        raise ValueError('encoders of kind "own" need `method="autodiff"`: nothing is known of how they read tokens.')
    n_voxels = len(encoders.voxel_ids)
    rows = blocks.image_rows(tokens, image_ids, n_voxels)
    how = {"k": k, "baseline": baseline, "n_steps": n_steps, "max_steps": max_steps, "tolerance": tolerance}
    how |= {"method": method, "quadrature": quadrature, "reduce": reduce, "mesh": sharding.local(mesh)}
    how |= {"voxel_chunk": voxel_chunk, "image_chunk": image_chunk, "progress": progress}
    made = sharding.divided(lambda some: _integrate(encoders.take(some), tokens, rows[some], **how), n_voxels, mesh)
    return {"rows": rows, **made}


def _integrate(
    encoders,
    tokens,
    rows,
    *,
    k,
    baseline,
    n_steps,
    max_steps,
    tolerance,
    method,
    quadrature,
    reduce,
    progress,
    **options,
) -> dict[str, np.ndarray]:
    n_tokens = tokens.tokens.shape[1]
    start = blocks.baseline_states(encoders, baseline, n_tokens)
    out: dict[str, np.ndarray] = {
        name: np.zeros(rows.shape, np.float32) for name in ("predicted", "predicted_baseline", "completeness_gap")
    }
    out["scores"] = np.zeros((*rows.shape, n_tokens if k is None else k), np.float32)
    if k is not None:
        out["indices"] = np.zeros((*rows.shape, k), np.int32)
    start = (
        blocks.features_of(encoders, start) if method == "exact" else jnp.broadcast_to(start, tokens.tokens.shape[1:])
    )
    attribute = functools.partial(
        _attribute,
        _compute(encoders.architecture, method, reduce, k),
        encoders,
        tokens,
        needs_states=method == "autodiff",
        **options,
    )
    pairs = blocks.pairs_of(rows)
    attribute(pairs, np.arange(rows.size), out, _path(start, n_steps, quadrature), progress=progress)
    steps = n_steps
    while reduce == "sum" and steps < max_steps and len(late := _above_tolerance(out, tolerance)):
        steps = min(2 * steps, max_steps)
        chosen = blocks.Pairs(pairs.voxels[late], pairs.images[late])
        attribute(chosen, late, out, _path(start, steps, quadrature), progress=silent)
    return out


def _attribute(
    compute, encoders, tokens, pairs: blocks.Pairs, positions, out, path, *, needs_states, **options
) -> None:
    """Writes the results of pairs to their positions in `out`."""

    def fill(room: int) -> None:
        options.update(room=room, needs_states=needs_states)
        for block, made in blocks.map_blocks(compute, encoders, tokens, pairs, path, **options):
            for name, value in made.items():
                out[name].reshape(-1, *out[name].shape[2:])[positions[block]] = value

    room = blocks.pairs_at_once(encoders, tokens, needs_states=needs_states)
    memory.halving(fill, room, setting="pairs at once")


def _path(start: Any, n_steps: int, quadrature: str) -> dict[str, Any]:
    nodes, weights = nodes_and_weights(n_steps, quadrature)
    return {"start": start, "nodes": jnp.asarray(nodes, jnp.float32), "weights": jnp.asarray(weights, jnp.float32)}


@functools.lru_cache(maxsize=32)
def _compute(architecture: Architecture, method: str, reduce: str, k: int | None) -> Callable[..., Any]:
    """Returns the jitted function of a block; see `blocks.map_blocks`."""

    def exact(shared, path, voxels, images, is_grid):
        terms = token_terms.block_terms(shared, path["start"], voxels, images, architecture, is_grid=is_grid)
        before, after = terms.start, terms.image
        ends = (after.predicted, jnp.broadcast_to(before.predicted, after.predicted.shape))
        if not blocks.is_query(architecture):
            # the gradient of a linear encoder is the same all along the path
            return _kept((after.scalars - before.scalars)[..., 0, :], k), *ends

        def integral(logits_0, logits_1, scalars_0, scalars_1, position, cells):
            given = (logits_0, logits_1, scalars_0, scalars_1, position, path["nodes"], path["weights"])
            if k is None:
                scores = mine_kernels.token_ig(*given, cells=cells)
                return None, scores, jax.lax.optimization_barrier(scores).sum(-1)
            return mine_kernels.token_ig_top_k(*given, k=k, cells=cells)

        arrays = (before.logits, after.logits, before.scalars, after.scalars, terms.position, terms.cells)
        if terms.cells is not None and terms.cells.ndim == 3:  # every image averages its own real tokens
            return jax.vmap(integral)(*(jnp.broadcast_to(x, (len(after.logits), *x.shape[1:])) for x in arrays)), *ends
        return integral(*arrays), *ends

    def autodiff(shared, path, voxels, images, is_grid):
        one = functools.partial(_autodiff_one, shared, path, architecture=architecture, reduce=reduce)
        scores, *ends = blocks.over_pairs(one, is_grid)(voxels, images)
        return _kept(scores, k), *ends

    def block(shared, path, per_voxel, voxels, images):
        chosen = {name: value[voxels] for name, value in per_voxel.items()}
        compute = exact if method == "exact" else autodiff
        (indices, scores, total), after, before = compute(shared, path, chosen, images, voxels.ndim == 1)
        made = {"scores": scores, "predicted": after, "predicted_baseline": before}
        made["completeness_gap"] = after - before - total
        return made if k is None else made | {"indices": indices}

    return jax.jit(block)


def _autodiff_one(shared, path, voxel, image: blocks.Images, *, architecture: Architecture, reduce: str):
    """Returns scores [P], h(x) and h(x') of one pair, for any encoder that is differentiable in the tokens."""
    start, states = path["start"], image.states

    def predict(x):
        return encoder.model(architecture).predict_one(shared, voxel, x, image.mask, architecture)

    def step(total, node):
        share, weight = node
        return total + weight * jax.grad(predict)(start + share * (states - start)), None

    gradient, _ = jax.lax.scan(step, jnp.zeros_like(states), (path["nodes"], path["weights"]))
    scores = gradient * (states - start)
    return (jnp.abs(scores) if reduce == "abs" else scores).sum(-1), predict(states), predict(start)


def _kept(scores, k: int | None):
    """Returns indices, scores and the sum of all scores; without `k` no indices and all scores."""
    scores = jax.lax.optimization_barrier(scores)
    if k is None:
        return None, scores, scores.sum(-1)
    indices = mine_kernels.top_k(scores, k=k)
    return indices, jnp.take_along_axis(scores, indices, -1), scores.sum(-1)


def _above_tolerance(out: dict[str, np.ndarray], tolerance: float) -> np.ndarray:
    """Positions [n] of pairs whose gap exceeds the tolerated share of the voxel's range."""
    every = np.concatenate([out["predicted"], out["predicted_baseline"]], 1)
    allowed = tolerance * np.maximum(np.ptp(every, axis=1), 1e-12)
    return np.flatnonzero(np.abs(out["completeness_gap"]) > allowed[:, None])
