"""All voxels by matrix products that skip the zeros below the diagonal of the factor."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from mine_kernels.arrays import Array

# Rows of the factor multiplied at once: 128 of 512 leaves out three eighths of the products.
ROW_BLOCK = 128


def ridge_sweep(factor: Array, values: Array, train: Array, valid: Array, share: Array, penalties: Array) -> jax.Array:
    """Computes the reference for all voxels: train and valid [K, F, V], penalties [C, V] -> [C, V]."""

    def at(penalty: Array) -> jax.Array:
        coef = train / (values[:, :, None] + penalty[None, None])
        error = -2 * ((coef * valid).sum(1) * share[:, None]).sum(0)
        for first in range(0, min(factor.shape[1:]), ROW_BLOCK):
            rows = factor[:, first : first + ROW_BLOCK, first:]
            predicted = jnp.matmul(rows, coef[:, first:], precision="highest", preferred_element_type=coef.dtype)
            error = error + ((predicted**2).sum(1) * share[:, None]).sum(0)
        return error

    return lax.map(at, penalties)
