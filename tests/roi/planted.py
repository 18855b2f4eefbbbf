"""Profiles with planted words, for the tests of areas."""

import numpy as np

from mine_jax.types import Profiles

WORDS = np.array(["man", "woman", "house", "beach", "pizza", "apple"])
CATEGORIES = {"face": ("man", "woman"), "place": ("house", "beach"), "food": ("pizza", "apple"), "tool": ("hammer",)}
CORPUS = np.full(6, 1 / 6)


def profiles(words_of_voxels, *, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    n = len(words_of_voxels)
    distribution = np.full((n, 6), 0.05, np.float32)
    distribution[np.arange(n), words_of_voxels] = 0.75
    halves = np.clip(distribution + noise * rng.standard_normal((2, n, 6)), 0, None).astype(np.float32)
    blank, ids = np.zeros((n, 1), np.float32), np.zeros((n, 1), np.int32)
    one, text = np.ones(n), np.full(n, "")
    return Profiles(
        voxel_ids=np.arange(n), words=WORDS, word_ids=ids, weights=blank, low=blank, high=blank, log_odds=blank,
        distribution=distribution, halves=halves, faithfulness=one, is_named=ids > 0, n_images=np.full(n, 10),
        reliability=one, r_measured=one, effects={}, p_values={}, q_values={}, claims=np.full(n, "words"), reasons=text,
    )  # fmt: skip
