"""Exact K-fold cross-validation from Gram matrices.

Per fold one eigendecomposition of the training Gram, shared by all voxels and penalties; with
f = 1 / (l + alpha), Z and P the rotated training and validation cross-products and R the
factor of the rotated validation Gram,
    error(alpha) = y'y - 2 sum f Z P + |R (f Z)|^2.
The diagonal of the quadratic form gives each voxel's whole curve cheaply; exact errors follow
around its minimum. The voxel-independent part is float64 on the host. Rows may have weights.
Source: Hastie, Tibshirani & Friedman 2009, 3.4.1; the bookkeeping is ours.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np

from mine_jax import sharding
from mine_jax.encoder.ridge.search import search
from mine_jax.types import Array

# Full float32 on every device: with shorter operands coefficients are off by more than 1 %.
_multiply = functools.partial(jnp.matmul, precision="highest", preferred_element_type=jnp.float32)


class Folds(NamedTuple):
    """Everything without a voxel axis, float32; K is the fold."""

    features: tuple[jax.Array, ...]  # per fold [F, n], centred and weighted
    row_weights: jax.Array  # [K, N], each fold those of its own rows, else 0
    values: jax.Array  # [F] eigenvalues of the whole Gram
    vectors: jax.Array  # [F, F]
    turn: jax.Array  # [F, F], the transposed vectors
    fold_values: jax.Array  # [K, F]
    fold_turn: jax.Array  # [K, F, F]
    factor: jax.Array  # [K, R, F] upper triangular, of the rotated validation Gram
    diagonal: jax.Array  # [K, F] of the rotated validation Gram
    train_mean: jax.Array  # [K, F] rotated
    valid_sum: jax.Array  # [K, F] rotated
    valid_weight: jax.Array  # [K] sum of weights
    train_weight: jax.Array  # [K] sum of weights
    share: jax.Array  # [K] of each fold's squared error in the mean over folds


def prepare(features: np.ndarray, weights: np.ndarray, folds: list[np.ndarray]) -> tuple[Folds, np.ndarray]:
    """Makes the part that all voxels share.

    Args:
        features: [N, F].
        weights: [N] of the rows, at least two folds with a positive sum.
        folds: validation rows of each fold.

    Returns:
        The folds, and the weighted mean of the features [F] float64.
    """
    # fold by fold: a float64 copy of all features would be the largest array of the whole fit
    mean = sum(weights[fold] @ features[fold].astype(np.float64) for fold in folds) / weights.sum()
    rows, grams, sums, masses = [], [], [], np.array([weights[fold].sum() for fold in folds])
    for fold in folds:
        block = features[fold].astype(np.float64) - mean
        weighted = block * weights[fold][:, None]
        grams.append(block.T @ weighted)
        sums.append(weighted.sum(0))
        rows.append(weighted.T.astype(np.float32, order="C"))
    gram, total, mass = sum(grams), sum(sums), masses.sum()
    parts = []
    for fold, own, own_sum, own_mass in zip(folds, grams, sums, masses, strict=True):
        train_mass = mass - own_mass
        train_mean = (total - own_sum) / train_mass
        values, vectors = np.linalg.eigh(gram - own - train_mass * np.outer(train_mean, train_mean))
        outer = np.outer(own_sum, train_mean)
        valid = vectors.T @ (own - outer - outer.T + own_mass * np.outer(train_mean, train_mean)) @ vectors
        if len(fold) > len(gram):
            factor = _cholesky(valid)
        else:
            block = (features[fold].astype(np.float64) - mean - train_mean) * np.sqrt(weights[fold])[:, None]
            factor = np.linalg.qr(block @ vectors, mode="r")
        rotated = (train_mean @ vectors, own_sum @ vectors)
        part = (np.maximum(values, 0), vectors.T, factor, np.diag(valid), *rotated, own_mass, train_mass)
        parts.append([np.asarray(x, np.float32) for x in part])
    n_rows = max(len(part[2]) for part in parts)
    for part in parts:
        part[2] = np.pad(part[2], ((0, n_rows - len(part[2])), (0, 0)))
    values, vectors = np.linalg.eigh(gram)
    used = masses > 0
    share = np.divide(1 / used.sum(), masses, out=np.zeros(len(folds)), where=used)
    row_weights = np.repeat(np.eye(len(folds)), [len(fold) for fold in folds], axis=1)
    row_weights *= weights[np.concatenate(folds)]
    whole = (np.maximum(values, 0), vectors, vectors.T)
    every = (tuple(rows), row_weights, *whole, *(np.stack(arrays) for arrays in zip(*parts, strict=True)), share)
    return Folds(*jax.tree.map(lambda x: sharding.on_device(np.asarray(x, np.float32, order="C")), every)), mean


def _cholesky(gram: np.ndarray) -> np.ndarray:
    """Upper triangular factor; a ridge of the size of rounding errors keeps singular Grams positive."""
    rounding = 4 * len(gram) * np.finfo(np.float64).eps * max(gram.diagonal().max(), np.finfo(np.float32).tiny)
    return np.linalg.cholesky(gram + rounding * np.eye(len(gram))).T


@jax.jit
def solve_block(responses: Array, folds: Folds, penalties: Array) -> tuple[jax.Array, ...]:
    """Solves a block of voxels.

    Args:
        responses: [N, v] float32, rows in the order of the folds.
        folds: of `prepare`.
        penalties: [A] float32.

    Returns:
        Coefficients [F, v], weighted means of the responses [v], penalties [v], errors [v].
    """
    cross, train, valid, y_square, y_mean = _rotated(responses, folds)
    weighted = train * folds.share[:, None, None]
    diagonal = weighted * train * folds.diagonal[:, :, None]
    f = 1.0 / (folds.fold_values[None] + penalties[:, None, None])  # [A, K, F]
    screened = _over_folds(f * f, diagonal) - 2 * _over_folds(f, weighted * valid)

    def exact(index: jax.Array, columns: jax.Array | None) -> jax.Array:
        pair = (train, valid) if columns is None else (x.at[:, :, columns].get(mode="clip") for x in (train, valid))
        return mine_kernels.ridge_sweep(folds.factor, folds.fold_values, *pair, folds.share, penalties[index])

    best, error = search(screened, exact)
    penalty = penalties[best]
    rotated = _multiply(folds.turn, cross) / (folds.values[:, None] + penalty[None])
    return _multiply(folds.vectors, rotated), y_mean, penalty, error + folds.share @ y_square


def _over_folds(f: jax.Array, products: jax.Array) -> jax.Array:
    """Sums [A, K, F] times [K, F, v] over folds and features, [A, v]."""
    return _multiply(f.reshape(len(f), -1), products.reshape(-1, products.shape[-1]))


def _rotated(responses: Array, p: Folds) -> tuple[jax.Array, ...]:
    """Cross-products of each fold's training and validation rows in its eigenbasis, [K, F, v]."""
    bounds = itertools.pairwise(np.cumsum([0, *(x.shape[1] for x in p.features)]).tolist())
    row_weights = p.row_weights.sum(0)
    y_mean = row_weights @ responses / row_weights.sum()
    y = responses - y_mean[None]
    per_fold = jnp.stack([_multiply(x, y[a:b]) for x, (a, b) in zip(p.features, bounds, strict=True)])
    y_sum, y_square = _multiply(p.row_weights, y), _multiply(p.row_weights, y**2)
    cross = per_fold.sum(0)
    y_train = (y_sum.sum(0, keepdims=True) - y_sum) / p.train_weight[:, None]
    mean, total = p.train_mean[:, :, None], p.valid_sum[:, :, None]
    valid = _multiply(p.fold_turn, per_fold)
    train = _multiply(p.fold_turn.reshape(-1, len(cross)), cross).reshape(valid.shape) - valid
    train = train - p.train_weight[:, None, None] * mean * y_train[:, None]
    valid = valid - total * y_train[:, None] - mean * (y_sum - p.valid_weight[:, None] * y_train)[:, None]
    y_square = y_square - 2 * y_train * y_sum + p.valid_weight[:, None] * y_train**2
    return cross, train, valid, y_square, y_mean
