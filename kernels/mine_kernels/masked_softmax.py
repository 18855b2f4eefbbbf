"""Softmax over the real tokens only."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mine_kernels.arrays import Array


def masked_softmax(logits: Array, mask: Array | None = None, *, axis: int = -1) -> jax.Array:
    """Computes softmax over an axis; masked places get 0, and a row with none is all 0.

    Args:
        logits: [..., P].
        mask: bool, broadcastable to `logits`, True for real tokens; None when all are.
        axis: the axis of the tokens.

    Returns:
        Weights [..., P]; gradients are finite also where everything is masked.
    """
    if mask is None:
        return jax.nn.softmax(logits, axis)
    safe = jnp.where(mask, logits, -jnp.inf)
    top = jax.lax.stop_gradient(safe.max(axis, keepdims=True))
    weights = jnp.where(mask, jnp.exp(jnp.where(mask, logits - jnp.where(jnp.isfinite(top), top, 0.0), 0.0)), 0.0)
    total = weights.sum(axis, keepdims=True)
    return weights / jnp.where(total > 0, total, 1.0)
