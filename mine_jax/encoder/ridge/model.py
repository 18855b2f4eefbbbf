"""The ridge encoder: one linear readout per voxel of image-level features."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.encoder.cells import cells
from mine_jax.memory import images_at_once, in_chunks
from mine_jax.types import Architecture, Array, Encoders, ImageTokens

Arrays = Mapping[str, Array]


def predict_one(shared: Arrays, voxel: Arrays, tokens: Array, mask: Array | None, architecture: Architecture) -> Array:
    """Predicts one voxel's response to one image.

    Args:
        shared: of `summarize_one`.
        voxel: `coef` [F], `intercept` [].
        tokens: [P, D].
        mask: [P] bool or None.
        architecture: static description.

    Returns:
        Scalar, z-scored beta.
    """
    return summarize_one(shared, tokens, mask, architecture) @ voxel["coef"] + voxel["intercept"]


def summarize_one(shared: Arrays, tokens: Array, mask: Array | None, architecture: Architecture) -> Array:
    """Returns the image-level features [F]: the mean token, or the projected token grid.

    Args:
        shared: `center` [F]; for the grid also `key_weight` [D, 1, E] and `key_bias` [1, E].
        tokens: [P, D].
        mask: [P] bool or None.
        architecture: `summary` is "mean" or "grid".
    """
    if architecture.summary == "mean":
        if mask is None:
            return tokens.mean(0) - shared["center"]
        count = jnp.maximum(mask.sum(), 1)
        return jnp.where(mask[:, None], tokens, 0.0).sum(0) / count - shared["center"]
    weights = cells(architecture, tokens.shape[0], mask)
    if mask is not None:
        tokens = jnp.where(mask[:, None], tokens, 0.0)
    states = tokens if weights is None else weights @ tokens
    return (states @ shared["key_weight"][:, 0] + shared["key_bias"]).reshape(-1) - shared["center"]


def token_terms_one(
    shared: Arrays, voxel: Arrays, tokens: Array, cell_weights: Array | None, architecture: Architecture
) -> tuple[Array, Array]:
    """Returns zeros and each token's additive share of the prediction, both [1, P]; see `query`."""
    coef = voxel["coef"]
    if architecture.summary == "mean":
        weights = jnp.full(len(tokens), 1 / len(tokens)) if cell_weights is None else cell_weights.sum(0)
        scalars = (tokens @ coef) * (weights / jnp.maximum(weights.sum(), 1e-9))
    else:
        per_cell = coef.reshape(-1, shared["key_bias"].shape[1])  # [C, E]
        projected = tokens @ shared["key_weight"][:, 0]  # [P, E]
        cell_weights = jnp.eye(len(tokens)) if cell_weights is None else cell_weights
        scalars = jnp.einsum("cp,pe,ce->p", cell_weights, projected, per_cell)
    return jnp.zeros((1, len(tokens))), scalars[None]


def readout_one(
    shared: Arrays,
    logits: Array,
    scalars: Array,
    voxel: Arrays,
    cell_weights: Array | None,
    architecture: Architecture,
) -> Array:
    """Returns the prediction from token terms [1, P]."""
    del logits, cell_weights
    offset = voxel["intercept"] - shared["center"] @ voxel["coef"]
    if architecture.summary == "grid":
        width = shared["key_bias"].shape[1]
        offset = offset + (voxel["coef"].reshape(-1, width) @ shared["key_bias"][0]).sum()
    return scalars.sum() + offset


def summaries(
    shared: Arrays,
    tokens: ImageTokens,
    architecture: Architecture,
    *,
    image_chunk: int | None = None,
    progress: Progress = silent,
) -> np.ndarray:
    """Computes the image-level features of the ridge encoder.

    Args:
        shared: arrays without a voxel axis.
        tokens: image-tokens [N, P, D].
        architecture: static description.
        image_chunk: images held at once. Memory only, never the result.
        progress: called with (done, total).

    Returns:
        Features [N, F] float32.
    """

    def summarize_chunk(index: np.ndarray) -> np.ndarray:
        states = np.asarray(tokens.tokens[index], dtype=np.float32)
        mask = None if tokens.mask is None else tokens.mask[index]
        return np.asarray(_summarize(shared, states, mask, architecture=architecture))

    n_images, wanted = len(tokens.image_ids), image_chunk or images_at_once()
    rows = []
    for block, n_valid, done in in_chunks(summarize_chunk, n_images, wanted, setting="run.image_chunk"):
        rows.append(block[:n_valid])
        progress(done, n_images)
    return np.concatenate(rows)


def read_out(encoders: Encoders, features: np.ndarray) -> np.ndarray:
    """Predicts [N, V] with ridge encoders from the features [N, F] of `summaries`."""
    predicted = features @ np.asarray(encoders.per_voxel["coef"]).T
    predicted += np.asarray(encoders.per_voxel["intercept"])
    return predicted


@functools.partial(jax.jit, static_argnames=("architecture",))
def _summarize(shared: Arrays, states: Array, mask: Array | None, *, architecture: Architecture) -> Array:
    return jax.vmap(summarize_one, in_axes=(None, 0, None if mask is None else 0, None))(
        shared, states, mask, architecture
    )
