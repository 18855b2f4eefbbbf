"""The image-tokens that drive a voxel most."""

from __future__ import annotations

import numpy as np

from mine_jax.types import Attributions, CriticalTokens


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
