"""Ridge with one penalty per voxel by K-fold cross-validation, beside himalaya, scikit-learn and fracridge."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.peaks import Work
from mine_jax import encoder
from mine_jax.config import RidgeConfig
from mine_jax.encoder import ridge

HEADER = (
    "equal work: same features, responses, penalties and folds, and a refit on all rows; loo and gcv choose by "
    "another criterion; fracridge chooses among as many fractions of the length of the least-squares coefficients, "
    "so its penalties are others, and its error is that to the ridge regression of each penalty that it reports"
)
REFERENCE = "himalaya_torch"
# Rows that nobody is fitted on, to see the planted signal.
_FRESH_ROWS = 1_000
# Voxels that fracridge does at once; it holds the coefficients of every fraction.
_FRACRIDGE_VOXELS = 2_000
# Voxels whose coefficients are compared with the ridge regression of the reported penalty.
_CHECKED_VOXELS = 32
# Voxels of the plain form in float64.
_ORACLE_VOXELS = 8


def inputs(case: Case, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Makes features with a power-law spectrum [N, F] and responses [N, V] of mean R2 about 0.3."""
    rng = np.random.default_rng(seed)
    spectrum = (1 + np.arange(case.width)) ** -0.5
    features = (rng.standard_normal((case.images, case.width)) * spectrum).astype(np.float32)
    weights = rng.standard_normal((case.width, case.voxels)).astype(np.float32)
    signal = features @ weights
    scale = signal.std(0)
    signal /= scale
    share = np.sqrt(rng.uniform(0.05, 0.6, case.voxels)).astype(np.float32)
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    responses = signal * share + noise * np.sqrt(1 - share**2)
    fresh = (rng.standard_normal((_FRESH_ROWS, case.width)) * spectrum).astype(np.float32)
    return {
        "features": features - features.mean(0),
        "responses": responses - responses.mean(0),
        "penalties": np.logspace(-1, 6, case.penalties),
        "planted": weights * (share / scale),
        "fresh": fresh - fresh.mean(0),
    }


