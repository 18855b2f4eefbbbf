"""Profiles on planted word tables: the planted word comes first, and its test on responses is calibrated."""

import numpy as np
import pytest
import scipy.stats

from mine_jax import profile
from mine_jax.description import Presence, salience
from mine_jax.types import Descriptions

WORDS = np.array([f"w{i}" for i in range(12)])
CORPUS = np.full(12, 1 / 12)


def descriptions(planted, *, n_images=40, seed=0):
    """Voxel v reads word planted[v] in every image, with random company; None reads random words."""
    rng = np.random.default_rng(seed)
    shape = (len(planted), n_images, 4)
    word_ids = np.stack([rng.permutation(12)[:4] for _ in range(shape[0] * n_images)]).reshape(shape).astype(np.int32)
    weights = np.full(shape, 0.1, np.float32)
    for v, word in enumerate(planted):
        if word is not None:
            clash = word_ids[v] == word
            word_ids[v][clash] = word_ids[v, :, 0][clash.any(1)]
            word_ids[v, :, 0] = word
            weights[v, :, 0] = 0.6
    ids = np.array([[f"i{i}" for i in range(n_images)]] * len(planted))
    blank = np.zeros(shape, np.int32)
    return Descriptions(np.arange(len(planted)), ids, WORDS, word_ids, weights, blank, 8)


def faithfulness(values):
    return np.asarray(values, np.float32)


def test_planted_word_is_first_and_its_weight_lies_in_the_interval():
    made = profile.build(descriptions([3, 7]), faithfulness(np.ones((2, 40))), corpus=CORPUS)
    assert list(made.word_ids[:, 0]) == [3, 7]
    np.testing.assert_allclose(made.weights[:, 0], 0.6, rtol=1e-5)
    assert (made.low[:, 0] <= made.weights[:, 0] + 1e-6).all() and (made.weights[:, 0] <= made.high[:, 0] + 1e-6).all()
    assert (made.log_odds[:, 0] > 1).all()
    assert profile.sentences(made)[0].startswith("Responds most to w3")


@pytest.mark.parametrize(("quantile", "n_used"), [({}, 20), ({"quantile": 0.75}, 10)])
def test_only_the_most_faithful_images_are_used(quantile, n_used):
    faithful = np.linspace(0, 1, 40)[None].repeat(2, 0)
    chosen = profile.most_faithful(faithful, min_images=2, **quantile)
    made = profile.build(descriptions([1, 1]), faithfulness(faithful), corpus=CORPUS, chosen=chosen)
    assert list(made.n_images) == [n_used, n_used]
    assert made.faithfulness[0] == pytest.approx(np.median(faithful[0, -n_used:]))


def test_overshooting_is_as_unfaithful_as_falling_short():
    values = np.array([[1.0, 2.5, 0.9, -1.0]])
    chosen = profile.most_faithful(values, quantile=0.5, min_images=1)
    made = profile.build(descriptions([0], n_images=4), faithfulness(values), corpus=CORPUS, chosen=chosen)
    assert made.faithfulness[0] == pytest.approx(0.95)


def test_unusable_and_undefined_pairs_are_left_out():
    values = np.ones((1, 40))
    values[0, :5] = np.nan
    usable = np.ones((1, 40), bool)
    usable[0, 5:38] = False
    chosen = profile.most_faithful(values, usable=usable)
    made = profile.build(descriptions([0]), faithfulness(values), corpus=CORPUS, chosen=chosen)
    assert made.n_images[0] == 2


def test_a_voxel_depends_on_its_id_not_on_its_neighbours():
    both = profile.build(descriptions([3, None]), faithfulness(np.ones((2, 40))), corpus=CORPUS)
    part = descriptions([3, None])
    alone = profile.build(
        Descriptions(
            *(getattr(part, n)[1:] if n not in ("words", "k") else getattr(part, n) for n in part.__dataclass_fields__)
        ),
        faithfulness(np.ones((1, 40))),
        corpus=CORPUS,
    )
    for name in ("low", "high"):
        np.testing.assert_array_equal(getattr(both, name)[1], getattr(alone, name)[0])
    np.testing.assert_array_equal(both.distribution.dense()[1], alone.distribution.dense()[0])


def null_data(n_voxels=200, n_images=120, seed=0):
    rng = np.random.default_rng(seed)
    image_words = rng.dirichlet(np.ones(12), n_images)
    distribution = np.zeros((n_voxels, 12), np.float32)
    distribution[np.arange(n_voxels), rng.integers(12, size=n_voxels)] = 0.7
    return distribution, image_words, rng.standard_normal((n_images, n_voxels))


