"""Closed forms of generalised and of leave-one-out cross-validation.

With the left singular vectors U and eigenvalues l of the centred features, residuals are
    r(alpha) = (y - U U'y) + U (alpha / (l + alpha) U'y)
and leverages follow likewise, so that nothing cancels when there are more features than rows:
the first term is then exactly zero. Leave-one-out residuals are r / (1 - leverage).
Source: Golub, Heath & Wahba 1979 (GCV); Allen 1974 (leave-one-out). Intercepts are included;
rows of weight w enter with sqrt(w).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mine_jax import sharding
from mine_jax.encoder.ridge.search import search
from mine_jax.types import Array

_multiply = functools.partial(jnp.matmul, precision="highest", preferred_element_type=jnp.float32)


class Basis(NamedTuple):
    """Everything without a voxel axis, float32."""

    basis: jax.Array  # [F, N] left singular vectors, zero where the eigenvalue is
    roots: jax.Array  # [N] square roots of the row weights
    values: jax.Array  # [F] eigenvalues of the Gram
    vectors: jax.Array  # [F, F]
    remains: jax.Array  # [] 0 if the features can fit every row, else 1
    freedom: jax.Array  # [A] share of the degrees of freedom that is left
    inverse: jax.Array  # [A, N] 1 / (1 - leverage); [A, 0] for GCV


def prepare(
    features: np.ndarray, weights: np.ndarray, penalties: np.ndarray, *, leave_one_out: bool
) -> tuple[Basis, np.ndarray]:
    """Makes the part that all voxels share.

    Args:
        features: [N, F].
        weights: [N] of the rows.
        penalties: [A].
        leave_one_out: whether leverages are needed.

    Returns:
        The basis, and the weighted mean of the features [F] float64.
    """
    roots, total, n_rows = np.sqrt(weights), weights.sum(), int((weights > 0).sum())
    mean = weights @ features.astype(np.float64) / total
    scaled = (features - mean) * roots[:, None]
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    real = values > max(n_rows, len(values)) * np.finfo(np.float64).eps * max(values[-1], 0)
    values = np.where(real, values, 0)
    basis = (scaled @ vectors) * np.where(real, 1 / np.sqrt(np.where(real, values, 1)), 0)
    remains = real.sum() < n_rows - 1
    kept = np.where(real, penalties[:, None] / (values + penalties[:, None]), 0)  # [A, F]
    freedom = ((n_rows - 1 - real.sum()) * remains + kept.sum(1)) / n_rows
    inverse = np.zeros((len(penalties), 0))
    if leave_one_out:
        rest = np.maximum(1 - weights / total - (basis**2).sum(1), 0) * remains
        left = kept @ (basis**2).T + rest  # 1 - leverage
        inverse = np.divide(1, left, out=np.zeros_like(left), where=(weights > 0) & (left > 0))
    arrays = (basis.T, roots, values, vectors, remains, freedom, inverse)
    return Basis(*(sharding.on_device(np.asarray(x, np.float32, order="C")) for x in arrays)), mean


@functools.partial(jax.jit, static_argnames=("leave_one_out",))
def solve_block(responses: Array, p: Basis, penalties: Array, *, leave_one_out: bool) -> tuple[jax.Array, ...]:
    """Solves a block of voxels.

    Args:
        responses: [N, v] float32.
        p: of `prepare`.
        penalties: [A] float32, those of `prepare`.
        leave_one_out: exact leave-one-out errors instead of GCV.

    Returns:
        Coefficients [F, v], weighted means of the responses [v], penalties [v], errors [v].
    """
    weights = p.roots**2
    total = weights.sum()
    y_mean = weights @ responses / total
    y = (responses - y_mean[None]) * p.roots[:, None]
    turned = _multiply(p.basis, y)  # [F, v]
    kept = penalties[:, None] / (p.values[None] + penalties[:, None])  # [A, F]
    beyond = p.remains * jnp.maximum((y**2).sum(0) - (turned**2).sum(0), 0)
    squares = _multiply(kept**2, turned**2) + beyond[None]
    curve = squares / total / p.freedom[:, None] ** 2
    if leave_one_out:
        remainder = p.remains * (y - _multiply(p.basis.T, turned))
        best, error = search(curve, functools.partial(_left_out, p, turned, remainder, kept, total))
    else:
        best = jnp.argmin(curve, 0)
        error = curve.min(0)
    penalty = penalties[best]
    rotated = turned * jnp.sqrt(p.values)[:, None] / (p.values[:, None] + penalty[None])
    return _multiply(p.vectors, rotated), y_mean, penalty, error


def _left_out(
    p: Basis,
    turned: jax.Array,
    remainder: jax.Array,
    kept: jax.Array,
    total: jax.Array,
    index: jax.Array,
    columns: jax.Array | None,
) -> jax.Array:
    """Mean squared leave-one-out error at penalties [C, b] of some columns or of all, [C, b]."""
    if columns is not None:
        turned, remainder = (x.at[:, columns].get(mode="clip") for x in (turned, remainder))

    def at(place: jax.Array) -> jax.Array:
        residual = remainder + _multiply(p.basis.T, kept[place].T * turned)
        return ((residual * p.inverse[place].T) ** 2).sum(0) / total

    return lax.map(at, index)
