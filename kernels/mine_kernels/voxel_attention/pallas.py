"""Voxel attention as three Pallas kernels, in the manner of flash attention.

`_forward` streams over the tokens of an image with an online softmax and keeps, for each image,
head and voxel, the prediction and the logarithm of the softmax's sum. The loss is then known, and
two kernels recompute the logits: one sums gradients of queries and readouts over images, one those
of keys and values over voxels. No tensor over voxels, heads and tokens leaves the chip.

A position term enters as more columns: basis functions beside the keys, coefficients beside the
queries. Rows are read a few columns at a time, so that any width fits; sizes are powers of two,
as Triton wants them, and padding weighs nothing.
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
from mine_kernels.launch import pallas_call, precision
from mine_kernels.voxel_attention.specs import Blocks

_LOWEST = -1e30
# Sums of gradients, one for each block of columns.
_Sums = tuple[jax.Array, ...]


class _LaidOut(NamedTuple):
    """Arguments in blocks: queries [H, V, E + J], readouts [H, V, E], keys, values [G, B, P, ...], bias [B, P]."""

    q: jax.Array
    w: jax.Array
    k: jax.Array
    v: jax.Array
    bias: jax.Array


def _forward_kernel(
    q_ref: Any, w_ref: Any, k_ref: Any, v_ref: Any, bias_ref: Any, out_ref: Any, lse_ref: Any, *, blocks: Blocks
) -> None:
    """One head, block of voxels and image: q, w [v, E], k, v [P, E], bias [P]; out, lse [v]."""
    n, step = out_ref.shape[0], blocks.step

    def one_block(
        j: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        top, total, value = carry
        rows = pl.ds(j * step, step)
        logits, scalars, is_real = _terms((q_ref, w_ref), (k_ref, v_ref), (rows,), bias_ref[rows][None], blocks)
        new_top = jnp.maximum(top, logits.max(1))
        shrink = jnp.exp(top - new_top)
        weights = jnp.where(is_real, jnp.exp(logits - new_top[:, None]), 0.0)
        return new_top, total * shrink + weights.sum(1), value * shrink + (weights * scalars).sum(1)

    start = (jnp.full(n, _LOWEST), jnp.zeros(n), jnp.zeros(n))
    top, total, value = lax.fori_loop(0, k_ref.shape[0] // step, one_block, start)
    total = jnp.where(total > 0, total, 1.0)
    out_ref[...] = value / total
    lse_ref[...] = top + jnp.log(total)


def _voxel_kernel(
    q_ref: Any, w_ref: Any, k_ref: Any, v_ref: Any, bias_ref: Any, slope_ref: Any, out_ref: Any, lse_ref: Any,
    dq_ref: Any, dw_ref: Any, *, blocks: Blocks
) -> None:  # fmt: skip
    """One head and block of voxels: q, w [v, E], k, v [B, P, E], bias [B, P], slope, out, lse [B, v]; dq, dw [v, E]."""
    step, n_steps = blocks.step, jnp.int32(k_ref.shape[1] // blocks.step)

    def one_block(i: jax.Array, sums: tuple[_Sums, _Sums]) -> tuple[_Sums, _Sums]:
        image, rows = lax.div(i, n_steps), pl.ds(lax.rem(i, n_steps) * step, step)
        bias = bias_ref[image, rows][None]
        logits, scalars, is_real = _terms((q_ref, w_ref), (k_ref, v_ref), (image, rows), bias, blocks)
        d_logits, d_scalars = _slopes(
            logits, scalars, is_real, *(ref[image, :][:, None] for ref in (slope_ref, out_ref, lse_ref))
        )
        return _added(sums[0], d_logits, k_ref, (image, rows), blocks), _added(
            sums[1], d_scalars, v_ref, (image, rows), blocks
        )

    sums = lax.fori_loop(
        0, k_ref.shape[0] * (k_ref.shape[1] // step), one_block, (_zeros(dq_ref, blocks), _zeros(dw_ref, blocks))
    )
    _write(sums, (dq_ref, dw_ref), blocks)


def _token_kernel(
    q_ref: Any, w_ref: Any, k_ref: Any, v_ref: Any, bias_ref: Any, slope_ref: Any, out_ref: Any, lse_ref: Any,
    dk_ref: Any, dv_ref: Any, *, blocks: Blocks
) -> None:  # fmt: skip
    """One head, image and block of tokens: q, w [V, E], k, v [p, E], bias [p], slope, out, lse [V]; dk, dv [p, E]."""
    step, bias = blocks.step, bias_ref[...][:, None]

    def one_block(i: jax.Array, sums: tuple[_Sums, _Sums]) -> tuple[_Sums, _Sums]:
        rows = pl.ds(i * step, step)
        logits, scalars, is_real = _terms((k_ref, v_ref), (q_ref, w_ref), (rows,), bias, blocks)
        d_logits, d_scalars = _slopes(
            logits, scalars, is_real, *(ref[rows][None] for ref in (slope_ref, out_ref, lse_ref))
        )
        return _added(sums[0], d_logits, q_ref, (rows,), blocks), _added(sums[1], d_scalars, w_ref, (rows,), blocks)

    sums = lax.fori_loop(0, q_ref.shape[0] // step, one_block, (_zeros(dk_ref, blocks), _zeros(dv_ref, blocks)))
    _write(sums, (dk_ref, dv_ref), blocks)


def _terms(
    own: tuple[Any, Any], read: tuple[Any, Any], at: tuple[Any, ...], bias: Array, blocks: Blocks
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits and value scalars [own, read] of one block, and which of its tokens are real, of the same shape."""
    logits, scalars = (
        functools.reduce(jnp.add, [_dot(a[:, c], b[*at, c], 1, 1) for c in _columns(a, blocks)])
        for a, b in zip(own, read, strict=True)
    )
    # spread before it is compared: the compiler cannot spread what is compared
    bias = jnp.broadcast_to(bias, logits.shape)
    return logits + bias, scalars, bias > _LOWEST / 2


