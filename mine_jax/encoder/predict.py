"""Predictions of fitted encoders for any images, in chunks."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from mine_jax import sharding
from mine_jax._checks import check_shape
from mine_jax._progress import Progress, silent
from mine_jax.encoder.query import model as query
from mine_jax.encoder.ridge import model as ridge
from mine_jax.memory.chunks import padded_chunks
from mine_jax.memory.plan import in_chunks
from mine_jax.types import Architecture, Encoders, ImageTokens

IMAGE_CHUNK = 64
_MODELS = {"query": query, "ridge": ridge}


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
        DataError: if the tokens have another width than the encoders.
    """
    check_token_width(encoders, tokens)
    if encoders.architecture.kind == "ridge":
        features = summaries(encoders.shared, tokens, encoders.architecture, image_chunk=image_chunk, progress=progress)
        return read_out(encoders, features)
    if mesh is not None and sharding.local(mesh) is not mesh:

        def some(voxels):
            options = {"voxel_chunk": voxel_chunk, "image_chunk": image_chunk, "mesh": sharding.local(mesh)}
            return predict(encoders.take(voxels), tokens, progress=progress, **options).T

        return sharding.divided(some, len(encoders.voxel_ids), mesh).T
    out = np.empty((len(tokens.image_ids), len(encoders.voxel_ids)), np.float32)
    chunks = {"voxel_chunk": voxel_chunk, "image_chunk": image_chunk, "mesh": mesh}
    for index, n_valid, block in by_images(encoders, tokens, **chunks, progress=progress):
        out[index[:n_valid]] = block[:n_valid]
    return out


def by_images(
    encoders: Encoders,
    tokens: ImageTokens,
    *,
    voxel_chunk: int | None,
    image_chunk: int | None,
    mesh: Mesh | None,
    progress: Progress = silent,
) -> Iterator[tuple[np.ndarray, int, np.ndarray]]:
    """Predicts all voxels' responses to some images after the others.

    Args:
        encoders: V fitted encoders; this and the others as in `predict`.
        tokens: image-tokens [N, P, D], read once.
        voxel_chunk: voxels held at once.
        image_chunk: images held at once on each device.
        mesh: devices of this process, or None for one.
        progress: called with (done, total) images.

    Yields:
        Positions of images [B], how many of them are real, and predictions [B or more, V].
    """
    n_images, architecture = len(tokens.image_ids), encoders.architecture
    if architecture.kind == "ridge":
        features = summaries(encoders.shared, tokens, architecture, image_chunk=image_chunk, progress=progress)
        for index, n_valid in padded_chunks(n_images, image_chunk or IMAGE_CHUNK):
            yield index, n_valid, read_out(encoders, features[index])
        return
    shared, per_voxel = (sharding.whole(arrays, mesh) for arrays in (encoders.shared, encoders.per_voxel))
    at_once = (image_chunk or IMAGE_CHUNK) * sharding.n_shards(mesh, *sharding.DEVICES)

    def predict_chunk(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if architecture.kind == "own":
            return index, np.asarray(_predict_own(encoders, tokens, index))
        # the last image fills up what devices divide
        rows = np.pad(index, (0, sharding.padded(len(index), mesh, *sharding.DEVICES) - len(index)), mode="edge")
        images = query.pooled_tokens(tokens, rows, architecture)
        images = (sharding.placed(array, mesh, sharding.DEVICES) for array in images)
        return index, np.asarray(_predict_query(shared, per_voxel, *images, chunk=voxel_chunk, mesh=mesh))

    for (index, block), n_valid, done in in_chunks(predict_chunk, n_images, at_once, setting="run.image_chunk"):
        yield index, n_valid, block
        progress(done, n_images)


def read_out(encoders: Encoders, features: np.ndarray) -> np.ndarray:
    """Predicts [N, V] with ridge encoders from the features [N, F] of `summaries`."""
    predicted = features @ np.asarray(encoders.per_voxel["coef"]).T
    predicted += np.asarray(encoders.per_voxel["intercept"])
    return predicted


def model(architecture: Architecture) -> Any:
    """Returns what defines an encoder kind.

    Args:
        architecture: static description of the encoders.

    Returns:
        The module, with the functions `predict_one`, `token_terms_one` and `readout_one`, whether it
        `has_keys` (keys and values linear in the tokens) and `has_token_terms` (what a token adds is
        known without differentiating); of an encoder of yours, an object with `predict_one` and neither.

    Raises:
        ValueError: for an unknown kind, or one of yours without its function.
    """
    if architecture.kind == "own" and architecture.own is not None:
        return types.SimpleNamespace(predict_one=architecture.own, has_keys=False, has_token_terms=False)
    if architecture.kind not in _MODELS:
        raise ValueError(f"`kind` must be one of {(*_MODELS, 'own')}, the last with `own`, but is {architecture}.")
    return _MODELS[architecture.kind]


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

    def summarize_chunk(index: np.ndarray) -> np.ndarray:
        states = jnp.asarray(np.asarray(tokens.tokens[index], dtype=np.float32))
        mask = None if tokens.mask is None else jnp.asarray(tokens.mask[index])
        return np.asarray(_summarize(shared, states, mask, architecture=architecture))

    n_images, wanted = len(tokens.image_ids), image_chunk or IMAGE_CHUNK
    rows = []
    for block, n_valid, done in in_chunks(summarize_chunk, n_images, wanted, setting="run.image_chunk"):
        rows.append(block[:n_valid])
        progress(done, n_images)
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


def _predict_own(encoders: Encoders, tokens: ImageTokens, rows: np.ndarray) -> jax.Array:
    """Predicts [B, V] with an encoder of one voxel and one image."""
    states = jnp.asarray(np.asarray(tokens.tokens[rows], dtype=np.float32))
    mask = None if tokens.mask is None else jnp.asarray(tokens.mask[rows])
    return _over_all(encoders.shared, encoders.per_voxel, states, mask, encoders.architecture)


@functools.partial(jax.jit, static_argnames=("architecture",))
def _over_all(shared, per_voxel, states, mask, architecture):
    over_voxels = jax.vmap(predict_one, in_axes=(None, 0, None, None, None))
    return jax.vmap(over_voxels, in_axes=(None, None, 0, None if mask is None else 0, None))(
        shared, per_voxel, states, mask, architecture
    )


@functools.partial(jax.jit, static_argnames=("chunk", "mesh"))
def _predict_query(shared, per_voxel, states, mask, *, chunk, mesh=None):
    def on_device(shared, per_voxel, states, mask):
        keys, values = query.project(shared, states)
        scaled = per_voxel["query"] / np.sqrt(per_voxel["query"].shape[-1])
        predicted = mine_kernels.voxel_attention(
            scaled, per_voxel["position"], per_voxel["readout"], keys, values, mask, chunk=chunk
        )
        return predicted + per_voxel["intercept"][None]

    whole, images = PartitionSpec(), PartitionSpec(sharding.DEVICES)
    divided = sharding.mapped(on_device, mesh, (whole, whole, images, images), images)
    return divided(shared, per_voxel, states, mask)
