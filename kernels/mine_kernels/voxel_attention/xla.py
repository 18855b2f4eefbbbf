"""One pass over blocks of images and chunks of voxels: forward, loss and backward together.

The loss is separable over voxels and images, so the gradient of a prediction is known as soon as
the prediction is: no tensor over voxels, heads and tokens outlives its tile, and two of the eight
matrix products of a recomputing backward pass are saved. Voxels are the last axis of a tile:
matrix products read it as it lies, and the softmax over tokens is vectorised over voxels.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mine_kernels.arrays import Array, Arrays
from mine_kernels.voxel_attention.specs import Tile


@functools.partial(jax.jit, static_argnames=("tile",))
def forward(
    query: Array,
    position: Array | None,
    readout: Array,
    keys: Array,
    values: Array,
    mask: Array | None,
    basis: Array | None,
    *,
    tile: Tile,
) -> jax.Array:
    """Computes the predictions [B, V] tile by tile; arguments as in `op.voxel_attention`."""
    n_voxels, n_heads, _ = query.shape
    batch, _, groups, _ = keys.shape
    voxels = _voxel_chunks({"query": query, "position": position, "readout": readout}, groups, tile.voxels)
    images = _image_blocks({"keys": keys, "values": values, "mask": mask}, batch, tile.images)

    def one_block(block: Arrays) -> jax.Array:
        block_keys, block_values = (_groups_first(block[name]) for name in ("keys", "values"))

        def one_chunk(part: Arrays) -> Array:
            weights, total = _weights(part, block_keys, block["mask"], basis)
            scalars = _product("gbpe,gec->gbpc", block_values, part["readout"])
            return _over_heads((weights * scalars).sum(2) / total, n_heads // groups)

        return lax.map(one_chunk, voxels)  # [n_chunks, b, v]

    predicted = lax.map(one_block, images)
    return jnp.moveaxis(predicted, 1, 2).reshape(-1, predicted.shape[1] * predicted.shape[3])[:batch, :n_voxels]


@functools.partial(jax.jit, static_argnames=("tile", "with_trunk", "with_readout"))
def gradients(
    query: Array,
    position: Array | None,
    readout: Array,
    intercept: Array,
    tokens: Arrays,
    trunk: Arrays | None,
    responses: Array,
    mask: Array | None,
    basis: Array | None,
    *,
    tile: Tile,
    with_trunk: bool,
    with_readout: bool,
) -> tuple[jax.Array, Arrays]:
    """Computes squared errors and their gradients; see `op.voxel_attention_gradients`.

    Args:
        query: [V, H, E].
        position: [V, H, P] or [V, H, J] or None.
        readout: [V, H, E].
        intercept: [V].
        tokens: `keys` and, unless they are the keys, `values`, [B, P, G, E]; or `states` [B, P, D] with a trunk.
        trunk: weights that project states to keys and values, or None.
        responses: [B, V].
        mask: [B, P] or None.
        basis: [P, J] or None.
        tile: sizes.
        with_trunk: whether gradients of the trunk (or of keys and values) are wanted.
        with_readout: whether the gradient of the readout is wanted.

    Returns:
        The loss [V] and a dictionary of gradients.
    """
    n_voxels, n_heads, width = query.shape
    batch = responses.shape[0]
    groups = tokens["keys"].shape[2] if trunk is None else trunk["key_weight"].shape[1]
    named = {"query": query, "position": position, "readout": readout, "intercept": intercept}
    voxels = _voxel_chunks(named, groups, tile.voxels)
    n_chunks, size = voxels["intercept"].shape
    real = jnp.ones((batch, 1), query.dtype)
    images = _image_blocks({**tokens, "mask": mask, "responses": responses, "real": real}, batch, tile.images)

    def one_block(sums: Arrays, block: Arrays) -> tuple[Arrays, Any]:
        keys, values = _project(trunk, block)
        y = jnp.pad(block["responses"], ((0, 0), (0, n_chunks * size - n_voxels)))
        y = y.reshape(-1, n_chunks, size).swapaxes(0, 1)

        def one_chunk(carry: Any, part: tuple[Arrays, jax.Array]) -> tuple[Any, Arrays]:
            chunk, y = part
            weight = block["real"] * (2.0 / batch)
            out, d_tokens = _one_tile(
                chunk, y, keys, values, block["mask"], basis, weight, with_trunk=with_trunk, with_readout=with_readout
            )
            return jax.tree.map(jnp.add, carry, d_tokens), out

        zeros = (jnp.zeros(keys.shape, _wide(query)),) * 2 if with_trunk else None
        d_tokens, out = lax.scan(one_chunk, zeros, (voxels, y))
        d_trunk = _pull(trunk, block, d_tokens) if with_trunk and trunk is not None else {}
        stacked = d_tokens if with_trunk and trunk is None else None
        return jax.tree.map(jnp.add, sums, out | d_trunk), stacked

    def zeros(like: Array) -> jax.Array:
        return jnp.zeros(like.shape, _wide(query))

    names = ["query"] + ["position"] * (position is not None) + ["readout"] * with_readout + ["intercept"]
    start = {name: zeros(voxels[name]) for name in names} | {"loss": zeros(voxels["intercept"])}
    if with_trunk and trunk is not None:
        start |= {name: zeros(value) for name, value in trunk.items()}
    sums, stacked = lax.scan(one_block, start, images)
    loss, d_intercept = (sums.pop(name).reshape(-1)[:n_voxels] for name in ("loss", "intercept"))
    out = {name: _voxels_first(sums.pop(name), n_heads, size)[:n_voxels] for name in names[:-1]}
    out |= {"intercept": d_intercept, **sums}
    if stacked is not None:
        out["keys"], out["values"] = (
            d.transpose(0, 2, 3, 1, 4).reshape(-1, d.shape[3], groups, width)[:batch] for d in stacked
        )
    return loss, out


def _one_tile(
    voxels: Arrays,
    responses: Array,
    keys: Array,
    values: Array,
    mask: Array | None,
    basis: Array | None,
    weight: jax.Array,
    *,
    with_trunk: bool,
    with_readout: bool,
) -> tuple[Arrays, tuple[jax.Array, jax.Array | None] | None]:
    """Gradients of one tile: sums for its voxels, and for its keys and values [G, b, P, E]."""
    repeats = voxels["query"].shape[-1] // responses.shape[1]
    weights, total = _weights(voxels, keys, mask, basis)
    # where a head is narrow, what it sees of an image is smaller than the scalars of all its tokens
    through_seen = with_readout and keys.shape[3] < keys.shape[2]
    if through_seen:
        seen = _product("gbpe,gbpc->gbec", values, weights)
        per_head = (seen * voxels["readout"][:, None]).sum(2) / total
    else:
        scalars = _product("gbpe,gec->gbpc", values, voxels["readout"])
        per_head = (weights * scalars).sum(2) / total
    error = _over_heads(per_head, repeats) + voxels["intercept"][None] - responses  # [b, v]
    slope = jnp.tile(error * weight, (1, repeats))[None] / total  # [G, b, c]
    out = {"loss": (error**2 * weight * 0.5).sum(0), "intercept": (error * weight).sum(0)}
    d_values = None
    if through_seen:
        sloped = voxels["readout"][:, None] * slope[:, :, None]  # [G, b, E, c]
        scalars = _product("gbpe,gbec->gbpc", values, sloped)
        d_logits = weights * (scalars - (slope * per_head)[:, :, None])
        out["readout"] = (seen * slope[:, :, None]).sum(1)
        if with_trunk:
            d_values = _product("gbpc,gbec->gbpe", weights, sloped)
    else:
        d_scalars = weights * slope[:, :, None]
        d_logits = d_scalars * (scalars - per_head[:, :, None])
        if with_readout:
            out["readout"] = _product("gbpe,gbpc->gec", values, _narrow(d_scalars, values))
        if with_trunk:
            d_values = _product("gbpc,gec->gbpe", d_scalars, voxels["readout"])
    out["query"] = _product("gbpe,gbpc->gec", keys, _narrow(d_logits, keys))
    if voxels["position"] is not None:
        d_position = d_logits.sum(1)
        out["position"] = d_position if basis is None else _product("pj,gpc->gjc", basis, d_position)
    return out, (_product("gbpc,gec->gbpe", d_logits, voxels["query"]), d_values) if with_trunk else None


def _weights(voxels: Arrays, keys: Array, mask: Array | None, basis: Array | None) -> tuple[jax.Array, jax.Array]:
    """Unnormalised attention [G, b, P, c] of one tile and its sum over tokens [G, b, c]."""
    logits = _product("gbpe,gec->gbpc", keys, voxels["query"])
    if voxels["position"] is not None:
        position = voxels["position"]
        position = position if basis is None else _product("pj,gjc->gpc", basis, position)
        logits = logits + position[:, None]
    if mask is None:
        weights = jnp.exp(logits - logits.max(2, keepdims=True))
        return weights, weights.sum(2)
    mask = mask[None, :, :, None]
    top = jnp.where(mask, logits, -jnp.inf).max(2, keepdims=True)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    weights = jnp.where(mask, jnp.exp(jnp.where(mask, logits - top, 0.0)), 0.0)
    total = weights.sum(2)
    return weights, jnp.where(total > 0, total, 1.0)


def _project(trunk: Arrays | None, block: Arrays) -> tuple[Array, Array]:
    """Keys and values [G, b, P, E] of one block of images."""
    if trunk is None:
        keys = _groups_first(block["keys"])
        return keys, _groups_first(block["values"]) if "values" in block else keys

    def projected(kind: str) -> jax.Array:
        product = _product("bpd,dge->gbpe", block["states"], trunk[f"{kind}_weight"])
        return product + trunk[f"{kind}_bias"][:, None, None]

    keys = projected("key")
    return keys, projected("value") if "value_weight" in trunk else keys


def _pull(trunk: Arrays, block: Arrays, d_tokens: Any) -> Arrays:
    """Gradients of the trunk from those of keys and values [G, b, P, E] of one block."""
    d_keys, d_values = d_tokens
    if "value_weight" not in trunk:
        d_keys, d_values = d_keys + d_values, None
    out = {}
    for kind, d in (("key", d_keys), ("value", d_values)):
        if d is not None:
            out[f"{kind}_weight"] = _product("bpd,gbpe->dge", block["states"], _narrow(d, block["states"]))
            out[f"{kind}_bias"] = d.sum((1, 2))
    return out


def _product(subscripts: str, a: Array, b: Array) -> jax.Array:
    """Matrix product that accumulates in float32 at least, also of half-precision operands."""
    accumulator = _wide(a, b)
    if jax.default_backend() == "cpu":
        # XLA has no half-precision products on CPUs; the wider operands hold the same values
        a, b = a.astype(accumulator), b.astype(accumulator)
    return jnp.einsum(subscripts, a, b, preferred_element_type=accumulator)


def _narrow(gradient: Array, operand: Array) -> Array:
    """Rounds a gradient to the dtype of the other operand where products of that dtype exist."""
    return gradient if jax.default_backend() == "cpu" else gradient.astype(operand.dtype)


def _wide(*arrays: Array) -> jnp.dtype:
    return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def _groups_first(tokens: Array) -> Array:
    """Reads tokens [b, P, G, E] as [G, b, P, E]."""
    return tokens.transpose(2, 0, 1, 3)


def _over_heads(per_head: Array, repeats: int) -> Array:
    """Sums [G, b, c] over heads to [b, v]."""
    return per_head.reshape(*per_head.shape[:2], repeats, -1).sum((0, 2))


def _voxel_chunks(arrays: Arrays, groups: int, size: int) -> Arrays:
    """Pads V to a multiple of the chunk; reads [V, H, E] as [n_chunks, G, E, c] and [V] as [n_chunks, v].

    Columns c run over the heads that share a key head, then over the voxels of the chunk.
    """

    def fold(array: Array) -> jax.Array:
        padded = jnp.pad(array, ((0, -len(array) % size), *[(0, 0)] * (array.ndim - 1)))
        if array.ndim == 1:
            return padded.reshape(-1, size)
        _, n_heads, width = array.shape
        folded = padded.reshape(-1, size, groups, n_heads // groups, width).transpose(0, 2, 4, 3, 1)
        return folded.reshape(len(folded), groups, width, -1)

    return jax.tree.map(fold, arrays)


def _voxels_first(chunks: Array, n_heads: int, size: int) -> Array:
    """Reads [n_chunks, G, E, c] as [V, H, E]: the inverse of `_voxel_chunks`."""
    n_chunks, groups, width, _ = chunks.shape
    return chunks.reshape(n_chunks, groups, width, -1, size).transpose(0, 4, 1, 3, 2).reshape(-1, n_heads, width)


def _image_blocks(arrays: Arrays, batch: int, size: int) -> Arrays:
    """Pads B with zeros to a multiple of the block and folds it: [n_blocks, b, ...]."""
    return jax.tree.map(
        lambda a: jnp.pad(a, ((0, -batch % size), *[(0, 0)] * (a.ndim - 1))).reshape(-1, size, *a.shape[1:]), arrays
    )
