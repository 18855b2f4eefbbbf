"""The definition: how a voxel's validation error depends on its penalty, from Gram matrices.

In the eigenbasis of a fold's training Gram the coefficients are b = Z / (l + penalty), and
    |y - X b|^2 - |y|^2 = |R b|^2 - 2 b . P,
with R the triangular factor of the validation Gram and P the validation cross-product.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mine_kernels.arrays import Array


def ridge_sweep(factor: Array, values: Array, train: Array, valid: Array, share: Array, penalties: Array) -> jax.Array:
    """Sums the penalty-dependent part of the validation error over folds, for one voxel.

    Args:
        factor: [K, R, F] triangular factor of each fold's validation Gram.
        values: [K, F] eigenvalues of its training Gram.
        train: [K, F] rotated training cross-products Z.
        valid: [K, F] rotated validation cross-products P.
        share: [K] weight of each fold's squared error.
        penalties: [C] candidates.

    Returns:
        Errors [C], less the sum of squares of the responses.
    """
    coef = train[None] / (values[None] + penalties[:, None, None])  # [C, K, F]
    predicted = jnp.einsum("krf,ckf->ckr", factor, coef, precision="highest")
    return ((predicted**2).sum(-1) - 2 * (coef * valid[None]).sum(-1)) @ share
