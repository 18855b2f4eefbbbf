"""Accuracy of predictions on held-out images, with one definition for each number."""

from __future__ import annotations

import numpy as np
from jax.sharding import Mesh

from mine_jax._progress import Progress, silent
from mine_jax.encoder.predict import predict
from mine_jax.types import STATUSES, Encoders, Scores, Split

# Below this ceiling (fraction of variance) a normalised R2 is mostly noise, and NaN.
MIN_CEILING = 0.05


def score(
    encoders: Encoders,
    test: Split,
    *,
    n_train: int = 0,
    voxel_chunk: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
) -> Scores:
    """Scores encoders on test images.

    Args:
        encoders: V fitted encoders.
        test: tokens and responses of the test images, same voxels in the same order.
        n_train: training images, recorded in the result.
        voxel_chunk: voxels held at once. Memory only.
        mesh: devices, as for `predict`.
        progress: called with (done, total).

    Returns:
        Scores of V voxels; NaN for voxels that were not fitted, and everywhere with fewer
        than two test images (status "n_test<2").
    """
    predicted = predict(encoders, test.tokens, voxel_chunk=voxel_chunk, mesh=mesh, progress=progress)
    status = np.array([STATUSES[code] for code in np.asarray(encoders.status)], dtype=object)
    n_test = len(test.responses.image_ids)
    if n_test < 2:
        status[status == "ok"] = "n_test<2"
    fitted = status == "ok"
    measured = np.asarray(test.responses.responses, np.float64)
    r2_all, r_all = np.full(len(status), np.nan), np.full(len(status), np.nan)
    r2_all[fitted] = r2(measured[:, fitted], predicted[:, fitted])
    r_all[fitted] = pearson(measured[:, fitted], predicted[:, fitted])
    ceiling = np.asarray(test.responses.noise_ceiling, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        normalized = np.where(ceiling >= MIN_CEILING, r2_all / ceiling, np.nan)
    return Scores(
        voxel_ids=np.asarray(encoders.voxel_ids),
        r2=r2_all,
        r=r_all,
        r2_normalized=normalized,
        noise_ceiling=ceiling,
        n_train=n_train,
        n_test=n_test,
        status=status.astype(str),
    )


def r2(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Computes the coefficient of determination around the measured mean.

    Args:
        measured: [N, V].
        predicted: [N, V].

    Returns:
        R2 [V] float64, at most 1; 0 where the measured values do not vary.

    Source: 1 - residual sum of squares / total sum of squares, as in scikit-learn's r2_score.
    """
    measured, predicted = np.asarray(measured, np.float64), np.asarray(predicted, np.float64)
    residual = ((measured - predicted) ** 2).sum(0)
    total = ((measured - measured.mean(0)) ** 2).sum(0)
    return np.where(total > 0, 1 - residual / np.where(total > 0, total, 1), 0.0)


def pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes Pearson's correlation of each column.

    Args:
        a: [N, V].
        b: [N, V].

    Returns:
        r [V] float64; 0 where either column does not vary.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    a, b = a - a.mean(0), b - b.mean(0)
    norm = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return np.where(norm > 0, (a * b).sum(0) / np.where(norm > 0, norm, 1), 0.0)
