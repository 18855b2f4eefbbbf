"""Confounds, fields, drivers and conjunctions: what was planted is found, and nothing where nothing is."""

import numpy as np
import pytest
import scipy.stats

from mine_jax import profile
from mine_jax.description import TokenWords
from mine_jax.types import CriticalTokens

WORDS = np.array(["swimmer", "beach", "red", "dog", "key"])


def images(n, seed=0):
    """Presence of words [n, 5]; a swimmer nearly always comes with a beach."""
    rng = np.random.default_rng(seed)
    present = rng.uniform(size=(n, 5)) < np.array([0.1, 0.1, 0.2, 0.2, 0.2])
    present[:, 1] |= present[:, 0] & (rng.uniform(size=n) < 0.9)
    return present + 0.05 * rng.uniform(size=(n, 5))


def shapes(share):
    return np.stack([share, np.sqrt(share - share.min()), share > share.min()], 1)


def partial(x, y, z):
    design = np.column_stack([np.ones(len(x)), z])
    left = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (x, y)]
    return np.corrcoef(*left)[0, 1]


def test_a_word_that_only_comes_with_the_driver_does_not_survive():
    words = images(1500)
    rng = np.random.default_rng(1)
    measured = (3 * words[:, [0]] + rng.standard_normal((1500, 40))).astype(np.float32)
    found = profile.ledger(np.zeros((40, 1), int), WORDS, words, measured, company=images(3000, seed=2))
    assert sorted(set(found.word)) == [0, 1] and len(found.word) == 80
    swimmer, beach = (found.word == word for word in (0, 1))
    assert (found.q[swimmer] <= 0.05).all() and (found.q[beach] <= 0.05).mean() < 0.15
    assert set(found.confound[beach]) == {"with swimmer"} and (found.r[beach] > 0.1).all()
    row = int(np.flatnonzero(beach)[3])
    expected = partial(words[:, 1], measured[:, found.voxel[row]], shapes(words[:, 0]))
    assert found.r_given[row] == pytest.approx(expected, abs=1e-6)


def test_a_confound_takes_with_it_what_saturates():
    rng = np.random.default_rng(1)
    shown = rng.uniform(size=1500) < 0.3
    words = np.stack([shown * rng.uniform(0.1, 1, 1500) ** 2, shown * (rng.uniform(size=1500) < 0.9)], 1)
    measured = (np.sqrt(words[:, [0]]) + shown[:, None] + rng.standard_normal((1500, 40))).astype(np.float32)
    found = profile.ledger(np.zeros((40, 1), int), WORDS[:2], words, measured)
    beach = found.word == 1
    assert beach.sum() == 40 and (found.q[beach] <= 0.05).mean() < 0.15
    by_share = [partial(words[:, 1], column, words[:, [0]]) for column in measured.T]
    assert np.mean(by_share) > 0.1


def test_a_word_that_follows_the_pixels_does_not_survive():
    words, rng = images(1500), np.random.default_rng(1)
    colour = words[:, 2] + 0.5 * rng.standard_normal(1500)
    measured = (2 * colour[:, None] + rng.standard_normal((1500, 40))).astype(np.float32)
    confounds = {"color": np.stack([colour, rng.standard_normal(1500)], 1), "edges": rng.standard_normal(1500)}
    found = profile.ledger(np.full((40, 1), 2), WORDS, words, measured, confounds=confounds)
    assert (found.confound == "color").all() and (found.r > 0.3).all() and (found.q <= 0.05).mean() < 0.1


def test_p_of_the_ledger_is_uniform_without_company_or_effect():
    words, rng = images(400), np.random.default_rng(1)
    noise = rng.standard_normal((400, 500)).astype(np.float32)
    noise[:, 0] = 0
    found = profile.ledger(np.full((500, 1), 4), WORDS, words, noise, company=np.eye(5)[rng.integers(5, size=900)])
    assert 0 not in found.voxel and scipy.stats.kstest(found.p, "uniform").pvalue > 0.01


def critical(centres, spread, *, n_images=60, seed=0):
    """Tokens of an 8 x 8 grid near centres [V, 2] (column, row), or anywhere where the spread is infinite."""
    rng = np.random.default_rng(seed)
    at = centres[:, None, None] + spread * rng.standard_normal((len(centres), n_images, 6, 2))
    if not np.isfinite(spread):
        at = rng.uniform(0, 8, (len(centres), n_images, 6, 2))
    at = np.clip(at, 0, 7.99).astype(int)
    ids = np.tile(np.arange(n_images).astype(str), (len(centres), 1))
    scores = rng.uniform(0.5, 1, at.shape[:3]).astype(np.float32)
    return CriticalTokens(np.arange(len(centres)), ids, (at[..., 1] * 8 + at[..., 0]).astype(np.int32), scores)


def test_fields_lie_where_attribution_does_beyond_that_of_all_voxels():
    centres = np.random.default_rng(0).uniform(2, 6, (200, 2))
    found = profile.fields(critical(centres, 1.2), grid=(8, 8), n_permutations=200)
    distance = np.hypot(found.x * 8 - centres[:, 0], found.y * 8 - centres[:, 1])
    assert np.median(distance) < 1 and (found.p <= 0.05).mean() > 0.9
    wider = profile.fields(critical(centres, 2.0), grid=(8, 8), n_permutations=10)
    assert np.median(wider.size) > 1.2 * np.median(found.size)


