"""The trunk: the projection of image-tokens that all voxels share."""

from __future__ import annotations

import numpy as np

from mine_jax.config import QueryConfig
from mine_jax.errors import ConfigError, DataError
from mine_jax.types import ImageTokens

# Added to each standard deviation: a dimension that does not vary is not blown up.
_MIN_SD = 1e-3


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


def split_trunk(trunk: dict[str, np.ndarray], config: QueryConfig) -> dict[str, np.ndarray]:
    """Gives every head its own slice of the projection, for keys and values apart.

    Args:
        trunk: `key_weight` [D, 1, E] and `key_bias` [1, E].
        config: settings; `heads` is read here.

    Returns:
        `key_weight` and `value_weight` [D, H, E / H], `key_bias` and `value_bias` [H, E / H].

    Raises:
        ConfigError: if the heads do not divide the width.
    """
    width = trunk["key_bias"].shape[1]
    if width % config.heads:
        raise ConfigError(
            f"encoder.heads = {config.heads} must divide the trunk's width {width} (encoder.width, at most D)."
        )
    per_head = width // config.heads
    # neighbouring components go to different heads, so that all heads see a like spectrum
    weight = trunk["key_weight"].reshape(-1, per_head, config.heads).swapaxes(1, 2)
    bias = trunk["key_bias"].reshape(per_head, config.heads).T
    return {"key_weight": weight, "key_bias": bias, "value_weight": weight.copy(), "value_bias": bias.copy()}


def _real_tokens(tokens: ImageTokens, rows: np.ndarray) -> np.ndarray:
    states = np.asarray(tokens.tokens[rows], dtype=np.float64)
    return states.reshape(-1, states.shape[-1]) if tokens.mask is None else states[tokens.mask[rows]]
