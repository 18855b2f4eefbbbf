"""Integrated gradients of predicted responses over image-tokens, for all voxels and images.

Two methods with equal results: `exact` uses that keys and values are linear in a token, so
no gradient tensor [P, D] is ever formed; `autodiff` differentiates any encoder, also one of
kind "own" that a user wrote, and is the reference.
"""

from __future__ import annotations

from typing import Unpack

import numpy as np
from jax.sharding import Mesh

from mine_jax._progress import Progress, silent
from mine_jax.attribution.blocks import image_rows
from mine_jax.attribution.integrate import integrate
from mine_jax.attribution.path import Path, PathSettings, check_settings
from mine_jax.memory.chunks import Chunks
from mine_jax.types import Attributions, Encoders, ImageTokens


def integrated_gradients(
    encoders: Encoders,
    tokens: ImageTokens,
    *,
    image_ids: np.ndarray | None = None,
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
    **path: Unpack[PathSettings],
) -> Attributions:
    """Attributes each voxel's predicted response to image-tokens.

    Integrates the gradient of h(v, x) along the straight line from the baseline to the
    image's tokens and sums over token width.

    Args:
        encoders: V fitted encoders.
        tokens: image-tokens [N, P, D], any float dtype; computed in float32.
        image_ids: [V, I] images of each voxel; None for all images.
        voxel_chunk: voxels held in memory at once. Memory only, never the result.
        image_chunk: images of a voxel held at once. Memory only, never the result.
        mesh: devices of `sharding.mesh`; if they belong to several processes, all must call this.
            None for one device. Never the result.
        progress: called with (done, total) voxels.
        **path: `baseline`, start of the path, [D] or [P, D], "mean" (default, mean training token) or
            "zero"; `n_steps`, quadrature points S (32); `max_steps` (256), up to which pairs get more
            points whose completeness gap exceeds `tolerance` (1e-3), a share of the range of the
            voxel's predictions; `method`, "exact" or "autodiff"; `quadrature`, "gausslegendre" or
            "midpoint"; `reduce`, "sum" (default), which keeps the sign and completeness, or "abs",
            which sums absolute values over D (autodiff only).

    Returns:
        Attributions: scores [V, I, P] float32 in units of predicted response (z-scored beta),
        completeness_gap [V, I] = h(x) - h(baseline) - sum of scores, 0 when exact.

    Raises:
        DataError: if the tokens have another width than the encoders, or an image has none.
        TypeError: for an unknown keyword.
        ValueError: for an unknown method or a reduction the method cannot do.

    Source: Sundararajan et al. 2017, eq. 1; MINE, critical tokens. Differs from the parent
    method: signed sum over D; pass `reduce="abs"`, `method="autodiff"` for the absolute sum.
    """
    check_settings(path, Path)
    rows = image_rows(tokens, image_ids, len(encoders.voxel_ids))
    chunks = Chunks(voxel_chunk, image_chunk, mesh)
    integrals = integrate(encoders, tokens, rows, Path(**path), chunks, progress=progress)
    return integrals.attributions(encoders.voxel_ids, tokens.image_ids[rows])