def test_fields_of_voxels_that_look_anywhere_are_no_narrower_than_chance():
    found = profile.fields(critical(np.zeros((300, 2)), np.inf), grid=(8, 8), n_permutations=500)
    assert 0.01 < (found.p <= 0.05).mean() < 0.1
    unusable = profile.fields(critical(np.zeros((3, 2)), np.inf), grid=(8, 8), usable=np.zeros((3, 60), bool))
    assert np.isnan(unusable.x).all() and np.isnan(unusable.p).all()


def test_a_field_counts_only_if_words_inside_it_matter():
    rng = np.random.default_rng(0)
    words = TokenWords(
        np.arange(300).astype(str), None, rng.integers(5, size=(300, 64, 2)), np.ones((300, 64, 2), np.float32)
    )
    distribution = np.full((80, 5), 0.1)
    distribution[:, 2] = 0.6
    maps = rng.dirichlet(np.full(64, 0.05), 80)
    shown = (words.word_ids == 2).sum(-1)
    local = 8 * shown @ maps.T + rng.standard_normal((300, 80))
    anywhere = 8 * shown.mean(1)[:, None] + rng.standard_normal((300, 80))
    found, null = (
        profile.field_test(maps, distribution, np.full(5, 0.2), words, measured) for measured in (local, anywhere)
    )
    assert (found <= 0.01).mean() > 0.95 and scipy.stats.kstest(null, "uniform").pvalue > 0.01


def test_words_that_lower_a_response_and_attributes_that_raise_it():
    training, test = images(800, seed=3), images(400, seed=4)
    rng = np.random.default_rng(1)

    def responses(words):
        return 2 * words[:, [2]] - 2 * words[:, [3]] + rng.standard_normal((len(words), 30))

    seen = [profile.Seen(words, responses(words)) for words in (training, test)]
    trained = profile.word_correlations(*seen[0])
    found = profile.drivers(WORDS, *seen)
    held = found.q <= 0.05
    lowers = found.role == "lowers"
    assert held[lowers & (found.word == 3)].sum() == 30 and (found.word[held & lowers] == 3).mean() > 0.9
    assert set(found.word[found.role == "attribute"]) == {2} and held[found.role == "attribute"].all()
    assert trained[0, 3] == pytest.approx(-0.6, abs=0.15)
    noise = [rng.standard_normal((len(words), 400)) for words in (training, test)]
    null = profile.drivers(WORDS, profile.Seen(training, noise[0]), profile.Seen(test, noise[1]))
    assert (null.q <= 0.05).mean() < 0.02 and scipy.stats.kstest(null.p, "uniform").pvalue > 0.01


def test_joint_presence_is_found_only_beyond_the_sum_of_both_words():
    training, test = images(1500, seed=3), images(800, seed=4)
    rng = np.random.default_rng(1)
    joint, added = (
        [f(words) + rng.standard_normal((len(words), 40)) for words in (training, test)]
        for f in (lambda w: 4 * w[:, [3]] * w[:, [4]], lambda w: 2 * w[:, [3]] + 2 * w[:, [4]])
    )
    word_ids = np.tile([3, 0], (40, 1))
    seen = [profile.Seen(words, measured) for words, measured in zip((training, test), joint, strict=True)]
    found = profile.conjunctions(word_ids, *seen)
    assert set(zip(found.first, found.second, strict=True)) == {(3, 4)} and (found.q <= 0.05).all()
    product = test[:, 3] * test[:, 4]
    assert found.r[0] == pytest.approx(partial(product, joint[1][:, 0], test[:, [3, 4]]), abs=1e-6)
    seen = [profile.Seen(words, measured) for words, measured in zip((training, test), added, strict=True)]
    assert (profile.conjunctions(word_ids, *seen).q <= 0.05).mean() < 0.1


def test_the_best_pair_is_that_of_a_plain_search_among_words_often_seen_together():
    rng = np.random.default_rng(5)
    words = rng.random((300, 12)) * (rng.random((300, 12)) < np.linspace(0.04, 0.5, 12))
    measured = rng.standard_normal((300, 25))
    word_ids = np.stack([rng.permutation(12)[:3] for _ in range(25)])
    found = profile.conjunctions(word_ids, *[profile.Seen(words, measured)] * 2)
    together = (words > 0).T.astype(int) @ (words > 0)
    rare = 0
    for voxel in range(25):
        strengths = {}
        for first in word_ids[voxel]:
            for second in set(range(12)) - {first}:
                rare += together[first, second] < 10
                if together[first, second] >= 10:
                    product = words[:, first] * words[:, second]
                    strengths[first, second] = partial(product, measured[:, voxel], words[:, [first, second]])
        best = max(strengths, key=strengths.get)
        row = np.flatnonzero(found.voxel == voxel)
        if strengths[best] > 0:
            assert {found.first[row[0]], found.second[row[0]]} == set(best)
        else:
            assert not len(row)
    assert rare > 100
