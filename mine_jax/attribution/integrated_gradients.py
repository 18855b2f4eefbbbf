"""Integrated gradients of predicted responses over image-tokens, for all voxels and images.

Two methods with equal results: `exact` uses that keys and values are linear in a token, so
no gradient tensor [P, D] is ever formed; `autodiff` differentiates any encoder, also one of
kind "own" that a user wrote, and is the reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.sharding import Mesh

from mine_jax._progress import Progress, silent
from mine_jax.attribution.path import integrate
from mine_jax.types import Attributions, Encoders, ImageTokens


def integrated_gradients(
    encoders: Encoders,
    tokens: ImageTokens,
    *,
    image_ids: np.ndarray | None = None,
    baseline: Any = None,
    n_steps: int = 32,
    max_steps: int = 256,
    tolerance: float = 1e-3,
    method: str = "exact",
    quadrature: str = "gausslegendre",
    reduce: str = "sum",
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
) -> Attributions:
    """Attributes each voxel's predicted response to image-tokens.

    Integrates the gradient of h(v, x) along the straight line from the baseline to the
    image's tokens and sums over token width.

    Args:
        encoders: V fitted encoders.
        tokens: image-tokens [N, P, D], any float dtype; computed in float32.
        image_ids: [V, I] images of each voxel; None for all images.
        baseline: start of the path, [D] or [P, D], "mean" or "zero". Default: mean training token.
        n_steps: quadrature points S.
        max_steps: pairs whose completeness gap exceeds `tolerance` get more points, up to this.
        tolerance: allowed gap as a share of the range of the voxel's predictions.
        method: "exact" or "autodiff".
        quadrature: "gausslegendre" or "midpoint".
        reduce: "sum" keeps the sign and completeness; "abs" sums absolute values over D (autodiff only).
        voxel_chunk: voxels held in memory at once. Memory only, never the result.
        image_chunk: images of a voxel held at once. Memory only, never the result.
        mesh: devices of `sharding.mesh`; if they belong to several processes, all must call this.
            None for one device. Never the result.
        progress: called with (done, total) voxels.

    Returns:
        Attributions: scores [V, I, P] float32 in units of predicted response (z-scored beta),
        completeness_gap [V, I] = h(x) - h(baseline) - sum of scores, 0 when exact.

    Raises:
        DataError: if the tokens have another width than the encoders, or an image has none.
        ValueError: for an unknown method or a reduction the method cannot do.

    Source: Sundararajan et al. 2017, eq. 1; MINE, critical tokens. Differs from the parent
    method: signed sum over D; pass `reduce="abs"`, `method="autodiff"` for the absolute sum.
    """
    made = integrate(
        encoders,
        tokens,
        image_ids=image_ids,
        baseline=baseline,
        n_steps=n_steps,
        max_steps=max_steps,
        tolerance=tolerance,
        method=method,
        quadrature=quadrature,
        reduce=reduce,
        voxel_chunk=voxel_chunk,
        image_chunk=image_chunk,
        mesh=mesh,
        progress=progress,
    )
    rows = made.pop("rows")
    return Attributions(voxel_ids=np.asarray(encoders.voxel_ids), image_ids=tokens.image_ids[rows], **made)
