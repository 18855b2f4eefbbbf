"""Integrates all pairs along the path from the baseline to the image, with more steps where they are needed."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from mine_jax import encoder, memory, sharding
from mine_jax._progress import Progress, silent
from mine_jax.attribution import blocks
from mine_jax.attribution.methods import METHODS, How, Integrals
from mine_jax.attribution.path import Path
from mine_jax.memory.chunks import Chunks
from mine_jax.types import Encoders, ImageTokens


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
    every = np.concatenate([integrals.predicted, integrals.predicted_baseline], 1)
    allowed = tolerance * np.maximum(np.ptp(every, axis=1), 1e-12)
    return np.flatnonzero(np.abs(integrals.completeness_gap) > allowed[:, None])
