"""The definition: every voxel attends to the tokens with its own query and reads out one number."""

from __future__ import annotations

import jax.numpy as jnp

from mine_kernels.masked_softmax import masked_softmax


def voxel_attention(query, position, readout, keys, values, mask=None):
    """Computes y[b, v] = sum_h sum_p softmax_p(query . key + position) (readout . value).

    Args:
        query: [V, H, E], already divided by the square root of the head width.
        position: [V, H, P] added to the logits.
        readout: [V, H, E].
        keys: [B, P, G, E] with G = 1 or H.
        values: [B, P, G, E].
        mask: [B, P] bool, True for real tokens; None when all are.

    Returns:
        Predictions [B, V], without intercept. An image with no real token gives 0.
    """
    keys, values = (jnp.broadcast_to(x, (*x.shape[:2], query.shape[1], x.shape[3])) for x in (keys, values))
    logits = jnp.einsum("vhe,bphe->bvhp", query, keys) + position[None]
    scalars = jnp.einsum("vhe,bphe->bvhp", readout, values)
    attention = masked_softmax(logits, None if mask is None else mask[:, None, None])
    return (attention * scalars).sum((2, 3))


def squared_error(query, position, readout, intercept, keys, values, responses, mask=None):
    """Returns the squared error of each voxel, averaged over the batch, [V].

    Args:
        query: [V, H, E].
        position: [V, H, P].
        readout: [V, H, E].
        intercept: [V].
        keys: [B, P, G, E].
        values: [B, P, G, E].
        responses: [B, V].
        mask: [B, P] bool or None.
    """
    predicted = voxel_attention(query, position, readout, keys, values, mask) + intercept[None]
    return ((predicted - responses) ** 2).mean(0)
