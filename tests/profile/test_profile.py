"""Profiles on planted word tables: the planted word comes first, noise is not explained."""

import numpy as np
import pytest
import scipy.stats

from mine_jax import profile
from mine_jax.description import salience
from mine_jax.types import Descriptions, Faithfulness, Scores

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
    return Descriptions(np.arange(len(planted)), ids, WORDS, word_ids, weights, blank, np.full(shape[:2], ""))


def faithfulness(values):
    values = np.asarray(values, np.float32)
    return Faithfulness(values, np.zeros(values.shape, np.int32), np.array([0]), {}, {})


def scores(n, r2=0.3):
    full = np.full(n, r2)
    return Scores(np.arange(n), full, full, full, full, 10, 10, np.full(n, "ok"), full)


def test_planted_word_is_first_and_its_weight_lies_in_the_interval():
    made = profile.build(descriptions([3, 7]), faithfulness(np.ones((2, 40))), corpus=CORPUS)
    assert list(made.word_ids[:, 0]) == [3, 7]
    np.testing.assert_allclose(made.weights[:, 0], 0.6, rtol=1e-5)
    assert (made.low[:, 0] <= made.weights[:, 0] + 1e-6).all() and (made.weights[:, 0] <= made.high[:, 0] + 1e-6).all()
    assert (made.log_odds[:, 0] > 1).all() and (made.stability > 0.9).all()
    assert made.sentences[0].startswith("Responds most to w3")


def test_only_the_most_faithful_quarter_is_used():
    faithful = np.linspace(0, 1, 40)[None].repeat(2, 0)
    made = profile.build(descriptions([1, 1]), faithfulness(faithful), corpus=CORPUS, min_images=2)
    assert list(made.n_images) == [10, 10]
    assert made.faithfulness[0] == pytest.approx(np.median(faithful[0, -10:]))


def test_overshooting_is_as_unfaithful_as_falling_short():
    values = np.array([[1.0, 2.5, 0.9, -1.0]])
    made = profile.build(
        descriptions([0], n_images=4), faithfulness(values), corpus=CORPUS, faithfulness_quantile=0.5, min_images=1
    )
    assert made.faithfulness[0] == pytest.approx(0.95)


def test_unusable_and_undefined_pairs_are_left_out():
    values = np.ones((1, 40))
    values[0, :5] = np.nan
    usable = np.ones((1, 40), bool)
    usable[0, 5:38] = False
    made = profile.build(descriptions([0]), faithfulness(values), corpus=CORPUS, usable=usable)
    assert made.n_images[0] == 2


def test_a_voxel_depends_on_its_id_not_on_its_neighbours():
    both = profile.build(descriptions([3, None]), faithfulness(np.ones((2, 40))), corpus=CORPUS)
    part = descriptions([3, None])
    alone = profile.build(
        Descriptions(*(getattr(part, n)[1:] if n != "words" else WORDS for n in part.__dataclass_fields__)),
        faithfulness(np.ones((1, 40))),
        corpus=CORPUS,
    )
    for name in ("low", "high", "stability", "distribution"):
        np.testing.assert_array_equal(getattr(both, name)[1], getattr(alone, name)[0])


def null_data(n_voxels=200, n_images=120, seed=0):
    rng = np.random.default_rng(seed)
    image_words = rng.dirichlet(np.ones(12), n_images)
    distribution = np.zeros((n_voxels, 12), np.float32)
    distribution[np.arange(n_voxels), rng.integers(12, size=n_voxels)] = 0.7
    return distribution, image_words, rng.standard_normal((n_images, n_voxels))


def test_null_p_values_are_uniform():
    distribution, image_words, noise = null_data()
    test = profile.measured_correlation(distribution, CORPUS, image_words, noise, n_permutations=500)
    assert scipy.stats.kstest(test.p, "uniform").pvalue > 0.01
    assert (test.q <= 0.05).mean() <= 0.02


def test_planted_responses_are_found_and_r_is_pearsons():
    distribution, image_words, noise = null_data()
    measured = noise + 40 * image_words @ (distribution > 0).T
    test = profile.measured_correlation(distribution, CORPUS, image_words, measured, n_permutations=500)
    assert (test.q <= 0.05).mean() > 0.95
    weights = np.maximum(salience(distribution[0], CORPUS), 0)
    expected = np.corrcoef(image_words @ weights, measured[:, 0])[0, 1]
    assert test.r[0] == pytest.approx(expected, abs=1e-6)


def test_a_voxel_without_words_or_with_nan_responses_stays_untested():
    distribution, image_words, noise = null_data(n_voxels=3)
    distribution[0] = 0
    noise[:, 1] = np.nan
    with np.errstate(invalid="ignore"):
        test = profile.measured_correlation(distribution, CORPUS, image_words, noise, n_permutations=20)
    assert np.isnan(test.p[:2]).all() and np.isnan(test.q[:2]).all() and np.isfinite(test.p[2])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"r2": 0.0}, "r2 < 0.02"),
        ({"n_images": 2}, "fewer than 6 images"),
        ({"faithfulness": 0.1}, "faithfulness < 0.5"),
        ({"stability": 0.0}, "stability < 0.3"),
        ({"q": 0.5}, "q > 0.05"),
        ({"q": np.nan}, "q > 0.05"),
        ({}, ""),
    ],
)
def test_the_first_failed_rule_is_the_reason(change, reason):
    from dataclasses import replace

    made = profile.build(descriptions([3]), faithfulness(np.ones((1, 40))), corpus=CORPUS)
    fields = {k: np.array([v]) for k, v in change.items() if k not in ("r2", "q")}
    test = profile.NullTest(np.array([0.5]), np.array([0.001]), np.array([change.get("q", 0.001)]))
    judged = profile.judge(replace(made, **fields), scores(1, change.get("r2", 0.3)), test)
    assert list(judged.reasons) == [reason] and bool(judged.explained[0]) == (reason == "")
