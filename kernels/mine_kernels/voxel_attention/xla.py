"""One pass over voxel chunks: forward, loss and backward together.

The loss is separable over voxels, so the gradient of a prediction is known as soon as
the prediction is: no [V, H, P] tensor outlives its chunk, and two of the eight matrix
products of a recomputing backward pass are saved.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from mine_kernels.masked_softmax import masked_softmax


def forward(query, position, readout, keys, values, mask, *, chunk):
    """Computes the predictions [B, V] chunk by chunk; arguments as in the reference."""
    keys, values = _heads_first(keys), _heads_first(values)

    def one_chunk(part):
        attention, scalars = _attend(part["query"], part["position"], part["readout"], keys, values, mask)
        return (attention * scalars).sum((0, -1))

    parts = _split({"query": query, "position": position, "readout": readout}, chunk)
    predicted = lax.map(one_chunk, parts)
    return predicted.reshape(-1, predicted.shape[-1])[: query.shape[0]].T


@functools.partial(jax.jit, static_argnames=("chunk", "with_trunk", "with_readout"))
def gradients(
    query, position, readout, intercept, keys, values, responses, mask, *, chunk, with_trunk=True, with_readout=True
):
    """Computes squared errors and their gradients; see `op`. `values` is None when the keys are the values."""
    n_voxels, batch = query.shape[0], keys.shape[0]
    key_blocks = _heads_first(keys)
    value_blocks = key_blocks if values is None else _heads_first(values)
    scale = 2.0 / batch

    def one_chunk(carry, part):
        d_keys, d_values = carry
        attention, scalars = _attend(
            part["query"], part["position"], part["readout"], key_blocks, value_blocks, mask
        )  # [H, v, B, P]
        per_head = (attention * scalars).sum(-1)
        error = per_head.sum(0) + part["intercept"][:, None] - part["responses"]  # [v, B]
        d_scalars = attention * (error * scale)[None, :, :, None]
        d_logits = d_scalars * (scalars - per_head[..., None])
        out = {
            "loss": (error**2).mean(-1),
            "query": _contract(d_logits, key_blocks),
            "position": jnp.moveaxis(d_logits.sum(2), 0, 1),
            "intercept": scale * error.sum(-1),
        }
        if with_readout:
            out["readout"] = _contract(d_scalars, value_blocks)
        if with_trunk:
            d_keys = d_keys + _spread(d_logits, part["query"], key_blocks.shape[0])
            d_values = d_values + _spread(d_scalars, part["readout"], value_blocks.shape[0])
        return (d_keys, d_values), out

    parts = _split(
        {
            "query": query,
            "position": position,
            "readout": readout,
            "intercept": intercept,
            "responses": responses.T,
        },
        chunk,
    )
    wide = _wide(key_blocks)
    zeros = tuple(jnp.zeros(x.shape, wide) if with_trunk else 0 for x in (key_blocks, value_blocks))
    (d_keys, d_values), out = lax.scan(one_chunk, zeros, parts)
    out = {name: value.reshape(-1, *value.shape[2:])[:n_voxels] for name, value in out.items()}
    loss = out.pop("loss")
    if with_trunk:
        out |= {"keys": jnp.moveaxis(d_keys, 0, 2), "values": jnp.moveaxis(d_values, 0, 2)}
    return loss, out


def _wide(*arrays):
    """float32, or float64 when an array is."""
    return jnp.promote_types(jnp.float32, jnp.result_type(*arrays))


def _einsum(subscripts, a, b):
    return jnp.einsum(subscripts, a, b, preferred_element_type=_wide(a, b))


def _heads_first(tokens):
    return jnp.moveaxis(tokens, 2, 0)  # [G, B, P, E]


def _attend(query, position, readout, keys, values, mask):
    """Attention weights and value scalars of one chunk, each [H, v, B, P]."""
    if keys.shape[0] == 1:
        logits = _einsum("vhe,bpe->hvbp", query, keys[0])
        scalars = _einsum("vhe,bpe->hvbp", readout, values[0])
    else:
        logits = _einsum("vhe,hbpe->hvbp", query, keys)
        scalars = _einsum("vhe,hbpe->hvbp", readout, values)
    logits = logits + jnp.moveaxis(position, 1, 0)[:, :, None]
    return masked_softmax(logits, mask), scalars


def _contract(gradient, tokens):
    """Sums gradient [H, v, B, P] over tokens [G, B, P, E] to [v, H, E]."""
    gradient = gradient.astype(tokens.dtype)
    if tokens.shape[0] == 1:
        return _einsum("hvbp,bpe->vhe", gradient, tokens[0])
    return _einsum("hvbp,hbpe->vhe", gradient, tokens)


def _spread(gradient, per_voxel, n_key_heads):
    """Gradient of the tokens: sums over the chunk's voxels (and heads when they share keys)."""
    gradient = gradient.astype(per_voxel.dtype)
    if n_key_heads == 1:
        return _einsum("hvbp,vhe->bpe", gradient, per_voxel)[None]
    return _einsum("hvbp,vhe->hbpe", gradient, per_voxel)


def _split(arrays, chunk):
    """Pads the voxel axis to a multiple of the chunk and folds it: [n_chunks, chunk, ...]."""
    n_voxels = next(iter(arrays.values())).shape[0]
    n_chunks = -(-n_voxels // chunk)
    pad = n_chunks * chunk - n_voxels
    return {
        name: jnp.pad(a, ((0, pad), *[(0, 0)] * (a.ndim - 1))).reshape(n_chunks, chunk, *a.shape[1:])
        for name, a in arrays.items()
    }
