"""The definition: every voxel attends to the tokens with its own query and reads out one number."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mine_kernels.arrays import Array
from mine_kernels.masked_softmax import masked_softmax


def voxel_attention(
    query: Array,
    position: Array | None,
    readout: Array,
    keys: Array,
    values: Array,
    mask: Array | None = None,
    basis: Array | None = None,
) -> jax.Array:
    """Computes y[b, v] = sum_h sum_p softmax_p(query . key + position) (readout . value).

    Args:
        query: [V, H, E], already divided by the square root of the head width.
        position: [V, H, P] added to the logits; [V, H, J] with a basis; None for none.
        readout: [V, H, E].
        keys: [B, P, G, E] with G = 1 or H.
        values: [B, P, G, E].
        mask: [B, P] bool, True for real tokens; None when all are.
        basis: [P, J] whose coefficients `position` holds, or None.

    Returns:
        Predictions [B, V], without intercept. An image with no real token gives 0.
    """
    keys, values = (jnp.broadcast_to(x, (*x.shape[:2], query.shape[1], x.shape[3])) for x in (keys, values))
    logits = jnp.einsum("vhe,bphe->bvhp", query, keys)
    if position is not None:
        logits = logits + (position if basis is None else position @ basis.T)[None]
    scalars = jnp.einsum("vhe,bphe->bvhp", readout, values)
    attention = masked_softmax(logits, None if mask is None else mask[:, None, None])
    return (attention * scalars).sum((2, 3))


def squared_error(
    query: Array,
    position: Array | None,
    readout: Array,
    intercept: Array,
    keys: Array,
    values: Array,
    responses: Array,
    mask: Array | None = None,
    basis: Array | None = None,
) -> jax.Array:
    """Returns the squared error of each voxel, averaged over the batch, [V].

    Args:
        query: [V, H, E].
        position: [V, H, P], [V, H, J] with a basis, or None.
        readout: [V, H, E].
        intercept: [V].
        keys: [B, P, G, E].
        values: [B, P, G, E].
        responses: [B, V].
        mask: [B, P] bool or None.
        basis: [P, J] or None.
    """
    predicted = voxel_attention(query, position, readout, keys, values, mask, basis) + intercept[None]
    return ((predicted - responses) ** 2).mean(0)


def trunk_squared_error(
    query: Array,
    position: Array | None,
    readout: Array,
    intercept: Array,
    key_weight: Array,
    key_bias: Array,
    states: Array,
    responses: Array,
    value_weight: Array | None = None,
    value_bias: Array | None = None,
    mask: Array | None = None,
    basis: Array | None = None,
) -> jax.Array:
    """Returns the squared error of each voxel, [V], from token states before their projection.

    Args:
        query: [V, H, E].
        position: [V, H, P], [V, H, J] with a basis, or None.
        readout: [V, H, E].
        intercept: [V].
        key_weight: [D, G, E].
        key_bias: [G, E].
        states: [B, P, D].
        responses: [B, V].
        value_weight: [D, G, E]; None where the keys are the values.
        value_bias: [G, E], or None with it.
        mask: [B, P] bool or None.
        basis: [P, J] or None.
    """
    keys = values = jnp.einsum("bpd,dge->bpge", states, key_weight) + key_bias[None, None]
    if value_weight is not None and value_bias is not None:
        values = jnp.einsum("bpd,dge->bpge", states, value_weight) + value_bias[None, None]
    return squared_error(query, position, readout, intercept, keys, values, responses, mask, basis)
