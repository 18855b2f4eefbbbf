"""Ridge with one penalty per voxel by K-fold cross-validation, beside himalaya and scikit-learn."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import Case
from mine_jax.encoder import ridge

HEADER = (
    "equal work: same features, responses, penalties and folds; himalaya refits on all rows as we do; "
    "loo and gcv choose by another criterion"
)
REFERENCE = "himalaya_torch"


def inputs(case: Case, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Makes features with a power-law spectrum [N, F] and responses [N, V] of mean R2 about 0.3."""
    rng = np.random.default_rng(seed)
    spectrum = (1 + np.arange(case.width)) ** -0.5
    features = (rng.standard_normal((case.images, case.width)) * spectrum).astype(np.float32)
    weights = rng.standard_normal((case.width, case.voxels)).astype(np.float32)
    signal = features @ weights
    signal /= signal.std(0)
    share = np.sqrt(rng.uniform(0.05, 0.6, case.voxels)).astype(np.float32)
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    responses = signal * share + noise * np.sqrt(1 - share**2)
    penalties = np.logspace(-1, 6, case.penalties)
    return {"features": features - features.mean(0), "responses": responses - responses.mean(0), "penalties": penalties}


def implementations(case: Case, data: dict[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
    """Returns name -> call; peers only where they are installed."""
    x, y, penalties = data["features"], data["responses"], data["penalties"]
    calls: dict[str, Callable[[], Any]] = {
        "mine_jax": lambda: ridge.solve(x, y, penalties, folds=case.folds)._asdict(),
        "mine_jax_loo": lambda: ridge.solve(x, y, penalties, selection="loo")._asdict(),
        "mine_jax_gcv": lambda: ridge.solve(x, y, penalties, selection="gcv")._asdict(),
    }
    if importlib.util.find_spec("himalaya"):
        calls["himalaya_torch"] = lambda: _himalaya(x, y, penalties, case.folds)
    if importlib.util.find_spec("sklearn"):
        calls["scikit_learn_loo"] = lambda: _scikit_learn(x, y, penalties)
    return calls


def compare(result: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Returns how equal a result is: share of voxels with the same penalty, largest coefficient error.

    The error is relative to the largest coefficient, over voxels with the same penalty.
    """
    same = np.isclose(np.log(result["penalty"]), np.log(reference["penalty"]), atol=1e-3)
    scale = np.abs(reference["coef"]).max()
    error = np.abs(result["coef"] - reference["coef"])[:, same].max() / scale if same.any() else np.nan
    return {"same_penalty": float(same.mean()), "max_abs_err": float(error)}


def _himalaya(x, y, penalties, folds) -> dict[str, Any]:
    from himalaya.backend import set_backend
    from himalaya.ridge import RidgeCV
    from sklearn.model_selection import KFold

    backend = set_backend("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = RidgeCV(alphas=penalties, cv=KFold(folds), fit_intercept=True)
        model.fit(backend.asarray(x), backend.asarray(y))
    return {"coef": backend.to_numpy(model.coef_), "penalty": backend.to_numpy(model.best_alphas_)}


def _scikit_learn(x, y, penalties) -> dict[str, Any]:
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=penalties, alpha_per_target=True).fit(x, y)
    return {"coef": model.coef_.T, "penalty": model.alpha_}
