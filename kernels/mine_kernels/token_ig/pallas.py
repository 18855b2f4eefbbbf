"""The closed form as a GPU kernel: one program per (voxel, image) pair, some heads after the others.

A program reads the token terms of its pair once, keeps both integrals of some heads in registers
over all steps of the path, and writes either P scores or only the K largest of them.
Shapes inside: heads and tokens are padded to powers of two, [H, P].
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from mine_kernels.arrays import Array
from mine_kernels.launch import pallas_call
from mine_kernels.token_ig.specs import Blocks, TopTokens

# Logits of tokens that only fill a block; finite, so that no difference of two of them is NaN.
_HIDDEN = -1e30


def _integrate(
    l0_ref: Any,
    l1_ref: Any,
    u0_ref: Any,
    u1_ref: Any,
    position_ref: Any,
    nodes_ref: Any,
    weights_ref: Any,
    *,
    n_steps: int,
    n_heads: int,
) -> jax.Array:
    """Returns the scores [P] of one pair, from so many heads at a time."""

    def some_heads(i: jax.Array, scores: jax.Array) -> jax.Array:
        here = (0, pl.ds(i * n_heads, n_heads))
        terms = [ref[*here, :] for ref in (l0_ref, l1_ref, u0_ref, u1_ref, position_ref)]
        return scores + _integrate_heads(*terms, nodes_ref, weights_ref, n_steps=n_steps)

    zeros = jnp.zeros(l0_ref.shape[2], l0_ref.dtype)
    return jax.lax.fori_loop(0, l0_ref.shape[1] // n_heads, some_heads, zeros)


def _integrate_heads(
    logits_0: jax.Array,
    logits_1: jax.Array,
    scalars_0: jax.Array,
    scalars_1: jax.Array,
    position: jax.Array,
    nodes_ref: Any,
    weights_ref: Any,
    *,
    n_steps: int,
) -> jax.Array:
    """Returns what heads [h, P] add to the scores [P] of their pair."""
    start_l, delta_l, delta_u = logits_0 + position, logits_1 - logits_0, scalars_1 - scalars_0

    def step(s: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        share, weight = nodes_ref[s], weights_ref[s]
        logits = start_l + share * delta_l
        exponentials = jnp.exp(logits - logits.max(1, keepdims=True))
        attention = exponentials / exponentials.sum(1, keepdims=True)
        scalars = scalars_0 + share * delta_u
        head = (attention * scalars).sum(1, keepdims=True)
        attention = attention * weight
        return sums[0] + attention, sums[1] + attention * (scalars - head)

    zeros = jnp.zeros_like(start_l)
    mass, slope = jax.lax.fori_loop(0, n_steps, step, (zeros, zeros))
    return (delta_u * mass + delta_l * slope).sum(0)


def _scores_kernel(*refs: Any, n_steps: int, n_heads: int) -> None:
    # inputs [1, H, P] each, nodes and weights [S]; output [1, P]
    *inputs, out_ref = refs
    out_ref[0] = _integrate(*inputs, n_steps=n_steps, n_heads=n_heads)


def _top_k_kernel(*refs: Any, n_steps: int, n_heads: int, n_tokens: int, k: int) -> None:
    # inputs as above; outputs [1, K] indices and scores, [1] sum; K padded to a power of two
    *inputs, indices_ref, scores_ref, total_ref = refs
    scores = _integrate(*inputs, n_steps=n_steps, n_heads=n_heads)
    token = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    rank = jax.lax.broadcasted_iota(jnp.int32, (indices_ref.shape[1],), 0)
    limit = jnp.finfo(scores.dtype).max
    ranked = jnp.where(jnp.isnan(scores), -jnp.inf, jnp.maximum(scores, -limit))

    def take(j: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        is_left, indices, best = carry
        top = jnp.where(is_left, ranked, -jnp.inf).max()
        index = jnp.where(is_left & (ranked == top), token, scores.shape[0]).min()
        score = jnp.where(token == index, scores, 0.0).sum()
        return is_left & (token != index), jnp.where(rank == j, index, indices), jnp.where(rank == j, score, best)

    empty = (token < n_tokens, jnp.zeros(rank.shape, jnp.int32), jnp.zeros(rank.shape, scores.dtype))
    _, indices_ref[0], scores_ref[0] = jax.lax.fori_loop(0, k, take, empty)
    total_ref[0] = jnp.where(token < n_tokens, scores, 0.0).sum()


def token_ig(
    logits_0: Array,
    logits_1: Array,
    scalars_0: Array,
    scalars_1: Array,
    position: Array,
    nodes: Array,
    weights: Array,
    *,
    blocks: Blocks,
    interpret: bool,
) -> jax.Array:
    """Launches one program per pair; returns scores [..., P], see `op.token_ig`."""
    lead, arrays = _padded((logits_0, logits_1, scalars_0, scalars_1, position))
    n_pairs, _, width = arrays[0].shape
    made = _launch(
        functools.partial(_scores_kernel, n_steps=len(nodes)),
        jax.ShapeDtypeStruct((n_pairs, width), arrays[0].dtype),
        pl.BlockSpec((1, width), lambda pair: (pair, 0)),
        (*arrays, nodes, weights),
        blocks,
        interpret,
    )
    return made[:, : logits_1.shape[-1]].reshape(*lead, -1)


def token_ig_top_k(
    logits_0: Array,
    logits_1: Array,
    scalars_0: Array,
    scalars_1: Array,
    position: Array,
    nodes: Array,
    weights: Array,
    *,
    k: int,
    blocks: Blocks,
    interpret: bool,
) -> TopTokens:
    """Launches one program per pair; returns indices, scores and sums, see `op.token_ig_top_k`."""
    lead, arrays = _padded((logits_0, logits_1, scalars_0, scalars_1, position))
    n_pairs, dtype, size = len(arrays[0]), arrays[0].dtype, pl.next_power_of_2(k)
    row = pl.BlockSpec((1, size), lambda pair: (pair, 0))
    indices, scores, total = _launch(
        functools.partial(_top_k_kernel, n_steps=len(nodes), n_tokens=logits_1.shape[-1], k=k),
        [jax.ShapeDtypeStruct((n_pairs, size), kind) for kind in (jnp.int32, dtype)]
        + [jax.ShapeDtypeStruct((n_pairs,), dtype)],
        [row, row, pl.BlockSpec((1,), lambda pair: (pair,))],
        (*arrays, nodes, weights),
        blocks,
        interpret,
    )
    return TopTokens(indices[:, :k].reshape(*lead, k), scores[:, :k].reshape(*lead, k), total.reshape(lead))


def _launch(
    kernel: Callable[..., None],
    out_shape: Any,
    out_specs: Any,
    arguments: tuple[Array, ...],
    blocks: Blocks,
    interpret: bool,
) -> Any:
    *arrays, nodes, _ = arguments
    n_pairs, n_heads, width = arrays[0].shape
    terms = pl.BlockSpec((1, n_heads, width), lambda pair: (pair, 0, 0))
    path = pl.BlockSpec(nodes.shape, lambda pair: (0,))
    return pallas_call(
        functools.partial(kernel, n_heads=min(n_heads, blocks.heads(width))),
        out_shape=out_shape,
        grid=(n_pairs,),
        in_specs=[terms] * len(arrays) + [path, path],
        out_specs=out_specs,
        warps=blocks.warps,
        interpret=interpret,
        name="token_ig",
    )(*arguments)


def _padded(terms: tuple[Array, ...]) -> tuple[tuple[int, ...], list[jax.Array]]:
    """Returns the leading shape and the five arrays [n, H, P] with H and P padded to powers of two."""
    lead = np.broadcast_shapes(*(x.shape[:-2] for x in terms))
    n_heads, n_tokens = terms[1].shape[-2:]
    more = ((0, 0), (0, pl.next_power_of_2(n_heads) - n_heads), (0, pl.next_power_of_2(n_tokens) - n_tokens))
    arrays = [jnp.broadcast_to(x, (*lead, n_heads, n_tokens)).reshape(-1, n_heads, n_tokens) for x in terms]
    *arrays, position = [jnp.pad(x, more) for x in arrays]
    is_token = np.arange(position.shape[-1]) < n_tokens
    return lead, [*arrays, jnp.where(is_token, position, _HIDDEN)]
