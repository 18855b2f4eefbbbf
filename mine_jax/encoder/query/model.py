"""The query encoder: each voxel attends to image-tokens with its own query and reads out one number.

    k_p = W_k x_p + b_k,  u_p = W_v x_p + b_v
    yhat_v = sum_h sum_p softmax_p(q_vh . k_p / sqrt(E) + position_vhp) (w_vh . u_p) + c_v

Tokens may first be averaged over square windows of the grid ("cells"); that is linear in
the tokens, so everything downstream stays exact for single tokens. With a fixed trunk the
keys are a PCA of the training tokens, shared by all heads and voxels, and also serve as
values: voxels are independent. Source: MINE (query operation over stimulus information);
fixed trunk, cells and position term are ours.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.errors import ConfigError, DataError
from mine_jax.types import Architecture, Array, ImageTokens

_MIN_SD = 1e-3

has_keys = True
has_token_terms = True


def predict_one(shared, voxel, tokens, mask, architecture: Architecture):
    """Predicts one voxel's response to one image; the definition that everything else must equal.

    Args:
        shared: `key_weight` [D, G, E], `key_bias` [G, E], and `value_*` unless values are keys.
        voxel: `query` [H, E], `position` [H, C], `readout` [H, E], `intercept` [].
        tokens: [P, D].
        mask: [P] bool or None.
        architecture: static description.

    Returns:
        Scalar, z-scored beta.
    """
    weights = cells(architecture, tokens.shape[0], mask)
    if mask is not None:
        tokens = jnp.where(mask[:, None], tokens, 0.0)  # padding may hold anything, NaN too
    logits, scalars = token_terms_one(shared, voxel, tokens, weights, architecture)
    return readout_one(shared, logits, scalars, voxel, weights, architecture)


def token_terms_one(shared, voxel, tokens, cell_weights, architecture: Architecture):
    """Returns key logits and value scalars of single tokens, both [H, P], before averaging to cells.

    Query and readout are folded through the projections first: keys [P, E] never exist, and
    with tokens shared by many voxels one matrix product over D serves them all.
    """
    del cell_weights, architecture
    values = "value" if "value_weight" in shared else "key"
    logits = _read_through(shared["key_weight"], shared["key_bias"], voxel["query"], tokens)
    scalars = _read_through(shared[f"{values}_weight"], shared[f"{values}_bias"], voxel["readout"], tokens)
    return logits / np.sqrt(voxel["query"].shape[1]), scalars


def _read_through(weight, bias, vectors, tokens):
    """Returns vectors [H, E] . (tokens [P, D] @ weight [D, G, E] + bias [G, E]) as [H, P]."""
    if weight.shape[1] == 1:
        folded, offset = vectors @ weight[:, 0].T, vectors @ bias[0]
    else:
        folded, offset = jnp.einsum("he,dhe->hd", vectors, weight), (vectors * bias).sum(1)
    return jnp.einsum("hd,pd->hp", folded, tokens) + offset[:, None]


def readout_one(shared, logits, scalars, voxel, cell_weights, architecture: Architecture):
    """Returns the prediction from token terms [H, P]; `cell_weights` [C, P] or None."""
    del shared, architecture
    real = None
    if cell_weights is not None:
        logits, scalars, real = logits @ cell_weights.T, scalars @ cell_weights.T, cell_weights.sum(1) > 0
    attention = mine_kernels.masked_softmax(logits + voxel["position"], real)
    return (attention * scalars).sum() + voxel["intercept"]


def cells(architecture: Architecture, n_tokens: int, mask=None):
    """Returns the weights [C, P] that average tokens to cells, or None when every token is a cell.

    Raises:
        ConfigError: if the windows do not tile the token grid.
    """
    window = _windows(architecture, n_tokens)
    if mask is None:
        return None if architecture.pool == 1 else window / window.sum(1, keepdims=True)
    weights = window * mask[None]
    total = weights.sum(1, keepdims=True)
    return jnp.where(total > 0, weights / jnp.maximum(total, 1), 0.0)


def n_cells(architecture: Architecture, n_tokens: int) -> int:
    """Returns the number of attended cells C."""
    return _windows(architecture, n_tokens).shape[0]


def position_basis(architecture: Architecture, n_tokens: int, order: int) -> np.ndarray:
    """Returns smooth functions of the cell's place, [C, order^2 - 1] float32.

    Products of cosines along the two sides of the grid without the constant, each with
    mean square 1. A voxel's position term is a combination of them: on few images a free
    number per cell overfits, and receptive fields are smooth.

    Raises:
        ConfigError: if there is no token grid.
    """
    if order == 0:
        return np.zeros((n_cells(architecture, n_tokens), 0), np.float32)
    if architecture.grid is None:
        raise ConfigError(
            "encoder.position_order needs the token grid; set features.grid = [rows, columns], or position_order = 0."
        )
    if np.prod(architecture.grid) != n_tokens:
        raise ConfigError(f"features.grid = {list(architecture.grid)} must hold all {n_tokens} tokens; or set none.")
    rows, columns = (side // architecture.pool for side in architecture.grid)
    vertical, horizontal = (
        np.stack([np.cos(np.pi * k * (np.arange(side) + 0.5) / side) for k in range(min(order, side))], 1)
        for side in (rows, columns)
    )
    functions = np.einsum("ai,bj->abij", vertical, horizontal).reshape(rows * columns, -1)[:, 1:]
    return (functions / np.sqrt((functions**2).mean(0))).astype(np.float32)


def fit_trunk(tokens: ImageTokens, rows: np.ndarray, *, width: int, image_chunk: int = 64) -> dict[str, np.ndarray]:
    """Fits the fixed projection: standardised tokens, principal components, mean variance 1.

    Args:
        tokens: image-tokens [N, P, D].
        rows: positions of the training images.
        width: components kept, E; at most D.
        image_chunk: images read at once. Memory only.

    Returns:
        `key_weight` [D, 1, E], `key_bias` [1, E] and `mean` [D], float32; sums in float64.

    Raises:
        DataError: if no training token is real.
    """
    size = tokens.tokens.shape[-1]
    total, gram, count = np.zeros(size), np.zeros((size, size)), 0
    for start in range(0, len(rows), image_chunk):
        states = _real_tokens(tokens, rows[start : start + image_chunk])
        total, gram, count = total + states.sum(0), gram + states.T @ states, count + len(states)
    if count == 0:
        raise DataError("no training image has a real token: the mask is False everywhere.")
    mean = total / count
    covariance = gram / count - np.outer(mean, mean)
    spread = np.sqrt(np.maximum(np.diag(covariance), 0)) + _MIN_SD
    values, vectors = np.linalg.eigh(covariance / np.outer(spread, spread))
    width = min(width, len(values))
    values, vectors = values[::-1][:width], vectors[:, ::-1][:, :width]
    # eigenvectors have no sign of their own: fix it, so that results repeat across LAPACK builds
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(width)])
    weight = vectors / spread[:, None] / np.sqrt(max(values.mean(), 1e-12))
    return {
        "key_weight": weight[:, None].astype(np.float32),
        "key_bias": -(mean @ weight)[None].astype(np.float32),
        "mean": mean.astype(np.float32),
    }


def pooled_tokens(tokens: ImageTokens, rows: np.ndarray, architecture: Architecture) -> tuple[Array, Array | None]:
    """Returns cell states [B, C, D] float32 and the mask of real cells [B, C] (None when all are)."""
    states = jnp.asarray(np.asarray(tokens.tokens[rows], dtype=np.float32))
    mask = None if tokens.mask is None else jnp.asarray(tokens.mask[rows])
    if mask is None:
        weights = cells(architecture, states.shape[1])
        return (states if weights is None else jnp.einsum("cp,bpd->bcd", weights, states)), None
    weights = jax.vmap(lambda one: cells(architecture, states.shape[1], one))(mask)
    return jnp.einsum("bcp,bpd->bcd", weights, jnp.where(mask[..., None], states, 0.0)), weights.sum(-1) > 0


def project(shared, states):
    """Returns keys and values [B, C, G, E] of cell states [B, C, D]; one object when values are keys."""
    keys = jnp.einsum("bcd,dge->bcge", states, shared["key_weight"]) + shared["key_bias"][None, None]
    if "value_weight" not in shared:
        return keys, keys
    values = jnp.einsum("bcd,dge->bcge", states, shared["value_weight"]) + shared["value_bias"][None, None]
    return keys, values


def project_all(
    shared,
    tokens: ImageTokens,
    architecture: Architecture,
    *,
    out: np.ndarray,
    image_chunk: int = 64,
    progress: Progress = silent,
) -> None:
    """Projects every image once and writes the keys to `out`.

    Args:
        shared: arrays of the projection.
        tokens: image-tokens [N, P, D].
        architecture: static description.
        out: [N, C, G E] on the host, in memory or memory-mapped, float32 or bfloat16.
        image_chunk: images held at once. Memory only.
        progress: called with (done, total).
    """
    n_images = len(tokens.image_ids)
    step = jax.jit(lambda states: project(shared, states)[0])
    for start in range(0, n_images, image_chunk):
        rows = np.arange(start, min(start + image_chunk, n_images))
        states, _ = pooled_tokens(tokens, rows, architecture)
        out[rows] = np.asarray(step(states)).reshape(len(rows), *out.shape[1:])
        progress(rows[-1] + 1, n_images)


def cell_mask(tokens: ImageTokens, architecture: Architecture) -> np.ndarray | None:
    """Returns which cells hold a real token, [N, C] bool; None when all tokens are real."""
    if tokens.mask is None:
        return None
    return np.asarray(tokens.mask, np.float32) @ _windows(architecture, tokens.tokens.shape[1]).T > 0


def _windows(architecture: Architecture, n_tokens: int) -> np.ndarray:
    """Membership [C, P] of tokens in cells, 0 or 1."""
    if architecture.pool == 1:
        return np.eye(n_tokens, dtype=np.float32)
    if architecture.grid is None:
        raise ConfigError("encoder.pool needs the token grid; set features.grid = [rows, columns], or pool = 1.")
    rows, columns = architecture.grid
    side = architecture.pool
    if rows % side or columns % side or rows * columns != n_tokens:
        raise ConfigError(
            f"encoder.pool = {side} must divide the token grid {architecture.grid}, "
            f"which must hold all {n_tokens} tokens."
        )
    row, column = np.divmod(np.arange(n_tokens), columns)
    cell = (row // side) * (columns // side) + column // side
    return (cell[None] == np.arange((rows // side) * (columns // side))[:, None]).astype(np.float32)


def _real_tokens(tokens: ImageTokens, rows: np.ndarray) -> np.ndarray:
    states = np.asarray(tokens.tokens[rows], dtype=np.float64)
    return states.reshape(-1, states.shape[-1]) if tokens.mask is None else states[tokens.mask[rows]]
