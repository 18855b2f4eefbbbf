"""The ridge encoder: one linear readout per voxel, its penalty by exact K-fold cross-validation.

Every validation error follows from Gram matrices: per fold one eigendecomposition of the
training Gram, shared by all voxels and penalties; with f = 1 / (l + alpha), Z and P the
rotated training and validation cross-products and R the rotated validation features,
    error(alpha) = y'y - 2 sum f Z P + |R (f Z)|^2.
The voxel-independent part is float64 on the host. The diagonal of the quadratic form gives
each voxel's whole curve cheaply; exact errors follow around its minimum until the minimum
is bracketed, so the chosen penalty is the one that a full search chooses wherever the curve
has one valley. Source: Hastie, Tibshirani & Friedman 2009, 3.4.1; the bookkeeping is ours.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mine_jax._progress import Progress, silent
from mine_jax.types import Architecture

_F32 = {"preferred_element_type": jnp.float32}


def predict_one(shared, voxel, tokens, mask, architecture: Architecture):
    """Predicts one voxel's response to one image.

    Args:
        shared: of `summarize_one`.
        voxel: `coef` [F], `intercept` [].
        tokens: [P, D].
        mask: [P] bool or None.
        architecture: static description.

    Returns:
        Scalar, z-scored beta.
    """
    return summarize_one(shared, tokens, mask, architecture) @ voxel["coef"] + voxel["intercept"]


def summarize_one(shared, tokens, mask, architecture: Architecture):
    """Returns the image-level features [F]: the mean token, or the projected token grid.

    Args:
        shared: `center` [F]; for the grid also `key_weight` [D, 1, E] and `key_bias` [1, E].
        tokens: [P, D].
        mask: [P] bool or None.
        architecture: `summary` is "mean" or "grid".
    """
    from mine_jax.encoder import query

    if architecture.summary == "mean":
        if mask is None:
            return tokens.mean(0) - shared["center"]
        count = jnp.maximum(mask.sum(), 1)
        return jnp.where(mask[:, None], tokens, 0.0).sum(0) / count - shared["center"]
    weights = query.cells(architecture, tokens.shape[0], mask)
    if mask is not None:
        tokens = jnp.where(mask[:, None], tokens, 0.0)
    cells = tokens if weights is None else weights @ tokens
    return (cells @ shared["key_weight"][:, 0] + shared["key_bias"]).reshape(-1) - shared["center"]


def token_terms_one(shared, voxel, tokens, cell_weights, architecture: Architecture):
    """Returns zeros and each token's additive share of the prediction, both [1, P]; see `query`."""
    coef = voxel["coef"]
    if architecture.summary == "mean":
        weights = jnp.full(len(tokens), 1 / len(tokens)) if cell_weights is None else cell_weights.sum(0)
        scalars = (tokens @ coef) * (weights / jnp.maximum(weights.sum(), 1e-9))
    else:
        per_cell = coef.reshape(-1, shared["key_bias"].shape[1])  # [C, E]
        projected = tokens @ shared["key_weight"][:, 0]  # [P, E]
        cell_weights = jnp.eye(len(tokens)) if cell_weights is None else cell_weights
        scalars = jnp.einsum("cp,pe,ce->p", cell_weights, projected, per_cell)
    return jnp.zeros((1, len(tokens))), scalars[None]


def readout_one(shared, logits, scalars, voxel, cell_weights, architecture: Architecture):
    """Returns the prediction from token terms [1, P]."""
    del logits, cell_weights
    offset = voxel["intercept"] - shared["center"] @ voxel["coef"]
    if architecture.summary == "grid":
        width = shared["key_bias"].shape[1]
        offset = offset + (voxel["coef"].reshape(-1, width) @ shared["key_bias"][0]).sum()
    return scalars.sum() + offset


class Solution(NamedTuple):
    """Coefficients [F, V] float32, intercepts [V], chosen penalties [V], their validation errors [V]."""

    coef: np.ndarray
    intercept: np.ndarray
    penalty: np.ndarray
    error: np.ndarray


