"""Queries: which words a text names, and which voxels prefer them."""

from dataclasses import replace

import numpy as np
import pytest

from mine_jax import roi
from mine_jax.errors import DataError
from tests.roi.planted import CATEGORIES, CORPUS, WORDS, profiles


def test_parts_of_a_sentence_that_are_no_words_are_named():
    parts = roi.passed_over(f"two blue {WORDS[0]}s, {WORDS[1]} with a hat", vocabulary=WORDS, categories={})
    assert parts == ("two", "blue", "with", "a", "hat")
    assert roi.passed_over(str(WORDS[0]), vocabulary=WORDS, categories={}) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("beach", ("beach",)),
        ("Pizza, apples", ("pizza", "apple")),
        ("two men, no: a woman on the beach", None),
        ("a woman eats an apple near houses", ("woman", "apple", "house")),
        ("face", ("man", "woman")),
        ("food, man", ("pizza", "apple", "man")),
    ],
)
def test_words_of_a_text(text, words):
    if words is None:
        with pytest.raises(DataError, match="two men"):
            roi.words_of(text, vocabulary=WORDS, categories=CATEGORIES)
    else:
        assert roi.words_of(text, vocabulary=WORDS, categories=CATEGORIES) == words


def test_unknown_words_name_the_nearest():
    with pytest.raises(DataError, match="house"):
        roi.words_of("hause", vocabulary=WORDS, categories=CATEGORIES)
    with pytest.raises(DataError, match="empty"):
        roi.words_of(" , ", vocabulary=WORDS, categories=CATEGORIES)


def test_voxels_that_prefer_the_words_are_found_and_others_are_not():
    rng = np.random.default_rng(0)
    found = profiles([0] * 30 + [2] * 60)
    has_words = np.arange(90) < 80
    claims, p = np.where(has_words, "words", "predicted"), np.where(has_words, 1e-3, 0.4)
    found = replace(found, claims=claims, p_values={"words": p})
    decoys = profiles([0] * 100)
    flat = rng.dirichlet([1, 1, 4, 4, 4, 4], 100).astype(np.float32)
    answer = roi.query(found, "face", corpus=CORPUS, decoys=replace(decoys, distribution=flat), categories=CATEGORIES)
    assert answer.words == ("man", "woman") and (answer.values[:30] > 0.9).all()
    assert (answer.q[:30] <= 0.05).all() and (answer.q[30:] > 0.05).all()


def test_decoys_asked_as_voxels_rarely_answer():
    rng, hits = np.random.default_rng(1), 0
    for _ in range(20):
        shares = rng.dirichlet(np.full(6, 0.5), 200).astype(np.float32)
        blank = profiles([0] * 100)
        answer = roi.query(
            replace(blank, distribution=shares[:100]),
            "face",
            corpus=CORPUS,
            decoys=replace(blank, distribution=shares[100:]),
            categories=CATEGORIES,
        )
        hits += bool((answer.q <= 0.05).any())
    assert hits <= 3


def test_without_a_claim_of_words_nothing_is_small():
    silent = replace(profiles([0] * 20), claims=np.full(20, "reliable"))
    answer = roi.query(silent, "man", corpus=CORPUS, decoys=None)
    assert (answer.p == 1).all() and (answer.q == 1).all()