def _slopes(
    logits: Array, scalars: Array, is_real: Array, slope: Array, out: Array, lse: Array
) -> tuple[jax.Array, jax.Array]:
    """Gradients of logits and value scalars."""
    d_scalars = jnp.where(is_real, jnp.exp(logits - lse), 0.0) * slope
    return d_scalars * (scalars - out), d_scalars


def _added(sums: _Sums, slopes: Array, ref: Any, at: tuple[Any, ...], blocks: Blocks) -> _Sums:
    return tuple(total + _dot(slopes, ref[*at, c], 1, 0) for total, c in zip(sums, _columns(ref, blocks), strict=True))


def _zeros(ref: Any, blocks: Blocks) -> _Sums:
    return tuple(jnp.zeros((ref.shape[0], blocks.columns), jnp.float32) for _ in _columns(ref, blocks))


def _write(sums: tuple[_Sums, _Sums], refs: tuple[Any, Any], blocks: Blocks) -> None:
    for ref, parts in zip(refs, sums, strict=True):
        for part, c in zip(parts, _columns(ref, blocks), strict=True):
            ref[:, c] = part


def _columns(ref: Any, blocks: Blocks) -> list[Any]:
    return [pl.ds(start, blocks.columns) for start in range(0, ref.shape[-1], blocks.columns)]


