"""Activation patching: responses after tokens are replaced by the baseline, or only they are kept.

All points of both curves come from the same cached logits and value scalars of a pair:
patching a token swaps its two numbers per head. The exponentials are taken once, and a
point of a curve is a sum of them; only where attention is too sharp for one bound of the
logits, or where tokens are averaged before they are attended, is a softmax made per point.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mine_jax import encoder, memory, sharding
from mine_jax._progress import Progress, silent
from mine_jax.attribution import blocks
from mine_jax.attribution import terms as token_terms
from mine_jax.types import Architecture, Attributions, Encoders, Faithfulness, ImageTokens

ORDERS = ("ig", "random", "lowest")
# |h(x) - h(x')| below this share of the voxel's range says nothing about faithfulness.
_MIN_SHARE = 0.02
# Nats between logits that exponentials with one common bound resolve in float32.
_MAX_SPREAD = 60.0


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
    mesh: Mesh | None = None,
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
        mesh: devices of `sharding.mesh`; if they belong to several processes, all must call this.
            None for one device. Never the result.
        progress: called with (done, total) voxels.

    Returns:
        Faithfulness: curves [V, I, C] in predicted response (z-scored beta) at C numbers of
        tokens, faithfulness [V, I] of the critical set, adaptive K [V, I].

    Raises:
        ValueError: for encoders of kind "own".

    Source: MINE, activation patching with random and lowest-IG controls.
    """
    if not encoder.model(encoders.architecture).has_token_terms:
        raise ValueError('patching needs token terms, which encoders of kind "own" do not have.')
    n_voxels, n_tokens = len(encoders.voxel_ids), tokens.tokens.shape[1]
    k = min(k, n_tokens)
    k_values = curve_points(n_tokens, k)
    rows = blocks.image_rows(tokens, attributions.image_ids, n_voxels)
    scores = np.nan_to_num(attributions.scores, nan=-np.inf)
    start = blocks.features_of(encoders, blocks.baseline_states(encoders, baseline, n_tokens))
    rng = np.random.default_rng(seed)
    random_ranks = np.stack([rng.permutation(n_tokens) for _ in range(n_random)]).astype(np.int32)
    common = {"start": start, "k_values": jnp.asarray(k_values), "random_ranks": jnp.asarray(random_ranks)}
    options = {"voxel_chunk": voxel_chunk, "image_chunk": image_chunk, "progress": progress}
    options["mesh"] = sharding.local(mesh)
    curves, every = sharding.divided(
        lambda some: _curves(encoders.take(some), tokens, rows[some], scores[some], common, **options), n_voxels, mesh
    )
    # trees come back with sorted keys
    curves = {name: {order: curves[name][order] for order in ORDERS} for name in ("necessity", "sufficiency")}
    return Faithfulness(
        faithfulness=_share(every[..., k - 1], attributions),
        k_adaptive=_smallest_k(_share(every, attributions), sufficiency),
        k_values=k_values,
        **curves,
    )


def _curves(encoders, tokens, rows, scores, common, **options):
    """Returns both curves [V, I, C] of each order, and h of every kept top-k [V, I, P]."""
    shape = (*rows.shape, len(common["k_values"]))
    curves = {name: {order: np.zeros(shape, np.float32) for order in ORDERS} for name in ("necessity", "sufficiency")}
    every = np.zeros(scores.shape, np.float32)
    extra = (scores.reshape(rows.size, -1),)

    def fill(room: int) -> None:
        pairs, compute = blocks.pairs_of(rows), _compute(encoders.architecture)
        for block, made in blocks.map_blocks(compute, encoders, tokens, pairs, common, extra, room=room, **options):
            for name, by_order in curves.items():
                for order in ORDERS:
                    by_order[order].reshape(rows.size, -1)[block] = made[name][order]
            every.reshape(rows.size, -1)[block] = made["every"]

    memory.halving(fill, blocks.pairs_at_once(encoders, tokens), setting="pairs at once")
    return curves, every


def curve_points(n_tokens: int, k: int) -> np.ndarray:
    """Returns the numbers of tokens at which curves are drawn, [C] int32; includes 0, K and P."""
    shares = np.array([0, 0.02, 0.05, 0.1, 0.15, 0.25, 0.4, 0.6, 0.8, 1])
    return np.unique(np.append(np.round(shares * n_tokens), [1, k])).clip(0, n_tokens).astype(np.int32)


