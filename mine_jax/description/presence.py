"""Presence of words in images: standardised columns of a sparse table, for some words at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mine_jax.memory import BLOCK_BYTES, SparseRows, blocks, sparse_rows
from mine_jax.statistics import standardized


class Seen(NamedTuple):
    """Images: shares of words [N, C], dense or sparse, and measured responses [N, V], z-scored beta."""

    words: SparseRows | np.ndarray
    measured: np.ndarray


class Presence(NamedTuple):
    """Shares of C words in N images, less the smallest of each word, as a table for products.

    Attributes:
        by_image: [N, C] sparse.
        by_word: [C, N] sparse.
        mean: [C] over images.
        scale: [C] 1 / standard deviation over images; 0 for words that do not vary.
    """

    by_image: Any
    by_word: Any
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, words: SparseRows | np.ndarray) -> Presence:
        """Opens shares of words [N, C]."""
        rows = sparse_rows(words)
        n_images, values = len(rows), np.array(rows.values, np.float64)
        # a word has a smallest share above 0 only where it is in every image
        is_full = np.bincount(rows.columns, minlength=rows.width) == n_images
        smallest = np.full(rows.width, np.inf)
        np.minimum.at(smallest, rows.columns, values)
        values -= np.where(is_full, smallest, 0)[rows.columns]
        mean = np.bincount(rows.columns, values, minlength=rows.width) / n_images
        square = np.bincount(rows.columns, values**2, minlength=rows.width) / n_images
        variance = square - mean**2
        by_image = rows.with_values(values).csr()
        varies = variance > 1e-12 * square
        scale = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0)
        return cls(by_image, by_image.T.tocsr(), mean, scale)

    @property
    def in_spreads(self) -> Any:
        """Presence in standard deviations of each word over the images, [C, N] sparse."""
        of_words = self.by_word.copy()
        of_words.data *= np.repeat(self.scale, np.diff(of_words.indptr))
        return of_words

    def of_words(self, words: np.ndarray) -> np.ndarray:
        """Returns the standardised presence of some words, [n, N]."""
        return standardized(self.by_word[words].toarray().T).T.copy()

    def correlations(self, response: np.ndarray) -> np.ndarray:
        """Correlates all words with standardised responses [N, v]: r [C, v] float32."""
        r = self.by_word.astype(np.float32) @ np.asarray(response, np.float32)
        r *= (self.scale / len(response)).astype(np.float32)[:, None]
        return r


def finite(response: np.ndarray) -> np.ndarray:
    """Standardises responses [N, v]; voxels with any that is not finite become 0."""
    with np.errstate(invalid="ignore"):
        values = standardized(response)
    return np.where(np.isfinite(values).all(0), values, 0)


def pair_products(one: np.ndarray, other: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Computes the mean product [R] of rows of one array [n, N] with rows of another [m, N]."""
    out = np.empty(len(rows))
    for part in blocks(len(rows), BLOCK_BYTES // (64 * max(1, one.shape[1]))):
        out[part] = np.einsum("rn,rn->r", one[rows[part]], other[others[part]]) / one.shape[1]
    return out
