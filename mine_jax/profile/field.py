"""Where on the image a voxel looks: centre and size of the field that its attribution covers.

Attribution lies where things are, and things lie where photographers put them. The field of a voxel is the
attribution at a position as a multiple of that of all voxels together. An encoder of noise has a field, too,
of its own invention: so words inside the field must say more of held-out responses than the same words anywhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.description import TokenWords, saliences
from mine_jax.memory import BLOCK_BYTES, SparseRows, blocks, sparse_rows, summed_rows
from mine_jax.statistics import permutation_p, standardized
from mine_jax.types import CriticalTokens

# Images of one draw of the null are taken from this many pairs at most.
_MAX_PAIRS = 20_000


class Fields(NamedTuple):
    """Field of V voxels; NaN where nothing was attributed.

    Attributes:
        x: [V] centre from the left, as a share of the width.
        y: [V] centre from the top, as a share of the height.
        size: [V] root mean squared distance from the centre, as a share of the width.
        p: [V] whether the field is narrower than that of pairs of any voxels.
        maps: [V, P] share of each image-token in the attribution.
    """

    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    p: np.ndarray
    maps: np.ndarray


def fields(
    critical: CriticalTokens,
    *,
    grid: tuple[int, int],
    usable: np.ndarray | None = None,
    n_permutations: int = 1000,
    seed: int = 0,
) -> Fields:
    """Finds the field of each voxel from its critical tokens.

    Args:
        critical: of V x I pairs, positions in 0..P-1.
        grid: rows and columns of image-tokens; P is their product.
        usable: [V, I] bool, pairs that count; None for all.
        n_permutations: draws of I pairs of any voxels, the null of fields that do not differ.
        seed: of the draws.

    Returns:
        Centre, size and p of each voxel.
    """
    rows, columns = grid
    at = np.stack(
        [(np.arange(rows * columns) % columns + 0.5) / columns, (np.arange(rows * columns) // columns + 0.5) / rows], 1
    )
    n_voxels, n_images, k = critical.indices.shape
    mass, drawable = np.zeros((n_voxels, rows * columns)), np.zeros((n_voxels, n_images), bool)
    for block in blocks(n_voxels, BLOCK_BYTES // (16 * max(1, n_images * k))):
        weights = _weights(critical.scores[block])
        if usable is not None:
            weights = weights * usable[block][..., None]
        drawable[block] = weights.sum(-1) > 0
        place = np.arange(len(weights))[:, None, None] * (rows * columns) + critical.indices[block]
        size = len(weights) * rows * columns
        mass[block] = np.bincount(place.ravel(), weights.ravel(), minlength=size).reshape(len(weights), -1)
    known = mass.sum(1) > 0
    common = mass[known].sum(0) / max(mass.sum(), 1e-12)
    centre, spread = _moments(mass, common, at)
    null = _null(critical, np.flatnonzero(drawable), common, at, min(n_images, _MAX_PAIRS), n_permutations, seed)
    p = permutation_p(np.searchsorted(np.sort(null), spread, side="right"), n_permutations)
    x, y, size, p = (np.where(known, part, np.nan) for part in (centre[:, 0], centre[:, 1], spread, p))
    return Fields(x, y, size, p, mass / np.maximum(mass.sum(1, keepdims=True), 1e-12))


def field_test(
    maps: np.ndarray,
    distribution: SparseRows | np.ndarray,
    corpus: np.ndarray,
    token_words: TokenWords,
    measured: np.ndarray,
    *,
    progress: Progress = silent,
) -> np.ndarray:
    """Tests whether words inside a field say more of its voxel than words anywhere.

    Args:
        maps: [V, P] shares of image-tokens, of `fields`.
        distribution: [V, C] profiles as shares, dense or sparse.
        corpus: [C] mean shares over a corpus.
        token_words: words of the image-tokens of T held-out images.
        measured: [T, V] measured responses, z-scored beta.
        progress: called with (done, total) voxels.

    Returns:
        p [V], one-sided, by the normal approximation of the permutation distribution; NaN if untested.
    """
    from scipy.stats import norm

    distribution, table = sparse_rows(distribution), _by_token(token_words, len(corpus))
    n_images, n_tokens, _ = token_words.word_ids.shape
    p = np.full(len(maps), np.nan)
    for block in blocks(len(maps), BLOCK_BYTES // (8 * max(n_images * n_tokens, len(corpus)))):
        own = saliences(distribution.take(block), corpus, positive=True)
        of_tokens = (table @ own.dense().T).reshape(n_images, n_tokens, -1)
        inside = standardized(np.einsum("tpv,vp->tv", of_tokens, maps[block]))
        anywhere = standardized(of_tokens.mean(1))
        response = standardized(measured[:, block])
        left, rest = (part - (part * anywhere).mean(0) * anywhere for part in (inside, response))
        size = np.sqrt((left**2).mean(0) * (rest**2).mean(0))
        known = size > 1e-9
        r = (left * rest).mean(0) / np.where(known, size, 1)
        p[block] = np.where(known, norm.sf(r * np.sqrt(max(n_images - 3, 1))), np.nan)
        progress(block.stop, len(maps))
    return p


def _weights(scores: np.ndarray) -> np.ndarray:
    """Share of each critical token [..., K] in what drives its pair."""
    weights = np.maximum(scores, 0).astype(np.float64)
    return weights / np.maximum(weights.sum(-1, keepdims=True), 1e-12)


def _by_token(words: TokenWords, n_words: int) -> Any:
    """Shares of words of each image-token, a sparse table [T x P, C]."""
    real = words.word_ids >= 0
    if words.mask is not None:
        real &= words.mask[..., None]
    counts = real.sum(2).ravel()
    return summed_rows(counts, words.word_ids[real], words.shares[real], n_words).csr()


def _moments(mass: np.ndarray, common: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre [V, 2] and spread [V] of mass [V, P] as a multiple of the common one."""
    ratio = mass / np.maximum(common, 0.1 / len(common))
    ratio = ratio / np.maximum(ratio.sum(1, keepdims=True), 1e-12)
    centre = ratio @ at
    spread = ratio @ (at**2).sum(1) - (centre**2).sum(1)
    return centre, np.sqrt(np.maximum(spread, 0))


def _null(
    critical: CriticalTokens,
    pool: np.ndarray,
    common: np.ndarray,
    at: np.ndarray,
    n_images: int,
    n_draws: int,
    seed: int,
) -> np.ndarray:
    """Spreads [draws] of fields put together from pairs of any voxels, drawn from the pool."""
    rng = np.random.default_rng([seed, 5])
    if not len(pool):
        return np.zeros(n_draws)
    k, mass = critical.indices.shape[-1], np.zeros((n_draws, len(common)))
    indices, scores = critical.indices.reshape(-1, k), critical.scores.reshape(-1, k)
    chosen = rng.choice(pool, (n_draws, n_images))
    np.add.at(mass, (np.arange(n_draws)[:, None, None], indices[chosen]), _weights(scores[chosen]))
    return _moments(mass, common, at)[1]
