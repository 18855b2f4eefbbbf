"""Predictions of fitted encoders for any images, in chunks."""

from __future__ import annotations

import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np

from mine_jax._checks import check_shape
from mine_jax._chunking import padded_chunks
from mine_jax._progress import Progress, silent
from mine_jax.encoder import query, ridge
from mine_jax.types import Architecture, Encoders, ImageTokens

IMAGE_CHUNK = 64


def predict(
    encoders: Encoders,
    tokens: ImageTokens,
    *,
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    progress: Progress = silent,
) -> np.ndarray:
    """Predicts the responses of all voxels to all images.

    Args:
        encoders: V fitted encoders.
        tokens: image-tokens [N, P, D], any float dtype; computed in float32.
        voxel_chunk: voxels held at once. Memory only, never the result.
        image_chunk: images held at once. Memory only, never the result.
        progress: called with (done, total) images.

    Returns:
        Predictions [N, V] float32, z-scored beta.

    Raises:
        DataError: if the tokens have another width than the encoders.
    """
    check_token_width(encoders, tokens)
    if encoders.architecture.kind == "ridge":
        features = summaries(encoders.shared, tokens, encoders.architecture, image_chunk=image_chunk, progress=progress)
        return features @ np.asarray(encoders.per_voxel["coef"]).T + np.asarray(encoders.per_voxel["intercept"])
    n_images = len(tokens.image_ids)
    out = np.empty((n_images, len(encoders.voxel_ids)), np.float32)
    for index, n_valid in padded_chunks(n_images, image_chunk or IMAGE_CHUNK):
        states, mask = query.pooled_tokens(tokens, index, encoders.architecture)
        block = _predict_query(encoders.shared, encoders.per_voxel, states, mask, chunk=voxel_chunk or 64)
        out[index[:n_valid]] = np.asarray(block)[:n_valid]
        progress(int(index[n_valid - 1]) + 1, n_images)
    return out


def model(architecture: Architecture) -> types.ModuleType:
    """Returns the module that defines an encoder kind.

    Args:
        architecture: static description of the encoders.

    Returns:
        The module, with the functions `predict_one`, `token_terms_one` and `readout_one`.
    """
    return ridge if architecture.kind == "ridge" else query


def predict_one(
    shared: dict[str, Any], voxel: dict[str, Any], tokens: Any, mask: Any, architecture: Architecture
) -> jax.Array:
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


def summaries(
    shared,
    tokens: ImageTokens,
    architecture: Architecture,
    *,
    image_chunk: int | None = None,
    progress: Progress = silent,
) -> np.ndarray:
    """Computes the image-level features of the ridge encoder.

    Args:
        shared: arrays without voxel axis.
        tokens: image-tokens [N, P, D].
        architecture: static description.
        image_chunk: images held at once. Memory only, never the result.
        progress: called with (done, total).

    Returns:
        Features [N, F] float32.
    """
    n_images = len(tokens.image_ids)
    rows = []
    for index, n_valid in padded_chunks(n_images, image_chunk or IMAGE_CHUNK):
        states = jnp.asarray(np.asarray(tokens.tokens[index], dtype=np.float32))
        mask = None if tokens.mask is None else jnp.asarray(tokens.mask[index])
        rows.append(np.asarray(_summarize(shared, states, mask, architecture=architecture))[:n_valid])
        progress(int(index[n_valid - 1]) + 1, n_images)
    return np.concatenate(rows)


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


@functools.partial(jax.jit, static_argnames=("architecture",))
def _summarize(shared, states, mask, *, architecture):
    return jax.vmap(ridge.summarize_one, in_axes=(None, 0, None if mask is None else 0, None))(
        shared, states, mask, architecture
    )


@functools.partial(jax.jit, static_argnames=("chunk",))
def _predict_query(shared, per_voxel, states, mask, *, chunk):
    keys, values = query.project(shared, states)
    scaled = per_voxel["query"] / np.sqrt(per_voxel["query"].shape[-1])
    predicted = mine_kernels.voxel_attention(
        scaled, per_voxel["position"], per_voxel["readout"], keys, values, mask, chunk=chunk
    )
    return predicted + per_voxel["intercept"][None]
