"""Do two encoders, fitted to different images, find the same profile?

The profiles come from refits on disjoint halves of the training images, so nothing that is particular to
one encoder, its images or their noise can make them agree. All correlations go over all C words, of which
most are in neither profile: sums over those that are there, and the number of words, give them exactly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mine_jax.description import saliences
from mine_jax.memory import SparseRows, concatenated, in_blocks, sparse_rows

# With fewer words all eigenvectors are computed.
_FEW_WORDS = 256
# Decoys whose common profile is found: what all share, some thousand do.
_MOST_DECOYS = 5000


def agreement(
    first: SparseRows | np.ndarray,
    second: SparseRows | np.ndarray,
    corpus: np.ndarray,
    *,
    common: np.ndarray | None = None,
) -> np.ndarray:
    """Correlates the profiles of two halves, voxel by voxel.

    Args:
        first: [V, C] profiles as shares of words, dense or sparse.
        second: [V, C], of the other half.
        corpus: [C] mean shares over a corpus.
        common: [C] what `common_profile` gives, partialled out; None for nothing.

    Returns:
        Pearson's r [V] of the saliences over words; NaN where a half has no words.
    """
    first, second = sparse_rows(first), sparse_rows(second)
    parts = [_agreement(one, second.take(block), corpus, common) for block, one in in_blocks(first)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _agreement(first: SparseRows, second: SparseRows, corpus: np.ndarray, common: np.ndarray | None) -> np.ndarray:
    """Does what `agreement` does, of some voxels."""
    empty = np.logical_or(*(_sums(half) == 0 for half in (first, second)))
    (one, of_one), (other, of_other) = (_table(saliences(half, corpus)) for half in (first, second))
    n_words = len(corpus)
    # of vectors of mean 0 and length 1: their product, their sums, and what they hold of the common profile
    product = (_products(one, other) - n_words * of_one.mean * of_other.mean) / (of_one.norm * of_other.norm)
    if common is None:
        return np.where(empty, np.nan, product)
    total, square = common.sum(), common @ common
    along, along_other = (
        (table @ common - of.mean * total) / of.norm for table, of in ((one, of_one), (other, of_other))
    )
    rest = product - along * along_other * (2 - square) - along * along_other * total**2 / n_words
    lengths = []
    for held, of in ((along, of_one), (along_other, of_other)):
        length = of.is_varied - held**2 * (2 - square) - held**2 * total**2 / n_words
        lengths.append(np.sqrt(np.where(length > 1e-24, length, 1)))
    return np.where(empty, np.nan, rest / (lengths[0] * lengths[1]))


def common_profile(halves: tuple[SparseRows, SparseRows] | np.ndarray, corpus: np.ndarray) -> np.ndarray:
    """Finds the profile that decoys share: what an encoder of noise says.

    An encoder of noise spreads its attribution over whatever differs from the mean token. Two of them
    agree on that, and on nothing else.

    Args:
        halves: two of [M, C], profiles of both halves of decoys.
        corpus: [C] mean shares over a corpus.

    Returns:
        The leading direction of their saliences, [C] of length 1; of many decoys, of some thousand of them.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    listed = [sparse_rows(half) for half in halves]
    some = np.unique(np.linspace(0, len(listed[0]) - 1, _MOST_DECOYS).astype(int))
    rows, of = _table(saliences(concatenated([half.take(some) for half in listed]), corpus))
    n_words = len(corpus)

    def product(vector: np.ndarray) -> np.ndarray:
        """Product of a vector [C] and the covariance of rows of mean 0 and length 1."""
        vector = vector.ravel()
        along = (rows @ vector - of.mean * vector.sum()) / of.norm**2
        return rows.T @ along - (along @ of.mean) * np.ones(n_words)

    if n_words < _FEW_WORDS:
        return np.linalg.eigh(np.stack([product(row) for row in np.eye(n_words)]))[1][:, -1]
    operator: Any = LinearOperator
    covariance = operator((n_words, n_words), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(n_words)
    return eigsh(covariance, k=1, which="LA", v0=start)[1][:, 0]


def agreement_with_others(
    first: SparseRows | np.ndarray, second: SparseRows | np.ndarray, corpus: np.ndarray, areas: np.ndarray
) -> np.ndarray:
    """Correlates one half of a voxel with the other halves of its area's voxels.

    Args:
        first: [V, C] profiles as shares of words, dense or sparse.
        second: [V, C], of the other half.
        corpus: [C] mean shares over a corpus.
        areas: [V] str.

    Returns:
        Mean r [V] over the other voxels of the area; NaN without any.
    """
    out, first, second = np.full(len(first), np.nan), sparse_rows(first), sparse_rows(second)
    for area in np.unique(areas):
        inside = np.flatnonzero(areas == area)
        if len(inside) < 2:
            continue
        halves = [half.take(inside) for half in (first, second)]
        # sums of unit vectors give means of correlations without all pairs
        total, shift = np.zeros(len(corpus)), 0.0
        for _, part in in_blocks(halves[1]):
            other, of_other = _table(saliences(part, corpus))
            total += other.T @ (1 / of_other.norm)
            shift += (of_other.mean / of_other.norm).sum()
        for block, part in in_blocks(halves[0]):
            one, of_one = _table(saliences(part, corpus))
            of_mean = of_one.mean * (total.sum() - len(corpus) * shift)
            to_all = (one @ total - shift * np.asarray(one.sum(1)).ravel() - of_mean) / of_one.norm
            other, of_other = _table(saliences(halves[1].take(block), corpus))
            product = _products(one, other) - len(corpus) * of_one.mean * of_other.mean
            product /= of_one.norm * of_other.norm
            out[inside[block]] = (to_all - product) / (len(inside) - 1)
    return out


class _Of(NamedTuple):
    """Of rows over C words: means, lengths of what is left without them (1 for 0), and whether that is not 0."""

    mean: np.ndarray
    norm: np.ndarray
    is_varied: np.ndarray


def _table(rows: SparseRows) -> tuple[Any, _Of]:
    """Returns rows as a table for products, and their means and lengths."""
    mean = _sums(rows) / rows.width
    squares = np.bincount(rows.rows, rows.values**2, minlength=len(rows)) - rows.width * mean**2
    is_varied = squares > 0
    return rows.csr(), _Of(mean, np.sqrt(np.where(is_varied, squares, 1)), is_varied)


def _sums(rows: SparseRows) -> np.ndarray:
    return np.bincount(rows.rows, rows.values, minlength=len(rows))


def _products(one: Any, other: Any) -> np.ndarray:
    """Product of each row with the same row of another table."""
    return np.asarray((one * other).sum(1)).ravel()
