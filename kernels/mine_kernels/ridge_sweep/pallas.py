"""The kernel: one tile of voxels at one candidate and fold per program, the factor read tile by tile.

Tiles below the diagonal are never read. All tile sizes are powers of two and all shapes are
static, which Triton asks for; columns of tiles are multiples of 128, which TPUs ask for.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from mine_kernels.arrays import Array
from mine_kernels.launch import pallas_call
from mine_kernels.ridge_sweep.specs import Blocks


def _sweep_kernel(
    factor: Any, values: Any, train: Any, valid: Any, penalties: Any, out: Any, *, blocks: Blocks
) -> None:
    # Shapes: factor [R, F], values [F, 1], train and valid [F, v], the others [1, v].
    size = blocks.features
    n_rows, n_columns = factor.shape[0] // size, factor.shape[1] // size
    penalty = penalties[...]

    def at(block: jax.Array) -> Any:
        return pl.ds(pl.multiple_of(block * size, size), size)

    def coefficients(column: jax.Array) -> jax.Array:
        return train[at(column), :] / (values[at(column), :] + penalty)

    def one_row(row: jax.Array, squares: jax.Array) -> jax.Array:
        def one_column(column: jax.Array, predicted: jax.Array) -> jax.Array:
            return predicted + jnp.dot(factor[at(row), at(column)], coefficients(column), precision="highest")

        predicted = lax.fori_loop(row, n_columns, one_column, jnp.zeros((size, blocks.voxels), jnp.float32))
        return squares + (predicted * predicted).sum(0, keepdims=True)

    def one_linear(column: jax.Array, total: jax.Array) -> jax.Array:
        return total + (coefficients(column) * valid[at(column), :]).sum(0, keepdims=True)

    zero = jnp.zeros((1, blocks.voxels), jnp.float32)
    out[...] = lax.fori_loop(0, n_rows, one_row, zero) - 2 * lax.fori_loop(0, n_columns, one_linear, zero)


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
    platform: str = "gpu",
) -> jax.Array:
    """Launches the kernel over folds, tiles of voxels and candidates; zeros pad ragged sizes.

    Args:
        factor: [K, R, F]; this and the others as in the public form.
        values: [K, F].
        train: [K, F, V].
        valid: [K, F, V].
        share: [K].
        penalties: [C, V].
        blocks: tile sizes.
        interpret: runs the kernel in the interpreter.
        platform: "gpu" or "tpu".

    Returns:
        Errors [C, V] float32.
    """
    (n_folds, rows, features), (n_candidates, n_voxels) = factor.shape, penalties.shape
    more_rows, more = -rows % blocks.features, -features % blocks.features
    more_voxels = -n_voxels % blocks.voxels
    factor = jnp.pad(factor, ((0, 0), (0, more_rows), (0, more)))
    # eigenvalues and penalties of 1 keep the padding finite
    values = jnp.pad(values, ((0, 0), (0, more)), constant_values=1)[:, :, None]
    train, valid = (jnp.pad(x, ((0, 0), (0, more), (0, more_voxels))) for x in (train, valid))
    padded = jnp.pad(penalties, ((0, 0), (0, more_voxels)), constant_values=1)[:, None]
    # a fold is the slowest axis: its factor is read once for all voxels and candidates
    of_fold = [pl.BlockSpec((None, *x.shape[1:]), lambda fold, tile, candidate: (fold, 0, 0)) for x in (factor, values)]
    columns = pl.BlockSpec((None, features + more, blocks.voxels), lambda fold, tile, candidate: (fold, 0, tile))
    errors = pallas_call(
        functools.partial(_sweep_kernel, blocks=blocks),
        grid=(n_folds, padded.shape[2] // blocks.voxels, n_candidates),
        in_specs=[
            *of_fold,
            columns,
            columns,
            pl.BlockSpec((None, 1, blocks.voxels), lambda fold, tile, candidate: (candidate, 0, tile)),
        ],
        out_specs=pl.BlockSpec(
            (None, None, 1, blocks.voxels), lambda fold, tile, candidate: (fold, candidate, 0, tile)
        ),
        out_shape=jax.ShapeDtypeStruct((n_folds, *padded.shape), jnp.float32),
        warps=8,
        interpret=interpret,
        platform=platform,
        name="ridge_sweep",
    )(factor, values, train, valid, padded)
    return (errors[:, :, 0, :n_voxels] * share[:, None, None]).sum(0)
