"""Words beside those of the profile: what lowers a response, and which attributes go with what raises it.

A profile is made of what drives a voxel in its best images, so nothing in it says what the voxel is quiet
for. Here the words are chosen by measured responses to training images and tested on held-out ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.description.presence import Presence, Seen, finite, pair_products
from mine_jax.memory import BLOCK_BYTES, SparseRows, blocks
from mine_jax.statistics import false_discovery_rate

# Words chosen for each voxel and role.
N_CHOSEN = 3
LOWERS, ATTRIBUTE = "lowers", "attribute"
# Colours, shapes, materials and surfaces: words that say how a thing is, not what it is.
ATTRIBUTES = frozenset(
    "red blue green yellow purple orange pink white black brown gray grey gold silver golden colorful bright dark"
    " round square circular rectangular triangular curved straight pointed flat long thin thick tall short small large"
    " striped spotted dotted checkered patterned plain shiny glossy matte smooth rough furry fluffy hairy bald wet dry"
    " wooden metallic metal plastic glass stone brick leather paper smile smiling glasses open closed old young".split()
)


class Drivers(NamedTuple):
    """One row per voxel, role and word, R rows.

    Attributes:
        voxel: [R] position of the voxel.
        word: [R] position of the word.
        role: [R] str, "lowers" or "attribute" (which raises).
        r: [R] correlation of the word's presence and the measured response in held-out images.
        p: [R] one-sided, in the direction of the role.
        q: [R] over all rows of the role.
    """

    voxel: np.ndarray
    word: np.ndarray
    role: np.ndarray
    r: np.ndarray
    p: np.ndarray
    q: np.ndarray


def drivers(
    words: np.ndarray, training: Seen, held_out: Seen, *, n_chosen: int = N_CHOSEN, progress: Progress = silent
) -> Drivers:
    """Finds words that lower each voxel's response, and attributes that raise it.

    Args:
        words: [C] str.
        training: images that choose the words.
        held_out: images that test them.
        n_chosen: words of each role.
        progress: called with (done, total) voxels.

    Returns:
        A row for each chosen word; its p by the normal approximation of the permutation distribution.
    """
    from scipy.stats import norm

    trained, presence = Presence.of(training.words), Presence.of(held_out.words)
    n_voxels, n_images = training.measured.shape[1], presence.by_image.shape[0]
    attributes = np.flatnonzero([str(word) in ATTRIBUTES for word in words])
    # words that no training image shows have r = 0, and are never chosen
    shown = np.flatnonzero(np.diff(trained.by_word.indptr) > 0)
    candidates = {LOWERS: shown, ATTRIBUTE: np.intersect1d(attributes, shown)}
    parts: dict[str, list[tuple[np.ndarray, ...]]] = {role: [] for role in candidates}
    for block in blocks(n_voxels, BLOCK_BYTES // (16 * len(words))):
        response = finite(held_out.measured[:, block])
        varies, along = (response != 0).any(0), np.ascontiguousarray(response.T)
        r = np.ascontiguousarray(trained.correlations(finite(training.measured[:, block])).T)
        for role, columns in candidates.items():
            voxel, word = _largest((-r if role == LOWERS else r)[:, columns], varies, n_chosen)
            word = columns[word]
            needed, row = np.unique(word, return_inverse=True)
            found = pair_products(presence.of_words(needed), along, row, voxel)
            parts[role].append((block.start + voxel, word, found))
        progress(block.stop, n_voxels)
    tables = []
    for role, rows in parts.items():
        voxel, word, r = (np.concatenate(part) for part in zip(*rows, strict=True))
        p = norm.sf((-r if role == LOWERS else r) * np.sqrt(max(n_images - 1, 1)))
        tables.append((voxel, word, np.full(len(voxel), role), r, p, false_discovery_rate(p)))
    return Drivers(*(np.concatenate(columns) for columns in zip(*tables, strict=True)))


def word_correlations(image_words: SparseRows | np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Correlates the presence of words with measured responses of few voxels.

    Args:
        image_words: [N, C] shares of words in each image, dense or sparse.
        measured: [N, V] measured responses, z-scored beta.

    Returns:
        Pearson's r [V, C]; 0 where one of both does not vary or is not finite.
    """
    return Presence.of(image_words).correlations(finite(measured)).T


def _largest(score: np.ndarray, varies: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions (voxel, word) of the largest scores [v, C] above 0 of each voxel that varies, at most n of each."""
    voxel, found = np.arange(len(score)), np.full((len(score), n), -1)
    for rank in range(min(n, score.shape[1])):
        best = score.argmax(1)
        found[:, rank] = np.where(varies & (score[voxel, best] > 0), best, -1)
        score[voxel, best] = -np.inf
    voxel, rank = np.nonzero(found >= 0)
    return voxel, found[voxel, rank]
