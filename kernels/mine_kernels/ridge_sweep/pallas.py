"""The kernel: one tile of voxels at one candidate per program, the factor read tile by tile.

Tiles below the diagonal are never read. All tile sizes are powers of two and all shapes are
static, which the lowering to Triton asks for.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from mine_kernels.arrays import Array
from mine_kernels.ridge_sweep.specs import Blocks


def _sweep_kernel(
    factor: Any,
    values: Any,
    train: Any,
    valid: Any,
    share: Any,
    penalties: Any,
    out: Any,
    *,
    blocks: Blocks,
    n_folds: int,
) -> None:
    # Shapes: factor [K, R, F], values [K, F, 1], train and valid [K, F, v], share [K, 1], the others [1, v].
    size = blocks.features
    n_rows, n_columns = factor.shape[1] // size, factor.shape[2] // size
    penalty = penalties[...]

    def coefficients(k: jax.Array, column: jax.Array) -> jax.Array:
        here = pl.ds(column * size, size)
        return train[k, here, :] / (values[k, here, :] + penalty)

    def one_fold(k: jax.Array, error: jax.Array) -> jax.Array:
        def one_row(row: jax.Array, squares: jax.Array) -> jax.Array:
            def one_column(column: jax.Array, predicted: jax.Array) -> jax.Array:
                tile = factor[k, pl.ds(row * size, size), pl.ds(column * size, size)]
                return predicted + jnp.dot(tile, coefficients(k, column), precision="highest")

            predicted = lax.fori_loop(row, n_columns, one_column, jnp.zeros((size, blocks.voxels), jnp.float32))
            return squares + (predicted * predicted).sum(0, keepdims=True)

        def one_linear(column: jax.Array, total: jax.Array) -> jax.Array:
            products = coefficients(k, column) * valid[k, pl.ds(column * size, size), :]
            return total + products.sum(0, keepdims=True)

        zero = jnp.zeros((1, blocks.voxels), jnp.float32)
        squares = lax.fori_loop(0, n_rows, one_row, zero)
        linear = lax.fori_loop(0, n_columns, one_linear, zero)
        return error + share[pl.ds(k, 1), :] * (squares - 2 * linear)

    out[...] = lax.fori_loop(0, n_folds, one_fold, jnp.zeros((1, blocks.voxels), jnp.float32))


def ridge_sweep(
    factor: Array,
    values: Array,
    train: Array,
    valid: Array,
    share: Array,
    penalties: Array,
    *,
    blocks: Blocks,
    interpret: bool,
) -> jax.Array:
    """Launches the kernel over candidates and tiles of voxels; zeros pad ragged sizes.

    Args:
        factor: [K, R, F]; this and the others as in the public form.
        values: [K, F].
        train: [K, F, V].
        valid: [K, F, V].
        share: [K].
        penalties: [C, V].
        blocks: tile sizes.
        interpret: runs the kernel in the interpreter.

    Returns:
        Errors [C, V] float32.
    """
    n_folds, rows, features = factor.shape
    n_voxels = penalties.shape[1]
    more_rows, more = -rows % blocks.features, -features % blocks.features
    more_voxels = -n_voxels % blocks.voxels
    factor = jnp.pad(factor, ((0, 0), (0, more_rows), (0, more)))
    # eigenvalues and penalties of 1 keep the padding finite
    values = jnp.pad(values, ((0, 0), (0, more)), constant_values=1)[:, :, None]
    train, valid = (jnp.pad(x, ((0, 0), (0, more), (0, more_voxels))) for x in (train, valid))
    padded = jnp.pad(penalties, ((0, 0), (0, more_voxels)), constant_values=1)
    whole = pl.BlockSpec(factor.shape, lambda candidate, tile: (0, 0, 0))
    columns = pl.BlockSpec((n_folds, features + more, blocks.voxels), lambda candidate, tile: (0, 0, tile))
    of_voxels = pl.BlockSpec((1, blocks.voxels), lambda candidate, tile: (candidate, tile))
    errors = pl.pallas_call(
        functools.partial(_sweep_kernel, blocks=blocks, n_folds=n_folds),
        grid=(padded.shape[0], padded.shape[1] // blocks.voxels),
        in_specs=[
            whole,
            pl.BlockSpec(values.shape, lambda candidate, tile: (0, 0, 0)),
            columns,
            columns,
            pl.BlockSpec((n_folds, 1), lambda candidate, tile: (0, 0)),
            of_voxels,
        ],
        out_specs=of_voxels,
        out_shape=jax.ShapeDtypeStruct(padded.shape, jnp.float32),
        interpret=interpret,
        name="ridge_sweep",
    )(factor, values, train, valid, share[:, None], padded)
    return errors[:, :n_voxels]
