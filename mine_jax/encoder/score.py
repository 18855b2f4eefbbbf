"""Accuracy of predictions on held-out images, with one definition for each number."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax.sharding import Mesh

from mine_jax._checks import takes
from mine_jax._progress import Progress, silent
from mine_jax.encoder.blocks import predict_blocks
from mine_jax.errors import AlignmentError
from mine_jax.memory.rows import read_columns
from mine_jax.statistics import pearson, r2
from mine_jax.types import STATUSES, Encoders, Scores, Split

# Below this ceiling (fraction of variance) a normalised R2 is mostly noise, and NaN.
MIN_CEILING = 0.05
_OF_ARRAYS = (
    "Arrays are scored by score(X, Y) or r2_of(X, Y) of a mine_jax.estimators.VoxelEncoder. Tokens and responses "
    "become one Split by mine_jax.data.align(responses, tokens)."
)


@takes(_OF_ARRAYS, encoders=Encoders, test=Split)
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
        than two test images (status "n_test<2"). Where test responses or predictions do not
        vary, r is NaN.

    Raises:
        DataError: for bare arrays.
        AlignmentError: if the voxels of the encoders are not those of the responses.
    """
    _check_voxels(np.asarray(encoders.voxel_ids), np.asarray(test.responses.voxel_ids))
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
        r2_selection=_selection_r2(encoders, len(status)),
    )


def _check_voxels(fitted: np.ndarray, measured: np.ndarray) -> None:
    if np.array_equal(fitted, measured):
        return
    remedy = "Take the same of both: `encoders.take(positions)` and `responses.take(positions)`."
    if len(fitted) != len(measured):
        raise AlignmentError(f"there are encoders of {len(fitted)} voxels, but responses of {len(measured)}. {remedy}")
    place = int(np.argmax(fitted != measured))
    raise AlignmentError(
        f"encoders and responses are not of the same voxels: number {place} is {fitted[place]} there and "
        f"{measured[place]} here. {remedy}"
    )


def best_layers(by_layer: Mapping[int, Scores]) -> np.ndarray:
    """Chooses for each voxel the layer whose encoder predicts it best.

    Args:
        by_layer: layer -> scores of the same V voxels; the one that comes first wins where two are equal.

    Returns:
        Layers [V] int, chosen by R2 on images that had no part in the readouts, never by test images; -1 for
        voxels that were fitted at no layer.
    """
    selection = np.stack([np.where(s.status == "ok", s.r2_selection, np.nan) for s in by_layer.values()])
    known = np.isfinite(selection)
    best = np.argmax(np.where(known, selection, -np.inf), axis=0)
    return np.where(known.any(0), np.array(list(by_layer))[best], -1)


def _selection_r2(encoders: Encoders, n_voxels: int) -> np.ndarray:
    known = encoders.selection_r2
    return np.full(n_voxels, np.nan) if known is None else np.asarray(known, np.float64)
