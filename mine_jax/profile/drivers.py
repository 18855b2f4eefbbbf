"""Words beside those of the profile: what lowers a response, and which attributes go with what raises it.

A profile is made of what drives a voxel in its best images, so nothing in it says what the voxel is quiet
for. Here the words are chosen by measured responses to training images and tested on held-out ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax.statistics import false_discovery_rate, standardized

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
    words: np.ndarray, trained: np.ndarray, image_words: np.ndarray, measured: np.ndarray, *, n_chosen: int = N_CHOSEN
) -> Drivers:
    """Finds words that lower each voxel's response, and attributes that raise it.

    Args:
        words: [C] str.
        trained: [V, C] correlation of each word's presence and the measured response in training images.
        image_words: [T, C] shares of words in each held-out image.
        measured: [T, V] measured responses, z-scored beta.
        n_chosen: words of each role.

    Returns:
        A row for each chosen word; its p by the normal approximation of the permutation distribution.
    """
    from scipy.stats import norm

    presence, response = standardized(image_words), standardized(measured)
    varies = np.isfinite(response).all(0) & (np.abs(response).sum(0) > 0)
    is_attribute = np.array([str(word) in ATTRIBUTES for word in words])
    parts = []
    for role, score in ((LOWERS, -trained), (ATTRIBUTE, np.where(is_attribute, trained, -np.inf))):
        order = np.argsort(-score, axis=1, kind="stable")[:, :n_chosen]
        chosen = (np.take_along_axis(score, order, 1) > 0) & varies[:, None]
        voxel, rank = np.nonzero(chosen)
        word = order[voxel, rank]
        r = _correlations(presence, response, word, voxel)
        p = norm.sf((-r if role == LOWERS else r) * np.sqrt(max(len(presence) - 1, 1)))
        parts.append((voxel, word, np.full(len(voxel), role), r, p, false_discovery_rate(p)))
    return Drivers(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def word_correlations(image_words: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Correlates the presence of words with measured responses.

    Args:
        image_words: [N, C] shares of words in each image.
        measured: [N, V] measured responses, z-scored beta.

    Returns:
        Pearson's r [V, C]; 0 where one of both does not vary or is not finite.
    """
    return np.nan_to_num(standardized(measured).T @ standardized(image_words) / max(len(image_words), 1))


def _correlations(presence: np.ndarray, response: np.ndarray, word: np.ndarray, voxel: np.ndarray) -> np.ndarray:
    """Correlation [R] of each row's word [T, C] and voxel [T, V], a block of rows at a time."""
    out = np.zeros(len(word))
    for start in range(0, len(word), 4096):
        rows = slice(start, start + 4096)
        out[rows] = (presence[:, word[rows]] * response[:, voxel[rows]]).mean(0)
    return out
