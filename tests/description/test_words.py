"""Which entries of a vocabulary are words: word lists, SentencePiece-like and byte-level vocabularies."""

import numpy as np
import pytest

from mine_jax.description import clean_vocabulary
from mine_jax.features import visual_words


def meaning(words):
    """Returns {entry: canonical word or None}."""
    vocabulary = clean_vocabulary(np.asarray(words))
    assert vocabulary.n_dropped == int((vocabulary.index < 0).sum())
    assert len(vocabulary.words) + vocabulary.n_dropped + vocabulary.n_merged == len(words)
    return {word: str(vocabulary.words[i]) if i >= 0 else None for word, i in zip(words, vocabulary.index, strict=True)}


def test_word_list_passes():
    words = ["cat", "Dog", "dogs", "ice cream", "hot_dog", "the", "t-shirt", "leaf", "leaves", "man", "men", "berry"]
    found = meaning([*words, "berries", "glass", "glasses", "shorts", "short", "bus", "buses", "child", "children"])
    assert found["Dog"] == found["dogs"] == "dog"
    assert (found["ice cream"], found["hot_dog"], found["t-shirt"]) == ("ice cream", "hot dog", "t-shirt")
    # a word list may want any word of English
    assert found["the"] == "the"
    assert (found["leaves"], found["men"], found["children"], found["berries"]) == ("leaf", "man", "child", "berry")
    assert found["buses"] == "bus"
    # no plurals, though they end like some
    assert (found["glasses"], found["shorts"]) == ("glasses", "shorts")


def test_plural_without_its_singular_stays():
    assert meaning(["dogs", "cats", "grapes", "s"]) == {"dogs": "dogs", "cats": "cats", "grapes": "grapes", "s": None}


def test_shipped_words_are_words():
    words = visual_words()
    vocabulary = clean_vocabulary(words)
    assert 2000 < len(words) < 5000
    assert vocabulary.n_dropped == 0
    assert len(vocabulary.words) > 0.95 * len(words)
    assert all(word == word.lower().strip() and word.isascii() for word in words.tolist())
    for word in ("face", "house", "place", "food", "word", "red", "running", "striped", "fire hydrant"):
        assert word in words


def test_sentencepiece_like_vocabulary():
    special = ["<unk>", "<s>", "</s>", "<0x0A>", "<0xE2>", "[PAD]", "<image>", "<unused 7>"]
    pieces = ["▁cat", "cat", "▁Cat", "▁CATS", "▁cats", "▁the", "▁ing", "ing", "ization", "▁", ",", "▁(", "▁12", "é"]
    pieces += ["▁café", "▁caf", "▁getElement", "▁std::", "▁猫", "▁x", "▁dog", "▁дом", "▁\u202eevil", "▁Üben"]
    found = meaning([*special, *pieces])
    assert not any(found[piece] for piece in special)
    assert {found[piece] for piece in ("▁cat", "cat", "▁Cat", "▁CATS", "▁cats")} == {"cat"}
    for piece in ("▁the", "ization", "▁", ",", "▁(", "▁12", "é", "▁getElement", "▁x"):
        assert found[piece] is None, piece
    assert (found["▁café"], found["▁猫"], found["▁дом"], found["▁Üben"]) == ("café", "猫", "дом", "üben")
    # marks of writing direction do not reach a report
    assert found["▁\u202eevil"] == "evil"


@pytest.fixture(scope="module")
def byte_level():
    """A byte-level BPE vocabulary, trained on a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    text = ["a cat and two cats", "the house of a cat", "houses and Cats", "un café à Köln", "猫 と 犬", "faces"] * 30
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([*text, "a house cat"], trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)


def test_byte_level_vocabulary(byte_level):
    assert {"Ġcat", "ĠcafÃ©", "<|endoftext|>", "Ġ"} <= set(byte_level)
    found = meaning(byte_level)
    assert found["<|endoftext|>"] is None and found["Ġ"] is None
    assert {found[piece] for piece in ("Ġcat", "Ġcats", "ĠCats")} == {"cat"}
    assert {found[piece] for piece in ("Ġhouse", "Ġhouses")} == {"house"}
    # bytes are put together to characters; parts of characters are dropped
    assert found["ĠcafÃ©"] == "café" and found["ĠKÃ¶ln"] == "köln"
    assert found["Ã"] is None and found["©"] is None
    assert "猫" in set(found.values())
    assert found["Ġand"] is None and found["Ġthe"] is None
    words = {word for word in found.values() if word}
    assert not any("Ġ" in word or "Ã" in word for word in words)


def test_pieces_of_clip_mark_the_end_of_words():
    found = meaning(["<|startoftext|>", "cat</w>", "cats</w>", "cat", "ing", "!</w>", "house</w>", "Cat</w>"])
    assert {found[piece] for piece in ("cat</w>", "cats</w>", "Cat</w>")} == {"cat"}
    # without its end mark it begins another word: "cat" of "category"
    assert found["cat"] is None and found["ing"] is None and found["!</w>"] is None


def test_hostile_entries_are_dropped_and_counted():
    """F-63: markup and control characters."""
    words = ["▁cat", "▁dog", "▁<script>alert(1)</script>", "<b>bold</b>", "\u200b", "▁\x00\x1b[31m", "▁a\u0301\u0301"]
    found = meaning(words)
    assert found["▁<script>alert(1)</script>"] is None and found["<b>bold</b>"] is None
    assert found["\u200b"] is None and found["▁\x00\x1b[31m"] is None
    assert clean_vocabulary(np.asarray(words)).index[0] == 0
