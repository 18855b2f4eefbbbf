"""Activation patching: responses after tokens are replaced by the baseline, or only they are kept.

All points of both curves come from the same cached logits and value scalars of a pair:
patching a token swaps its two numbers per head, so a point costs O(P H).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mine_jax import encoder
from mine_jax._progress import Progress, silent
from mine_jax.attribution import _pairs
from mine_jax.types import Attributions, Encoders, Faithfulness, ImageTokens

ORDERS = ("ig", "random", "lowest")
# |h(x) - h(x')| below this share of the voxel's range says nothing about faithfulness.
_MIN_SHARE = 0.02


def patch_tokens(
    encoders: Encoders,
    tokens: ImageTokens,
    attributions: Attributions,
    *,
    k: int = 50,
    sufficiency: float = 0.9,
    n_random: int = 5,
    baseline: Any = None,
    seed: int = 0,
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    progress: Progress = silent,
) -> Faithfulness:
    """Measures necessity and sufficiency of tokens, and pair faithfulness.

    Tokens are patched in three orders: highest scores first, random, lowest first.

    Args:
        encoders: the V encoders that were attributed.
        tokens: image-tokens [N, P, D].
        attributions: scores [V, I, P] of the same encoders.
        k: tokens of the critical set S (at most P).
        sufficiency: level that defines the adaptive K, as a share of h(x) - h(x').
        n_random: random orders averaged.
        baseline: as for the attributions.
        seed: of the random orders.
        voxel_chunk: voxels held at once. Memory only, never the result.
        image_chunk: images of a voxel held at once. Memory only, never the result.
        progress: called with (done, total) voxels.

    Returns:
        Faithfulness: curves [V, I, C] in predicted response (z-scored beta) at C numbers of
        tokens, faithfulness [V, I] of the critical set, adaptive K [V, I].

    Source: MINE, activation patching with random and lowest-IG controls.
    """
    n_voxels, n_tokens = len(encoders.voxel_ids), tokens.tokens.shape[1]
    k = min(k, n_tokens)
    k_values = curve_points(n_tokens, k)
    rows = _pairs.image_rows(tokens, attributions.image_ids, n_voxels)
    start = _pairs.baseline_states(encoders, baseline, n_tokens)
    rng = np.random.default_rng(seed)
    random_ranks = np.stack([rng.permutation(n_tokens) for _ in range(n_random)]).astype(np.int32)
    common = {"start": start, "k_values": jnp.asarray(k_values), "random_ranks": jnp.asarray(random_ranks)}
    shape = (*rows.shape, len(k_values))
    curves = {name: {order: np.zeros(shape, np.float32) for order in ORDERS} for name in ("necessity", "sufficiency")}
    kept, every = np.zeros(rows.shape, np.float32), np.zeros((*rows.shape, n_tokens), np.float32)
    scores = (np.nan_to_num(attributions.scores, nan=-np.inf),)
    one = _one_pair(encoders.architecture, k)
    for v, i, out in _pairs.map_pairs(
        one, encoders, tokens, rows, common, scores, voxel_chunk=voxel_chunk, image_chunk=image_chunk, progress=progress
    ):
        for name, by_order in curves.items():
            for order in ORDERS:
                by_order[order][v, i] = out[name][order]
        kept[v, i], every[v, i] = out["kept"], out["every"]
    return Faithfulness(
        faithfulness=_share(kept, attributions),
        k_adaptive=_smallest_k(_share(every, attributions), sufficiency),
        k_values=k_values,
        **curves,
    )


def curve_points(n_tokens: int, k: int) -> np.ndarray:
    """Returns the numbers of tokens at which curves are drawn, [C] int32; includes 0, K and P."""
    shares = np.array([0, 0.02, 0.05, 0.1, 0.15, 0.25, 0.4, 0.6, 0.8, 1])
    return np.unique(np.append(np.round(shares * n_tokens), [1, k])).clip(0, n_tokens).astype(np.int32)


@functools.lru_cache(maxsize=32)
def _one_pair(architecture, k):
    """Returns the function of one pair: curves [C] per order, h of the kept critical set, h of each kept top-k [P]."""
    model = encoder.model(architecture)

    def one(shared, common, voxel, states, mask, scores):
        cells = _pairs.cell_weights(architecture, len(states), mask)
        at_image = model.token_terms_one(shared, voxel, states, cells, architecture)
        at_start = model.token_terms_one(shared, voxel, common["start"], cells, architecture)
        rank = jnp.argsort(jnp.argsort(-scores, stable=True))

        def response(from_image):
            logits, scalars = (jnp.where(from_image, x, x0) for x, x0 in zip(at_image, at_start, strict=True))
            return model.readout_one(shared, logits, scalars, voxel, cells, architecture)

        def curve(ranks, keep):
            return jax.vmap(lambda c: response((ranks < c) == keep))(common["k_values"])

        def three(keep):
            return {
                "ig": curve(rank, keep),
                "random": jax.vmap(lambda ranks: curve(ranks, keep))(common["random_ranks"]).mean(0),
                "lowest": curve(len(states) - 1 - rank, keep),
            }

        every = jax.vmap(lambda c: response(rank < c))(jnp.arange(1, len(states) + 1))
        return {"necessity": three(False), "sufficiency": three(True), "kept": every[k - 1], "every": every}

    return one


def _share(kept: np.ndarray, attributions: Attributions) -> np.ndarray:
    """Returns (h(kept) - h(x')) / (h(x) - h(x')); NaN where the denominator says nothing."""
    change = attributions.predicted - attributions.predicted_baseline
    every = np.concatenate([attributions.predicted, attributions.predicted_baseline], 1)
    too_small = np.abs(change) < _MIN_SHARE * np.maximum(np.ptp(every, axis=1), 1e-12)[:, None]
    change = np.where(too_small, np.nan, change)
    before = attributions.predicted_baseline
    if kept.ndim == 3:
        change, before = change[..., None], before[..., None]
    return ((kept - before) / change).astype(np.float32)


def _smallest_k(share: np.ndarray, level: float) -> np.ndarray:
    reached = share >= level
    return np.where(reached.any(-1), reached.argmax(-1) + 1, -1).astype(np.int32)
