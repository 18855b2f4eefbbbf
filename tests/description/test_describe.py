"""Words of critical tokens to descriptions, against tables worked out by hand."""

import importlib

import numpy as np
import pytest

from mine_jax import description
from mine_jax.description.describe import sentence
from mine_jax.description.lens import TokenWords
from mine_jax.errors import DataError
from mine_jax.types import CriticalTokens, ImageTokens, Lens

WORDS = np.array(["dog", "cat", "Dogs", "##", "sky"])


def planted_lens():
    return Lens(words=WORDS, unembedding=np.eye(5, dtype=np.float32), bias=np.zeros(5, np.float32), scale=10.0)


def one_hot_tokens(labels):
    tokens = np.eye(5, dtype=np.float32)[np.asarray(labels)]
    return ImageTokens(tokens, np.array([f"i{n}" for n in range(len(tokens))]), grid=(1, tokens.shape[1]))


def critical(indices, scores):
    indices, scores = np.asarray(indices, np.int32), np.asarray(scores, np.float32)
    return CriticalTokens(np.arange(len(indices)), np.array([["i0"]] * len(indices)), indices, scores)


def test_top_words_are_the_planted_ones_and_shares_are_a_softmax():
    tokens = one_hot_tokens([[0, 1, 4]])
    words = description.top_words(planted_lens(), tokens, m=5)
    assert list(words.vocabulary.words[words.word_ids[0, :, 0]]) == ["dog", "cat", "sky"]
    expected = np.exp(10) / (np.exp(10) + 4)
    np.testing.assert_allclose(words.shares[0, :, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(words.shares.sum(-1), 1, rtol=1e-5)


def test_image_chunk_changes_nothing():
    tokens = one_hot_tokens(np.random.default_rng(0).integers(5, size=(7, 4)))
    whole, parts = (description.top_words(planted_lens(), tokens, m=2, image_chunk=c) for c in (None, 3))
    np.testing.assert_array_equal(whole.word_ids, parts.word_ids)
    np.testing.assert_allclose(whole.shares, parts.shares, rtol=1e-6)


def test_per_image_shares_leave_out_masked_tokens_and_dropped_entries():
    words = TokenWords(
        np.array(["i0"]),
        description.clean_vocabulary(WORDS),
        np.array([[[0], [1], [-1]]]),
        np.array([[[0.5], [0.4], [0.9]]], np.float32),
        np.array([[True, False, True]]),
    )
    np.testing.assert_allclose(words.per_image().dense(), [[0.25, 0, 0]])


def test_weights_are_shares_of_the_positive_attribution():
    words = TokenWords(
        np.array(["i0"]),
        description.clean_vocabulary(WORDS),
        np.array([[[0], [1], [2]]]),
        np.full((1, 3, 1), 0.5, np.float32),
    )
    made = description.describe(critical([[[0, 1, 2]]], [[[3.0, 1.0, -5.0]]]), words, corpus=np.full(3, 0.1))
    assert [str(made.words[i]) for i in made.word_ids[0, 0, :2]] == ["dog", "cat"]
    np.testing.assert_allclose(made.weights[0, 0, :2], [0.375, 0.125])
    assert list(made.n_tokens[0, 0, :2]) == [1, 1]
    assert made.word_ids[0, 0, 2] == -1, "a token with a negative score says nothing"
    assert description.sentences(made)[0, 0].startswith("The critical tokens of this image read as dog (1 of 3)")


def test_descriptions_in_files_are_those_in_memory(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    ids = rng.integers(-1, 3, (20, 9, 2))
    words = TokenWords(
        np.array([f"i{n}" for n in range(20)]),
        description.clean_vocabulary(WORDS),
        ids,
        rng.random(ids.shape).astype(np.float32),
    )
    shown = words.image_ids[rng.integers(0, 20, (30, 4))]
    found = CriticalTokens(np.arange(30), shown, rng.integers(0, 9, (30, 4, 3)), rng.normal(size=(30, 4, 3)))
    monkeypatch.setattr(importlib.import_module("mine_jax.description.describe"), "_BLOCK_ENTRIES", 200)
    held, filed = (description.describe(found, words, corpus=np.full(3, 0.1), folder=f) for f in (None, tmp_path))
    for name in ("word_ids", "weights", "n_tokens"):
        np.testing.assert_array_equal(getattr(held, name), getattr(filed, name))
        assert isinstance(getattr(filed, name), np.memmap) and not isinstance(getattr(held, name), np.memmap)
    assert (held.word_ids >= 0).any() and not list(tmp_path.iterdir())


def test_words_common_to_the_corpus_do_not_win():
    words = TokenWords(
        np.array(["i0"]),
        description.clean_vocabulary(WORDS),
        np.array([[[2, 0]]]),
        np.array([[[0.6, 0.4]]], np.float32),
    )
    made = description.describe(critical([[[0]]], [[[1.0]]]), words, corpus=np.array([0.01, 0.01, 0.6]))
    assert str(made.words[made.word_ids[0, 0, 0]]) == "dog"


def test_no_positive_score_gives_no_word():
    words = TokenWords(
        np.array(["i0"]), description.clean_vocabulary(WORDS), np.zeros((1, 1, 1), int), np.ones((1, 1, 1), np.float32)
    )
    made = description.describe(critical([[[0]]], [[[-1.0]]]), words, corpus=np.full(3, 0.1))
    assert (made.word_ids == -1).all() and "No word" in description.sentences(made)[0, 0]


def test_rewrite_is_called_with_the_plain_sentence():
    words = description.top_words(planted_lens(), one_hot_tokens([[0]]), m=1)
    made = description.describe(critical([[[0]]], [[[1.0]]]), words, corpus=np.full(3, 0.1))
    assert description.sentences(made, rewrite=lambda text: text.upper())[0, 0].startswith("THE CRITICAL TOKENS")


def test_an_image_without_words_is_named():
    words = description.top_words(planted_lens(), one_hot_tokens([[0]]), m=1)
    wrong = CriticalTokens(np.arange(1), np.array([["other"]]), np.zeros((1, 1, 1), np.int32), np.ones((1, 1, 1)))
    with pytest.raises(DataError, match="'other' has no token words"):
        description.describe(wrong, words, corpus=np.full(3, 0.1))


def test_salience_is_share_times_log_odds():
    found = description.salience(np.array([0.2, 0.0]), np.array([0.1, 0.1]))
    np.testing.assert_allclose(found, [0.2 * np.log(0.201 / 0.101), 0.0])


def test_sentence_lists_three_more_words():
    text = sentence(np.array(["a", "b", "c", "d", "e"]), np.array([4, 3, 2, 1, 1]), 8)
    assert text == "The critical tokens of this image read as a (4 of 8), then b, c and d."
