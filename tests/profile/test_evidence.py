"""Ledger, drivers, conjunctions and fields: what was planted is found, and p is uniform where nothing was."""

import numpy as np
import pytest
import scipy.stats

from mine_jax import profile
from mine_jax.description import TokenWords, clean_vocabulary
from mine_jax.profile.drivers import Images
from mine_jax.statistics import column_permutation_p, without

RNG = np.random.default_rng
# Words: a thing that nearly always comes with a place, and things and a colour that come alone.
WORDS = np.array(["boat", "beach", "cat", "house", "red", "tree", "car", "cup"])


def scenes(n, seed):
    """Presence [n, 8] of each word, as noisy shares; in 90 % of cases a boat comes with a beach."""
    rng = RNG(seed)
    shown = rng.random((n, 8)) < 0.25
    boats = shown[:, 0]
    shown[:, 1] = np.where(boats, rng.random(n) < 0.9, rng.random(n) < 0.1)
    shares = 0.3 * shown + 0.02 * rng.random((n, 8))
    return shares, shown


def noisy(signal, seed, noise=0.7):
    return (signal + noise * RNG(seed).standard_normal(signal.shape)).astype(np.float32)


def test_partial_correlations_agree_with_least_squares():
    rng = RNG(0)
    values, others = rng.standard_normal((80, 5)), rng.standard_normal((80, 5, 3))
    others[:, 1, 2] = others[:, 1, 0] + 1e-9 * rng.standard_normal(80)
    others[:, 2, 1] = 3.0
    left = without(values, others)
    for r in range(5):
        design = np.column_stack([np.ones(80), others[:, r]])
        residual = values[:, r] - design @ np.linalg.lstsq(design, values[:, r], rcond=1e-6)[0]
        np.testing.assert_allclose(left[:, r], residual / residual.std(), atol=1e-6)
    assert (without(others[:, :, 0], others) == 0).all()


def test_p_of_columns_agree_with_scipy():
    rng = RNG(1)
    a, b = rng.standard_normal((2, 60, 4))
    b += a * np.array([0, 0.2, 0.4, -0.3])
    a, b = ((x - x.mean(0)) / x.std(0) for x in (a, b))
    for is_two_sided, alternative in ((False, "greater"), (True, "two-sided")):
        p = column_permutation_p(a, b, n_permutations=5000, seed=0, is_two_sided=is_two_sided)
        expected = [scipy.stats.pearsonr(a[:, i], b[:, i], alternative=alternative).pvalue for i in range(4)]
        np.testing.assert_allclose(p, expected, atol=0.03)


def ledger_of(responses, shares, *, confounds=None, word_ids=None):
    ids = np.array([[0, 1, 2]] * responses.shape[1]) if word_ids is None else word_ids
    seen, _ = scenes(800, 99)
    return profile.ledger(
        ids, WORDS, shares, responses, confounds=confounds or {}, seen_words=seen, n_companions=2, n_permutations=500
    )


def test_the_place_that_comes_with_a_thing_does_not_survive_and_the_thing_does():
    shares, shown = scenes(400, 0)
    found = ledger_of(noisy(np.repeat(shown[:, :1], 20, 1) * 2.0, 1), shares)
    boat, beach, cat = (found.words == i for i in range(3))
    assert (found.r[beach] > 0.4).all()
    assert (found.q[boat] <= 0.05).all() and (found.q[beach] > 0.05).mean() >= 0.9 and (found.q[cat] > 0.05).all()
    assert set(found.confounds[beach]) <= {"comes with boat", "all together"}
    assert (found.r_given[beach] < 0.15).all() and (found.r_given[boat] > 0.3).all()