def implementations(case: Case, data: dict[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
    """Returns name -> call; peers only where they are installed. Results hold the `data` to judge them by."""
    x, y, penalties = data["features"], data["responses"], data["penalties"]
    calls: dict[str, Callable[[], Any]] = {
        "mine_jax": lambda: ridge.solve(x, y, penalties, folds=case.folds)._asdict(),
        "mine_jax_loo": lambda: ridge.solve(x, y, penalties, selection="loo")._asdict(),
        "mine_jax_gcv": lambda: ridge.solve(x, y, penalties, selection="gcv")._asdict(),
        "numpy_float64": lambda: _float64(x, y, penalties, case.folds),
    }
    if importlib.util.find_spec("himalaya"):
        calls["himalaya_torch"] = lambda: _himalaya(x, y, penalties, case.folds)
    if importlib.util.find_spec("sklearn"):
        calls["scikit_learn_loo"] = lambda: _scikit_learn(x, y, penalties)
    if importlib.util.find_spec("fracridge") and importlib.util.find_spec("sklearn"):
        calls["fracridge"] = lambda: _fracridge(x, y, case.penalties, case.folds)
    return {name: lambda call=call: {**call(), "data": data} for name, call in calls.items()}


def compare(result: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Returns how equal a result is: share of voxels with the same penalty, largest coefficient error.

    The error is relative to the largest coefficient, over voxels with the same penalty; where
    penalties are not of the grid, to the ridge regressions of these penalties, over some voxels. Of what
    did only some voxels, these are compared.
    `signal_r2` is the R2 of the planted signal on fresh rows, mean over voxels.
    """
    data, n = result["data"], min(result["coef"].shape[1], reference["coef"].shape[1])
    coef, penalty = result["coef"][:, :n], result["penalty"][:n]
    truth = data["fresh"] @ data["planted"][:, :n]
    missed = ((truth - data["fresh"] @ coef) ** 2).sum(0) / (truth**2).sum(0)
    found = {"signal_r2": float(1 - missed.mean())}
    if result.get("has_own_penalties"):
        expected = _ridge_at(data, penalty[:_CHECKED_VOXELS])
        error = np.abs(coef[:, :_CHECKED_VOXELS] - expected).max() / np.abs(expected).max()
        return {**found, "max_abs_err": float(error)}
    same = np.isclose(np.log(penalty), np.log(reference["penalty"][:n]), atol=1e-3)
    expected = reference["coef"][:, :n]
    error = np.abs(coef - expected)[:, same].max() / np.abs(expected).max() if same.any() else np.nan
    return {**found, "same_penalty": float(same.mean()), "max_abs_err": float(error)}


def flop(case: Case, selection: str = "kfold") -> float:
    """Counts the FLOP of a fit, float64 operations of the shared part as one each.

    With N images, F features, V voxels, A penalties, K folds, T = N / K rows of a fold,
    R = min(F, T), and 10/3 F^3 for an eigendecomposition (tridiagonal form 4/3, vectors 2):
        kfold   shared 2 N F^2 + 10/3 (K + 1) F^3 (Grams, bases) + K (4 F^3 + R^2 (F - R / 3)) (rotated
                validation Grams and their factors); per voxel 2 N F (cross-products) + 4 K F^2 (rotation)
                + 4 A K F (screening) + 3 K R (2 F - R + 1) (exact errors of three penalties, without the
                zeros below the diagonal) + 4 F^2 (solution);
        gcv     shared 4 N F^2 + 10/3 F^3; per voxel 2 N F + 2 A F + 2 F^2;
        loo     as gcv, and shared 2 A N F (leverages), per voxel 8 N F (remainder, residuals of three).
    Further candidates of voxels whose minimum is not bracketed at once are not counted.
    """
    n, f, v, a, k = case.images, case.width, case.voxels, case.penalties, case.folds
    basis = 10 / 3 * f**3
    if selection == "kfold":
        r = min(f, n // k)
        shared = 2 * n * f**2 + (k + 1) * basis + k * (4 * f**3 + r**2 * (f - r / 3))
        return shared + v * (2 * n * f + 4 * k * f**2 + 4 * a * k * f + 3 * k * r * (2 * f - r + 1) + 4 * f**2)
    closed = 4 * n * f**2 + basis + v * (2 * n * f + 2 * a * f + 2 * f**2)
    return closed + (2 * a * n * f + v * 8 * n * f if selection == "loo" else 0.0)


def work(case: Case, data: dict[str, np.ndarray]) -> dict[str, Work]:
    """Counts `flop`, and features, responses and coefficients once."""
    n_bytes = data["features"].nbytes + data["responses"].nbytes + 4 * case.width * case.voxels
    names = {"mine_jax": "kfold", "mine_jax_loo": "loo", "mine_jax_gcv": "gcv"}
    return {name: Work(flop(case, selection), n_bytes) for name, selection in names.items()}


def planned(case: Case, data: dict[str, np.ndarray]) -> dict[str, int]:
    """Returns the bytes that the plan of a fit counts with, for the voxels that are solved at once."""
    del data
    config = RidgeConfig(folds=case.folds, penalties=case.penalties)
    shape = (1, case.width)
    plan = encoder.plan_ridge(config, n_images=case.images, n_voxels=case.voxels, token_shape=shape)
    return {"mine_jax": plan.bytes}


def _float64(x: np.ndarray, y: np.ndarray, penalties: np.ndarray, folds: int) -> dict[str, Any]:
    """K-fold ridge of the first voxels as it is written in books, in float64."""
    x, part = x.astype(np.float64), y[:, :_ORACLE_VOXELS].astype(np.float64)
    error = np.zeros((len(penalties), part.shape[1]))
    for valid in np.array_split(np.arange(len(x)), folds):
        train = np.setdiff1d(np.arange(len(x)), valid)
        x_mean, y_mean = x[train].mean(0), part[train].mean(0)
        values, basis = np.linalg.eigh((x[train] - x_mean).T @ (x[train] - x_mean))
        rotated = basis.T @ ((x[train] - x_mean).T @ (part[train] - y_mean))
        turned = (x[valid] - x_mean) @ basis
        for row, penalty in zip(error, penalties, strict=True):
            missed = part[valid] - y_mean - turned @ (rotated / (values[:, None] + penalty))
            row += (missed**2).mean(0)
    chosen = penalties[error.argmin(0)]
    coef = _ridge_at({"features": x - x.mean(0), "responses": part - part.mean(0)}, chosen)
    return {"coef": coef, "penalty": chosen, "scale": y.shape[1] / part.shape[1]}


def _himalaya(x: np.ndarray, y: np.ndarray, penalties: np.ndarray, folds: int) -> dict[str, Any]:
    from himalaya.backend import set_backend
    from himalaya.ridge import RidgeCV
    from sklearn.model_selection import KFold

    backend = set_backend("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = RidgeCV(alphas=penalties, cv=KFold(folds), fit_intercept=True)
        model.fit(backend.asarray(x), backend.asarray(y))
    return {"coef": backend.to_numpy(model.coef_), "penalty": backend.to_numpy(model.best_alphas_)}


def _scikit_learn(x: np.ndarray, y: np.ndarray, penalties: np.ndarray) -> dict[str, Any]:
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=penalties, alpha_per_target=True).fit(x, y)
    return {"coef": model.coef_.T, "penalty": model.alpha_}


def _fracridge(x: np.ndarray, y: np.ndarray, n_fractions: int, folds: int) -> dict[str, Any]:
    """Chooses each voxel's fraction by the mean squared error over folds, and refits on all rows."""
    from fracridge import fracridge
    from sklearn.model_selection import KFold

    fractions = np.arange(1, n_fractions + 1) / n_fractions
    coefs, penalties = [], []
    for start in range(0, y.shape[1], _FRACRIDGE_VOXELS):
        part = y[:, start : start + _FRACRIDGE_VOXELS]
        error = np.zeros((n_fractions, part.shape[1]))
        for train, valid in KFold(folds).split(x):
            x_mean, y_mean = x[train].mean(0), part[train].mean(0)
            coef, _ = fracridge(x[train] - x_mean, part[train] - y_mean, fractions)
            predicted = np.tensordot(x[valid] - x_mean, coef.astype(np.float32), 1)
            error += ((predicted - (part[valid] - y_mean)[:, None]) ** 2).mean(0)
        best, voxels = error.argmin(0), np.arange(part.shape[1])
        coef, penalty = fracridge(x, part, fractions)
        coefs.append(coef[:, best, voxels].astype(np.float32))
        penalties.append(penalty[best, voxels])
    return {"coef": np.concatenate(coefs, 1), "penalty": np.concatenate(penalties), "has_own_penalties": True}


def _ridge_at(data: dict[str, np.ndarray], penalties: np.ndarray) -> np.ndarray:
    """Ridge regressions [F, v] of the first voxels at their penalties [v], in float64."""
    x, y = data["features"].astype(np.float64), data["responses"][:, : len(penalties)].astype(np.float64)
    gram, cross = x.T @ x, x.T @ y
    solved = [
        np.linalg.solve(gram + penalty * np.eye(len(gram)), one)
        for penalty, one in zip(penalties, cross.T, strict=True)
    ]
    return np.stack(solved, 1)
