"""What lowers a voxel's response, and which attributes raise it beside the things of its profile.

Candidates are chosen on the images of the fit and tested on held-out ones, both times on measured responses
and with the profile's own score partialled out: an image without a face lowers a face voxel, which is no news.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.description import salience
from mine_jax.statistics import column_permutation_p, false_discovery_rate, standardized, without

NEGATIVE, ATTRIBUTE = "negative", "attribute"
COLORS = "red orange yellow green blue purple violet pink brown black white gray grey golden silver colorful".split()
SHAPES = (
    "round circular square rectangular triangular oval curved straight striped spotted dotted checkered curly spiky "
    "pointed long tall flat vertical horizontal diagonal shiny smooth furry fluffy wooden metallic transparent dark "
    "bright"
).split()
# Words that name no thing.
ATTRIBUTES = frozenset([*COLORS, *SHAPES])
_BLOCK = 1024


class Drivers(NamedTuple):
    """One row per candidate, R in all.

    Attributes:
        voxels: [R] int, position of the voxel.
        kinds: [R] str, "negative" or "attribute".
        words: [R] int, position of the word.
        r: [R] correlation with the measured response to held-out images, given the profile's score.
        p: [R], one-sided: below 0 for negative drivers, above 0 for attributes.
        q: [R], Benjamini-Hochberg over the rows of a kind.
    """

    voxels: np.ndarray
    kinds: np.ndarray
    words: np.ndarray
    r: np.ndarray
    p: np.ndarray
    q: np.ndarray


class Images(NamedTuple):
    """Shares of words [N, C] of some images, and the measured responses to them [N, V]."""

    words: np.ndarray
    measured: np.ndarray


def drivers(
    distribution: np.ndarray,
    corpus: np.ndarray,
    words: np.ndarray,
    seen: Images,
    held_out: Images,
    *,
    n_words: int = 3,
    n_permutations: int = 1000,
    seed: int = 0,
    progress: Progress = silent,
) -> Drivers:
    """Finds negative drivers and attributes.

    Args:
        distribution: [V, C] profiles as shares.
        corpus: [C] mean shares over a corpus.
        words: [C] str.
        seen: images that candidates are chosen on.
        held_out: images that they are tested on.
        n_words: most candidates of each kind.
        n_permutations: exchanges of images.
        seed: of the exchanges.
        progress: called with (done, total) voxels.

    Returns:
        The candidates, kind by kind and voxel by voxel.
    """
    is_attribute = np.isin(words, list(ATTRIBUTES))
    rows = []
    for start in range(0, len(distribution), _BLOCK):
        block = slice(start, start + _BLOCK)
        own = np.maximum(salience(distribution[block], corpus), 0).T
        r = _given_score(seen.words, seen.words @ own, seen.measured[:, block])  # [C, v]
        for kind, strength in ((NEGATIVE, -r), (ATTRIBUTE, np.where(is_attribute[:, None], r, -np.inf))):
            best = np.argsort(-np.nan_to_num(strength, nan=-np.inf), axis=0, kind="stable")[:n_words]
            rank, voxel = np.nonzero(np.take_along_axis(strength, best, 0) > 0)
            rows += [(start + v, kind, best[i, v]) for v, i in sorted(zip(voxel, rank, strict=True))]
        progress(min(start + _BLOCK, len(distribution)), len(distribution))
    rows.sort(key=lambda row: row[1] == ATTRIBUTE)
    voxels, kinds, chosen = (np.array([row[i] for row in rows], dtype) for i, dtype in enumerate((int, object, int)))
    sign = np.where(kinds == NEGATIVE, -1.0, 1.0)
    r, p = _tested(distribution, corpus, held_out, voxels, chosen, sign, (n_permutations, seed))
    q = np.full(len(p), np.nan)
    for kind in (NEGATIVE, ATTRIBUTE):
        q[kinds == kind] = false_discovery_rate(p[kinds == kind])
    return Drivers(voxels, kinds.astype(str), chosen, r, p, q)


def _given_score(image_words: np.ndarray, score: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Partial correlation [C, v] of every word and every voxel, given the voxel's score [N, v]."""
    word, score, response = (standardized(one) for one in (image_words, score, measured))
    n = len(word)
    with_score, raw = word.T @ score / n, word.T @ response / n
    known = (score * response).mean(0)
    rest = np.sqrt(np.maximum(1 - with_score**2, 1e-6) * np.maximum(1 - known**2, 1e-6))
    is_other = (np.abs(word).sum(0)[:, None] > 0) & (with_score**2 < 1 - 1e-6)
    return np.where(is_other, (raw - with_score * known) / rest, np.nan)


def _tested(
    distribution: np.ndarray,
    corpus: np.ndarray,
    held_out: Images,
    voxels: np.ndarray,
    words: np.ndarray,
    sign: np.ndarray,
    drawing: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    r, p = np.full((2, len(voxels)), np.nan)
    for start in range(0, len(voxels), _BLOCK):
        rows = slice(start, start + _BLOCK)
        own = np.maximum(salience(distribution[voxels[rows]], corpus), 0).T
        score = (held_out.words @ own)[..., None]
        presence, response = (
            without(one, score) for one in (held_out.words[:, words[rows]], held_out.measured[:, voxels[rows]])
        )
        r[rows] = (presence * response).mean(0)
        p[rows] = column_permutation_p(sign[rows] * presence, response, n_permutations=drawing[0], seed=drawing[1])
    return r, p
