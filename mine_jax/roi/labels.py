"""The labels of maps: what the profile of each voxel prefers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mine_jax.roi.selectivity import category_shares
from mine_jax.types import Profiles


def map_labels(
    profiles: Profiles, voxel_ids: np.ndarray, *, corpus: np.ndarray, categories: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    """Labels voxels with the category and the word that lead their profiles.

    Args:
        profiles: of some of the voxels, over C words.
        voxel_ids: [V] int64, all voxels, ascending.
        corpus: [C] mean shares of words over a corpus.
        categories: category to its words.

    Returns:
        `top_category` and `top_word` -> labels [V] str; "" for voxels that are not explained.
    """
    rows = np.searchsorted(voxel_ids, profiles.voxel_ids)
    names, shares = category_shares(profiles, corpus=corpus, categories=categories)
    category = np.array(names)[shares.argmax(1)] if names else np.full(len(rows), "")
    first = np.where(profiles.word_ids[:, 0] >= 0, profiles.words[profiles.word_ids[:, 0]], "")
    maps = {}
    for name, labels in (("top_category", category), ("top_word", first)):
        of_all = np.full(len(voxel_ids), "", dtype=object)
        of_all[rows] = np.where(profiles.explained, labels, "")
        maps[name] = of_all.astype(str)
    return maps
