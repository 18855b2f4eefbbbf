"""Every statistic against scipy, scikit-learn, numpy or a closed form."""

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import r2_score

from mine_jax import statistics


def test_r2_matches_sklearn():
    rng = np.random.default_rng(0)
    measured = rng.standard_normal((30, 6))
    predicted = measured * np.linspace(-1, 1, 6) + rng.standard_normal((30, 6)) + 0.3
    expected = r2_score(measured, predicted, multioutput="raw_values")
    np.testing.assert_allclose(statistics.r2(measured, predicted), expected, rtol=1e-12)
    assert (expected < 0).any()


def test_one_voxel_of_any_r2_does_not_decide_the_mean():
    assert statistics.mean_r2(np.array([0.4, np.nan, 0.2])) == pytest.approx(0.3)
    assert statistics.mean_r2(np.array([0.5, -1e12])) == pytest.approx(-0.25)
    assert np.isnan(statistics.mean_r2(np.array([np.nan]))) and np.isnan(statistics.mean_r2(np.array([])))


def test_pearson_matches_numpy():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((30, 6))
    b = a * np.linspace(-1, 1, 6) + rng.standard_normal((30, 6))
    expected = [np.corrcoef(a[:, v], b[:, v])[0, 1] for v in range(6)]
    np.testing.assert_allclose(statistics.pearson(a, b), expected, rtol=1e-12)


def test_columns_that_do_not_vary():
    """F-18: constants."""
    still, moving = np.full((5, 1), 3.0), np.arange(5.0)[:, None]
    assert statistics.r2(still, moving) == 0
    assert np.isnan(statistics.pearson(still, moving)) and np.isnan(statistics.pearson(moving, still))
    # the mean of these is not exactly 0.1
    assert np.isnan(statistics.pearson(np.full(3, 0.1), np.arange(3.0)))


def test_one_column_gives_the_number_of_many():
    a, b = np.random.default_rng(0).standard_normal((2, 30, 6))
    for statistic in (statistics.r2, statistics.pearson):
        assert statistic(a[:, 2], b[:, 2]) == statistic(a, b)[2]


def test_quantiles_of_sorted_samples_are_numpys():
    samples = np.sort(np.random.default_rng(0).normal(1, 0.5, (3, 200)), axis=1)
    np.testing.assert_allclose(statistics.quantiles_of_sorted(samples), np.quantile(samples, [0.025, 0.975], axis=1))
    assert statistics.quantiles_of_sorted(samples[:, :1]).low[0] == samples[0, 0]


def test_bootstrap_interval_matches_scipy_and_skips_draws_without_a_value():
    values = np.random.default_rng(0).normal(1, 0.5, 200)
    low, high = statistics.bootstrap_interval(
        lambda draws: values[draws].mean(1), 200, n_bootstrap=9000, rng=np.random.default_rng(1)
    )
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=9000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    np.testing.assert_allclose([low, high], expected, atol=0.004)
    some = statistics.bootstrap_interval(
        lambda draws: np.where(draws[:, 0] == 0, np.nan, 2.0), 3, n_bootstrap=50, rng=np.random.default_rng(1)
    )
    assert some == (2.0, 2.0)


def test_a_bootstrap_of_many_units_draws_the_same_in_less_memory(monkeypatch):
    values, sizes = np.random.default_rng(0).standard_normal((37, 2)), []

    def mean(draws):
        sizes.append(len(draws))
        return values[draws].mean(1)

    def interval():
        return statistics.bootstrap_interval(mean, 37, n_bootstrap=50, rng=np.random.default_rng(1))

    whole = interval()
    monkeypatch.setattr(statistics, "_DRAWN_AT_ONCE", 37 * 8)
    np.testing.assert_array_equal(interval(), whole)
    assert sizes == [50, *[8] * 6, 2]


def test_permutation_p_is_never_zero():
    np.testing.assert_allclose(statistics.permutation_p(np.array([0, 99]), 99), [0.01, 1.0])


def test_sequential_p_is_that_of_all_draws_where_few_reach_and_uniform_under_the_null():
    rng = np.random.default_rng(0)
    # three that few draws reach, and many of the null; every draw is added in two parts
    observed = np.concatenate([[2.5, 3.0, 9.0, np.nan], rng.standard_normal(3000)])
    test, draws = statistics.SequentialP(observed), rng.standard_normal((1000, len(observed)))
    for drawn in draws:
        test.add(drawn[:100], slice(0, 100))
        test.add(drawn[100:], np.arange(100, len(observed)))
    np.testing.assert_allclose(test.p[:3], (1 + (draws[:, :3] >= observed[:3]).sum(0)) / 1001)
    assert np.isnan(test.p[3]) and not test.is_open[3]
    p = test.p[4:]
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01
    # an ended test is off by a tenth of itself: of the share of a normal distribution above what was observed
    exact = scipy.stats.norm.sf(observed[4:])
    off = (p / exact)[exact > 0.2] - 1
    assert abs(off.mean()) < 0.02 and 0.05 < off.std() < 0.15


def test_a_sequential_test_ends_with_enough_draws_that_reach():
    test = statistics.SequentialP(np.zeros(1))
    for _ in range(1000):
        test.add(np.ones(1))
    assert not test.is_open[0] and test.p[0] == 1


def test_permutation_p_of_columns_is_that_of_scipy():
    rng = np.random.default_rng(1)
    a = statistics.standardized(rng.standard_normal((30, 4)))
    b = statistics.standardized(a * [0.6, 0.4, 0.0, 0] + rng.standard_normal((30, 4)))
    b[:, 3] = 0
    p = statistics.column_permutation_p(a, b, n_permutations=4000, seed=2)
    for column in range(3):
        expected = scipy.stats.permutation_test(
            (a[:, column], b[:, column]),
            lambda x, y: (x * y).sum(),
            permutation_type="pairings",
            alternative="greater",
            n_resamples=4000,
            rng=3,
        ).pvalue
        assert p[column] == pytest.approx(expected, rel=0.35, abs=0.003)
    assert np.isnan(p[3])


@pytest.mark.parametrize("n", [9, 20])
def test_sign_flip_matches_scipy(n):
    values = np.random.default_rng(n).normal(0.5, 1, n)
    expected = scipy.stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf if n == 9 else 50_000,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    p = statistics.sign_flip_p(values, n_permutations=10_000, rng=np.random.default_rng(1))
    assert p == pytest.approx(expected.pvalue, abs=1e-12 if n == 9 else 0.01)


def test_false_discovery_rate_matches_scipy_and_skips_nan():
    """F-94: q values."""
    p = np.array([0.01, np.nan, 0.2, 0.03])
    q = statistics.false_discovery_rate(p)
    np.testing.assert_allclose(q[[0, 2, 3]], scipy.stats.false_discovery_control(p[[0, 2, 3]]), atol=1e-12)
    assert np.isnan(q[1])


def test_prediction_range_covers_images_and_baselines_and_is_above_zero():
    predicted, baseline = np.array([[0.0, 2.0], [1.0, 1.0]]), np.array([[-1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_array_equal(statistics.prediction_range(predicted, baseline), [3.0, 1e-12])