@pytest.mark.parametrize("n_test", [60, 200, 400])
def test_null_p_values_are_uniform(n_test):
    distribution, image_words, noise = null_data(n_images=n_test)
    test = profile.measured_test(distribution, CORPUS, image_words, noise, n_permutations=500)
    assert scipy.stats.kstest(test.p, "uniform").pvalue > 0.01
    assert (profile.family_q(test.p, len(test.p)) <= 0.05).mean() <= 0.02


def test_planted_responses_are_found():
    distribution, image_words, noise = null_data()
    measured = noise + 40 * image_words @ (distribution > 0).T
    test = profile.measured_test(distribution, CORPUS, image_words, measured, n_permutations=500)
    assert (profile.family_q(test.p, len(test.p)) <= 0.05).mean() > 0.95
    assert (test.rank < 0.2).mean() > 0.95


def test_words_count_by_their_presence_in_standard_deviations():
    distribution, image_words, measured = null_data(n_voxels=3)
    distribution[0, 1:4] = 0.3
    image_words[:, 2] /= 10  # a rare word
    test = profile.measured_test(distribution, CORPUS, image_words, measured, n_permutations=5)
    weights = np.maximum(salience(distribution[0], CORPUS), 0)
    expected = np.corrcoef(image_words / image_words.std(0) @ weights, measured[:, 0])[0, 1]
    assert test.r[0] == pytest.approx(expected, abs=1e-6)
    assert abs(expected - np.corrcoef(image_words @ weights, measured[:, 0])[0, 1]) > 1e-3


def test_a_voxel_without_words_or_with_nan_responses_stays_untested():
    distribution, image_words, noise = null_data(n_voxels=3)
    distribution[0] = 0
    noise[:, 1] = np.nan
    with np.errstate(invalid="ignore"):
        test = profile.measured_test(distribution, CORPUS, image_words, noise, n_permutations=20)
    assert np.isnan(test.p[:2]).all() and np.isnan(test.r_beyond[:2]).all() and np.isfinite(test.p[2])


def test_what_the_rival_explains_does_not_count():
    distribution, image_words, noise = null_data()
    weights = np.maximum(salience(distribution, CORPUS), 0)
    seen = image_words @ weights.T
    low_level = seen + seen.std() * np.random.default_rng(1).standard_normal(seen.shape)
    measured = 3 * low_level / low_level.std(0) + noise
    without = profile.measured_test(distribution, CORPUS, image_words, measured, n_permutations=300)
    test = profile.measured_test(distribution, CORPUS, image_words, measured, rival=low_level, n_permutations=300)
    assert (without.p <= 0.05).mean() > 0.95
    assert scipy.stats.kstest(test.p, "uniform").pvalue > 0.01
    v = 0
    residual = [
        x - np.polyval(np.polyfit(low_level[:, v], x, 1), low_level[:, v]) for x in (seen[:, v], measured[:, v])
    ]
    assert test.r_beyond[v] == pytest.approx(np.corrcoef(*residual)[0, 1], abs=1e-9)


def test_words_are_tested_whole_where_the_encoder_beats_the_rival():
    distribution, image_words, noise = null_data()
    weights = np.maximum(salience(distribution, CORPUS), 0)
    seen = image_words @ weights.T
    seen = (seen - seen.mean(0)) / seen.std(0)
    rng = np.random.default_rng(1)
    encoded, low_level = seen + 0.3 * rng.standard_normal(seen.shape), seen + 0.7 * rng.standard_normal(seen.shape)
    of_words = {"predicted": encoded, "rival": low_level, "n_permutations": 300}
    test = profile.measured_test(distribution, CORPUS, image_words, 2 * seen + noise, **of_words)
    assert test.is_whole.mean() > 0.9
    np.testing.assert_array_equal(test.effect[test.is_whole], test.r[test.is_whole])
    # the same words, but the response follows the low-level statistics, of which the encoder knows less
    of_pixels = {**of_words, "predicted": low_level + 0.5 * rng.standard_normal(seen.shape)}
    test = profile.measured_test(distribution, CORPUS, image_words, 2 * low_level + noise, **of_pixels)
    assert test.is_whole.mean() < 0.02 and (test.p <= 0.05).mean() < 0.1
    # nothing at all: the choice between both tests does not bend p
    test = profile.measured_test(distribution, CORPUS, image_words, noise, **of_words)
    assert scipy.stats.kstest(test.p, "uniform").pvalue > 0.01


