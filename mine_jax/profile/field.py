"""Where on the image a voxel looks: centre and size of the field that its attribution covers.

Attribution lies where things are, and things lie where photographers put them. The field of a voxel is the
attribution at a position as a multiple of that of all voxels together. An encoder of noise has a field, too,
of its own invention: so words inside the field must say more of held-out responses than the same words anywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax.description import TokenWords, salience
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
    weights = np.maximum(critical.scores, 0).astype(np.float64)
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-12)
    if usable is not None:
        weights = weights * usable[..., None]
    n_voxels, n_images, _ = critical.indices.shape
    mass = np.zeros((n_voxels, rows * columns))
    np.add.at(mass, (np.arange(n_voxels)[:, None, None], critical.indices), weights)
    known = mass.sum(1) > 0
    common = mass[known].sum(0) / max(mass.sum(), 1e-12)
    centre, spread = _moments(mass, common, at)
    null = _null(critical.indices, weights, common, at, min(n_images, _MAX_PAIRS), n_permutations, seed)
    p = permutation_p((null[None] <= spread[:, None]).sum(1), n_permutations)
    x, y, size, p = (np.where(known, part, np.nan) for part in (centre[:, 0], centre[:, 1], spread, p))
    return Fields(x, y, size, p, mass / np.maximum(mass.sum(1, keepdims=True), 1e-12))


def field_test(
    maps: np.ndarray, distribution: np.ndarray, corpus: np.ndarray, token_words: TokenWords, measured: np.ndarray
) -> np.ndarray:
    """Tests whether words inside a field say more of its voxel than words anywhere.

    Args:
        maps: [V, P] shares of image-tokens, of `fields`.
        distribution: [V, C] profiles as shares.
        corpus: [C] mean shares over a corpus.
        token_words: words of the image-tokens of T held-out images.
        measured: [T, V] measured responses, z-scored beta.

    Returns:
        p [V], one-sided, by the normal approximation of the permutation distribution; NaN if untested.
    """
    from scipy.stats import norm

    # position -1 is of dropped entries
    own = np.concatenate([np.maximum(salience(distribution, corpus), 0), np.zeros((len(maps), 1))], 1)
    shares = token_words.shares if token_words.mask is None else token_words.shares * token_words.mask[..., None]
    response = standardized(measured)
    p = np.full(len(maps), np.nan)
    for v in range(len(maps)):
        of_tokens = np.einsum("tpm,tpm->tp", own[v][token_words.word_ids], shares)
        inside, anywhere = (standardized(part) for part in (of_tokens @ maps[v], of_tokens.mean(1)))
        left, rest = (part - (part * anywhere).mean() * anywhere for part in (inside, response[:, v]))
        size = np.sqrt((left**2).mean() * (rest**2).mean())
        if size > 1e-9:
            p[v] = norm.sf((left * rest).mean() / size * np.sqrt(max(len(rest) - 3, 1)))
    return p


def _moments(mass: np.ndarray, common: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre [V, 2] and spread [V] of mass [V, P] as a multiple of the common one."""
    ratio = mass / np.maximum(common, 0.1 / len(common))
    ratio = ratio / np.maximum(ratio.sum(1, keepdims=True), 1e-12)
    centre = ratio @ at
    spread = ratio @ (at**2).sum(1) - (centre**2).sum(1)
    return centre, np.sqrt(np.maximum(spread, 0))


def _null(
    indices: np.ndarray, weights: np.ndarray, common: np.ndarray, at: np.ndarray, n_images: int, n_draws: int, seed: int
) -> np.ndarray:
    """Spreads [draws] of fields put together from pairs of any voxels."""
    rng = np.random.default_rng([seed, 5])
    indices, weights = indices.reshape(-1, indices.shape[-1]), weights.reshape(-1, weights.shape[-1])
    pool = np.flatnonzero(weights.sum(1) > 0)
    if not len(pool):
        return np.zeros(n_draws)
    mass = np.zeros((n_draws, len(common)))
    chosen = rng.choice(pool, (n_draws, n_images))
    np.add.at(mass, (np.arange(n_draws)[:, None, None], indices[chosen]), weights[chosen])
    return _moments(mass, common, at)[1]
