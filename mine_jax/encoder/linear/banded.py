"""Banded ridge of one voxel: a readout of what the query attends to, and weights of components, penalised apart.

    minimise |y - A w - Z u - c|^2 + a |w|^2 + b |u|^2

The columns of Z are orthogonal and shared by all voxels, so u is eliminated: w solves a ridge with the Gram
matrix A'A - (Z'A)' (Z'Z + b)^-1 (Z'A), and u = (Z'Z + b)^-1 (Z'y - Z'A w). Penalties are not chosen: the
solutions of all candidates are averaged, each weighted by how well it predicts images that had no part in it.

Source: Nunez-Elizalde, Huth & Gallant 2019 (banded ridge); Dalalyan & Salmon 2012, doi:10.1214/12-AOS1038
(exponential weights of linear estimators, with temperature 8 sigma^2).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mine_jax.types import Array

# Penalties of the readout per unit of mean token variance; those of the weights per unit of an image's variance.
READOUT_PENALTIES = tuple(10.0 ** np.array([1, 1.5, 2, 2.5, 3, 4, 5]))
LINEAR_PENALTIES = tuple(10.0 ** np.arange(-0.5, 2.01, 0.5))
N_CANDIDATES = len(READOUT_PENALTIES) * len(LINEAR_PENALTIES)
_TEMPERATURE = 8.0

Solution = tuple[jax.Array, jax.Array, jax.Array]


@jax.jit
def solved(sums: dict[str, jax.Array], squares: Array) -> Solution:
    """Solves every voxel for every pair of penalties.

    Args:
        sums: of `readout.add` with components.
        squares: [R] sums of squares of the components.

    Returns:
        Readouts [V, J, H E], weights of components [V, J, R] and intercepts [V, J] for centred components; all
        readout penalties for the first penalty of the weights, then for the next.
    """
    names = ("gram", "cross", "total", "y_total", "linear_cross", "linear_y")
    solve_all = jax.vmap(_solve_one, in_axes=(0,) * len(names) + (None, None))
    return solve_all(*(sums[name] for name in names), sums["count"], jnp.asarray(squares))


@functools.partial(jax.jit, static_argnames=("n_images",))
def weights_of(errors: Array, *, n_images: int) -> jax.Array:
    """Weighs candidates [V, J] by their errors: exponential weights, which sum to 1.

    Args:
        errors: [V, J] sums of squared errors of images that had no part in the solutions.
        n_images: how many images.

    Returns:
        Weights [V, J]; the noise variance of each voxel is the mean squared error of its best candidate.
    """
    best = jnp.maximum(errors.min(1, keepdims=True), jnp.finfo(errors.dtype).tiny)
    return jax.nn.softmax(-(errors - best) / best * (n_images / _TEMPERATURE), axis=1)


@jax.jit
def averaged(solution: Solution, weights: Array) -> Solution:
    """Averages the candidates [V, J] of a solution; predictions are linear in them."""
    readouts, linear, intercept = (jnp.einsum("vj,vj...->v...", weights, part) for part in solution)
    return readouts, linear, intercept


def _solve_one(
    gram: jax.Array,
    cross: jax.Array,
    total: jax.Array,
    y_total: jax.Array,
    linear_cross: jax.Array,
    linear_y: jax.Array,
    count: jax.Array,
    squares: jax.Array,
) -> Solution:
    mean, y_mean = total / count, y_total / count
    gram = gram - count * jnp.outer(mean, mean)
    cross = cross - count * y_mean * mean
    unit = squares.sum() / jnp.maximum(count - 1, 1)

    def with_weights(share: jax.Array) -> tuple[jax.Array, jax.Array]:
        shrunk = 1.0 / (squares + share * unit)  # [R]
        reduced = gram - (linear_cross * shrunk[:, None]).T @ linear_cross
        target = cross - linear_cross.T @ (shrunk * linear_y)

        def with_readout(penalty: jax.Array) -> tuple[jax.Array, jax.Array]:
            factor = jax.scipy.linalg.cho_factor(reduced + penalty * jnp.eye(len(reduced)))
            readout = jax.scipy.linalg.cho_solve(factor, target)
            return readout, shrunk * (linear_y - linear_cross @ readout)

        return jax.lax.map(with_readout, jnp.asarray(READOUT_PENALTIES, gram.dtype))

    readouts, weights = jax.lax.map(with_weights, jnp.asarray(LINEAR_PENALTIES, gram.dtype))
    readouts, weights = (x.reshape(N_CANDIDATES, -1) for x in (readouts, weights))
    return readouts, weights, y_mean - readouts @ mean