def test_a_word_that_is_only_bright_does_not_survive():
    shares, shown = scenes(400, 2)
    luminance = shown[:, 3] + 0.3 * RNG(3).standard_normal(400)
    # responds to luminance, which houses have
    responses = noisy(np.repeat(luminance[:, None], 10, 1), 4)
    found = ledger_of(responses, shares, confounds={"luminance": luminance}, word_ids=np.array([[3]] * 10))
    assert (found.r > 0.3).all() and (found.q > 0.05).all()
    assert set(found.confounds) <= {"luminance", "all together"}


def test_the_ledger_of_noise_is_not_below_chance():
    shares, _ = scenes(200, 5)
    responses = noisy(np.zeros((200, 400)), 6)
    words = RNG(7).integers(0, 8, (400, 1))
    found = ledger_of(responses, shares, confounds={"luminance": RNG(8).random(200)}, word_ids=words)
    assert (found.p <= 0.05).mean() <= 0.06 and (found.q <= 0.05).mean() <= 0.01
    alone = ledger_of(responses, shares, word_ids=words)
    assert (alone.p <= 0.05).mean() <= 0.06


def profiles_of(words):
    """Profiles [V, 8] of one word each, and a flat corpus."""
    table = np.full((len(words), 8), 0.05, np.float32)
    table[np.arange(len(words)), words] = 0.6
    return table, np.full(8, 0.1, np.float32)


def test_what_lowers_a_voxel_and_its_color_are_found():
    train, test = scenes(1000, 10), scenes(400, 11)
    signal = [shown[:, 2] * 2.0 - 1.0 * shown[:, 5] + 1.0 * shown[:, 4] for _, shown in (train, test)]
    seen, held = (
        Images(shares, noisy(np.repeat(s[:, None], 15, 1), i))
        for i, (s, (shares, _)) in enumerate(zip(signal, (train, test), strict=True))
    )
    found = profile.drivers(*profiles_of([2] * 15), WORDS, seen, held, n_words=2, n_permutations=500)
    negative, attribute = found.kinds == "negative", found.kinds == "attribute"
    holds = found.q <= 0.05
    assert set(WORDS[found.words[attribute]]) == {"red"} and holds[attribute].all()
    assert {"tree"} <= set(WORDS[found.words[negative & holds]])
    assert (WORDS[found.words[negative & holds]] == "tree").mean() > 0.8
    assert (np.bincount(found.voxels[negative & holds & (WORDS[found.words] == "tree")]) == 1).all()


def test_drivers_of_noise_have_uniform_p():
    train, test = scenes(300, 12)[0], scenes(150, 13)[0]
    rng = RNG(14)
    seen, held = Images(train, rng.standard_normal((300, 400))), Images(test, rng.standard_normal((150, 400)))
    found = profile.drivers(*profiles_of(rng.integers(0, 8, 400)), WORDS, seen, held, n_words=1, n_permutations=400)
    for kind in ("negative", "attribute"):
        p = found.p[found.kinds == kind]
        assert len(p) > 100 and scipy.stats.kstest(p, "uniform").pvalue > 0.01
        assert (found.q[found.kinds == kind] <= 0.05).mean() <= 0.01


def test_a_pair_that_matters_together_is_found_and_a_sum_is_not():
    shares, shown = scenes(600, 20)
    both = (shown[:, 2] & shown[:, 3])[:, None] * 3.0
    summed = (shown[:, 2] * 1.5 + shown[:, 3] * 1.5)[:, None]
    responses = noisy(np.concatenate([np.repeat(both, 10, 1), np.repeat(summed, 10, 1)], 1), 21)
    found = profile.conjunctions(np.array([[2, 3, 5]] * 20), shares, responses, n_permutations=500)
    planted = (found.first == 2) & (found.second == 3)
    together = found.voxels < 10
    holds = found.q <= 0.05
    assert holds[planted & together].all() and (found.r[planted & together] > 0.3).all()
    assert not holds[planted & ~together].any() and holds[~planted].mean() <= 0.1


