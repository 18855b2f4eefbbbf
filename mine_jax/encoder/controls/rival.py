"""The low-level rival: how well each voxel is predicted without knowing any thing in the pictures.

A ridge on low-level statistics of the images, fitted to the same voxels, images and decoys as the encoders.
Statistics come in groups; a voxel keeps the group that predicts it best where one image after the other is
left out, so that a voxel of contrast is not predicted through the noise of a thousand colours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mine_jax._progress import Progress, silent
from mine_jax.config import RidgeConfig
from mine_jax.encoder.fit import fit
from mine_jax.encoder.predict import predict
from mine_jax.errors import AlignmentError
from mine_jax.types import ImageTokens, Split


class Rival(NamedTuple):
    """Predictions [T, V] of the test images, and R2 [V] on the images that chose the group (left out one by one)."""

    predicted: np.ndarray
    r2_selection: np.ndarray


def fit_rival(
    splits: Mapping[str, Split],
    statistics: ImageTokens,
    *,
    groups: Mapping[str, slice],
    key: jax.Array,
    config: RidgeConfig | None = None,
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
) -> Rival:
    """Fits the rival of every voxel.

    Args:
        splits: "train", "val" and "test" with responses [N, V]; their image-tokens are not read.
        statistics: low-level statistics [N, P, D] of at least these images.
        groups: name -> columns of the statistics that are fitted together.
        key: random key.
        config: penalties; summary, width and selection are the rival's own.
        voxel_chunk: voxels held in memory at once. Memory only, never the result.
        image_chunk: images read at once. Memory only, never the result.
        mesh: devices, as for `fit`.
        progress: called with (done, total).

    Returns:
        The rival; predictions of voxels that cannot be fitted are constant.

    Raises:
        AlignmentError: if an image has no statistics.
    """
    config = config or RidgeConfig()
    n_voxels = len(splits["test"].responses.voxel_ids)
    best = np.full(n_voxels, -np.inf, np.float32)
    predicted = np.zeros((len(splits["test"].responses.image_ids), n_voxels), np.float32)
    for i, columns in enumerate(groups.values()):
        given = {name: _with_statistics(split, statistics, columns) for name, split in splits.items()}
        width = given["test"].tokens.tokens.shape[-1]
        encoders = fit(
            given["train"],
            key=key,
            validation=given["val"],
            # one eigenproblem in place of one per fold: there are more statistics than a voxel has use for
            config=config.model_copy(update={"summary": "grid", "pool": 1, "width": width, "selection": "loo"}),
            voxel_chunk=voxel_chunk,
            image_chunk=image_chunk,
            mesh=mesh,
            progress=lambda done, total, i=i: progress(i * total + done, len(groups) * total),
        )
        reached = np.nan_to_num(np.asarray(encoders.selection_r2), nan=-np.inf)
        better = reached > best
        best[better] = reached[better]
        chosen = encoders.take(better)
        predicted[:, better] = predict(chosen, given["test"].tokens, image_chunk=image_chunk)
    return Rival(predicted, np.where(np.isfinite(best), best, np.nan))


def _with_statistics(split: Split, statistics: ImageTokens, columns: slice) -> Split:
    """Puts low-level statistics in the place of a split's image-tokens."""
    order = np.argsort(statistics.image_ids)
    wanted = split.responses.image_ids
    place = np.minimum(np.searchsorted(statistics.image_ids, wanted, sorter=order), len(order) - 1)
    rows = order[place]
    missing = statistics.image_ids[rows] != wanted
    if missing.any():
        raise AlignmentError(
            f"{int(missing.sum())} images have no low-level statistics, first {wanted[missing][0]}. "
            "Run the features stage again."
        )
    tokens = np.asarray(statistics.tokens[rows])[..., columns]
    return replace(split, tokens=replace(statistics, tokens=tokens, image_ids=wanted))
