"""Token terms of blocks of pairs: key logits and value scalars at the image and at the start of the path."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mine_jax import encoder
from mine_jax.attribution.blocks import Images, is_query, over_pairs
from mine_jax.encoder.linear import model as linear
from mine_jax.encoder.query import model as query_encoder
from mine_jax.types import Architecture, Array

# Arrays of an encoder by name.
Parameters = Mapping[str, Array]

# Position term of padding tokens; finite, so that no difference of two of them is NaN.
_HIDDEN = -1e30


class End(NamedTuple):
    """One end of the path: logits and scalars [..., H, P], and the prediction [...]."""

    logits: Any
    scalars: Any
    predicted: Any


class Terms(NamedTuple):
    """Both ends of the path of a block [A, B], the position term [A, B, H, C] (None for ridge) and the cells.

    At the start, A and P may be 1 where all images and tokens are alike. `cells` are [C, P],
    [A, C, P] with a mask, or None when every token is its own cell.
    """

    start: End
    image: End
    position: Any
    cells: Any


def block_terms(
    shared: Parameters, start: Images, voxels: Parameters, images: Images, architecture: Architecture, *, is_grid: bool
) -> Terms:
    """Computes the terms of a block.

    Args:
        shared: arrays without a voxel axis.
        start: the start of the path, one image with P or 1 tokens.
        voxels: parameters [B, ...] in a grid, else [A, B, ...].
        images: A images.
        architecture: static description.
        is_grid: all images with the same voxels.
    """
    n_tokens = (images.states if images.keys is None else images.keys).shape[1]
    end = functools.partial(_end_one, shared, architecture=architecture, n_tokens=n_tokens)
    at_image = over_pairs(end, is_grid)(voxels, images)

    def at_start(voxel: Parameters, image: Images) -> End:
        return end(voxel, start._replace(mask=image.mask))

    if is_grid and images.mask is None:
        before = jax.tree.map(lambda x: x[None], jax.vmap(at_start, in_axes=(0, None))(voxels, Images()))
    else:
        before = over_pairs(at_start, is_grid)(voxels, images)
    position, cells = None, None
    if is_query(architecture):
        position = over_pairs(lambda voxel, image: _position(voxel, image, architecture), is_grid)(voxels, images)
        cells = _cells(architecture, n_tokens, images.mask)
    return Terms(before, at_image, position, cells)


def readout_one(
    shared: Parameters,
    logits: jax.Array,
    scalars: jax.Array,
    voxel: Parameters,
    image: Images,
    architecture: Architecture,
) -> Array:
    """Predicts one pair from its terms [H, P]; the terms are those of an `End`."""
    cells = _cells(architecture, logits.shape[-1], image.mask)
    if is_query(architecture):
        voxel = {**voxel, "position": _position(voxel, image, architecture)}  # its linear head included
    return encoder.model(architecture).readout_one(shared, logits, scalars, voxel, cells, architecture)


def _end_one(shared: Parameters, voxel: Parameters, image: Images, *, architecture: Architecture, n_tokens: int) -> End:
    cells = _cells(architecture, n_tokens, image.mask)
    if image.keys is None:
        model = encoder.model(architecture)
        logits, scalars = model.token_terms_one(shared, voxel, image.states, cells, architecture)
    else:
        values = image.keys if image.values is None else image.values
        logits = _read_through(image.keys, voxel["query"]) / np.sqrt(voxel["query"].shape[1])
        scalars = _read_through(values, voxel["readout"])
        if linear.has_linear(voxel):
            logits, scalars = linear.with_linear(shared, voxel, image.keys[:, 0], logits, scalars, architecture)
    if _is_hidden(architecture, image.mask):
        scalars = jnp.where(image.mask, scalars, 0.0)
    every = [jnp.broadcast_to(x, (len(x), n_tokens)) for x in (logits, scalars)]
    return End(logits, scalars, readout_one(shared, *every, voxel, image, architecture))


def _read_through(keys: jax.Array, vectors: Array) -> jax.Array:
    """Returns vectors [H, E] . keys [P, G, E] as [H, P]."""
    if keys.shape[1] == 1:
        return jnp.einsum("he,pe->hp", vectors, keys[:, 0])
    return jnp.einsum("he,phe->hp", vectors, keys)


def _position(voxel: Parameters, image: Images, architecture: Architecture) -> Array:
    position = voxel["position"]
    if linear.has_linear(voxel):
        position = linear.with_place(position, len(position) + 1)
    if _is_hidden(architecture, image.mask):
        return jnp.where(image.mask, position, _HIDDEN)
    return position


def _is_hidden(architecture: Architecture, mask: Array | None) -> bool:
    """Whether padding is hidden by the position term; where cells are averages of tokens, by their weights."""
    return is_query(architecture) and architecture.pool == 1 and mask is not None


def _cells(architecture: Architecture, n_tokens: int, mask: Array | None) -> Any:
    """Returns the cells [C, P], [A, C, P] for masks [A, P], or None when every token is its own cell."""
    if _is_hidden(architecture, mask):
        return None
    if mask is not None and mask.ndim == 2:
        return jax.vmap(lambda one: query_encoder.cells(architecture, n_tokens, one))(mask)
    return query_encoder.cells(architecture, n_tokens, mask)