def _dot(a: Array, b: Array, over_a: int, over_b: int) -> jax.Array:
    # stored in half precision, multiplied in float32
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    contracted = (((over_a,), (over_b,)), ((), ()))
    return lax.dot_general(a, b, contracted, precision=precision(), preferred_element_type=jnp.float32)


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
    (n_heads, n_voxels, _), (groups, batch, n_tokens, _), rows = q.shape, k.shape, blocks.rows
    scalar = pl.BlockSpec((None, None, rows), lambda h, i, b: (b, h, i))
    shape = jax.ShapeDtypeStruct((batch, n_heads, n_voxels), jnp.float32)
    return pallas_call(
        functools.partial(_forward_kernel, blocks=blocks),
        grid=(n_heads, n_voxels // rows, batch),
        in_specs=[pl.BlockSpec((None, rows, x.shape[2]), lambda h, i, b: (h, i, 0)) for x in (q, w)]
        + [pl.BlockSpec((None, None, n_tokens, x.shape[3]), lambda h, i, b: (h % groups, b, 0, 0)) for x in (k, v)]
        + [pl.BlockSpec((None, n_tokens), lambda h, i, b: (b, 0))],
        out_specs=[scalar] * 2,
        out_shape=[shape] * 2,
        warps=4,
        interpret=interpret,
        name="voxel_attention",
    )(q, w, k, v, bias)


def _voxel_gradients(
    arrays: _LaidOut, slope: Array, out: Array, lse: Array, blocks: Blocks, interpret: bool
) -> tuple[jax.Array, jax.Array]:
    q, w, k, v, bias = arrays
    (n_heads, n_voxels, _), (groups, batch, n_tokens, _) = q.shape, k.shape
    rows = blocks.rows_of(q.shape[2] + w.shape[2])
    per_voxel = [pl.BlockSpec((None, rows, x.shape[2]), lambda h, i: (h, i, 0)) for x in (q, w)]
    scalar = pl.BlockSpec((batch, None, rows), lambda h, i: (0, h, i))
    return pallas_call(
        functools.partial(_voxel_kernel, blocks=blocks),
        grid=(n_heads, n_voxels // rows),
        in_specs=per_voxel
        + [pl.BlockSpec((None, batch, n_tokens, x.shape[3]), lambda h, i: (h % groups, 0, 0, 0)) for x in (k, v)]
        + [pl.BlockSpec((batch, n_tokens), lambda h, i: (0, 0)), pl.BlockSpec((batch, rows), lambda h, i: (0, i))]
        + [scalar] * 2,
        out_specs=per_voxel,
        out_shape=[jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in (q, w)],
        warps=blocks.warps(q.shape[2] + w.shape[2]),
        interpret=interpret,
        name="voxel_attention_of_voxels",
    )(q, w, k, v, bias, slope, out, lse)


def _token_gradients(
    arrays: _LaidOut, slope: Array, out: Array, lse: Array, blocks: Blocks, interpret: bool
) -> tuple[jax.Array, jax.Array]:
    q, w, k, v, bias = arrays
    (n_heads, n_voxels, _), (groups, batch, n_tokens, _) = q.shape, k.shape
    rows = blocks.rows_of(k.shape[3] + v.shape[3])
    scalar = pl.BlockSpec((None, None, n_voxels), lambda h, b, j: (b, h, 0))
    return pallas_call(
        functools.partial(_token_kernel, blocks=blocks),
        grid=(n_heads, batch, n_tokens // rows),
        in_specs=[pl.BlockSpec((None, n_voxels, x.shape[2]), lambda h, b, j: (h, 0, 0)) for x in (q, w)]
        + [pl.BlockSpec((None, None, rows, x.shape[3]), lambda h, b, j: (h % groups, b, j, 0)) for x in (k, v)]
        + [pl.BlockSpec((None, rows), lambda h, b, j: (b, j)), pl.BlockSpec((None, n_voxels), lambda h, b, j: (b, 0))]
        + [scalar] * 2,
        out_specs=[pl.BlockSpec((None, None, rows, x.shape[3]), lambda h, b, j: (h, b, j, 0)) for x in (k, v)],
        out_shape=[jax.ShapeDtypeStruct((n_heads, *x.shape[1:]), jnp.float32) for x in (k, v)],
        warps=blocks.warps(k.shape[3] + v.shape[3]),
        interpret=interpret,
        name="voxel_attention_of_tokens",
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
    """Pads to blocks: q, w [H, V, E], k, v [G, B, P, E], the position's columns behind those of q and k."""
    batch, n_tokens, groups, _ = keys.shape
    if position is not None:
        # half precision holds 0 and 1, but not the functions of a basis
        basis = jnp.eye(n_tokens, dtype=keys.dtype) if basis is None else basis
        extra = jnp.broadcast_to(basis[None, :, None], (batch, n_tokens, groups, basis.shape[1]))
        query, keys = jnp.concatenate([query, position], -1), jnp.concatenate([keys, extra], -1)
    multiple, real = max(blocks.rows, blocks.step), jnp.ones((batch, n_tokens), bool) if mask is None else mask
    more = ((0, 0), (0, -n_tokens % multiple))

    def voxels(x: Array) -> jax.Array:
        pad = ((0, 0), (0, -x.shape[0] % multiple), (0, -x.shape[2] % blocks.columns))
        return jnp.pad(x.transpose(1, 0, 2), pad)

    def tokens(x: Array) -> jax.Array:
        return jnp.pad(x.transpose(2, 0, 1, 3), ((0, 0), *more, (0, -x.shape[3] % blocks.columns)))

    bias = jnp.pad(jnp.where(real, 0.0, _LOWEST), more, constant_values=_LOWEST)
    return _LaidOut(voxels(query), voxels(readout), tokens(keys), tokens(values), bias)
