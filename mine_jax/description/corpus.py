"""How common each word is: in every image, and in the images of the fit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax.description.lens import TokenWords
from mine_jax.memory import SparseRows, column_means


class CorpusShares(NamedTuple):
    """Shares of the C canonical words.

    Attributes:
        mean: [C] float64, mean over the training and validation images.
        images: [N, C] float32, of each image of a split; most are 0.
        image_ids: [N] str.
        splits: [N] str, "train", "val" or "test".
    """

    mean: np.ndarray
    images: SparseRows
    image_ids: np.ndarray
    splits: np.ndarray

    def rows_of(self, image_ids: np.ndarray) -> np.ndarray:
        """Returns the positions of images among the N, of the shape of their ids; all must be there."""
        order = np.argsort(self.image_ids)
        return order[np.searchsorted(self.image_ids, image_ids, sorter=order)]


def corpus_shares(words: TokenWords, splits: np.ndarray) -> CorpusShares:
    """Computes how common each word is in the corpus and in each image.

    Args:
        words: token words of N images.
        splits: [N] str, "train", "val" or "test" of each image; others count nowhere.

    Returns:
        Shares [C] of the corpus and of each image of a split.
    """
    known = np.isin(splits, ("train", "val", "test"))
    per_image = words.per_image()
    fitted = per_image.take(np.isin(splits, ("train", "val")))
    return CorpusShares(
        mean=column_means(fitted),
        images=per_image.take(known),
        image_ids=words.image_ids[known],
        splits=splits[known],
    )
