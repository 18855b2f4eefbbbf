import warnings

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from mine_jax.encoder import ridge

PENALTIES = np.logspace(-2, 4, 13)


def data(n, width, n_voxels=12, seed=0):
    """Features of unequal variance and voxels from almost no noise to almost nothing else."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, width)) * np.logspace(0, -1, width) + rng.standard_normal(width)
    coef = rng.standard_normal((width, n_voxels)) / np.sqrt(width)
    noise = rng.standard_normal((n, n_voxels)) * np.logspace(-1.5, 0.3, n_voxels)
    return features.astype(np.float32), (features @ coef + noise + 2).astype(np.float32)


def validation_errors(features, responses, penalties, folds):
    """Mean over folds of the mean squared validation error [A, V], by brute force in float64."""
    x, y = features.astype(np.float64), responses.astype(np.float64)
    errors = np.zeros((len(penalties), y.shape[1]))
    for rows in folds:
        rest = np.setdiff1d(np.arange(len(x)), rows)
        x_mean, y_mean = x[rest].mean(0), y[rest].mean(0)
        gram, cross = (x[rest] - x_mean).T @ (x[rest] - x_mean), (x[rest] - x_mean).T @ (y[rest] - y_mean)
        for a, penalty in enumerate(penalties):
            coef = np.linalg.solve(gram + penalty * np.eye(len(gram)), cross)
            errors[a] += ((y[rows] - (x[rows] - x_mean) @ coef - y_mean) ** 2).mean(0) / len(folds)
    return errors


@pytest.mark.parametrize(("n", "width"), [(83, 10), (31, 60)], ids=["tall", "wide"])
def test_matches_float64_numpy(n, width):
    features, responses = data(n, width)
    errors = validation_errors(features, responses, PENALTIES, np.array_split(np.arange(n), 5))
    solution = ridge.solve(features, responses, PENALTIES)
    np.testing.assert_allclose(solution.penalty, PENALTIES[errors.argmin(0)], rtol=1e-6)
    np.testing.assert_allclose(solution.error, errors.min(0), rtol=1e-3)


def test_given_folds_match_float64_numpy():
    features, responses = data(60, 8)
    folds = np.array_split(np.random.default_rng(1).permutation(60), 4)
    errors = validation_errors(features, responses, PENALTIES, folds)
    solution = ridge.solve(features, responses, PENALTIES, folds=folds)
    np.testing.assert_allclose(solution.penalty, PENALTIES[errors.argmin(0)], rtol=1e-6)


@pytest.mark.parametrize(("n", "width"), [(83, 10), (31, 60)], ids=["tall", "wide"])
def test_matches_sklearn_ridge_at_each_penalty(n, width):
    features, responses = data(n, width)
    solution = ridge.solve(features, responses, PENALTIES)
    for v, penalty in enumerate(solution.penalty):
        expected = Ridge(alpha=float(penalty)).fit(features.astype(np.float64), responses[:, v].astype(np.float64))
        np.testing.assert_allclose(solution.coef[:, v], expected.coef_, atol=1e-4)
        np.testing.assert_allclose(solution.intercept[v], expected.intercept_, atol=1e-3)


@pytest.mark.parametrize(("n", "width"), [(83, 10), (31, 60)], ids=["tall", "wide"])
def test_matches_himalaya(n, width):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of himalaya about itself
        from himalaya.ridge import RidgeCV

        features, responses = data(n, width)
        model = RidgeCV(alphas=PENALTIES, fit_intercept=True, cv=KFold(5, shuffle=False))
        model.fit(features.astype(np.float64), responses.astype(np.float64))
    solution = ridge.solve(features, responses, PENALTIES)
    np.testing.assert_allclose(solution.penalty, model.best_alphas_, rtol=1e-6)
    np.testing.assert_allclose(solution.coef, model.coef_, atol=1e-4)
    np.testing.assert_allclose(solution.intercept, model.intercept_, atol=1e-3)


def test_noise_voxels_choose_a_valley():
    """Without signal a curve may have two valleys: the chosen one is at most a little above the lowest."""
    rng = np.random.default_rng(3)
    features, responses = rng.standard_normal((40, 20)), rng.standard_normal((40, 50)).astype(np.float32)
    errors = validation_errors(features, responses, PENALTIES, np.array_split(np.arange(40), 5))
    solution = ridge.solve(features, responses, PENALTIES)
    np.testing.assert_allclose(solution.error, errors.min(0), rtol=0.02)


@pytest.mark.parametrize("voxel_chunk", [1, 5, None])
def test_chunking_changes_nothing(voxel_chunk):
    features, responses = data(50, 8)
    expected = ridge.solve(features, responses, PENALTIES, voxel_chunk=1024)
    done = []
    got = ridge.solve(
        features, responses, PENALTIES, voxel_chunk=voxel_chunk, progress=lambda *counts: done.append(counts)
    )
    np.testing.assert_array_equal(got.penalty, expected.penalty)
    np.testing.assert_allclose(got.coef, expected.coef, atol=1e-5)
    assert done[-1] == (12, 12)


def test_constant_feature_and_constant_voxel():
    features, responses = data(50, 8)
    features[:, 3], responses[:, 2] = 7, -1
    solution = ridge.solve(features, responses, PENALTIES)
    assert np.isfinite(solution.coef).all()
    np.testing.assert_allclose(solution.coef[:, 2], 0, atol=1e-5)
    np.testing.assert_allclose(solution.intercept[2], -1, atol=1e-4)
    np.testing.assert_allclose(solution.coef[3], 0, atol=1e-5)


def test_message():
    features, responses = data(10, 3)
    with pytest.raises(ValueError, match="at least 3 penalties"):
        ridge.solve(features, responses, PENALTIES[:2])
    with pytest.raises(ValueError, match="2 to 10 folds"):
        ridge.solve(features, responses, PENALTIES, folds=11)
