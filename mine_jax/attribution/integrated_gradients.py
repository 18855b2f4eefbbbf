"""Integrated gradients of predicted responses over image-tokens, for all voxels and images.

Two methods with equal results: `exact` uses that keys and values are linear in a token, so
no gradient tensor [P, D] is ever formed; `autodiff` differentiates any encoder, also one of
kind "own" that a user wrote, and is the reference.
"""

from __future__ import annotations

import dataclasses
from typing import Unpack

import jax
import numpy as np
from jax.sharding import Mesh

from mine_jax import encoder, memory, sharding, statistics
from mine_jax._checks import takes
from mine_jax._progress import Progress, silent
from mine_jax.attribution import blocks
from mine_jax.attribution.methods import METHODS, How, Integrals
from mine_jax.attribution.path import OF_ARRAYS, Path, PathSettings, check_settings
from mine_jax.memory.chunks import Chunks
from mine_jax.types import Attributions, Encoders, ImageTokens


@takes(OF_ARRAYS, encoders=Encoders, tokens=ImageTokens)
def integrated_gradients(
    encoders: Encoders,
    tokens: ImageTokens,
    *,
    image_ids: np.ndarray | None = None,
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
    **path: Unpack[PathSettings],
) -> Attributions:
    """Attributes each voxel's predicted response to image-tokens.

    Integrates the gradient of h(v, x) along the straight line from the baseline to the
    image's tokens and sums over token width.

    Args:
        encoders: V fitted encoders.
        tokens: image-tokens [N, P, D], any float dtype; computed in float32.
        image_ids: [V, I] images of each voxel; None for all images.
        voxel_chunk: voxels held in memory at once. Memory only, never the result.
        image_chunk: images of a voxel held at once. Memory only, never the result.
        mesh: devices of `sharding.mesh`; if they belong to several processes, all must call this.
            None for one device. Never the result.
        progress: called with (done, total) voxels.
        **path: `baseline`, start of the path, [D] or [P, D], "mean" (default, mean training token) or
            "zero"; `n_steps`, quadrature points S (32); `max_steps` (256), up to which pairs get more
            points whose completeness gap exceeds `tolerance` (1e-3), a share of the range of the
            voxel's predictions; `method`, "exact" or "autodiff"; `quadrature`, "gausslegendre" or
            "midpoint"; `reduce`, "sum" (default), which keeps the sign and completeness, or "abs",
            which sums absolute values over D (autodiff only).

    Returns:
        Attributions: scores [V, I, P] float32 in units of predicted response (z-scored beta),
        completeness_gap [V, I] = h(x) - h(baseline) - sum of scores, 0 when exact.

    Raises:
        DataError: if the tokens have another width than the encoders, or an image has none.
        TypeError: for an unknown keyword.
        ValueError: for an unknown method or a reduction the method cannot do.

    Source: Sundararajan et al. 2017, eq. 1; MINE, critical tokens. Differs from the parent
    method: signed sum over D; pass `reduce="abs"`, `method="autodiff"` for the absolute sum.
    """
    check_settings(path, Path)
    rows = blocks.image_rows(tokens, image_ids, len(encoders.voxel_ids))
    chunks = Chunks(voxel_chunk, image_chunk, mesh)
    integrals = integrate(encoders, tokens, rows, Path(**path), chunks, progress=progress)
    return integrals.attributions(encoders.voxel_ids, tokens.image_ids[rows])


def integrate(
    encoders: Encoders,
    tokens: ImageTokens,
    rows: np.ndarray,
    path: Path,
    chunks: Chunks,
    *,
    k: int | None = None,
    progress: Progress = silent,
) -> Integrals:
    """Attributes all pairs, those of each voxel in one process.

    Args:
        encoders: V fitted encoders.
        tokens: image-tokens [N, P, D].
        rows: positions [V, I] in `tokens` of each voxel's images.
        path: settings.
        chunks: what is held at once.
        k: how many scores are kept; None for all.
        progress: called with (done, total) voxels.

    Returns:
        Host arrays [V, I], scores [V, I, P], or with `k` indices and scores [V, I, K].

    Raises:
        DataError: if the tokens have another width than the encoders, or the baseline another shape.
        ValueError: for encoders that the method cannot read.
    """
    if path.method == "exact" and not encoder.model(encoders.architecture).has_token_terms:
        raise ValueError('encoders of kind "own" need `method="autodiff"`: nothing is known of how they read tokens.')
    here = dataclasses.replace(chunks, mesh=sharding.local(chunks.mesh))
    return sharding.divided(
        lambda voxels: _integrate(encoders.take(voxels), tokens, rows[voxels], path, here, k=k, progress=progress),
        len(encoders.voxel_ids),
        chunks.mesh,
    )


def _integrate(
    encoders: Encoders,
    tokens: ImageTokens,
    rows: np.ndarray,
    path: Path,
    chunks: Chunks,
    *,
    k: int | None,
    progress: Progress,
) -> Integrals:
    """Attributes the pairs of this process; those above the tolerance again."""
    n_steps = path.n_steps
    flat = _attribute(encoders, tokens, blocks.pairs_of(rows), path, n_steps, chunks, k=k, progress=progress)
    integrals = jax.tree.map(lambda array: array.reshape(*rows.shape, *array.shape[1:]), flat)
    while path.reduce == "sum" and n_steps < path.max_steps:
        late = _above_tolerance(integrals, path.tolerance)
        if not len(late):
            break
        n_steps = min(2 * n_steps, path.max_steps)
        refined = _attribute(encoders, tokens, blocks.pairs_of(rows, only=late), path, n_steps, chunks, k=k)
        for values, better in zip(jax.tree.leaves(flat), jax.tree.leaves(refined), strict=True):
            values[late] = better  # also in `integrals`, whose arrays are views
    return integrals


def _attribute(
    encoders: Encoders,
    tokens: ImageTokens,
    pairs: blocks.Pairs,
    path: Path,
    n_steps: int,
    chunks: Chunks,
    *,
    k: int | None,
    progress: Progress = silent,
) -> Integrals:
    """Attributes n pairs with so many steps, as many at once as fit; returns host arrays [n, ...]."""
    compute, how = METHODS[path.method], How(encoders.architecture, path.reduce, k)
    needs_states = path.method == "autodiff"
    start = blocks.start_of(encoders, path.baseline, tokens.tokens.shape[1], needs_states=needs_states)
    steps = sharding.whole(path.steps(start, n_steps), chunks.mesh)

    def attribute(room: int) -> Integrals:
        listed = blocks.blocks_of(
            encoders, tokens, pairs, chunks, room=room, needs_states=needs_states, progress=progress
        )
        results = ((positions, compute(block, steps, how=how, mesh=chunks.mesh)) for positions, block in listed)
        return blocks.gathered(results, len(pairs.voxels))

    room = blocks.pairs_at_once(encoders, tokens, needs_states=needs_states)
    return memory.halving(attribute, room, setting="pairs at once")


def _above_tolerance(integrals: Integrals, tolerance: float) -> np.ndarray:
    """Returns positions [n] of pairs whose gap exceeds the tolerated share of the voxel's range."""
    predicted, baseline = np.asarray(integrals.predicted), np.asarray(integrals.predicted_baseline)
    allowed = tolerance * statistics.prediction_range(predicted, baseline)
    return np.flatnonzero(np.abs(integrals.completeness_gap) > allowed[:, None])
