"""The predictor of the ridge encoder: one voxel, one image."""

from __future__ import annotations

import jax.numpy as jnp

from mine_jax.types import Architecture

has_keys = False
has_token_terms = True


def predict_one(shared, voxel, tokens, mask, architecture: Architecture):
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


def summarize_one(shared, tokens, mask, architecture: Architecture):
    """Returns the image-level features [F]: the mean token, or the projected token grid.

    Args:
        shared: `center` [F]; for the grid also `key_weight` [D, 1, E] and `key_bias` [1, E].
        tokens: [P, D].
        mask: [P] bool or None.
        architecture: `summary` is "mean" or "grid".
    """
    from mine_jax.encoder.query import model as query

    if architecture.summary == "mean":
        if mask is None:
            return tokens.mean(0) - shared["center"]
        count = jnp.maximum(mask.sum(), 1)
        return jnp.where(mask[:, None], tokens, 0.0).sum(0) / count - shared["center"]
    weights = query.cells(architecture, tokens.shape[0], mask)
    if mask is not None:
        tokens = jnp.where(mask[:, None], tokens, 0.0)
    cells = tokens if weights is None else weights @ tokens
    return (cells @ shared["key_weight"][:, 0] + shared["key_bias"]).reshape(-1) - shared["center"]


def token_terms_one(shared, voxel, tokens, cell_weights, architecture: Architecture):
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


def readout_one(shared, logits, scalars, voxel, cell_weights, architecture: Architecture):
    """Returns the prediction from token terms [1, P]."""
    del logits, cell_weights
    offset = voxel["intercept"] - shared["center"] @ voxel["coef"]
    if architecture.summary == "grid":
        width = shared["key_bias"].shape[1]
        offset = offset + (voxel["coef"].reshape(-1, width) @ shared["key_bias"][0]).sum()
    return scalars.sum() + offset
