"""Predictions of fitted encoders for any images, in chunks."""

from __future__ import annotations

import numpy as np
from jax.sharding import Mesh

from mine_jax import sharding
from mine_jax._checks import check_shape, takes
from mine_jax._progress import Progress, silent
from mine_jax.encoder.kinds import model
from mine_jax.memory import Chunks
from mine_jax.types import Architecture, Array, Encoders, ImageTokens

_OF_ARRAYS = "Encoders come first, and an array becomes tokens by ImageTokens.from_array(X)."


@takes(_OF_ARRAYS, encoders=Encoders, tokens=ImageTokens)
def predict(
    encoders: Encoders,
    tokens: ImageTokens,
    *,
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
) -> np.ndarray:
    """Predicts the responses of all voxels to all images.

    Args:
        encoders: V fitted encoders.
        tokens: image-tokens [N, P, D], any float dtype; computed in float32.
        voxel_chunk: voxels held at once. Memory only, never the result.
        image_chunk: images held at once on each device. Memory only, never the result.
        mesh: devices of `sharding.mesh`; if they belong to several processes, all must call this.
            None for one device. Never the result.
        progress: called with (done, total) images.

    Returns:
        Predictions [N, V] float32, z-scored beta.

    Raises:
        DataError: for a bare array, or tokens of another width than the encoders'.
    """
    check_token_width(encoders, tokens)
    kind = model(encoders.architecture)
    features = kind.summaries(encoders, tokens, image_chunk=image_chunk, progress=progress)
    if features is not None:
        return kind.read_out(encoders, features)
    local = sharding.local(mesh)

    def predicted(voxels: np.ndarray) -> np.ndarray:
        chosen = encoders if local is mesh else encoders.take(voxels)
        out = np.empty((len(tokens.image_ids), len(voxels)), np.float32)
        chunks = Chunks(voxel_chunk, image_chunk, local)
        for block in kind.by_images(chosen, tokens, chunks=chunks, progress=progress):
            out[block.index[: block.n_valid]] = block.predicted[: block.n_valid]
        return out.T

    return sharding.divided(predicted, len(encoders.voxel_ids), mesh).T


def predict_one(
    shared: dict[str, Array], voxel: dict[str, Array], tokens: Array, mask: Array | None, architecture: Architecture
) -> Array:
    """Predicts one voxel's response to one image.

    Args:
        shared: arrays without a voxel axis.
        voxel: arrays of one voxel.
        tokens: image-tokens [P, D].
        mask: [P] bool, True for real tokens, or None.
        architecture: static description.

    Returns:
        Scalar, z-scored beta.
    """
    return model(architecture).predict_one(shared, voxel, tokens, mask, architecture)


def check_token_width(encoders: Encoders, tokens: ImageTokens) -> None:
    """Checks that tokens have the width the encoders were fitted on.

    Args:
        encoders: V fitted encoders.
        tokens: image-tokens [N, P, D].

    Raises:
        DataError: with both widths.
    """
    width = np.shape(encoders.baseline)[-1]
    check_shape("tokens", tokens.tokens, "N P D", D=width, hint="Was the backbone or layer changed?")
