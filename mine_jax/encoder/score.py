"""Accuracy of predictions on held-out images, with one definition for each number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jax.sharding import Mesh

from mine_jax._progress import Progress, silent
from mine_jax.encoder.blocks import predict_blocks
from mine_jax.memory.rows import read_columns
from mine_jax.types import STATUSES, Encoders, Scores, Split

# Below this ceiling (fraction of variance) a normalised R2 is mostly noise, and NaN.
MIN_CEILING = 0.05
# Float64 copies that are made at once.
_BLOCK_BYTES = 1 << 22


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
    status = np.array([STATUSES[code] for code in np.asarray(encoders.status)], dtype=object)
    n_test = len(test.responses.image_ids)
    if n_test < 2:
        status[status == "ok"] = "n_test<2"
    r2_all, r_all = np.full((2, len(status)), np.nan)
    blocks = predict_blocks(encoders, test.tokens, voxel_chunk=voxel_chunk, mesh=mesh, progress=progress)
    for voxels, predicted in blocks:
        measured = read_columns(test.responses.responses, voxels)
        with np.errstate(invalid="ignore", over="ignore"):  # of voxels that were not fitted
            r2_all[voxels], r_all[voxels] = r2(measured, predicted), pearson(measured, predicted)
    r2_all[status != "ok"] = r_all[status != "ok"] = np.nan
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
    return _by_voxels(_r2, measured, predicted)


def pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes Pearson's correlation of each column.

    Args:
        a: [N, V].
        b: [N, V].

    Returns:
        r [V] float64; 0 where either column does not vary.
    """
    return _by_voxels(_pearson, a, b)


def _by_voxels(statistic: Callable, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes a statistic of two arrays [N, V] for some voxels after the others, in float64 [v, N]."""
    out = np.empty(a.shape[1])
    step = max(1, _BLOCK_BYTES // (8 * max(1, len(a))))
    for start in range(0, len(out), step):
        voxels = slice(start, start + step)
        # voxels first: then the sum of each is the same however many others there are
        out[voxels] = statistic(*(np.asarray(x[:, voxels].T, np.float64, order="C") for x in (a, b)))
    return out


def _r2(measured, predicted):
    residual = ((measured - predicted) ** 2).sum(1)
    total = ((measured - measured.mean(1, keepdims=True)) ** 2).sum(1)
    return np.where(total > 0, 1 - residual / np.where(total > 0, total, 1), 0.0)


def _pearson(a, b):
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    norm = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.where(norm > 0, (a * b).sum(1) / np.where(norm > 0, norm, 1), 0.0)