@functools.lru_cache(maxsize=32)
def _compute(architecture: Architecture) -> Callable[..., Any]:
    """Returns the jitted function of a block: curves [A, B, C] per order, h of every kept top-k [A, B, P]."""

    def block(shared, common, per_voxel, voxels, images, scores):
        is_grid, n_tokens = voxels.ndim == 1, scores.shape[-1]
        chosen = {name: value[voxels] for name, value in per_voxel.items()}
        terms = token_terms.block_terms(shared, common["start"], chosen, images, architecture, is_grid=is_grid)
        rank = jnp.argsort(jnp.argsort(-scores, stable=True))
        points = common["k_values"]
        ends = jnp.concatenate([points, n_tokens - points])

        def readout(logits, scalars):
            one = functools.partial(token_terms.readout_one, shared, architecture=architecture)
            over = blocks.over_pairs(lambda voxel, image, *both: one(*both, voxel, image), is_grid, 0, 0)
            return over(chosen, images, logits, scalars)

        def curves(respond):
            return (
                respond(rank, jnp.arange(n_tokens + 1), True),
                respond(rank, ends, False),
                *(
                    jnp.stack([respond(ranks, points, keep) for ranks in common["random_ranks"][:, None, None]]).mean(0)
                    for keep in (True, False)
                ),
            )

        slow = functools.partial(_respond, terms, readout)
        if blocks.is_query(architecture) and terms.cells is None:
            sums, spread = _exponentials(terms)
            fast = functools.partial(_respond_by_sums, sums, jnp.atleast_2d(chosen["intercept"]))
            every, without, *random = jax.lax.cond(spread < _MAX_SPREAD, lambda: curves(fast), lambda: curves(slow))
        else:
            every, without, *random = curves(slow)
        # the k lowest from the image are all but the first P - k from it
        first, last = without[..., : len(points)], without[..., len(points) :]
        return {
            "sufficiency": {"ig": every[..., points], "random": random[0], "lowest": last},
            "necessity": {"ig": first, "random": random[1], "lowest": every[..., n_tokens - points]},
            "every": every[..., 1:],
        }

    return jax.jit(block)


def _respond(terms: token_terms.Terms, readout: Callable[..., Any], rank, k_values, keep: bool):
    """Returns predictions [A, B, k] with the first k tokens from the image (`keep`) or from the start."""

    def at(k):
        from_image = ((rank < k) == keep)[..., None, :]
        return readout(
            jnp.where(from_image, terms.image.logits, terms.start.logits),
            jnp.where(from_image, terms.image.scalars, terms.start.scalars),
        )

    return jnp.moveaxis(jax.lax.map(at, k_values), 0, -1)


def _exponentials(terms: token_terms.Terms):
    """Returns at both ends the exponentials and their products with the scalars [A, B, 2H, P], and the spread.

    A patched softmax is made of sums of these. Whatever is patched, its largest logit is
    between the largest of all and the largest of min(image, start): the spread of the two
    says whether one bound serves all sums.
    """
    logits = [end.logits + terms.position for end in (terms.image, terms.start)]
    top = jnp.maximum(*logits).max(-1, keepdims=True)
    floor = jnp.minimum(*logits).max(-1, keepdims=True)
    sums = []
    for x, end in zip(logits, (terms.image, terms.start), strict=True):
        exponentials = jnp.exp(x - top)
        sums.append(jnp.concatenate([exponentials, exponentials * end.scalars], -2))
    return sums, (top - floor).max()


def _respond_by_sums(sums, intercept, rank, k_values, keep: bool):
    """Returns what `_respond` does from sums over the tokens of either end."""
    is_first = (rank[..., None] < k_values[None, None, None]).astype(sums[0].dtype)
    first, rest = sums if keep else sums[::-1]
    made = jnp.matmul(first, is_first, precision="highest") + jnp.matmul(rest, 1 - is_first, precision="highest")
    total, weighted = jnp.split(made, 2, -2)
    return (weighted / total).sum(-2) + intercept[..., None]


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
