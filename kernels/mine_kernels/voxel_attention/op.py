"""Public form of voxel attention: checks, choice of implementation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from mine_kernels.arrays import Array, Arrays
from mine_kernels.voxel_attention import reference, xla
from mine_kernels.voxel_attention.specs import BLOCKS, Blocks, default_tile

Implementation = Literal["reference", "xla", "pallas"]
IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)


@functools.partial(jax.jit, static_argnames=("implementation", "interpret", "chunk", "blocks"))
def voxel_attention(
    query: Array,
    position: Array | None,
    readout: Array,
    keys: Array,
    values: Array,
    mask: Array | None = None,
    basis: Array | None = None,
    *,
    implementation: Implementation | None = None,
    interpret: bool = False,
    chunk: int | None = None,
    blocks: Blocks = BLOCKS,
) -> jax.Array:
    """Predicts y[b, v] = sum_h sum_p softmax_p(query . key + position) (readout . value).

    Args:
        query: [V, H, E], already divided by the square root of the head width.
        position: [V, H, P], added to the logits; [V, H, J] with a basis; None for none.
        readout: [V, H, E].
        keys: [B, P, G, E]; G = 1 when all heads share the keys, else H. float32 or bfloat16.
        values: [B, P, G, E].
        mask: [B, P] bool, True for real tokens; None when all are.
        basis: [P, J], `position` holds its coefficients; None when it holds the logits themselves.
        implementation: None for the fastest that works here (always "xla"), or a name.
        interpret: runs the "pallas" kernels step by step on any device, for tests.
        chunk: most voxels held in memory at once; None to choose. Memory only, never the result.
        blocks: sizes of the blocks of the "pallas" kernels. Speed only, never the result.

    Returns:
        Predictions [B, V] float32, without intercept; 0 for an image without a real token.

    Raises:
        ValueError: if the shapes do not belong together.
        NotImplementedError: for an unknown implementation, or one that this device cannot run.
    """
    _check(query, position, readout, basis, implementation, interpret)
    _check_tokens(query, position, keys, values, mask, basis)
    if implementation == "reference":
        return reference.voxel_attention(query, position, readout, keys, values, mask, basis)
    if implementation == "pallas":
        # pallas takes long to import, and most runs need no kernel of it
        from mine_kernels.voxel_attention import pallas

        return pallas.forward(query, position, readout, keys, values, mask, basis, blocks=blocks, interpret=interpret)
    tile = default_tile(query.shape[0], *keys.shape[:2], *query.shape[1:], chunk=chunk)
    return xla.forward(query, position, readout, keys, values, mask, basis, tile=tile)


def voxel_attention_gradients(
    query: Array,
    position: Array | None,
    readout: Array,
    intercept: Array,
    keys: Array,
    values: Array,
    responses: Array,
    mask: Array | None = None,
    basis: Array | None = None,
    *,
    with_trunk: bool = True,
    with_readout: bool = True,
    implementation: Implementation | None = None,
    interpret: bool = False,
    chunk: int | None = None,
    blocks: Blocks = BLOCKS,
) -> tuple[jax.Array, Arrays]:
    """Computes the squared error of each voxel and all its gradients in one pass.

    Args:
        query: [V, H, E], already divided by the square root of the head width.
        position: [V, H, P]; [V, H, J] with a basis; None for none.
        readout: [V, H, E].
        intercept: [V].
        keys: [B, P, G, E] with G = 1 or H.
        values: [B, P, G, E]; the same object as `keys` when both are one projection.
        responses: [B, V].
        mask: [B, P] bool or None.
        basis: [P, J] or None, see `voxel_attention`.
        with_trunk: whether the gradients of `keys` and `values` are wanted (a sum over voxels).
        with_readout: whether the gradient of `readout` is wanted.
        implementation: None for the fastest that works here (always "xla"), or a name.
        interpret: runs the "pallas" kernels step by step on any device, for tests.
        chunk: most voxels held in memory at once; None to choose. Memory only, never the result.
        blocks: sizes of the blocks of the "pallas" kernels. Speed only, never the result.

    Returns:
        The loss [V], mean over the batch of the squared error, and a dictionary with the
        gradient of its sum over voxels: "query", "intercept", "position" where there is one, and
        on request "readout", "keys" and "values", each shaped like the argument.

    Raises:
        ValueError: if the shapes do not belong together.
        NotImplementedError: for an unknown implementation, or one that this device cannot run.
    """
    _check(query, position, readout, basis, implementation, interpret)
    _check_tokens(query, position, keys, values, mask, basis)
    _check_responses(responses, intercept, keys.shape[0], query.shape[0])
    wanted = {"query": query, "intercept": intercept} | ({} if position is None else {"position": position})
    wanted |= {"readout": readout} if with_readout else {}
    if implementation == "reference":
        wanted |= {"keys": keys, "values": values} if with_trunk else {}
        given = {"query": query, "position": position, "readout": readout, "keys": keys, "values": values}
        given |= {"intercept": intercept, "responses": responses, "mask": mask, "basis": basis}
        return _reference_gradients(reference.squared_error, given, wanted)
    if implementation == "pallas":
        from mine_kernels.voxel_attention import pallas

        arrays = (query, position, readout, intercept, keys, values, responses, mask, basis)
        options = {"with_trunk": with_trunk, "with_readout": with_readout, "interpret": interpret}
        return pallas.gradients(*arrays, blocks=blocks, **options)
    return xla.gradients(
        query,
        position,
        readout,
        intercept,
        {"keys": keys} if values is keys else {"keys": keys, "values": values},
        None,
        responses,
        mask,
        basis,
        tile=default_tile(query.shape[0], *keys.shape[:2], *query.shape[1:], chunk=chunk),
        with_trunk=with_trunk,
        with_readout=with_readout,
    )


def voxel_attention_trunk_gradients(
    query: Array,
    position: Array | None,
    readout: Array,
    intercept: Array,
    trunk: Arrays,
    states: Array,
    responses: Array,
    mask: Array | None = None,
    basis: Array | None = None,
    *,
    with_readout: bool = True,
    implementation: Implementation | None = None,
    chunk: int | None = None,
) -> tuple[jax.Array, Arrays]:
    """Computes losses and gradients through the projection of token states to keys and values.

    Keys, values and their gradients exist for one block of images at a time.

    Args:
        query: [V, H, E], already divided by the square root of the head width.
        position: [V, H, P]; [V, H, J] with a basis; None for none.
        readout: [V, H, E].
        intercept: [V].
        trunk: `key_weight` [D, G, E] and `key_bias` [G, E], with G = 1 or H; `value_weight` and
            `value_bias` alike, unless the keys are the values.
        states: [B, P, D]; finite also where the mask is False.
        responses: [B, V].
        mask: [B, P] bool or None.
        basis: [P, J] or None, see `voxel_attention`.
        with_readout: whether the gradient of `readout` is wanted.
        implementation: None for the fastest that works here, or a name.
        chunk: most voxels held in memory at once; None to choose. Memory only, never the result.

    Returns:
        The loss [V] and a dictionary of gradients as `voxel_attention_gradients` gives, with the
        names of `trunk` in place of "keys" and "values".

    Raises:
        ValueError: if the shapes do not belong together.
        NotImplementedError: for an unknown implementation, or one that this device cannot run.
    """
    _check(query, position, readout, basis, implementation)
    if implementation == "pallas":
        raise NotImplementedError("`implementation` 'pallas' takes keys and values; project the states first.")
    groups, width = trunk["key_bias"].shape
    if states.ndim != 3 or trunk["key_weight"].shape != (states.shape[-1], groups, width):
        raise ValueError(
            f"`states` must have shape [B, P, D] with D = {trunk['key_weight'].shape[0]}, but has shape {states.shape}."
        )
    keys = jax.ShapeDtypeStruct((*states.shape[:2], groups, width), query.dtype)
    _check_tokens(query, position, keys, keys, mask, basis)
    _check_responses(responses, intercept, states.shape[0], query.shape[0])
    if implementation == "reference":
        wanted = {"query": query, "intercept": intercept} | ({} if position is None else {"position": position})
        wanted |= ({"readout": readout} if with_readout else {}) | trunk
        given = wanted | {"position": position, "readout": readout, "states": states}
        given |= {"responses": responses, "mask": mask, "basis": basis}
        return _reference_gradients(reference.trunk_squared_error, given, wanted)
    return xla.gradients(
        query,
        position,
        readout,
        intercept,
        {"states": states},
        trunk,
        responses,
        mask,
        basis,
        tile=default_tile(query.shape[0], *states.shape[:2], *query.shape[1:], chunk=chunk),
        with_trunk=True,
        with_readout=with_readout,
    )


def _reference_gradients(
    squared_error: Callable[..., jax.Array], given: dict[str, Any], wanted: dict[str, Any]
) -> tuple[jax.Array, Arrays]:
    def total(changed: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        loss = squared_error(**(given | changed))
        return loss.sum(), loss

    gradients, loss = jax.grad(total, has_aux=True)(jax.tree.map(jnp.asarray, wanted))
    return loss, gradients


def _check(
    query: Array,
    position: Array | None,
    readout: Array,
    basis: Array | None,
    implementation: str | None,
    interpret: bool = False,
) -> None:
    if implementation is not None and implementation not in IMPLEMENTATIONS:
        raise NotImplementedError(
            f"`implementation` must be one of {IMPLEMENTATIONS} or None, but is {implementation!r}."
        )
    if implementation == "pallas" and not interpret and jax.default_backend() != "gpu":
        raise NotImplementedError(
            f"`implementation` 'pallas' needs a GPU, but the default device is {jax.default_backend()!r}; "
            "`interpret=True` runs it slowly on any device."
        )
    if implementation == "pallas" and query.dtype != jnp.float32:
        raise NotImplementedError(f"`implementation` 'pallas' computes in float32, but `query` is {query.dtype}.")
    if query.ndim != 3:
        raise ValueError(f"`query` must have shape [V, H, E], but has shape {query.shape}.")
    if readout.shape != query.shape or (position is not None and position.shape[:-1] != query.shape[:2]):
        raise ValueError(
            f"`readout` and `position` must start as `query` {query.shape} does, "
            f"but have shapes {readout.shape} and {None if position is None else position.shape}."
        )
    if basis is not None and (position is None or basis.ndim != 2 or basis.shape[1] != position.shape[2]):
        raise ValueError(f"`basis` must have shape [P, J] with the J of `position`, but has shape {basis.shape}.")


def _check_tokens(
    query: Array,
    position: Array | None,
    keys: Array | jax.ShapeDtypeStruct,
    values: Array | jax.ShapeDtypeStruct,
    mask: Array | None,
    basis: Array | None,
) -> None:
    if keys.ndim != 4:
        raise ValueError(f"`keys` must have shape [B, P, G, E], but has shape {keys.shape}.")
    _, n_heads, width = query.shape
    n_tokens = keys.shape[1] if position is None else position.shape[2] if basis is None else basis.shape[0]
    if keys.shape[1] != n_tokens or keys.shape[3] != width or keys.shape[2] not in (1, n_heads):
        raise ValueError(
            f"`keys` must have shape [B, {n_tokens}, 1 or {n_heads}, {width}], but has shape {keys.shape}."
        )
    if values.shape != keys.shape:
        raise ValueError(f"`values` must have the shape of `keys` {keys.shape}, but has shape {values.shape}.")
    if mask is not None and mask.shape != keys.shape[:2]:
        raise ValueError(f"`mask` must have shape [B, P] = {keys.shape[:2]}, but has shape {mask.shape}.")


def _check_responses(responses: Array, intercept: Array, batch: int, n_voxels: int) -> None:
    if responses.shape != (batch, n_voxels) or intercept.shape != (n_voxels,):
        raise ValueError(
            f"`responses` must have shape [B, V] = {(batch, n_voxels)} and `intercept` [V], "
            f"but have shapes {responses.shape} and {intercept.shape}."
        )