def solve(
    features: np.ndarray,
    responses: np.ndarray,
    penalties: np.ndarray,
    *,
    folds: int | list[np.ndarray] = 5,
    voxel_chunk: int | None = 512,
    progress: Progress = silent,
) -> Solution:
    """Solves one ridge regression per voxel, each with its own penalty.

    Args:
        features: [N, F], any float dtype; computed in float32 after centring in float64.
        responses: [N, V] float32, may be memory-mapped.
        penalties: [A] increasing, A at least 3, in units of summed squares.
        folds: number of consecutive folds, or the validation rows of each fold.
        voxel_chunk: voxels held at once. Memory only, never the result.
        progress: called after each chunk.

    Returns:
        The solution; the penalty minimises the mean squared validation error over folds.

    Raises:
        ValueError: for fewer than three penalties, or fewer rows than folds.
    """
    n, n_voxels = responses.shape
    if len(penalties) < 3 or (isinstance(folds, int) and not 2 <= folds <= n):
        raise ValueError(f"need at least 3 penalties and 2 to {n} folds, but got {len(penalties)} and {folds}.")
    rows = np.array_split(np.arange(n), folds) if isinstance(folds, int) else folds
    order = np.concatenate(rows)
    bounds = tuple(np.cumsum([0, *map(len, rows)]).tolist())
    prepared, mean = _prepare(np.asarray(features, np.float64)[order], bounds)
    chunk = min(n_voxels, voxel_chunk or n_voxels)
    parts = []
    alphas = jnp.asarray(penalties, jnp.float32)
    for start in range(0, n_voxels, chunk):
        block = np.asarray(responses[:, start : start + chunk], np.float32)[order]
        valid = block.shape[1]
        block = np.pad(block, ((0, 0), (0, chunk - valid)))
        out = _solve_block(block, prepared, alphas, bounds=bounds)
        parts.append([np.asarray(x)[..., :valid] for x in out])
        progress(min(start + chunk, n_voxels), n_voxels)
    coef, y_mean, penalty, error = (np.concatenate(x, -1) for x in zip(*parts, strict=True))
    intercept = y_mean - (mean @ coef.astype(np.float64)).astype(np.float32)
    return Solution(coef, intercept, penalty, error)


class _Prepared(NamedTuple):
    """Everything without a voxel axis, float32; leading axis K is the fold."""

    features: np.ndarray  # [N, F] centred
    values: np.ndarray  # [F] eigenvalues of the whole Gram
    vectors: np.ndarray  # [F, F]
    fold_values: np.ndarray  # [K, F]
    fold_vectors: np.ndarray  # [K, F, F]
    factor: np.ndarray  # [K, F, F] upper triangular, of the rotated validation Gram
    diagonal: np.ndarray  # [K, F] of the rotated validation Gram
    train_mean: np.ndarray  # [K, F] rotated
    valid_sum: np.ndarray  # [K, F] rotated
    n_valid: np.ndarray  # [K]
    n_train: np.ndarray  # [K]


def _prepare(features: np.ndarray, bounds: tuple[int, ...]) -> tuple[_Prepared, np.ndarray]:
    mean = features.mean(0)
    centred = features - mean
    blocks = [centred[a:b] for a, b in itertools.pairwise(bounds)]
    grams = [block.T @ block for block in blocks]
    sums = [block.sum(0) for block in blocks]
    gram, total = sum(grams), sum(sums)
    folds = []
    for block, own, own_sum in zip(blocks, grams, sums, strict=True):
        n_train = len(centred) - len(block)
        train_mean = (total - own_sum) / n_train
        outer = np.outer(own_sum, train_mean)
        values, vectors = np.linalg.eigh(gram - own - n_train * np.outer(train_mean, train_mean))
        valid = own - outer - outer.T + len(block) * np.outer(train_mean, train_mean)
        valid = vectors.T @ valid @ vectors
        factor = np.linalg.qr((block - train_mean) @ vectors, mode="r")
        if len(factor) < len(gram):
            factor = np.pad(factor, ((0, len(gram) - len(factor)), (0, 0)))
        rotated = (train_mean @ vectors, own_sum @ vectors)
        folds.append((np.maximum(values, 0), vectors, factor, np.diag(valid), *rotated, len(block), n_train))
    values, vectors = np.linalg.eigh(gram)
    per_fold = [np.stack([np.asarray(fold[i], np.float32) for fold in folds]) for i in range(8)]
    arrays = (centred.astype(np.float32), np.maximum(values, 0).astype(np.float32), vectors.astype(np.float32))
    return _Prepared(*arrays, *per_fold), mean


