"""The image-tokens that drive a voxel most."""

from __future__ import annotations

from typing import Unpack

import numpy as np
from jax.sharding import Mesh

from mine_jax._progress import Progress, silent
from mine_jax.attribution.blocks import image_rows
from mine_jax.attribution.integrated_gradients import integrate
from mine_jax.attribution.path import Path, PathSettings, check_settings
from mine_jax.memory.chunks import Chunks
from mine_jax.types import Attributions, CriticalTokens, Encoders, ImageTokens


def find_critical_tokens(
    encoders: Encoders,
    tokens: ImageTokens,
    *,
    k: int = 50,
    image_ids: np.ndarray | None = None,
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
    **path: Unpack[PathSettings],
) -> tuple[CriticalTokens, Attributions]:
    """Attributes and keeps the K largest scores of every pair only.

    The result is that of `critical_tokens(integrated_gradients(...))`, but scores of all P
    tokens exist for one block of pairs at a time, and only K of them leave the device.

    Args:
        encoders: V fitted encoders.
        tokens: image-tokens [N, P, D].
        k: tokens kept; all P when there are fewer.
        image_ids: [V, I] images of each voxel; None for all images.
        voxel_chunk: voxels held in memory at once. Memory only, never the result.
        image_chunk: images of a voxel held at once. Memory only, never the result.
        mesh: devices, as for `integrated_gradients`.
        progress: called with (done, total) voxels.
        **path: `baseline`, `n_steps`, `max_steps`, `tolerance`, `method`, `quadrature` and `reduce`, as for
            `integrated_gradients`.

    Returns:
        Critical tokens [V, I, K], best first, and attributions without scores ([V, I, 0]):
        predictions and completeness gaps [V, I], z-scored beta.

    Raises:
        DataError: if the tokens have another width than the encoders, or an image has none.
        TypeError: for an unknown keyword.
        ValueError: as for `integrated_gradients`.

    Source: MINE, K = 50.
    """
    check_settings(path, Path)
    rows = image_rows(tokens, image_ids, len(encoders.voxel_ids))
    n_kept, chunks = min(k, tokens.tokens.shape[1]), Chunks(voxel_chunk, image_chunk, mesh)
    integrals = integrate(encoders, tokens, rows, Path(**path), chunks, k=n_kept, progress=progress)
    attributions = integrals.attributions(encoders.voxel_ids, tokens.image_ids[rows])
    critical = CriticalTokens(
        voxel_ids=attributions.voxel_ids,
        image_ids=attributions.image_ids,
        indices=np.asarray(integrals.indices),
        scores=np.asarray(integrals.scores),
    )
    return critical, attributions


def critical_tokens(attributions: Attributions, *, k: int = 50) -> CriticalTokens:
    """Takes the K tokens with the largest attribution of every pair.

    Args:
        attributions: scores [V, I, P], z-scored beta.
        k: tokens kept; all P when there are fewer.

    Returns:
        Critical tokens, best first; ties go to the lowest position, NaN comes last.

    Source: MINE, K = 50.
    """
    k = min(k, attributions.scores.shape[-1])
    indices = np.argsort(-attributions.scores, axis=-1, kind="stable")[..., :k].astype(np.int32)
    return CriticalTokens(
        voxel_ids=attributions.voxel_ids,
        image_ids=attributions.image_ids,
        indices=indices,
        scores=np.take_along_axis(attributions.scores, indices, -1),
    )
