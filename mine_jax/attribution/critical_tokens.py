"""The image-tokens that drive a voxel most."""

from __future__ import annotations

from typing import Unpack

import numpy as np
from jax.sharding import Mesh

from mine_jax._checks import takes
from mine_jax._progress import Progress, silent
from mine_jax.attribution.blocks import image_rows
from mine_jax.attribution.integrated_gradients import integrate
from mine_jax.attribution.path import OF_ARRAYS, Path, PathSettings, check_settings
from mine_jax.errors import ConfigError
from mine_jax.memory.chunks import Chunks
from mine_jax.types import Attributions, CriticalTokens, Encoders, ImageTokens


@takes(OF_ARRAYS, encoders=Encoders, tokens=ImageTokens)
def find_critical_tokens(
    encoders: Encoders,
    tokens: ImageTokens,
    *,
    k: int | float = 50,
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
        k: tokens kept, fewer than P, or a share of P.
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
        ConfigError: if `k` leaves no token out.
        DataError: if the tokens have another width than the encoders, or an image has none.
        TypeError: for an unknown keyword.
        ValueError: as for `integrated_gradients`.

    Source: MINE, K = 50.
    """
    check_settings(path, Path)
    rows = image_rows(tokens, image_ids, len(encoders.voxel_ids))
    n_kept, chunks = n_critical(k, tokens.tokens.shape[1]), Chunks(voxel_chunk, image_chunk, mesh)
    integrals = integrate(encoders, tokens, rows, Path(**path), chunks, k=n_kept, progress=progress)
    attributions = integrals.attributions(encoders.voxel_ids, tokens.image_ids[rows])
    critical = CriticalTokens(
        voxel_ids=attributions.voxel_ids,
        image_ids=attributions.image_ids,
        indices=np.asarray(integrals.indices),
        scores=np.asarray(integrals.scores),
    )
    return critical, attributions


def n_critical(k: int | float, n_tokens: int) -> int:
    """Returns the number of critical tokens K that a setting means.

    Args:
        k: a number of tokens, or a share of them between 0 and 1.
        n_tokens: P.

    Returns:
        K, at least 1.

    Raises:
        ConfigError: if K tokens are all there are: nothing would be left to be uncritical.
    """
    count = _count(k, n_tokens)
    if count >= n_tokens:
        todo = f"Set fewer than {n_tokens}, or a share such as 0.1" if n_tokens > 1 else "Stop at the encoder stage"
        raise ConfigError(
            f"`attribution.k` is {k:g}, which is {count} critical tokens, but an image has {n_tokens} image-tokens: "
            f"all would be critical. {todo}."
        )
    return count


def _count(k: int | float, n_tokens: int) -> int:
    return k if isinstance(k, int) else max(1, round(k * n_tokens))


def warning_of_many(k: int | float, n_tokens: int) -> str:
    """Says where most image-tokens are critical, so that they single out nothing.

    Args:
        k: as of `n_critical`.
        n_tokens: P.

    Returns:
        str: empty where at most half of them are, or all, which is an error of `n_critical`.
    """
    count = _count(k, n_tokens)
    if 2 * count <= n_tokens or count >= n_tokens:
        return ""
    return (
        f"{count} of {n_tokens} image-tokens are critical, so they single out little of an image: "
        f"set attribution.k to about {max(1, n_tokens // 8)}, or to a share such as 0.1"
    )


@takes("mine_jax.attribution.integrated_gradients(encoders, tokens) makes them.", attributions=Attributions)
def critical_tokens(attributions: Attributions, *, k: int | float = 50) -> CriticalTokens:
    """Takes the K tokens with the largest attribution of every pair.

    Args:
        attributions: scores [V, I, P], z-scored beta.
        k: tokens kept, fewer than P, or a share of P.

    Returns:
        Critical tokens, best first; ties go to the lowest position, NaN comes last.

    Raises:
        ConfigError: if `k` leaves no token out.

    Source: MINE, K = 50.
    """
    n_kept = n_critical(k, attributions.scores.shape[-1])
    indices = np.argsort(-attributions.scores, axis=-1, kind="stable")[..., :n_kept].astype(np.int32)
    return CriticalTokens(
        voxel_ids=attributions.voxel_ids,
        image_ids=attributions.image_ids,
        indices=indices,
        scores=np.take_along_axis(attributions.scores, indices, -1),
    )
