"""How common each word is: in the images of the fit, and in each test image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax.description.lens import TokenWords


class CorpusShares(NamedTuple):
    """Shares of the C canonical words.

    Attributes:
        mean: [C] float32, mean over the training and validation images.
        test: [T, C] float32, of each test image.
        test_ids: [T] str, the test images.
    """

    mean: np.ndarray
    test: np.ndarray
    test_ids: np.ndarray


def corpus_shares(words: TokenWords, splits: np.ndarray) -> CorpusShares:
    """Computes how common each word is in the corpus and in the test images.

    Args:
        words: token words of N images.
        splits: [N] str, "train", "val" or "test" of each image; others count nowhere.

    Returns:
        Shares [C] of the corpus and [T, C] of the test images.
    """
    per_image, is_test = words.per_image(), splits == "test"
    return CorpusShares(
        mean=per_image[(splits == "train") | (splits == "val")].mean(0),
        test=per_image[is_test],
        test_ids=words.image_ids[is_test],
    )
