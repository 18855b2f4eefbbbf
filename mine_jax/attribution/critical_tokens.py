"""The image-tokens that drive a voxel most."""

from __future__ import annotations

from typing import Any

import numpy as np

from mine_jax.attribution.path import integrate
from mine_jax.types import Attributions, CriticalTokens, Encoders, ImageTokens


def find_critical_tokens(
    encoders: Encoders, tokens: ImageTokens, *, k: int = 50, **options: Any
) -> tuple[CriticalTokens, Attributions]:
    """Attributes and keeps the K largest scores of every pair only.

    The result is that of `critical_tokens(integrated_gradients(...))`, but scores of all P
    tokens exist for one block of pairs at a time, and only K of them leave the device.

    Args:
        encoders: V fitted encoders.
        tokens: image-tokens [N, P, D].
        k: tokens kept; all P when there are fewer.
        **options: of `integrated_gradients`.

    Returns:
        Critical tokens [V, I, K], best first, and attributions without scores ([V, I, 0]):
        predictions and completeness gaps [V, I], z-scored beta.

    Raises:
        DataError: if the tokens have another width than the encoders, or an image has none.
        ValueError: as for `integrated_gradients`.

    Source: MINE, K = 50.
    """
    made = integrate(encoders, tokens, k=min(k, tokens.tokens.shape[1]), **options)
    indices, scores, rows = made.pop("indices"), made.pop("scores"), made.pop("rows")
    ids = {"voxel_ids": np.asarray(encoders.voxel_ids), "image_ids": tokens.image_ids[rows]}
    none = np.zeros((*rows.shape, 0), np.float32)
    return CriticalTokens(**ids, indices=indices, scores=scores), Attributions(**ids, scores=none, **made)


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