def test_halves_agree_where_both_hold_the_word_and_not_beyond_what_decoys_share():
    rng = np.random.default_rng(0)
    shared = rng.dirichlet(np.full(12, 0.3))
    noise = np.stack([0.9 * shared + 0.1 * rng.dirichlet(np.ones(12), 50) for _ in range(2)])
    signal = noise.copy()
    signal[:, np.arange(50), np.arange(50) % 12] += 0.5
    signal /= signal.sum(-1, keepdims=True)
    common = profile.common_profile(noise, CORPUS)
    assert np.median(profile.agreement(*noise, CORPUS)) > 0.5
    assert abs(np.median(profile.agreement(*noise, CORPUS, common=common))) < 0.3
    assert np.median(profile.agreement(*signal, CORPUS, common=common)) > 0.8
    others = profile.agreement_with_others(*signal, CORPUS, np.array(["A"] * 50))
    assert (profile.agreement(*signal, CORPUS) - others > 0.3).mean() > 0.9


def test_critical_tokens_are_told_from_the_images_they_are_from():
    rng = np.random.default_rng(0)
    image_words = rng.dirichlet(np.full(12, 0.5), 300)
    n, wanted = 40, np.arange(40) % 12
    distribution = np.full((n, 12), 0.3 / 12)
    distribution[np.arange(n), wanted] += 0.7
    whole = np.full((n, 12), 0.3 / 12)
    whole[np.arange(n), wanted] += 0.35
    whole[np.arange(n), (wanted + 5) % 12] += 0.35
    measured = 12 * image_words[:, wanted] + rng.standard_normal((300, n))
    test = profile.localised_test(distribution, whole, CORPUS, image_words, measured, n_permutations=300)
    assert (test.p <= 0.05).mean() > 0.9
    null = profile.localised_test(whole, whole, CORPUS, image_words, measured, n_permutations=300)
    assert not (null.effect > 1e-12).any()


def test_words_are_weighed_by_their_correlation_with_training_responses():
    distribution, image_words, measured = null_data(n_voxels=3)
    # word 5 is rarer in the profile than in the corpus, word 6 is not in it
    distribution[0] = 0
    distribution[0, 1:6] = [0.2, 0.2, 0.2, 0.2, 0.01]
    measured[:, 0] += 30 * image_words[:, 2] - 30 * image_words[:, 3] + 20 * image_words[:, 5] + 20 * image_words[:, 6]
    measured[:, 1] = np.nan
    weights = profile.word_weights(distribution, Presence.of(image_words), measured).dense()
    expected = np.array([np.corrcoef(image_words[:, word], measured[:, 0])[0, 1] for word in range(12)])
    assert salience(distribution[0], CORPUS)[5] < 0 < min(expected[[2, 5, 6]]) and expected[3] < 0
    np.testing.assert_allclose(weights[0], np.where(distribution[0] > 0, np.maximum(expected, 0), 0), atol=1e-6)
    assert not weights[1].any()


def test_a_voxel_of_any_of_many_words_is_found_although_its_profile_says_most_of_one():
    """Eight of twelve words drive it alike; its best images happen to show one of them, and a little of the others."""
    rng = np.random.default_rng(4)
    image_words = rng.dirichlet(np.ones(12), 600)
    distribution = np.full((1, 12), 0.02, np.float32)
    distribution[0, :8] = [0.5, *[0.085] * 7]
    measured = image_words[:, :8].sum(1, keepdims=True) * 4 + rng.standard_normal((600, 1))
    test = image_words[400:], measured[400:]
    weights = profile.word_weights(distribution, Presence.of(image_words[:400]), measured[:400])
    plain = profile.measured_test(distribution, CORPUS, *test, n_permutations=500)
    weighed = profile.measured_test(distribution, CORPUS, *test, weights=weights, n_permutations=500)
    best = np.corrcoef(test[0][:, :8].sum(1), test[1][:, 0])[0, 1]
    assert plain.r[0] < 0.5 * best < weighed.r[0] and weighed.p[0] < 0.01 < plain.p[0]


@pytest.mark.parametrize("n_test", [60, 400])
def test_weighing_words_keeps_p_of_noise_uniform(n_test):
    """Responses of training and test images are both noise: what fits the one says nothing of the other."""
    distribution, image_words, noise = null_data(n_images=300 + n_test, seed=n_test)
    distribution[:, ::2] += 0.1
    weights = profile.word_weights(distribution, Presence.of(image_words[:300]), noise[:300])
    test = profile.measured_test(
        distribution, CORPUS, image_words[300:], noise[300:], weights=weights, n_permutations=500
    )
    assert scipy.stats.kstest(test.p[np.isfinite(test.p)], "uniform").pvalue > 0.01
