"""Activation patching: responses after tokens are replaced by the baseline, or only they are kept.

All points of both curves come from the same cached logits and value scalars of a pair:
patching a token swaps its two numbers per head. The exponentials are taken once, and a
point of a curve is a sum of them. Pairs whose attention is too sharp for one bound of the
logits are patched again with a softmax per point, by a program that others do not compile;
so are all pairs where tokens are averaged before they are attended.
Sums over the first k tokens of an order, for all k at once, are cumulative: O(P) per pair.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypedDict, TypeVar, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mine_jax import encoder, memory, sharding
from mine_jax._checks import takes
from mine_jax._progress import Progress, at_the_end, silent
from mine_jax.attribution import blocks
from mine_jax.attribution.critical_tokens import n_critical
from mine_jax.attribution.path import OF_ARRAYS, Baseline, Path, check_settings
from mine_jax.attribution.terms import Terms, block_terms, readout_one
from mine_jax.memory.chunks import Chunks
from mine_jax.types import Architecture, Array, Attributions, Encoders, Faithfulness, ImageTokens

# |h(x) - h(x')| below this share of the voxel's range says nothing about faithfulness.
_MIN_SHARE = 0.02
# Nats between logits that exponentials with one common bound resolve in float32.
_MAX_SPREAD = 60.0
_T = TypeVar("_T")


class PatchSettings(TypedDict, total=False):
    """Keywords of the public functions that become a `Patching`; what is left out has its default there."""

    k: int | float
    sufficiency: float
    n_random: int
    seed: int


@dataclass(frozen=True)
class Patching:
    """Settings of activation patching; the defaults are those of the configuration.

    Attributes:
        k: tokens of the critical set S, fewer than P, or a share of P.
        sufficiency: level that defines the adaptive K, as a share of h(x) - h(x').
        n_random: random orders averaged.
        seed: of the random orders.
    """

    k: int | float = 50
    sufficiency: float = 0.9
    n_random: int = 5
    seed: int = 0


class Orders(NamedTuple):
    """One array for each order in which tokens are patched: highest scores first, random, lowest first."""

    ig: Array
    random: Array
    lowest: Array


ORDERS = Orders._fields


class Curves(NamedTuple):
    """Responses at C numbers of tokens [V, I, C] of each order, at all P of the first, and of each of R random ones."""

    necessity: Orders
    sufficiency: Orders
    every: Array
    each_random: Array


class Points(NamedTuple):
    """What all pairs share: the image that tokens are replaced by, C numbers of tokens, random orders [R, P]."""

    start: blocks.Images
    k_values: Array
    random_orders: Array


@takes(OF_ARRAYS, encoders=Encoders, tokens=ImageTokens)
def patch_tokens(
    encoders: Encoders,
    tokens: ImageTokens,
    attributions: Attributions,
    *,
    baseline: Baseline = None,
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
    **patching: Unpack[PatchSettings],
) -> Faithfulness:
    """Measures necessity and sufficiency of tokens, and pair faithfulness.

    Tokens are patched in three orders: highest scores first, random, lowest first.

    Args:
        encoders: the V encoders that were attributed.
        tokens: image-tokens [N, P, D].
        attributions: scores [V, I, P], which order the tokens. They may be those of other encoders, such as
            refits on other images: faithfulness is then about 0 unless both found the same tokens.
        baseline: as for the attributions.
        voxel_chunk: voxels held at once. Memory only, never the result.
        image_chunk: images of a voxel held at once. Memory only, never the result.
        mesh: devices of `sharding.mesh`; if they belong to several processes, all must call this.
            None for one device. Never the result.
        progress: called with (done, total) voxels.
        **patching: `k`, tokens of the critical set S or their share (default 50); `sufficiency`, level that
            defines the adaptive K, as a share of h(x) - h(x') (0.9); `n_random`, random orders
            averaged (5); `seed` of the random orders (0).

    Returns:
        Faithfulness: curves [V, I, C] in predicted response (z-scored beta) at C numbers of
        tokens, faithfulness [V, I], adaptive K [V, I].

    Raises:
        ConfigError: if `k` leaves no token out.
        TypeError: for an unknown keyword.
        ValueError: for encoders of kind "own".

    Source: MINE, activation patching with random and lowest-IG controls. Differs from the paper:
    faithfulness is an area over all K, see `area_over_random`.
    """
    check_settings(patching, Patching)
    path = Path(baseline=baseline)
    rows = blocks.image_rows(tokens, attributions.image_ids, len(encoders.voxel_ids))
    chunks = Chunks(voxel_chunk, image_chunk, mesh)
    return patch(encoders, tokens, rows, attributions, path.baseline, Patching(**patching), chunks, progress=progress)


def patch(
    encoders: Encoders,
    tokens: ImageTokens,
    rows: np.ndarray,
    attributions: Attributions,
    baseline: Baseline,
    patching: Patching,
    chunks: Chunks,
    *,
    progress: Progress,
) -> Faithfulness:
    """Does what `patch_tokens` does, with settings as objects.

    Args:
        encoders: V encoders.
        tokens: image-tokens [N, P, D].
        rows: positions [V, I] in `tokens` of the attributed images.
        attributions: scores [V, I, P].
        baseline: as for the attributions.
        patching: settings.
        chunks: what is held at once.
        progress: called with (done, total) voxels.

    Returns:
        Faithfulness: curves [V, I, C], faithfulness and adaptive K [V, I].
    """
    if not encoder.model(encoders.architecture).has_token_terms:
        raise ValueError('patching needs token terms, which encoders of kind "own" do not have.')
    n_voxels, n_tokens = len(encoders.voxel_ids), tokens.tokens.shape[1]
    k_values = curve_points(n_tokens, n_critical(patching.k, n_tokens))
    scores = np.nan_to_num(attributions.scores, nan=-np.inf)
    start = blocks.start_of(encoders, baseline, n_tokens)
    rng = np.random.default_rng(patching.seed)
    ranks = np.stack([rng.permutation(n_tokens) for _ in range(patching.n_random)])
    points = Points(start, k_values, np.argsort(ranks, axis=1).astype(np.int32))
    here = dataclasses.replace(chunks, mesh=sharding.local(chunks.mesh))
    curves = sharding.divided(
        lambda voxels: _patch(
            encoders.take(voxels), tokens, rows[voxels], scores[voxels], points, here, progress=progress
        ),
        n_voxels,
        chunks.mesh,
    )
    kept = np.asarray(curves.sufficiency.ig)
    ends = kept[..., 0], kept[..., -1]
    ours = _share(kept, *ends)
    random = _share(np.asarray(curves.each_random), *ends).reshape(*ours.shape[:2], -1, len(k_values))
    return Faithfulness(
        faithfulness=area_over_random(ours, random, k_values),
        k_adaptive=_smallest_k(_share(np.asarray(curves.every), *ends), patching.sufficiency),
        k_values=k_values,
        necessity=curves.necessity._asdict(),
        sufficiency=curves.sufficiency._asdict(),
    )


def _patch(
    encoders: Encoders,
    tokens: ImageTokens,
    rows: np.ndarray,
    scores: np.ndarray,
    points: Points,
    chunks: Chunks,
    *,
    progress: Progress,
) -> Curves:
    """Patches the pairs of this process: by sums where these serve, else point by point."""
    points = sharding.whole(points, chunks.mesh)

    def patched(compute: Callable[..., _T], only: np.ndarray | None, progress: Progress) -> _T:
        pairs = blocks.pairs_of(rows, scores=scores, only=only)

        def at_once(room: int) -> _T:
            listed = blocks.blocks_of(encoders, tokens, pairs, chunks, room=room, progress=progress)
            results = (
                (positions, compute(block, points, how=encoders.architecture, mesh=chunks.mesh))
                for positions, block in listed
            )
            return blocks.gathered(results, len(pairs.voxels))

        return memory.halving(at_once, blocks.pairs_at_once(encoders, tokens), setting="pairs at once")

    if not _has_sums(encoders.architecture):
        curves = patched(patch_by_points, None, progress)
    else:
        curves, spread = patched(patch_by_sums, None, progress)
        sharp = np.flatnonzero(~(spread < _MAX_SPREAD))
        if len(sharp):
            again = patched(patch_by_points, sharp, at_the_end(progress))
            for values, better in zip(jax.tree.leaves(curves), jax.tree.leaves(again), strict=True):
                values[sharp] = better
    return jax.tree.map(lambda array: array.reshape(*rows.shape, -1), curves)


def area_over_random(shares: np.ndarray, random: np.ndarray, k_values: np.ndarray) -> np.ndarray:
    """Computes how far a sufficiency curve runs above those of random orders, over all numbers of tokens.

    The mean over k from 1 to P of what is restored, at least 0 and at most 1, is compared: the first tokens of a
    voxel that sums over many overshoot its response before those that oppose it come in, and restore it no less.

    Args:
        shares: [..., C] of the response that the first k tokens restore, 1 for the whole image.
        random: [..., R, C], of random orders.
        k_values: [C] int, 0 to P.

    Returns:
        [...] float32: (ours - random) / (1 - random). 0 is no better than random orders, 1 is a single token
        that restores everything, below 0 is worse than random; NaN where shares are, or P is 1.
    """
    kept = np.asarray(k_values) > 0
    k = np.asarray(k_values, np.float64)[kept]
    if len(k) < 2:
        return np.full(shares.shape[:-1], np.nan, np.float32)

    def mean_restored(curves: np.ndarray) -> np.ndarray:
        restored = np.clip(np.asarray(curves[..., kept], np.float64), 0, 1)
        return np.trapezoid(restored, k, axis=-1) / (k[-1] - k[0])

    ours, theirs = mean_restored(shares), mean_restored(random).mean(-1)
    return ((ours - theirs) / np.maximum(1 - theirs, 1e-12)).astype(np.float32)


def curve_points(n_tokens: int, k: int) -> np.ndarray:
    """Returns the numbers of tokens at which curves are drawn, [C] int32; includes 0, K and P."""
    shares = np.array([0, 0.02, 0.05, 0.1, 0.15, 0.25, 0.4, 0.6, 0.8, 1])
    return np.unique(np.append(np.round(shares * n_tokens), [1, k])).clip(0, n_tokens).astype(np.int32)


@blocks.on_devices
def patch_by_sums(block: blocks.Block, points: Points, how: Architecture) -> tuple[Curves, jax.Array]:
    """Returns curves [A, B, C] from sums of exponentials, and the spread [A, B] that says where they hold."""
    voxels = block.parameters()
    terms = block_terms(block.shared, points.start, voxels, block.images, how, is_grid=block.is_grid)
    parts, spread = _exponentials(terms)
    respond = functools.partial(_respond_by_sums, parts, jnp.atleast_2d(voxels["intercept"]))
    return _curves(block.scores, points, respond), spread


@blocks.on_devices
def patch_by_points(block: blocks.Block, points: Points, how: Architecture) -> Curves:
    """Returns curves [A, B, C] from one prediction for each point, of any encoder with token terms."""
    voxels = block.parameters()
    terms = block_terms(block.shared, points.start, voxels, block.images, how, is_grid=block.is_grid)

    def readout(logits: jax.Array, scalars: jax.Array) -> jax.Array:
        one = functools.partial(readout_one, block.shared, architecture=how)
        over = blocks.over_pairs(lambda voxel, image, *both: one(*both, voxel, image), block.is_grid, 0, 0)
        return over(voxels, block.images, logits, scalars)

    return _curves(block.scores, points, functools.partial(_respond, terms, readout))


def _has_sums(architecture: Architecture) -> bool:
    """Whether every token has a logit of its own: a patched softmax is then made of sums over tokens."""
    return blocks.is_query(architecture) and architecture.pool == 1


def _curves(scores: jax.Array, points: Points, respond: Callable[..., jax.Array]) -> Curves:
    """Draws the curves of a block with scores [A, B, P] from its responses to (order, numbers of tokens, keep)."""
    n_tokens, k_values = scores.shape[-1], points.k_values
    order = jnp.argsort(-scores, stable=True)
    every = respond(order, jnp.arange(n_tokens + 1), True)
    without = respond(order, jnp.concatenate([k_values, n_tokens - k_values]), False)

    def at_random(keep: bool) -> jax.Array:
        drawn = jax.lax.map(lambda one: respond(one[None, None], k_values, keep), points.random_orders)
        return jnp.moveaxis(drawn, 0, -2)

    kept, left = at_random(True), at_random(False)
    # the k lowest from the image are all but the first P - k from it
    first, last = without[..., : len(k_values)], without[..., len(k_values) :]
    return Curves(
        necessity=Orders(ig=first, random=left.mean(-2), lowest=every[..., n_tokens - k_values]),
        sufficiency=Orders(ig=every[..., k_values], random=kept.mean(-2), lowest=last),
        every=every[..., 1:],
        each_random=kept.reshape(*kept.shape[:-2], -1),
    )


def _respond(
    terms: Terms, readout: Callable[..., jax.Array], order: jax.Array, k_values: jax.Array, keep: bool
) -> jax.Array:
    """Returns predictions [A, B, k] with the first k tokens of an order from the image (`keep`) or from the start."""
    rank = jnp.argsort(order)

    def at(k: jax.Array) -> jax.Array:
        from_image = ((rank < k) == keep)[..., None, :]
        return readout(
            jnp.where(from_image, terms.image.logits, terms.start.logits),
            jnp.where(from_image, terms.image.scalars, terms.start.scalars),
        )

    return jnp.moveaxis(jax.lax.map(at, k_values), 0, -1)


def _exponentials(terms: Terms) -> tuple[list[jax.Array], jax.Array]:
    """Returns at both ends the exponentials and their products with the scalars [A, B, 2H, P], and the spread [A, B].

    A patched softmax is made of sums of these. Whatever is patched, its largest logit is
    between the largest of all and the largest of min(image, start): the spread of the two
    says whether one bound serves all sums.
    """
    logits = [end.logits + terms.position for end in (terms.image, terms.start)]
    top = jnp.maximum(*logits).max(-1, keepdims=True)
    floor = jnp.minimum(*logits).max(-1, keepdims=True)
    parts = []
    for x, end in zip(logits, (terms.image, terms.start), strict=True):
        exponentials = jnp.exp(x - top)
        parts.append(jnp.concatenate([exponentials, exponentials * end.scalars], -2))
    return parts, (top - floor).max((-2, -1))


def _respond_by_sums(
    parts: list[jax.Array], intercept: jax.Array, order: jax.Array, k_values: jax.Array, keep: bool
) -> jax.Array:
    """Returns what `_respond` does from sums over the tokens of either end: the first k, and all but the first k."""
    first, rest = (jnp.take_along_axis(x, order[..., None, :], -1) for x in (parts if keep else parts[::-1]))
    nothing = jnp.zeros((*first.shape[:-1], 1), first.dtype)
    first = jnp.concatenate([nothing, jnp.cumsum(first, -1)], -1)
    rest = jnp.concatenate([jax.lax.cumsum(rest, rest.ndim - 1, reverse=True), nothing], -1)
    total, weighted = jnp.split(first[..., k_values] + rest[..., k_values], 2, -2)
    return (weighted / total).sum(-2) + intercept[..., None]


def _share(kept: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Returns (h(kept) - h(x')) / (h(x) - h(x')) [V, I, C]; NaN where the denominator says nothing."""
    change = after - before
    every = np.concatenate([after, before], 1)
    too_small = np.abs(change) < _MIN_SHARE * np.maximum(np.ptp(every, axis=1), 1e-12)[:, None]
    change = np.where(too_small, np.nan, change)
    return ((kept - before[..., None]) / change[..., None]).astype(np.float32)


def _smallest_k(share: np.ndarray, level: float) -> np.ndarray:
    reached = share >= level
    return np.where(reached.any(-1), reached.argmax(-1) + 1, -1).astype(np.int32)
