"""What is tested, and the controls beside it."""

from dataclasses import replace

import numpy as np
import pytest

from mine_jax.description import TokenWords, clean_vocabulary
from mine_jax.validation.pairs import choose_pairs, leading_words, stable_seed, with_control_words, with_partners

HELD_OUT = np.array([f"{10 * voxel + image}" for voxel in range(6) for image in (3, 4)])
AREAS = np.array(["FFA", "FFA", "food", "food", "PPA", "PPA"])


def choose(descriptions, profiles, n_pairs=5, **options):
    shares = np.random.default_rng(0).random((len(HELD_OUT), 8))
    options = {"image_words": shares, "image_ids": HELD_OUT, "n_pairs": n_pairs, **options}
    return choose_pairs(descriptions, profiles, AREAS, **options)


def test_areas_take_turns_and_only_explained_voxels_count(descriptions, profiles):
    pairs = choose(descriptions, profiles)
    assert [AREAS[pair.row] for pair in pairs] == ["PPA", "food", "FFA", "food", "FFA"]
    assert {pair.voxel_id for pair in pairs} == set(range(100, 105))


def test_words_are_the_leading_ones(descriptions, profiles):
    for pair in choose(descriptions, profiles):
        assert pair.description == tuple(descriptions.words[[pair.row, pair.row + 1]])
        assert pair.profile == pair.present == (descriptions.words[pair.row],)


def test_held_out_images_come_first_and_no_pair_twice(descriptions, profiles):
    pairs = choose(descriptions, profiles, n_pairs=100)
    assert len(pairs) == len({(pair.voxel_id, pair.image_id) for pair in pairs}) == 25
    assert all(pair.image_id in HELD_OUT for pair in pairs[:10])
    assert not any(pair.image_id in HELD_OUT for pair in pairs[10:])


def test_target_images_lack_the_words(descriptions, profiles):
    shares = np.ones((len(HELD_OUT), 8))
    shares[[2, 4, 7]] = 0
    pairs = choose(descriptions, profiles, image_words=shares)
    assert {pair.target_id for pair in pairs} <= set(HELD_OUT[[2, 4, 7]])


def test_a_plan_does_not_depend_on_the_other_voxels(descriptions, profiles):
    few = replace(profiles, explained=np.arange(6) == 2)
    one, every = choose(descriptions, few), choose(descriptions, profiles, n_pairs=25)
    same = {(pair.voxel_id, pair.image_id): pair for pair in every}
    assert all(same[pair.voxel_id, pair.image_id] == pair for pair in one)
    assert choose(descriptions, profiles, seed=1) != choose(descriptions, profiles)


def test_nobody_explained_gives_no_pairs(descriptions, profiles):
    assert choose(descriptions, replace(profiles, explained=np.zeros(6, bool))) == []


def test_partners_have_other_words(descriptions, profiles):
    pairs = with_partners(choose(descriptions, profiles), profiles)
    for pair in pairs:
        assert pair.other and not set(pair.other) & set(pair.profile)
        partner = pairs[pair.exchanged]
        assert partner.voxel_id != pair.voxel_id and not set(partner.profile) & set(pair.description)
    assert with_partners(pairs[:1], profiles) == pairs[:1]


def test_leading_words():
    words, ids = np.array(["a", "b", "c"]), np.array([2, 0, 1, -1])
    weights = np.array([0.8, 0.3, 0.1, 0.9])
    assert leading_words(words, ids, weights, n=3, min_weight=0.25) == ("c", "a")
    assert leading_words(words, ids, weights, n=1, min_weight=0) == ("c",)
    assert leading_words(words, np.array([-1]), weights[:1], n=3, min_weight=0) == ()


def test_control_words_come_from_their_tokens(descriptions, profiles):
    pairs = choose(descriptions, profiles)
    n_tokens = 8
    ids = np.array([pair.image_id for pair in pairs])
    # token t reads word t; its attribution falls with t
    word_ids = np.tile(np.arange(n_tokens, dtype=np.int32)[None, :, None], (len(ids), 1, 1))
    words = TokenWords(ids, clean_vocabulary(descriptions.words), word_ids, np.ones(word_ids.shape, np.float32))
    heat = {(pair.voxel_id, pair.image_id): np.arange(n_tokens, 0.0, -1) for pair in pairs}
    controlled = with_control_words(pairs, words, heat, corpus=np.full(n_tokens, 0.1), k=50)
    for pair in controlled:
        assert set(pair.lowest) == {"face", "book"}
        assert len(pair.random) == len(pair.lowest) == len(pair.description) == 2
    again = with_control_words(pairs, words, heat, corpus=np.full(n_tokens, 0.1), k=50, seed=5)
    assert [pair.random for pair in again] != [pair.random for pair in controlled]


@pytest.mark.parametrize("parts", [(0, 100, "a"), ("x",)])
def test_seeds_are_stable_and_small(parts):
    assert 0 <= stable_seed(*parts) < 2**31
    assert stable_seed(0, 1) != stable_seed(1, 0)