def test_conjunctions_of_noise_have_uniform_p():
    shares, _ = scenes(200, 22)
    words = np.stack([RNG(s).permutation(8)[:2] for s in range(400)])
    found = profile.conjunctions(words, shares, RNG(23).standard_normal((200, 400)), n_permutations=400)
    assert scipy.stats.kstest(found.p, "uniform").pvalue > 0.01


def heat_of(centres, *, sigma=0.15, n_images=20, seed=0, grid=(8, 8)):
    """Attributions of fields at `centres` [V, 2] (x, y) to blobs that stand anywhere; NaN for no field."""
    rng = RNG(seed)
    y, x = ((np.indices(grid) + 0.5) / 8).reshape(2, 1, 1, -1)
    things = rng.random((len(centres), n_images, 3, 2))
    shown = np.exp(-((x - things[..., 0, None]) ** 2 + (y - things[..., 1, None]) ** 2).min(2) / (2 * 0.1**2))
    away = (x[0] - centres[:, 0, None]) ** 2 + (y[0] - centres[:, 1, None]) ** 2
    field = np.where(np.isnan(away), 1, np.exp(-away / (2 * sigma**2)))
    return (shown * field[:, None] + 0.01 * rng.random(shown.shape)).astype(np.float16)


def test_centres_of_fields_are_found_within_a_token():
    centres = RNG(30).uniform(0.2, 0.8, (120, 2))
    found = profile.field(heat_of(centres), (8, 8), n_permutations=200)
    error = np.hypot(found.x - centres[:, 0], found.y - centres[:, 1]) * 8
    assert np.median(error) < 0.5 and (found.p <= 0.01).mean() > 0.95
    wide = profile.field(heat_of(centres, sigma=0.3), (8, 8), n_permutations=200)
    assert np.median(wide.size) > 1.2 * np.median(found.size)


def test_voxels_that_look_everywhere_have_uniform_p():
    nowhere = np.full((300, 2), np.nan)
    found = profile.field(heat_of(nowhere, seed=31), (8, 8), n_permutations=400)
    assert scipy.stats.kstest(found.p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("has_field", [True, False])
def test_words_inside_a_field_predict_responses_beyond_words_anywhere(has_field):
    rng = RNG(32)
    centres = rng.uniform(0.2, 0.8, (60, 2))
    maps = profile.field(heat_of(centres), (8, 8), n_permutations=10).maps
    # each token shows one of eight words; a voxel wants the third, inside its field or anywhere
    ids = rng.integers(0, 8, (300, 64, 1)).astype(np.int32)
    y, x = ((np.indices((8, 8)) + 0.5) / 8).reshape(2, 1, -1)
    away = (x - centres[:, :1]) ** 2 + (y - centres[:, 1:]) ** 2
    weights = np.exp(-away / (2 * 0.15**2)) if has_field else np.ones(away.shape)
    signal = (ids[..., 0] == 2) @ weights.T
    responses = noisy(signal / signal.std(0), 33, noise=1.0)
    words = TokenWords(np.arange(300).astype(str), clean_vocabulary(WORDS), ids, np.ones(ids.shape, np.float32))
    found = profile.field_test(maps, *profiles_of([2] * 60), words, responses, n_permutations=300)
    if has_field:
        assert (found.p <= 0.05).mean() > 0.9
    else:
        assert scipy.stats.kstest(found.p, "uniform").pvalue > 0.01


def test_the_field_of_noise_is_not_confirmed():
    rng = RNG(34)
    maps = profile.field(heat_of(rng.uniform(0.2, 0.8, (300, 2))), (8, 8), n_permutations=10).maps
    ids = rng.integers(0, 8, (100, 64, 1)).astype(np.int32)
    words = TokenWords(np.arange(100).astype(str), clean_vocabulary(WORDS), ids, np.ones(ids.shape, np.float32))
    noise = rng.standard_normal((100, 300))
    found = profile.field_test(maps, *profiles_of(rng.integers(0, 8, 300)), words, noise, n_permutations=400)
    assert scipy.stats.kstest(found.p, "uniform").pvalue > 0.01
