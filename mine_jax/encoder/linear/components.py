"""The components of the token grid that linear terms read: principal components of the pooled tokens of all cells.

There are more columns (cells times width) than images, so components are found from the images' products
with each other: of all images up to a number, of images evenly spaced beyond it. With as many components as
images a penalty on their weights is a penalty on the weights of the whole grid.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax import sharding
from mine_jax.encoder.query.images import Examples

# Images whose products are decomposed.
MOST_IMAGES = 2048
_READ_IMAGES = 256
# Components with less than this share of the first one's variance are rounding.
_LEAST_SHARE = 1e-7


class Components(NamedTuple):
    """Components of some images, all voxels alike.

    Attributes:
        basis: [C, E, R] float32.
        center: [R] float32, mean of the images.
        features: [n, R] float32, of those images, centred; columns are orthogonal.
        squares: [R] float32, sums of squares of the features.
    """

    basis: np.ndarray
    center: np.ndarray
    features: np.ndarray
    squares: np.ndarray

    def of(self, examples: Examples) -> np.ndarray:
        """Returns the components [n, R] of other images, with the same centre."""
        return _projected(examples, self.basis) - self.center


def fit_components(splits: list[Examples], width: int) -> Components:
    """Finds the components of the images of some splits.

    Args:
        splits: keys [n, C, 1, E] of images, one split below the other.
        width: components kept at most, R.

    Returns:
        The components.
    """
    sizes = [len(examples.tokens) for examples in splits]
    n_images, (_, n_cells, _, n_inner) = sum(sizes), splits[0].tokens.shape
    rows = np.unique(np.linspace(0, n_images - 1, min(n_images, MOST_IMAGES)).astype(int))
    starts = np.cumsum([0, *sizes])
    chosen = [rows[(rows >= a) & (rows < a + n)] - a for a, n in zip(starts, sizes, strict=False)]
    grids = np.concatenate(
        [_grids(examples, part).reshape(len(part), -1) for examples, part in zip(splits, chosen, strict=True)]
    )
    grids -= grids.mean(0, dtype=np.float64).astype(np.float32)
    values, vectors = np.linalg.eigh((grids @ grids.T).astype(np.float64))
    kept = np.flatnonzero(values > _LEAST_SHARE * max(values[-1], 1e-30))[::-1][: max(1, width)]
    if not len(kept):
        kept = np.array([len(values) - 1])  # images do not differ
    directions = (grids.T @ (vectors[:, kept] / np.sqrt(np.maximum(values[kept], 1e-30))).astype(np.float32)).astype(
        np.float32
    )
    basis = directions.reshape(n_cells, n_inner, -1)
    features = np.concatenate([_projected(examples, basis) for examples in splits])
    center = features.mean(0, dtype=np.float64)
    # orthogonal over all images, not only over those that were decomposed
    turn = np.linalg.eigh(np.asarray(features - center, np.float64).T @ (features - center))[1][:, ::-1]
    basis = (basis @ turn.astype(np.float32)).astype(np.float32)
    turned = (features - center) @ turn
    return Components(
        basis=basis,
        center=(center @ turn).astype(np.float32),
        features=turned.astype(np.float32),
        squares=(turned**2).sum(0).astype(np.float32),
    )


def _grids(examples: Examples, rows: np.ndarray) -> np.ndarray:
    """Keys of real cells over their number, [n, C, E] float32, so that a sum over cells is their mean."""
    keys = np.asarray(sharding.host(examples.tokens[rows]), np.float32)[:, :, 0]
    if examples.mask is None:
        return keys / keys.shape[1]
    mask = np.asarray(sharding.host(examples.mask[rows]), np.float32)
    return keys * (mask / np.maximum(mask.sum(1, keepdims=True), 1))[..., None]


def _projected(examples: Examples, basis: np.ndarray) -> np.ndarray:
    flat = basis.reshape(-1, basis.shape[-1])
    parts = [
        _grids(examples, np.arange(a, min(a + _READ_IMAGES, len(examples.tokens)))).reshape(-1, len(flat)) @ flat
        for a in range(0, len(examples.tokens), _READ_IMAGES)
    ]
    return np.concatenate(parts)
