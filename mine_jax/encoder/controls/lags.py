"""Do responses follow the images that they are said to be of, or those a row before or after?

A shift by one row looks like noise in every later number. Here a small ridge predicts some voxels from features of
the images at each lag, so a shift shows as a lag that predicts better than none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax._numbers import decimal
from mine_jax._progress import Progress, silent
from mine_jax.data import ids as image_lists
from mine_jax.memory.rows import release
from mine_jax.types import LAGS, ImageTokens, Split

# More images than these tell nothing more.
MOST_IMAGES = 1000
# With fewer, nothing can be told.
_FEWEST_IMAGES = 20
# Differences are counted in 1 / sqrt(images), the deviation of a correlation by chance.
_LIMIT = 3.0
# Mean r over voxels by which responses must fit their own images better than images a row away.
_LEAST = 0.01
_IMAGE_CHUNK = 16


class Lags(NamedTuple):
    """How well features of images predict responses at each lag.

    Attributes:
        rows: lag -> mean r over voxels, where each row of the files is taken for one of the image of a later row.
        images: the same, where each image is taken for a later one in the order of ids.
        n_images: images that were compared.
    """

    rows: dict[int, float]
    images: dict[int, float]
    n_images: int

    @property
    def said(self) -> str:
        """The r of all lags of rows, in words."""
        return ", ".join(f"{decimal(r)} at {f'{lag:+d}' if lag else 0}" for lag, r in self.rows.items())

    @property
    def warning(self) -> str:
        """What is odd; "" if responses fit the images as they are."""
        of_each = {"rows of the responses": self.rows, "images in the order of their ids": self.images}
        for what, by_lag in of_each.items():
            lag = max(by_lag, key=lambda one: by_lag[one])
            limit = _LIMIT / np.sqrt(self.n_images)
            if lag and by_lag[lag] > limit and by_lag[lag] - by_lag[0] > limit:
                return (
                    f"responses and images may be shifted: {what} moved by {lag:+d} fit with r {by_lag[lag]:.2f}, "
                    f"but {by_lag[0]:.2f} as they are. Compare the first rows of both, and `index_base`"
                )
        others = [r for lag, r in self.rows.items() if lag]
        if others and self.rows[0] - max(others) < _LEAST:
            return (
                f"responses fit their images no better than those of other rows (r {self.rows[0]:.2f}): are rows and "
                "image ids in one order? Compare some responses with their photos"
            )
        return ""


def compare_lags(*splits: Split, progress: Progress = silent) -> Lags | None:
    """Compares responses with the mean image-tokens, at each lag.

    Args:
        splits: all images of a data set, in one or more parts.
        progress: called while tokens are read.

    Returns:
        The lags, of the first `MOST_IMAGES` images by id; None where too few images or no voxel can tell.
    """
    if any(split.responses.moved is None for split in splits):
        return None
    index = image_lists.distinct(np.concatenate([split.responses.image_ids for split in splits]))[1]
    chosen = np.argsort(index, kind="stable")[:MOST_IMAGES]
    if len(chosen) < _FEWEST_IMAGES:
        return None
    responses = np.concatenate([split.responses.moved for split in splits], axis=1)[:, chosen].astype(np.float64)
    responses = responses[:, :, (responses.std(1) > 0).all(0)]
    features, start = [], 0
    for split in splits:
        stop = start + len(split.responses.image_ids)
        rows = np.flatnonzero(np.isin(np.arange(start, stop), chosen))
        features.append(_mean_tokens(split.tokens, rows, progress))
        start = stop
    # rows of all splits that were chosen, in their order; then in the order of ids
    features = np.concatenate(features)[np.searchsorted(np.sort(chosen), chosen)]
    if not responses.shape[2] or not np.isfinite(features).all():
        return None
    progress(0, len(LAGS))
    rows = {lag: _predicted_r(features, responses[i]) for i, lag in enumerate(LAGS)}
    as_they_are = responses[LAGS.index(0)]
    images = {lag: _predicted_r(np.roll(features, -lag, axis=0), as_they_are) for lag in LAGS}
    return Lags(rows, images, len(chosen))


def _mean_tokens(tokens: ImageTokens, rows: np.ndarray, progress: Progress) -> np.ndarray:
    """Mean of the real tokens of each of some images, [n, D] float64."""
    means = np.empty((len(rows), tokens.tokens.shape[-1]))
    for start in range(0, len(rows), _IMAGE_CHUNK):
        block = rows[start : start + _IMAGE_CHUNK]
        states = np.asarray(tokens.tokens[block]).astype(np.float64)
        real = np.ones(states.shape[:2]) if tokens.mask is None else np.asarray(tokens.mask[block], np.float64)
        sums = np.einsum("npd,np->nd", states, real)
        means[start : start + len(block)] = sums / np.maximum(real.sum(1), 1)[:, None]
        release(tokens.tokens)
        progress(start, len(rows))
    return means


def _predicted_r(features: np.ndarray, responses: np.ndarray) -> float:
    """Mean correlation over voxels [n, v] with what ridge on the other half of the images predicts."""
    spread = features.std(0)
    scaled = (features - features.mean(0)) / np.where(spread > 0, spread, 1)
    predicted, measured = np.empty(responses.shape), np.empty(responses.shape)
    is_even = np.arange(len(features)) % 2 == 0
    for training in (is_even, ~is_even):
        kernel = scaled[training] @ scaled[training].T
        penalty = max(float(np.trace(kernel)) / len(kernel), 1e-12)
        centred = responses[training] - responses[training].mean(0)
        weights = np.linalg.solve(kernel + penalty * np.eye(len(kernel)), centred)
        for of_test, values in (
            (predicted, scaled[~training] @ (scaled[training].T @ weights)),
            (measured, responses[~training]),
        ):
            of_test[~training] = values - values.mean(0)
    products = (predicted * measured).sum(0)
    sizes = np.sqrt((predicted**2).sum(0) * (measured**2).sum(0))
    return float(np.mean(products / np.maximum(sizes, 1e-12)))
