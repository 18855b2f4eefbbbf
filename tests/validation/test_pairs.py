"""What is tested, and the controls beside it."""

from dataclasses import replace

import numpy as np
import pytest

from mine_jax.description import TokenWords, clean_vocabulary
from mine_jax.types import Lens
from mine_jax.validation.pairs import (
    choose_pairs,
    leading_words,
    stable_seed,
    with_control_words,
    with_distractors,
    with_partners,
)

HELD_OUT = np.array([f"{10 * voxel + image}" for voxel in range(6) for image in (3, 4)])
AREAS = np.array(["FFA", "FFA", "food", "food", "PPA", "PPA"])


def choose(descriptions, profiles, n_pairs=5, **options):
    shares = np.random.default_rng(0).random((len(HELD_OUT), 8))
    options = {"image_words": shares, "image_ids": HELD_OUT, "n_pairs": n_pairs, "n_images": 1, **options}
    return choose_pairs(descriptions, profiles, AREAS, **options)


def test_areas_take_turns_and_only_explained_voxels_count(descriptions, profiles):
    pairs = choose(descriptions, profiles)
    assert {AREAS[pair.row] for pair in pairs[:3]} == {"PPA", "food", "FFA"}
    assert {pair.voxel_id for pair in pairs} == set(range(100, 105))


def test_voxels_are_drawn_whatever_their_profile_predicts(descriptions, profiles):
    first = {seed: [pair.row for pair in choose(descriptions, profiles, n_pairs=3, seed=seed)] for seed in range(40)}
    worse = replace(profiles, r_measured=profiles.r_measured[::-1])
    assert [pair.row for pair in choose(descriptions, worse, n_pairs=3)] == first[0]
    # the better voxel of FFA and of food is drawn about half of the time
    assert all(8 <= sum(row in rows for rows in first.values()) <= 32 for row in (1, 3))


def test_each_voxel_gives_several_images(descriptions, profiles):
    pairs = choose(descriptions, profiles, n_pairs=6, n_images=3)
    assert [sum(pair.row == row for pair in pairs) for row in {pair.row for pair in pairs}] == [3, 3]
    everything = choose(descriptions, profiles, n_pairs=20, n_images=2)
    assert len(everything) == 20 and {pair.row for pair in everything} == set(range(5))


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
    few = replace(profiles, claims=np.where(np.arange(6) == 2, "words", "none"))
    one, every = choose(descriptions, few), choose(descriptions, profiles, n_pairs=25)
    same = {(pair.voxel_id, pair.image_id): pair for pair in every}
    assert all(same[pair.voxel_id, pair.image_id] == pair for pair in one)
    assert choose(descriptions, profiles, seed=1) != choose(descriptions, profiles)


def test_nobody_explained_gives_no_pairs(descriptions, profiles):
    assert choose(descriptions, replace(profiles, claims=np.full(6, "reliable"))) == []


def test_partners_have_other_words(descriptions, profiles):
    pairs = with_partners(choose(descriptions, profiles), profiles)
    for pair in pairs:
        assert pair.other and not set(pair.other) & set(pair.profile)
        partner = pairs[pair.exchanged]
        assert partner.voxel_id != pair.voxel_id and not set(partner.profile) & set(pair.description)
    assert with_partners(pairs[:1], profiles) == pairs[:1]


def test_distractors_are_near_but_not_the_voxels_own(descriptions, profiles):
    pairs = choose(descriptions, profiles)
    names, n = descriptions.words.tolist(), len(descriptions.words)
    # neighbours in meaning: cat and dog, pizza and car, tree and house, face and book
    angle = np.repeat(np.arange(4), 2) + np.tile([0.0, 0.2], 4)
    lens = Lens(descriptions.words, np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32), np.zeros(n))
    # images show word w together with word w + 4
    image_words = np.tile(np.eye(4), 2) + 0.01 * np.random.default_rng(0).random((4, n))
    word_ids = np.tile(np.arange(n, dtype=np.int32)[None, :, None], (len(pairs), 1, 1))
    shares = np.tile(np.linspace(1, 0.1, n, dtype=np.float32)[None, :, None], (len(pairs), 1, 1))
    ids = np.array([pair.image_id for pair in pairs])
    words = TokenWords(ids, clean_vocabulary(descriptions.words), word_ids, shares)
    found = with_distractors(pairs, profiles, AREAS, lens, words, image_words=image_words)
    for pair in found:
        own, position = {*pair.profile, *pair.description}, names.index(pair.profile[0])
        for kind in ("area", "near", "cooccurring", "bystanders"):
            assert len(getattr(pair, kind)) <= 1 and not set(getattr(pair, kind)) & own, kind
        if names[position ^ 1] not in own:
            assert pair.near == (names[position ^ 1],)
        assert pair.cooccurring == (names[(position + 4) % n],)
        # the first word that every image shows and that is not the voxel's
        assert pair.bystanders == (next(name for name in names if name not in own),)
        # the last voxel has no words, so voxel 4 is alone in its area; others may share both their words
        beside = {p.profile[0] for p in found if AREAS[p.row] == AREAS[pair.row]} - own
        assert set(pair.area) == beside


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
