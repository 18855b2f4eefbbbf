"""The query encoder: each voxel attends to image-tokens with its own query and reads out one number.

    k_p = W_k x_p + b_k,  u_p = W_v x_p + b_v
    yhat_v = sum_h sum_p softmax_p(q_vh . k_p / sqrt(E) + position_vhp) (w_vh . u_p) + c_v  [+ l_v]

Tokens may first be averaged over square windows of the grid ("cells"); that is linear in
the tokens, so everything downstream stays exact for single tokens. With a fixed trunk the
keys are a PCA of the training tokens, shared by all heads and voxels, and also serve as
values: voxels are independent. Source: MINE (query operation over stimulus information);
fixed trunk, cells, position term and the linear term l_v (`encoder.linear`) are ours.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from mine_jax import sharding
from mine_jax._progress import Progress, silent
from mine_jax.encoder.cells import cells, pooled_tokens
from mine_jax.encoder.linear import model as linear
from mine_jax.memory.ahead import read_ahead
from mine_jax.memory.chunks import grouped_chunks
from mine_jax.types import Architecture, Array, ImageTokens

# Cells that are projected in one product: rows of products of one size round alike, whatever is read at once.
_ROWS = 1024

Arrays = Mapping[str, Array]


def predict_one(shared: Arrays, voxel: Arrays, tokens: Array, mask: Array | None, architecture: Architecture) -> Array:
    """Predicts one voxel's response to one image; the definition that everything else must equal.

    Args:
        shared: `key_weight` [D, G, E], `key_bias` [G, E], and `value_*` unless values are keys.
        voxel: `query` [H, E], `position` [H, C], `readout` [H, E], `intercept` [], and `linear` [R] with
            `linear_basis` in `shared` where there is a linear term.
        tokens: [P, D].
        mask: [P] bool or None.
        architecture: static description.

    Returns:
        Scalar, z-scored beta.
    """
    weights = cells(architecture, tokens.shape[0], mask)
    if mask is not None:
        tokens = jnp.where(mask[:, None], tokens, 0.0)  # padding may hold anything, NaN too
    logits, scalars = token_terms_one(shared, voxel, tokens, weights, architecture)
    return readout_one(shared, logits, scalars, voxel, weights, architecture)


def token_terms_one(
    shared: Arrays, voxel: Arrays, tokens: Array, cell_weights: Array | None, architecture: Architecture
) -> tuple[Array, Array]:
    """Returns key logits and value scalars of single tokens, both [H, P], before averaging to cells.

    A linear term is one more head: see `encoder.linear`.

    Query and readout are folded through the projections first: keys [P, E] never exist, and
    with tokens shared by many voxels one matrix product over D serves them all.
    """
    del cell_weights
    values = "value" if "value_weight" in shared else "key"
    logits = _read_through(shared["key_weight"], shared["key_bias"], voxel["query"], tokens)
    scalars = _read_through(shared[f"{values}_weight"], shared[f"{values}_bias"], voxel["readout"], tokens)
    logits = logits / np.sqrt(voxel["query"].shape[1])
    if not linear.has_linear(voxel):
        return logits, scalars
    keys = tokens @ shared["key_weight"][:, 0] + shared["key_bias"]
    return linear.with_linear(shared, voxel, keys, logits, scalars, architecture)


def _read_through(weight: Array, bias: Array, vectors: Array, tokens: Array) -> Array:
    """Returns vectors [H, E] . (tokens [P, D] @ weight [D, G, E] + bias [G, E]) as [H, P]."""
    if weight.shape[1] == 1:
        folded, offset = vectors @ weight[:, 0].T, vectors @ bias[0]
    else:
        folded, offset = jnp.einsum("he,dhe->hd", vectors, weight), (vectors * bias).sum(1)
    return jnp.einsum("hd,pd->hp", folded, tokens) + offset[:, None]


def readout_one(
    shared: Arrays,
    logits: Array,
    scalars: Array,
    voxel: Arrays,
    cell_weights: Array | None,
    architecture: Architecture,
) -> Array:
    """Returns the prediction from token terms [H, P]; `cell_weights` [C, P] or None."""
    del shared, architecture
    real = None
    if cell_weights is not None:
        logits, scalars, real = logits @ cell_weights.T, scalars @ cell_weights.T, cell_weights.sum(1) > 0
    position = linear.with_place(voxel["position"], len(logits))
    attention = mine_kernels.masked_softmax(logits + position, real)
    return (attention * scalars).sum() + voxel["intercept"]


def project(shared: Arrays, states: Array) -> tuple[Array, Array]:
    """Returns keys and values [B, C, G, E] of cell states [B, C, D]; one object when values are keys."""
    keys = jnp.einsum("bcd,dge->bcge", states, shared["key_weight"]) + shared["key_bias"][None, None]
    if "value_weight" not in shared:
        return keys, keys
    values = jnp.einsum("bcd,dge->bcge", states, shared["value_weight"]) + shared["value_bias"][None, None]
    return keys, values


def project_all(
    shared: Arrays,
    tokens: ImageTokens,
    architecture: Architecture,
    *,
    out: np.ndarray,
    image_chunk: int = 64,
    progress: Progress = silent,
) -> None:
    """Projects every image once and writes the keys to `out`.

    Args:
        shared: arrays of the projection.
        tokens: image-tokens [N, P, D].
        architecture: static description.
        out: [N, C, G E] on the host, in memory or memory-mapped, float32 or bfloat16.
        image_chunk: images held at once. Memory only.
        progress: called with (done, total).
    """
    n_images, n_together = len(tokens.image_ids), max(1, _ROWS // out.shape[1])
    parts = list(grouped_chunks(n_images, n_together, image_chunk))
    blocks = read_ahead(lambda part: pooled_tokens(tokens, part[0], architecture)[0], parts)
    for (rows, n_valid), states in zip(parts, blocks, strict=True):
        keys = np.asarray(_keys(shared, states, n_together))[:n_valid]
        out[rows[:n_valid]] = keys.reshape(n_valid, *out.shape[1:])
        progress(rows[n_valid - 1] + 1, n_images)


@functools.partial(jax.jit, static_argnums=2)
def _keys(shared: Arrays, states: Array, n_together: int) -> Array:
    """Keys [B, C, G, E], computed from so many images at a time."""
    groups = states.reshape(-1, n_together, *states.shape[1:])
    keys = jax.lax.map(lambda group: project(shared, group)[0], groups)
    return keys.reshape(-1, *keys.shape[2:])


def predict_images(
    shared: Arrays,
    per_voxel: Arrays,
    tokens: ImageTokens,
    rows: np.ndarray,
    architecture: Architecture,
    *,
    voxel_chunk: int | None,
    mesh: Mesh | None,
) -> Array:
    """Predicts the responses of all voxels to some images.

    Args:
        shared: arrays of the projection, on the devices.
        per_voxel: arrays with leading axis V, on the devices.
        tokens: image-tokens [N, P, D].
        rows: positions of images [B].
        architecture: static description.
        voxel_chunk: voxels held at once. Memory only.
        mesh: devices of this process, which divide the images; None for one.

    Returns:
        Predictions [B or more, V]: the last image fills up what devices divide.
    """
    rows = np.pad(rows, (0, sharding.padded(len(rows), mesh, *sharding.DEVICES) - len(rows)), mode="edge")
    states, mask = (sharding.placed(x, mesh, sharding.DEVICES) for x in pooled_tokens(tokens, rows, architecture))
    return _predicted(shared, per_voxel, states, mask, chunk=voxel_chunk, mesh=mesh)


@functools.partial(jax.jit, static_argnames=("chunk", "mesh"))
def _predicted(
    shared: Arrays,
    per_voxel: Arrays,
    states: Array,
    mask: Array | None,
    *,
    chunk: int | None,
    mesh: Mesh | None = None,
) -> Array:
    def on_device(shared: Arrays, per_voxel: Arrays, states: Array, mask: Array | None) -> Array:
        keys, values = project(shared, states)
        scaled = per_voxel["query"] / np.sqrt(per_voxel["query"].shape[-1])
        predicted = mine_kernels.voxel_attention(
            scaled, per_voxel["position"], per_voxel["readout"], keys, values, mask, chunk=chunk
        )
        predicted = predicted + per_voxel["intercept"][None]
        if not linear.has_linear(per_voxel):
            return predicted
        return predicted + linear.features_of(shared[linear.BASIS], keys[:, :, 0], mask) @ per_voxel[linear.WEIGHTS].T

    whole, images = PartitionSpec(), PartitionSpec(sharding.DEVICES)
    divided = sharding.mapped(on_device, mesh, (whole, whole, images, images), images)
    return divided(shared, per_voxel, states, mask)
