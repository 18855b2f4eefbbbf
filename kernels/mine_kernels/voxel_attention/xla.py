"""One pass over voxel chunks: forward, loss and backward together.

The loss is separable over voxels, so the gradient of a prediction is known as soon as
the prediction is: no [V, H, P] tensor outlives its chunk, and two of the eight matrix
products of a recomputing backward pass are saved. Voxels are the last axis of the large
tensors: every matrix product then reads them as they lie, without a transposed copy, and
the softmax over tokens is vectorised over voxels.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from mine_kernels.masked_softmax import masked_softmax


def forward(query, position, readout, keys, values, mask, *, chunk):
    """Computes the predictions [B, V] chunk by chunk; arguments as in the reference."""
    n_voxels, batch, groups = query.shape[0], keys.shape[0], keys.shape[2]
    keys, values = _rows(keys), _rows(values)

    def one_chunk(part):
        columns = {name: _columns(part[name], groups) for name in ("query", "position", "readout")}
        attention, scalars = _attend(columns, keys, values, mask, batch)
        return _over_heads((attention * scalars).sum(2), part["query"].shape[0])

    parts = _split({"query": query, "position": position, "readout": readout}, chunk)
    predicted = lax.map(one_chunk, parts)  # [n_chunks, B, v]
    return jnp.moveaxis(predicted, 1, 0).reshape(batch, -1)[:, :n_voxels]


@functools.partial(jax.jit, static_argnames=("chunk", "with_trunk", "with_readout"))
def gradients(
    query, position, readout, intercept, keys, values, responses, mask, *, chunk, with_trunk=True, with_readout=True
):
    """Computes squared errors and their gradients; see `op.voxel_attention_gradients`. No values: the keys are."""
    values = keys if values is None else values
    n_voxels, n_heads, width = query.shape
    batch, n_tokens, groups, _ = keys.shape
    key_rows, value_rows = _rows(keys), _rows(values)  # [G, B P, E]
    key_columns, value_columns = jnp.swapaxes(key_rows, 1, 2), jnp.swapaxes(value_rows, 1, 2)
    scale = 2.0 / batch

    def one_chunk(carry, part):
        size = part["query"].shape[0]
        columns = {name: _columns(part[name], groups) for name in ("query", "position", "readout")}
        attention, scalars = _attend(columns, key_rows, value_rows, mask, batch)  # [G, B, P, c]
        per_head = (attention * scalars).sum(2)
        error = _over_heads(per_head, size) + part["intercept"][None] - part["responses"].T  # [B, v]
        repeated = jnp.tile(error * scale, (1, n_heads // groups))[None, :, None]
        d_scalars = attention * repeated
        d_logits = d_scalars * (scalars - per_head[:, :, None])
        d_position = d_logits.sum(1)
        d_scalars, d_logits = (x.reshape(groups, batch * n_tokens, -1) for x in (d_scalars, d_logits))
        out = {
            "loss": (error**2).mean(0),
            "query": _voxels_first(_product(key_columns, d_logits.astype(keys.dtype)), size),
            "position": _voxels_first(d_position, size),
            "intercept": scale * error.sum(0),
        }
        if with_readout:
            out["readout"] = _voxels_first(_product(value_columns, d_scalars.astype(keys.dtype)), size)
        if with_trunk:
            turned = {name: jnp.swapaxes(columns[name], 1, 2) for name in ("query", "readout")}
            carry = (
                carry[0] + _product(d_logits.astype(query.dtype), turned["query"]),
                carry[1] + _product(d_scalars.astype(query.dtype), turned["readout"]),
            )
        return carry, out

    named = {"query": query, "position": position, "readout": readout, "intercept": intercept}
    parts = _split({**named, "responses": responses.T}, chunk)
    zeros = jnp.zeros((groups, batch * n_tokens, width), jnp.promote_types(query.dtype, jnp.float32))
    (d_keys, d_values), out = lax.scan(one_chunk, (zeros, zeros), parts)
    out = {name: value.reshape(-1, *value.shape[2:])[:n_voxels] for name, value in out.items()}
    loss = out.pop("loss")
    if with_trunk:
        out["keys"], out["values"] = (
            jnp.moveaxis(d.reshape(groups, batch, n_tokens, width), 0, 2) for d in (d_keys, d_values)
        )
    return loss, out


def _product(a, b):
    """Matrix product that accumulates in float32 at least, also of half-precision operands."""
    accumulator = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    if jax.default_backend() == "cpu":
        # XLA has no half-precision products on CPUs; the wider operands hold the same values
        a, b = a.astype(accumulator), b.astype(accumulator)
    return jnp.matmul(a, b, preferred_element_type=accumulator)


def _rows(tokens):
    """Reads tokens [B, P, G, E] as [G, B P, E]."""
    return jnp.moveaxis(tokens, 2, 0).reshape(tokens.shape[2], -1, tokens.shape[3])


def _columns(per_voxel, groups):
    """Reads [v, H, E] as [G, E, c]: the heads that share a key head and the voxels are columns."""
    size, n_heads, width = per_voxel.shape
    return per_voxel.reshape(size, groups, n_heads // groups, width).transpose(1, 3, 2, 0).reshape(groups, width, -1)


def _voxels_first(columns, size):
    """Reads [G, E, c] as [v, H, E]: the inverse of `_columns`."""
    groups, width, _ = columns.shape
    return columns.reshape(groups, width, -1, size).transpose(3, 0, 2, 1).reshape(size, -1, width)


def _over_heads(per_head, size):
    """Sums [G, B, c] over heads to [B, v]."""
    return per_head.reshape(*per_head.shape[:2], -1, size).sum((0, 2))


def _attend(columns, keys, values, mask, batch):
    """Attention weights and value scalars of one chunk, each [G, B, P, c]."""
    groups, _, n_columns = columns["query"].shape
    shape = (groups, batch, -1, n_columns)
    logits = _product(keys, columns["query"]).reshape(shape)
    scalars = _product(values, columns["readout"]).reshape(shape)
    mask = None if mask is None else mask[None, :, :, None]
    return masked_softmax(logits + columns["position"][:, None], mask, axis=2), scalars


def _split(arrays, chunk):
    """Pads the voxel axis to a multiple of the chunk and folds it: [n_chunks, chunk, ...]."""
    n_voxels = next(iter(arrays.values())).shape[0]
    n_chunks = -(-n_voxels // chunk)
    pad = n_chunks * chunk - n_voxels
    return {
        name: jnp.pad(a, ((0, pad), *[(0, 0)] * (a.ndim - 1))).reshape(n_chunks, chunk, *a.shape[1:])
        for name, a in arrays.items()
    }
