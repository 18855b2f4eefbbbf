"""Paired tests against scipy, closed forms and planted effects."""

import numpy as np
import pytest
from scipy import stats

from mine_jax.validation import comparisons


def test_exact_sign_flip_matches_scipy():
    values = np.random.default_rng(1).normal(0.6, 1, 9)
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert comparisons.compare(values).p == pytest.approx(expected.pvalue, abs=1e-12)


def test_random_sign_flip_is_close_to_exact():
    values = np.random.default_rng(2).normal(0.4, 1, 20)
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=50_000, rng=np.random.default_rng(0)
    )
    assert comparisons.compare(values).p == pytest.approx(expected.pvalue, abs=0.01)


def test_planted_effect_and_its_numbers():
    values = np.random.default_rng(3).normal(1.0, 0.5, 60)
    result = comparisons.compare(values)
    assert result.low < 1.0 < result.high and result.p < 1e-3 and result.n_pairs == 60
    assert result.effect == pytest.approx(values.mean()) and result.share == (values > 0).mean()
    assert result.effect_size == pytest.approx(values.mean() / values.std(ddof=1))


def test_null_effect_is_rejected_as_often_as_it_should():
    rng = np.random.default_rng(4)
    p = [comparisons.compare(rng.normal(size=12), n_permutations=100, n_bootstrap=10).p for _ in range(300)]
    assert np.mean(np.array(p) < 0.05) < 0.09


def test_pairs_of_one_voxel_stand_together():
    voxel_effect = np.random.default_rng(5).normal(0, 1, 8)
    values, groups = np.repeat(voxel_effect, 10), np.repeat(np.arange(8), 10)
    alone, together = comparisons.compare(values), comparisons.compare(values, groups=groups)
    assert together.effect == pytest.approx(alone.effect)
    assert together.p == pytest.approx(comparisons.compare(voxel_effect).p)
    assert together.high - together.low > 2 * (alone.high - alone.low)


@pytest.mark.parametrize("values", [[], [1.0], [np.nan, 2.0]])
def test_fewer_than_two_pairs_give_nan(values):
    """F-94: one pair, or none."""
    result = comparisons.compare(np.array(values))
    assert np.isnan(result.p) and np.isnan(result.low) and result.n_pairs == np.isfinite(values).sum()


def test_equal_and_zero_differences():
    """F-94: ties."""
    assert comparisons.compare(np.zeros(5)).p == 1.0 and comparisons.compare(np.zeros(5)).share == 0.5
    same = comparisons.compare(np.ones(5))
    assert same.effect == 1.0 and np.isnan(same.effect_size) and same.p == pytest.approx(2 / 32)


def test_nonfinite_differences_do_not_count():
    """F-94: NaN."""
    values = np.random.default_rng(6).normal(1, 1, 10)
    result = comparisons.compare(np.append(values, [np.nan, np.inf]))
    assert result == comparisons.compare(values)


def test_correlation_matches_numpy():
    rng = np.random.default_rng(7)
    first = rng.normal(size=50)
    second = first + rng.normal(size=50)
    result = comparisons.correlate(first, second, n_permutations=500, n_bootstrap=300)
    assert result.effect == pytest.approx(np.corrcoef(first, second)[0, 1], abs=1e-12)
    assert result.low < result.effect < result.high and result.p == pytest.approx(1 / 501)
    assert np.isnan(comparisons.correlate(first, np.ones(50)).effect)
    assert np.isnan(comparisons.correlate(first[:2], second[:2]).effect)


def test_q_is_within_a_family():
    """A control with a small p among hits keeps the q of controls."""
    rng = np.random.default_rng(0)
    labels = {"test": "edit", "comparison": "c", "evaluator": "e", "maker": "m"}
    hits = [({**labels, "voxels": "described"}, comparisons.compare(rng.normal(2, 0.5, 12))) for _ in range(8)]
    control = comparisons.compare(rng.normal(0, 1, 12))._replace(p=0.028)
    controls = [({**labels, "voxels": "exchanged"}, one) for one in (control, *[control._replace(p=0.6)] * 3)]
    table = comparisons.tabulate([*hits, *controls], {"e": 0.3})
    alone = comparisons.tabulate(controls, {"e": 0.3})
    null = table[table["voxels"] == "exchanged"]
    assert null["q"].tolist() == alone["q"].tolist() and null["q"].iloc[0] == pytest.approx(4 * 0.028)
