"""The definition: integrated gradients of an attention readout over its tokens, by autodiff.

A token moves from its baseline state to its real one along a straight line. Its key logit
and its value scalar are linear in the token, so both move on straight lines as well, and
the gradient with respect to the token, dotted with its displacement, is the derivative of
the prediction along that token's own line.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mine_kernels.arrays import Array
from mine_kernels.masked_softmax import masked_softmax


def token_ig(
    logits_0: Array,
    logits_1: Array,
    scalars_0: Array,
    scalars_1: Array,
    position: Array,
    cells: Array,
    nodes: Array,
    weights: Array,
) -> jax.Array:
    """Integrates d h / d token . (token - baseline) along the path, for one voxel and one image.

    Args:
        logits_0: [H, P] key logits of each token at the baseline, without position term.
        logits_1: [H, P] at the image.
        scalars_0: [H, P] value scalars at the baseline.
        scalars_1: [H, P] at the image.
        position: [H, C] added to the logits of the C attended cells.
        cells: [C, P] weights with which tokens are averaged to cells; a row of zeros is no cell.
        nodes: [S] in (0, 1).
        weights: [S].

    Returns:
        Scores [P] in units of the prediction.
    """
    real = cells.sum(1) > 0

    def predict(share: jax.Array) -> jax.Array:
        logits = (logits_0 + share[None] * (logits_1 - logits_0)) @ cells.T + position
        scalars = (scalars_0 + share[None] * (scalars_1 - scalars_0)) @ cells.T
        return (masked_softmax(logits, real) * scalars).sum()

    gradients = jax.vmap(lambda a: jax.grad(predict)(jnp.full(logits_0.shape[1], a, logits_0.dtype)))(nodes)
    return (weights[:, None] * gradients).sum(0)


def top_k(scores: Array, k: int) -> jax.Array:
    """Returns the positions [..., K] int32 of the K largest scores [..., P], best first.

    Ties go to the lowest position, NaN comes last.
    """
    return jnp.argsort(-scores, axis=-1, stable=True)[..., :k].astype(jnp.int32)
