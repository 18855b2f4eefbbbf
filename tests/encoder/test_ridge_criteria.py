"""Ridge penalties by GCV and leave-one-out, row weights and missing responses, and bands."""

import warnings

import jax
import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV

from mine_jax import encoder
from mine_jax.config import RidgeConfig, from_dict
from mine_jax.encoder import ridge
from mine_jax.errors import ConfigError

PENALTIES = np.logspace(-2, 4, 13)
SIZES = pytest.mark.parametrize(("n", "width"), [(83, 10), (31, 60)], ids=["tall", "wide"])


def data(n, width, n_voxels=12, seed=0):
    """Features of unequal variance and voxels from almost no noise to almost nothing else."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, width)) * np.logspace(0, -1, width) + rng.standard_normal(width)
    coef = rng.standard_normal((width, n_voxels)) / np.sqrt(width)
    noise = rng.standard_normal((n, n_voxels)) * np.logspace(-1.5, 0.3, n_voxels)
    return features.astype(np.float32), (features @ coef + noise + 2).astype(np.float32)


def float64_ridge(x, y, w, penalty):
    """Coefficients, intercept and hat matrix of one voxel with row weights."""
    x_mean, y_mean = w @ x / w.sum(), w @ y / w.sum()
    centred = x - x_mean
    inverse = np.linalg.inv(centred.T @ (centred * w[:, None]) + penalty * np.eye(x.shape[1]))
    coef = inverse @ (centred.T @ (w * (y - y_mean)))
    hat = centred @ inverse @ (centred * w[:, None]).T + w / w.sum()
    return coef, y_mean - x_mean @ coef, hat


def criterion(selection, x, y, w, penalty, folds):
    """The error of one voxel at one penalty by its definition, in float64; rows of weight 0 do not exist."""
    x, y, kept = x.astype(np.float64), y.astype(np.float64), w > 0
    if selection == "kfold":
        errors = []
        for rows in folds:
            rest, rows = (part[kept[part]] for part in (np.setdiff1d(np.arange(len(x)), rows), rows))
            coef, intercept, _ = float64_ridge(x[rest], y[rest], w[rest], penalty)
            if len(rows):
                errors.append(np.average((y[rows] - x[rows] @ coef - intercept) ** 2, weights=w[rows]))
        return np.mean(errors)
    x, y, w = x[kept], y[kept], w[kept]
    if selection == "gcv":
        coef, intercept, hat = float64_ridge(x, y, w, penalty)
        return np.average((y - x @ coef - intercept) ** 2, weights=w) / (1 - np.trace(hat) / len(x)) ** 2
    errors = []
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        coef, intercept, _ = float64_ridge(x[rest], y[rest], w[rest], penalty)
        errors.append((y[i] - x[i] @ coef - intercept) ** 2)
    return np.average(errors, weights=w)


def assert_matches_float64(solution, selection, x, y, weights, folds, penalties):
    for v in range(y.shape[1]):
        w = weights[:, v].astype(np.float64)
        errors = [criterion(selection, x, np.where(w > 0, y[:, v], 0), w, penalty, folds) for penalty in penalties]
        best = penalties[np.argmin(errors)]
        np.testing.assert_allclose(solution.penalty[v], best, rtol=1e-6)
        np.testing.assert_allclose(solution.error[v], np.min(errors), rtol=1e-3)
        kept = w > 0
        coef, intercept, _ = float64_ridge(
            x[kept].astype(np.float64), y[kept, v].astype(np.float64), w[kept], float(best)
        )
        np.testing.assert_allclose(solution.coef[:, v], coef, atol=1e-4)
        np.testing.assert_allclose(solution.intercept[v], intercept, atol=1e-3)


@SIZES
@pytest.mark.parametrize("selection", ["gcv", "loo"])
def test_closed_forms_match_float64_numpy(selection, n, width):
    features, responses = data(n, width, n_voxels=6)
    grid = PENALTIES[::2]
    solution = ridge.solve(features, responses, grid, selection=selection)
    assert_matches_float64(solution, selection, features, responses, np.ones_like(responses), None, grid)


@SIZES
def test_leave_one_out_matches_sklearn(n, width):
    features, responses = data(n, width)
    model = RidgeCV(alphas=PENALTIES, alpha_per_target=True)
    model.fit(features.astype(np.float64), responses.astype(np.float64))
    solution = ridge.solve(features, responses, PENALTIES, selection="loo")
    np.testing.assert_allclose(solution.penalty, model.alpha_, rtol=1e-6)
    np.testing.assert_allclose(solution.coef, model.coef_.T, atol=1e-4)
    np.testing.assert_allclose(solution.intercept, model.intercept_, atol=1e-3)
    np.testing.assert_allclose(solution.error, -model.best_score_, rtol=1e-3)


@pytest.mark.parametrize("selection", ["kfold", "gcv", "loo"])
@pytest.mark.parametrize("masked", [False, True], ids=["weights", "weights_and_missing"])
def test_row_weights_match_float64_numpy(selection, masked):
    """Voxels with the same weights, with weights of their own, and with missing trials."""
    features, responses = data(40, 6, n_voxels=8)
    rng = np.random.default_rng(1)
    weights = rng.uniform(0.5, 2, (40, 8)).astype(np.float32)
    weights[:, 2:6] = weights[:, :1]
    weights[3, 7] = 0
    if masked:
        responses[5:9, 3] = responses[30:, 6] = np.nan  # the second has no response in the last fold
        responses[::7, 4:6] = np.inf
    used = np.where(np.isfinite(responses), weights, 0)
    folds = np.array_split(np.random.default_rng(2).permutation(40), 4)
    if masked:
        folds = np.array_split(np.arange(40), 4)
    grid = PENALTIES[::2]
    solution = ridge.solve(
        features, responses, grid, selection=selection, folds=folds, weights=weights, mask_missing=masked
    )
    assert_matches_float64(solution, selection, features, responses, used, folds, grid)


def test_equal_weights_and_complete_responses_change_nothing():
    features, responses = data(50, 8)
    expected = ridge.solve(features, responses, PENALTIES)
    for options in ({"weights": np.ones(50)}, {"mask_missing": True}, {"weights": np.ones((50, 12))}):
        got = ridge.solve(features, responses, PENALTIES, **options)
        np.testing.assert_array_equal(got.penalty, expected.penalty)
        np.testing.assert_allclose(got.coef, expected.coef, atol=1e-5)


def test_missing_responses_matter_only_to_their_voxel():
    """F-16: missing trials, masked or not."""
    features, responses = data(50, 8)
    expected = ridge.solve(features, responses, PENALTIES)
    responses[4, 2] = np.nan
    without = ridge.solve(features, responses, PENALTIES)
    masked = ridge.solve(features, responses, PENALTIES, mask_missing=True, voxel_chunk=5)
    others = np.arange(12) != 2
    assert np.isnan(without.coef[:, 2]).all() and np.isfinite(masked.coef).all()
    for got in (without, masked):
        np.testing.assert_array_equal(got.penalty[others], expected.penalty[others])
        np.testing.assert_allclose(got.coef[:, others], expected.coef[:, others], atol=1e-5)
    model = Ridge(alpha=float(masked.penalty[2])).fit(
        np.delete(features, 4, 0).astype(np.float64), np.delete(responses[:, 2], 4).astype(np.float64)
    )
    np.testing.assert_allclose(masked.coef[:, 2], model.coef_, atol=1e-4)


def banded_data(n=60, n_voxels=9):
    """Two bands; voxels read the first, the second or both."""
    rng = np.random.default_rng(4)
    bands = [rng.standard_normal((n, 12)), 3 * rng.standard_normal((n, 7))]
    shares = np.tile([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], (3, 1))
    signal = sum(band @ rng.standard_normal((band.shape[1], n_voxels)) * shares[:, b] for b, band in enumerate(bands))
    return [band.astype(np.float32) for band in bands], (signal + rng.standard_normal((n, n_voxels))).astype(np.float32)


CANDIDATES = np.array([[0.5, 0.5], [0.999, 0.001], [0.02, 0.98], [0.9, 0.1]])


def test_banded_matches_himalaya():
    bands, responses = banded_data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of himalaya about itself
        from himalaya.ridge import GroupRidgeCV
        from sklearn.model_selection import KFold

        model = GroupRidgeCV(
            groups="input",
            cv=KFold(5),
            fit_intercept=True,
            solver_params={"n_iter": CANDIDATES, "alphas": PENALTIES, "progress_bar": False},
        )
        model.fit([band.astype(np.float64) for band in bands], responses.astype(np.float64))
    got = ridge.solve_banded(bands, responses, PENALTIES, band_weights=CANDIDATES)
    assert len(np.unique(got.candidate)) > 2
    deltas = np.log(CANDIDATES[got.candidate] / got.penalty[:, None]).T
    np.testing.assert_allclose(deltas, model.deltas_, rtol=1e-5)
    np.testing.assert_allclose(got.coef, np.asarray(model.coef_), atol=1e-4)
    np.testing.assert_allclose(got.intercept, np.asarray(model.intercept_), atol=1e-3)


def test_banded_without_the_second_band_is_ridge():
    bands, responses = banded_data()
    expected = ridge.solve(bands[0], responses, PENALTIES, selection="gcv")
    out, done = np.zeros((19, 9), np.float32), []
    got = ridge.solve_banded(
        bands,
        responses,
        PENALTIES,
        band_weights=np.array([[1.0, 0.0]]),
        selection="gcv",
        out=out,
        progress=lambda *counts: done.append(counts),
    )
    assert got.coef is out and done[-1] == (9, 9)
    np.testing.assert_array_equal(got.penalty, expected.penalty)
    np.testing.assert_allclose(out[:12], expected.coef, atol=1e-5)
    assert not out[12:].any()


def test_random_band_weights(key):
    drawn = ridge.random_band_weights(3, n=50, key=key)
    assert drawn.shape == (50, 3) and (drawn >= 0).all()
    np.testing.assert_allclose(drawn.sum(1), 1)
    np.testing.assert_allclose(drawn[0], 1 / 3)
    assert np.median(drawn[1::2].max(1)) > 0.9 > np.median(drawn[2::2].max(1))
    assert not np.array_equal(drawn, ridge.random_band_weights(3, n=50, key=jax.random.key(1)))


def test_messages():
    features, responses = data(20, 3)
    with pytest.raises(ValueError, match="`selection` must be one of"):
        ridge.solve(features, responses, PENALTIES, selection="aic")
    with pytest.raises(ValueError, match=r"`weights` must have shape \(20,\) or \(20, 12\)"):
        ridge.solve(features, responses, PENALTIES, weights=np.ones(12))
    with pytest.raises(ValueError, match="finite and at least 0, but those of voxel 0"):
        ridge.solve(features, responses, PENALTIES, weights=-np.ones(20))
    with pytest.raises(ValueError, match="hold each of the 20 rows once"):
        ridge.solve(features, responses, PENALTIES, folds=[np.arange(10), np.arange(9, 20)])
    with pytest.raises(ValueError, match="positive and increasing"):
        ridge.solve(features, responses, PENALTIES[::-1])
    responses[4:, 3] = np.nan
    with pytest.raises(ValueError, match="voxel 3 has responses with a weight in 1 folds"):
        ridge.solve(features, responses, PENALTIES, mask_missing=True)
    with pytest.raises(ValueError, match=r"`out` must have shape \(3, 12\)"):
        ridge.solve(features, responses, PENALTIES, out=np.zeros((12, 3)))
    with pytest.raises(ValueError, match=r"`band_weights` must be \[C, 1\]"):
        ridge.solve_banded([features], responses, PENALTIES, band_weights=np.ones((2, 2)))


@pytest.fixture(scope="module")
def trials():
    """Mean-token features and responses of 60 images; voxel 1 lacks some of them, voxel 2 most."""
    rng = np.random.default_rng(5)
    states = rng.standard_normal((60, 4, 5))
    responses = states.mean(1) @ rng.standard_normal((5, 4)) + 0.5 * rng.standard_normal((60, 4)) + 1
    missing = responses.copy()
    missing[3:10, 1] = missing[:40, 2] = np.nan
    return states.astype(np.float32), responses, missing


def fit(make, trials, responses, **options):
    from mine_jax.types import ImageTokens

    tokens = ImageTokens(trials[0], np.arange(60).astype(str), None, (2, 2))
    split = make.split(tokens, responses)
    config = RidgeConfig(**options)
    return encoder.fit(split, key=jax.random.key(0), config=config), tokens


def test_fit_leaves_out_missing_responses_when_asked(make, trials):
    complete, _ = fit(make, trials, trials[1])
    excluded, _ = fit(make, trials, trials[2])
    masked, tokens = fit(make, trials, trials[2], missing="mask")
    np.testing.assert_array_equal(excluded.status != 0, [False, True, True, False])
    np.testing.assert_array_equal(masked.status != 0, [False, False, True, False])
    for got in (excluded, masked):
        np.testing.assert_allclose(got.per_voxel["coef"][[0, 3]], complete.per_voxel["coef"][[0, 3]], atol=1e-5)
    kept = np.isfinite(trials[2][:, 1])
    features = trials[0].mean(1).astype(np.float64)
    model = Ridge(alpha=float(masked.per_voxel["penalty"][1])).fit(features[kept], trials[2][kept, 1])
    np.testing.assert_allclose(encoder.predict(masked, tokens)[:, 1], model.predict(features), atol=1e-3)
    with pytest.raises(
        ConfigError, match=r'encoder\.missing: kind "query" has no such key; it belongs to kind "ridge"'
    ):
        from_dict({"encoder": {"kind": "query", "missing": "mask"}})


def test_fit_selects_as_configured(make, trials):
    fitted, _ = fit(make, trials, trials[1], selection="loo", penalty_low=-3.0, penalty_high=3.0)
    features = trials[0].mean(1).astype(np.float64)
    unit = features.var(0).mean() * 60 / 5
    model = RidgeCV(alphas=unit * np.logspace(-3, 3, 20), alpha_per_target=True).fit(features, trials[1])
    np.testing.assert_allclose(fitted.per_voxel["penalty"], model.alpha_, rtol=1e-4)
