"""The trunk: the projection of image-tokens that all voxels share, from their mean and scatter.

Tokens are read once, one chunk ahead of the device, which sums float32 products around a point near their mean.
What rounding leaves out of a sum is summed beside it, so that moments are as good as in float64 for what they are for.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mine_jax.config import QueryConfig
from mine_jax.errors import ConfigError, DataError
from mine_jax.memory.ahead import read_ahead
from mine_jax.memory.chunks import grouped_chunks, padded_chunks
from mine_jax.types import Array, ImageTokens

# Added to each standard deviation: a dimension that does not vary is not blown up.
_MIN_SD = 1e-3
_IMAGE_CHUNK = 64
# Tokens whose products are summed in float32: equal numbers all round the same way, at most 256 times 2^-25 of a sum.
# Where such a block begins depends on the images alone, so that chunks change nothing.
_ROWS = 256
# Chunks of tokens that are on their way to the device at once.
_MOST_WAITING = 2


class TokenMoments(NamedTuple):
    """What a trunk is fitted to; of images without one in common, moments add up.

    Attributes:
        count: real tokens.
        mean: [D] float64.
        scatter: [D, D] float64, sum of the products of deviations from the mean.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    def merged(self, other: TokenMoments) -> TokenMoments:
        """Returns the moments of both sets of images.

        Source: Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115.
        """
        count, change = self.count + other.count, other.mean - self.mean
        between = np.outer(change, change) * (self.count * other.count / count)
        return TokenMoments(count, self.mean + change * (other.count / count), self.scatter + other.scatter + between)


class _Sums(NamedTuple):
    """Sums [D] and [D, D] of float32 numbers, and what rounding left out of each."""

    total: tuple[Array, Array]
    products: tuple[Array, Array]


def token_moments(tokens: ImageTokens, *, image_chunk: int | None = None) -> TokenMoments:
    """Computes mean and scatter of the real tokens of all images.

    Args:
        tokens: image-tokens [N, P, D].
        image_chunk: images read at once. Memory only.

    Returns:
        The moments, equal to those in float64 up to 1e-5, as correlations.

    Raises:
        DataError: if no token is real, or one is not finite.
    """
    count, (n_tokens, size) = 0, tokens.tokens.shape[-2:]
    zeros = np.zeros(size, np.float32), np.zeros((size, size), np.float32)
    origin, sums = zeros[0], _Sums(*((part, part) for part in zeros))
    waiting: deque[_Sums] = deque()
    n_together = max(1, _ROWS // n_tokens)
    chunks = grouped_chunks(len(tokens.image_ids), n_together, image_chunk or _IMAGE_CHUNK)
    for states, real in read_ahead(lambda chunk: _read(tokens, *chunk), chunks):
        if not real.any():
            continue
        if count == 0:
            # sums around a point near the mean are small where means are large, and lose less
            first = real.any(1).argmax()
            origin = states[first][real[first]].mean(0, dtype=np.float64).astype(np.float32)
        count += int(real.sum())
        sums = _added(sums, states, real, origin, n_together)
        waiting.append(sums)
        if len(waiting) > _MOST_WAITING:
            jax.block_until_ready(waiting.popleft())
    if count == 0:
        raise DataError("no training image has a real token: the mask is False everywhere.")
    total, products = (np.asarray(part[0], np.float64) + np.asarray(part[1], np.float64) for part in sums)
    _check_finite(np.append(total, products), tokens)
    return TokenMoments(count, origin + total / count, products - np.outer(total, total) / count)


def token_mean(tokens: ImageTokens, *, image_chunk: int | None = None) -> np.ndarray:
    """Computes the mean of the real tokens of all images, where nothing else of them is needed.

    Args:
        tokens: image-tokens [N, P, D].
        image_chunk: images read at once. Memory only, up to rounding.

    Returns:
        Mean [D] float64.

    Raises:
        DataError: if no token is real, or one is not finite.
    """
    total, count = np.zeros(tokens.tokens.shape[-1]), 0
    chunks = padded_chunks(len(tokens.image_ids), image_chunk or _IMAGE_CHUNK)
    for states, real in read_ahead(lambda chunk: _read(tokens, *chunk), chunks):
        total, count = total + states[real].sum(0, dtype=np.float64), count + int(real.sum())
    if count == 0:
        raise DataError("no training image has a real token: the mask is False everywhere.")
    _check_finite(total, tokens)
    return total / count


def fit_trunk(moments: TokenMoments, *, width: int) -> dict[str, np.ndarray]:
    """Fits the fixed projection: standardised tokens, principal components, mean variance 1.

    Args:
        moments: of the training tokens, D wide.
        width: components kept, E; at most D.

    Returns:
        `key_weight` [D, 1, E], `key_bias` [1, E] and `mean` [D], float32; computed in float64.
    """
    # heavy, and only fits need it
    from scipy.linalg import eigh

    mean, size = moments.mean, len(moments.mean)
    covariance, width = moments.scatter / moments.count, min(width, size)
    spread = np.sqrt(np.maximum(np.diag(covariance), 0)) + _MIN_SD
    values, vectors = eigh(covariance / np.outer(spread, spread), subset_by_index=(size - width, size - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
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


def _check_finite(sums: np.ndarray, tokens: ImageTokens) -> None:
    """Names the first image that makes sums [n] infinite or NaN; where they are finite, nothing is read."""
    if np.isfinite(sums).all():
        return
    for row, image_id in enumerate(tokens.image_ids):
        states, real = _read(tokens, np.array([row]), 1)
        if not np.isfinite(states[real]).all():
            raise DataError(
                f"the tokens of image {image_id} (row {row}) are not all finite. Leave it out, or mask them."
            )
    raise DataError("the tokens are so large that sums of their products are infinite. Scale them.")


def _read(tokens: ImageTokens, rows: np.ndarray, n_valid: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads states [n, P, D] as they are stored, and which tokens are real [n, P]: none of the rows that fill up."""
    states = np.asarray(tokens.tokens[rows])
    real = np.ones(states.shape[:2], bool) if tokens.mask is None else np.array(tokens.mask[rows])
    real[n_valid:] = False
    return states, real


@partial(jax.jit, static_argnames="n_together")
def _added(sums: _Sums, states: Array, real: Array, origin: Array, n_together: int) -> _Sums:
    moved = jnp.where(real[..., None], states.astype(jnp.float32) - origin[None, None], 0.0)
    moved = moved.reshape(len(moved) // n_together, -1, moved.shape[-1])
    moved = jnp.pad(moved, ((0, 0), (0, -moved.shape[1] % _ROWS), (0, 0)))

    def add(sums: _Sums, block: Array) -> tuple[_Sums, None]:
        products = jnp.einsum("td,te->de", block, block, precision="highest")
        return _Sums(plus(sums.total, block.sum(0)), plus(sums.products, products)), None

    return jax.lax.scan(add, sums, moved.reshape(-1, _ROWS, moved.shape[-1]))[0]


def plus(total: tuple[Array, Array], part: Array) -> tuple[Array, Array]:
    """Adds to a sum and to what rounding left out of it.

    Args:
        total: the sum and the rest, both of the shape [...] of `part`.
        part: what is added.

    Returns:
        Both; together they are as good as a number of twice the digits.

    Source: Knuth, The Art of Computer Programming 2, 4.2.2, theorem B.
    """
    high, low = total
    added = high + part
    rounded = added - high
    return added, low + ((high - (added - rounded)) + (part - rounded))
