"""Which words speak for which category, and how much of a profile they hold."""

from __future__ import annotations

import numpy as np

from mine_jax.description import saliences
from mine_jax.memory import SparseRows, in_blocks, sparse_rows

# Everyday English, singular; the category's own name always counts too. Ours.
_LISTS = {
    "face": (
        "face man woman person boy girl child baby kid people portrait smile smiling glasses eye nose mouth hair beard "
        "head clown grandfather grandmother lady guy human"
    ),
    "body": "body hand arm leg foot feet finger torso back shoulder dancer runner swimmer player athlete surfer skier",
    "place": (
        "place room kitchen bathroom bedroom street road beach mountain forest field city landscape park desert snow "
        "sky ocean river lake garden hallway building house tower castle church bridge skyline"
    ),
    "word": "word sign letter number book text label newspaper license writing menu poster page",
    "food": (
        "food pizza cake apple banana orange carrot broccoli sandwich burger donut fruit vegetable plate meal bread "
        "watermelon salad cheese meat dessert"
    ),
    "animal": "animal dog cat bird horse cow sheep elephant bear zebra giraffe fish snake turtle spider butterfly",
    "vehicle": "vehicle car bus train truck boat airplane plane bicycle bike motorcycle van ship",
    "tool": "tool hammer scissors knife fork spoon key umbrella cup clock chair ball ladder phone bottle racket",
}
CATEGORIES: dict[str, tuple[str, ...]] = {name: tuple(words.split()) for name, words in _LISTS.items()}


def shares_of_words(distribution: SparseRows | np.ndarray, corpus: np.ndarray, columns: list[np.ndarray]) -> np.ndarray:
    """Computes how much of each profile's positive salience falls on some words.

    Args:
        distribution: [V, C] profiles as shares of words, dense or sparse.
        corpus: [C] mean shares of words over a corpus.
        columns: n sets of positions of words.

    Returns:
        Shares [V, n] in 0..1.
    """
    members = np.zeros((len(corpus), len(columns)))
    for number, index in enumerate(columns):
        members[index, number] = 1
    rows = sparse_rows(distribution)
    shares = np.empty((len(rows), len(columns)))
    for block, part in in_blocks(rows):
        positive = saliences(part, corpus, positive=True).csr()
        shares[block] = (positive @ members) / np.maximum(np.asarray(positive.sum(1)).reshape(-1, 1), 1e-12)
    return shares