@functools.partial(jax.jit, static_argnames=("bounds",))
def _solve_block(block, prepared: _Prepared, alphas, *, bounds):
    y_mean = block.mean(0)
    cross, train_cross, valid_cross, y_square = _rotated(block - y_mean[None], prepared, bounds)
    exact = functools.partial(_exact_error, prepared, train_cross, valid_cross, y_square)
    best, error = _search(_screened(prepared, train_cross, valid_cross, y_square, alphas), exact, alphas)
    penalty = alphas[best]
    rotated = jnp.matmul(prepared.vectors.T, cross, **_F32) / (prepared.values[:, None] + penalty[None])
    return jnp.matmul(prepared.vectors, rotated, **_F32), y_mean, penalty, error


def _rotated(y, p: _Prepared, bounds):
    """Cross-products of each fold's training and validation rows in its eigenbasis, [K, F, v]."""
    slices = list(itertools.pairwise(bounds))
    per_fold = jnp.stack([jnp.matmul(p.features[a:b].T, y[a:b], **_F32) for a, b in slices])
    y_sum = jnp.stack([y[a:b].sum(0) for a, b in slices])
    y_square = jnp.stack([(y[a:b] ** 2).sum(0) for a, b in slices])
    cross = per_fold.sum(0)
    y_train = (y_sum.sum(0, keepdims=True) - y_sum) / p.n_train[:, None]
    turn = jnp.swapaxes(p.fold_vectors, 1, 2)
    mean, total = p.train_mean[:, :, None], p.valid_sum[:, :, None]
    train = jnp.matmul(turn, cross[None] - per_fold, **_F32) - p.n_train[:, None, None] * mean * y_train[:, None]
    valid = jnp.matmul(turn, per_fold, **_F32) - total * y_train[:, None] - mean * y_sum[:, None]
    valid = valid + p.n_valid[:, None, None] * mean * y_train[:, None]
    y_square = y_square - 2 * y_train * y_sum + p.n_valid[:, None] * y_train**2
    return cross, train, valid, y_square


def _screened(p: _Prepared, train, valid, y_square, alphas):
    """Validation error over the whole grid from the diagonal of the quadratic form, [A, v]."""
    error = (y_square / p.n_valid[:, None]).sum(0)[None]
    for k in range(len(p.n_valid)):
        f = 1.0 / (p.fold_values[k][None] + alphas[:, None])
        quadratic = jnp.matmul(f * f, train[k] ** 2 * p.diagonal[k][:, None], **_F32)
        error = error + (quadratic - 2 * jnp.matmul(f, train[k] * valid[k], **_F32)) / p.n_valid[k]
    return error


def _exact_error(p: _Prepared, train, valid, y_square, alpha):
    """Mean squared validation error over folds at one penalty per voxel, [v]."""
    error = (y_square / p.n_valid[:, None]).sum(0)
    for k in range(len(p.n_valid)):
        shrunk = train[k] / (p.fold_values[k][:, None] + alpha[None])
        quadratic = (jnp.matmul(p.factor[k], shrunk, **_F32) ** 2).sum(0)
        error = error + (quadratic - 2 * (shrunk * valid[k]).sum(0)) / p.n_valid[k]
    return error / len(p.n_valid)


def _search(screened, exact, alphas):
    """Walks from the screened minimum until the exact minimum is bracketed; returns index and error."""
    n = len(alphas)

    def at(index):
        inside = (index >= 0) & (index < n)
        return jnp.where(inside, exact(alphas[jnp.clip(index, 0, n - 1)]), jnp.inf)

    start = jnp.clip(jnp.argmin(screened, 0), 1, n - 2)

    def moving(state):
        _, left, here, right, _ = state
        return jnp.any((left < here) | (right < here))

    def step(state):
        index, left, here, right, _ = state
        down, up = (left < here) & (left <= right), (right < here) & (right < left)
        index = index - down.astype(index.dtype) + up.astype(index.dtype)
        fresh = at(jnp.where(down, index - 1, index + 1))
        return (
            index,
            jnp.where(down, fresh, jnp.where(up, here, left)),
            jnp.where(down, left, jnp.where(up, right, here)),
            jnp.where(up, fresh, jnp.where(down, here, right)),
            fresh,
        )

    errors = [at(start + offset) for offset in (-1, 0, 1)]
    index, _, here, _, _ = lax.while_loop(moving, step, (start, *errors, errors[0]))
    return index, here
