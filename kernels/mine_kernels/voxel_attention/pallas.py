"""Voxel attention as three Pallas kernels, in the manner of flash attention.

`_forward` streams over the tokens of an image with an online softmax and keeps, for each image,
head and voxel, the prediction and the logarithm of the softmax's sum. The loss is then known, and
two kernels recompute the logits: one sums gradients of queries and readouts over images, one those
of keys and values over voxels. No tensor over voxels, heads and tokens leaves the chip.

A position term enters as more columns: basis functions beside the keys, coefficients beside the
queries. Widths and blocks are powers of two, as Triton wants them; padding weighs nothing.
Source: Dao 2023 (FlashAttention-2). Differs: values become one scalar per token.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from mine_kernels.arrays import Array, Arrays
from mine_kernels.voxel_attention.specs import Blocks

_LOWEST = -1e30
_MIN_WIDTH = 16


class _LaidOut(NamedTuple):
    """Arguments in blocks: queries and readouts [H, V, E], keys and values [G, B, P, E], bias [B, P]."""

    q: jax.Array
    w: jax.Array
    k: jax.Array
    v: jax.Array
    bias: jax.Array


def _forward_kernel(
    q_ref: Any, w_ref: Any, k_ref: Any, v_ref: Any, bias_ref: Any, out_ref: Any, lse_ref: Any, *, step: int
) -> None:
    """One head, block of voxels and image: q, w [v, E], k, v [P, E], bias [P]; out, lse [v]."""
    q, w = q_ref[...], w_ref[...]

    def one_block(
        j: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        top, total, value = carry
        rows = pl.ds(j * step, step)
        logits, scalars, real = _terms(q, w, k_ref[rows, :], v_ref[rows, :], bias_ref[rows])
        new_top = jnp.maximum(top, logits.max(1))
        shrink = jnp.exp(top - new_top)
        weights = jnp.where(real, jnp.exp(logits - new_top[:, None]), 0.0)
        return new_top, total * shrink + weights.sum(1), value * shrink + (weights * scalars).sum(1)

    start = (jnp.full(q.shape[0], _LOWEST), jnp.zeros(q.shape[0]), jnp.zeros(q.shape[0]))
    top, total, value = lax.fori_loop(0, k_ref.shape[0] // step, one_block, start)
    total = jnp.where(total > 0, total, 1.0)
    out_ref[...] = value / total
    lse_ref[...] = top + jnp.log(total)


def _voxel_kernel(
    q_ref: Any, w_ref: Any, k_ref: Any, v_ref: Any, bias_ref: Any, slope_ref: Any, out_ref: Any, lse_ref: Any,
    dq_ref: Any, dw_ref: Any, *, step: int
) -> None:  # fmt: skip
    """One head and block of voxels: q, w [v, E], k, v [B, P, E], bias [B, P], slope, out, lse [B, v]; dq, dw [v, E]."""
    q, w = q_ref[...], w_ref[...]
    n_blocks = k_ref.shape[1] // step

    def one_block(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        image, rows = i // n_blocks, pl.ds(i % n_blocks * step, step)
        k, v = (ref[image, rows, :].astype(jnp.float32) for ref in (k_ref, v_ref))
        logits, scalars, real = _terms(q, w, k, v, bias_ref[image, rows])
        d_logits, d_scalars = _slopes(logits, scalars, real, slope_ref[image, :], out_ref[image, :], lse_ref[image, :])
        return carry[0] + _dot(d_logits, k, 1, 0), carry[1] + _dot(d_scalars, v, 1, 0)

    dq, dw = lax.fori_loop(0, k_ref.shape[0] * n_blocks, one_block, (jnp.zeros(q.shape), jnp.zeros(q.shape)))
    dq_ref[...], dw_ref[...] = dq, dw


def _token_kernel(
    q_ref: Any, w_ref: Any, k_ref: Any, v_ref: Any, bias_ref: Any, slope_ref: Any, out_ref: Any, lse_ref: Any,
    dk_ref: Any, dv_ref: Any, *, step: int
) -> None:  # fmt: skip
    """One head, image and block of tokens: q, w [V, E], k, v [p, E], bias [p], slope, out, lse [V]; dk, dv [p, E]."""
    k, v, bias = k_ref[...], v_ref[...], bias_ref[...]

    def one_block(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        rows = pl.ds(i * step, step)
        q, w = q_ref[rows, :], w_ref[rows, :]
        logits, scalars, real = _terms(q, w, k, v, bias)
        d_logits, d_scalars = _slopes(logits, scalars, real, slope_ref[rows], out_ref[rows], lse_ref[rows])
        return carry[0] + _dot(d_logits, q, 0, 0), carry[1] + _dot(d_scalars, w, 0, 0)

    zeros = jnp.zeros(k.shape, jnp.float32)
    dk_ref[...], dv_ref[...] = lax.fori_loop(0, q_ref.shape[0] // step, one_block, (zeros, zeros))


def _terms(q: Array, w: Array, k: Array, v: Array, bias: Array) -> tuple[jax.Array, jax.Array, Array]:
    """Logits and value scalars [v, p] of one block, and which tokens are real [1, p]."""
    return _dot(q, k, 1, 1) + bias[None], _dot(w, v, 1, 1), bias[None] > _LOWEST / 2


def _slopes(
    logits: Array, scalars: Array, real: Array, slope: Array, out: Array, lse: Array
) -> tuple[jax.Array, jax.Array]:
    """Gradients of logits and value scalars, [v, p]."""
    d_scalars = jnp.where(real, jnp.exp(logits - lse[:, None]), 0.0) * slope[:, None]
    return d_scalars * (scalars - out[:, None]), d_scalars


def _dot(a: Array, b: Array, over_a: int, over_b: int) -> jax.Array:
    # stored in half precision, multiplied in float32
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return lax.dot_general(a, b, (((over_a,), (over_b,)), ((), ())), preferred_element_type=jnp.float32)


@functools.partial(jax.jit, static_argnames=("blocks", "interpret"))
def forward(
    query: Array,
    position: Array | None,
    readout: Array,
    keys: Array,
    values: Array,
    mask: Array | None,
    basis: Array | None,
    *,
    blocks: Blocks,
    interpret: bool = False,
) -> jax.Array:
    """Computes the predictions [B, V]; arguments as in `op.voxel_attention`."""
    arrays = _laid_out(query, position, readout, keys, values, mask, basis, blocks)
    per_head, _ = _predict(arrays, blocks, interpret)
    return per_head.sum(1)[:, : query.shape[0]]


@functools.partial(jax.jit, static_argnames=("with_trunk", "with_readout", "blocks", "interpret"))
def gradients(
    query: Array,
    position: Array | None,
    readout: Array,
    intercept: Array,
    keys: Array,
    values: Array,
    responses: Array,
    mask: Array | None,
    basis: Array | None,
    *,
    with_trunk: bool,
    with_readout: bool,
    blocks: Blocks,
    interpret: bool = False,
) -> tuple[jax.Array, Arrays]:
    """Computes squared errors and their gradients; see `op.voxel_attention_gradients`."""
    (n_voxels, n_heads, width), (batch, n_tokens, groups, _) = query.shape, keys.shape
    arrays = _laid_out(query, position, readout, keys, values, mask, basis, blocks)
    out, lse = _predict(arrays, blocks, interpret)
    error = out.sum(1)[:, :n_voxels] + intercept[None] - responses
    slope = jnp.pad(error * (2.0 / batch), ((0, 0), (0, out.shape[2] - n_voxels)))
    d_query, d_readout = _voxel_gradients(arrays, slope, out, lse, blocks, interpret)
    d_query, d_readout = (d.transpose(1, 0, 2)[:n_voxels] for d in (d_query, d_readout))
    got = {"query": d_query[:, :, :width], "intercept": slope.sum(0)[:n_voxels]}
    if with_readout:
        got["readout"] = d_readout[:, :, :width]
    if position is not None:
        got["position"] = d_query[:, :, width : width + position.shape[2]]
    if with_trunk:
        d_tokens = _token_gradients(arrays, slope, out, lse, blocks, interpret)
        for name, d in zip(("keys", "values"), d_tokens, strict=True):
            d = d.reshape(groups, n_heads // groups, *d.shape[1:]).sum(1)[:, :, :n_tokens, :width]
            got[name] = d.transpose(1, 2, 0, 3)
    return (error**2).mean(0), got


def _predict(arrays: _LaidOut, blocks: Blocks, interpret: bool) -> tuple[jax.Array, jax.Array]:
    q, w, k, v, bias = arrays
    (n_heads, n_voxels, width), (groups, batch, n_tokens, _) = q.shape, k.shape
    per_voxel = pl.BlockSpec((None, blocks.voxels, width), lambda h, i, b: (h, i, 0))
    per_image = pl.BlockSpec((None, None, n_tokens, width), lambda h, i, b: (h % groups, b, 0, 0))
    scalar = pl.BlockSpec((None, None, blocks.voxels), lambda h, i, b: (b, h, i))
    shape = jax.ShapeDtypeStruct((batch, n_heads, n_voxels), jnp.float32)
    return pl.pallas_call(
        functools.partial(_forward_kernel, step=blocks.tokens),
        grid=(n_heads, n_voxels // blocks.voxels, batch),
        in_specs=[per_voxel] * 2 + [per_image] * 2 + [pl.BlockSpec((None, n_tokens), lambda h, i, b: (b, 0))],
        out_specs=[scalar] * 2,
        out_shape=[shape] * 2,
        interpret=interpret,
    )(q, w, k, v, bias)


def _voxel_gradients(
    arrays: _LaidOut, slope: Array, out: Array, lse: Array, blocks: Blocks, interpret: bool
) -> tuple[jax.Array, jax.Array]:
    q, w, k, v, bias = arrays
    (n_heads, n_voxels, width), (groups, batch, n_tokens, _) = q.shape, k.shape
    per_voxel = pl.BlockSpec((None, blocks.voxels, width), lambda h, i: (h, i, 0))
    tokens = pl.BlockSpec((None, batch, n_tokens, width), lambda h, i: (h % groups, 0, 0, 0))
    scalar = pl.BlockSpec((batch, None, blocks.voxels), lambda h, i: (0, h, i))
    return pl.pallas_call(
        functools.partial(_voxel_kernel, step=blocks.tokens),
        grid=(n_heads, n_voxels // blocks.voxels),
        in_specs=[per_voxel] * 2
        + [tokens] * 2
        + [
            pl.BlockSpec((batch, n_tokens), lambda h, i: (0, 0)),
            pl.BlockSpec((batch, blocks.voxels), lambda h, i: (0, i)),
        ]
        + [scalar] * 2,
        out_specs=[per_voxel] * 2,
        out_shape=[jax.ShapeDtypeStruct(q.shape, jnp.float32)] * 2,
        interpret=interpret,
    )(q, w, k, v, bias, slope, out, lse)


def _token_gradients(
    arrays: _LaidOut, slope: Array, out: Array, lse: Array, blocks: Blocks, interpret: bool
) -> tuple[jax.Array, jax.Array]:
    q, w, k, v, bias = arrays
    (n_heads, n_voxels, width), (groups, batch, n_tokens, _) = q.shape, k.shape
    voxels = pl.BlockSpec((None, n_voxels, width), lambda h, b, j: (h, 0, 0))
    scalar = pl.BlockSpec((None, None, n_voxels), lambda h, b, j: (b, h, 0))
    return pl.pallas_call(
        functools.partial(_token_kernel, step=blocks.voxels),
        grid=(n_heads, batch, n_tokens // blocks.tokens),
        in_specs=[voxels] * 2
        + [pl.BlockSpec((None, None, blocks.tokens, width), lambda h, b, j: (h % groups, b, j, 0))] * 2
        + [
            pl.BlockSpec((None, blocks.tokens), lambda h, b, j: (b, j)),
            pl.BlockSpec((None, n_voxels), lambda h, b, j: (b, 0)),
        ]
        + [scalar] * 2,
        out_specs=[pl.BlockSpec((None, None, blocks.tokens, width), lambda h, b, j: (h, b, j, 0))] * 2,
        out_shape=[jax.ShapeDtypeStruct((n_heads, batch, n_tokens, width), jnp.float32)] * 2,
        interpret=interpret,
    )(q, w, k, v, bias, slope, out, lse)


def _laid_out(
    query: Array,
    position: Array | None,
    readout: Array,
    keys: Array,
    values: Array,
    mask: Array | None,
    basis: Array | None,
    blocks: Blocks,
) -> _LaidOut:
    """Pads to blocks: q, w [H, V, E], k, v [G, B, P, E] with the position's columns, bias [B, P]."""
    batch, n_tokens, groups, _ = keys.shape
    if position is not None:
        # half precision holds 0 and 1, but not the functions of a basis
        basis = jnp.eye(n_tokens, dtype=keys.dtype) if basis is None else basis
        extra = jnp.broadcast_to(basis[None, :, None], (batch, n_tokens, groups, basis.shape[1]))
        query, keys = jnp.concatenate([query, position], -1), jnp.concatenate([keys, extra], -1)
    size = max(_MIN_WIDTH, pl.next_power_of_2(keys.shape[3]))

    def voxels(x: Array) -> jax.Array:
        pad = ((0, 0), (0, -x.shape[0] % blocks.voxels), (0, size - x.shape[2]))
        return jnp.pad(x.transpose(1, 0, 2), pad)

    def tokens(x: Array) -> jax.Array:
        pad = ((0, 0), (0, 0), (0, -n_tokens % blocks.tokens), (0, size - x.shape[3]))
        return jnp.pad(x.transpose(2, 0, 1, 3), pad)

    real = jnp.ones((batch, n_tokens), bool) if mask is None else mask
    bias = jnp.pad(jnp.where(real, 0.0, _LOWEST), ((0, 0), (0, -n_tokens % blocks.tokens)), constant_values=_LOWEST)
    return _LaidOut(voxels(query), voxels(readout), tokens(keys), tokens(values), bias)
