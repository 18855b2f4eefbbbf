"""Public form of voxel attention: checks, choice of implementation."""

from __future__ import annotations

import functools
from typing import Literal

import jax

from mine_kernels.voxel_attention import reference, xla

Implementation = Literal["reference", "xla"]
_KNOWN = ("reference", "xla")
# Voxels whose [H, chunk, B, P] logits stay in cache on the CPUs measured so far.
DEFAULT_CHUNK = 64


@functools.partial(jax.jit, static_argnames=("implementation", "chunk"))
def voxel_attention(
    query,
    position,
    readout,
    keys,
    values,
    mask=None,
    *,
    implementation: Implementation | None = None,
    chunk: int = DEFAULT_CHUNK,
):
    """Predicts y[b, v] = sum_h sum_p softmax_p(query . key + position) (readout . value).

    Args:
        query: [V, H, E], already divided by the square root of the head width.
        position: [V, H, P], added to the logits.
        readout: [V, H, E].
        keys: [B, P, G, E]; G = 1 when all heads share the keys, else H. float32 or bfloat16.
        values: [B, P, G, E].
        mask: [B, P] bool, True for real tokens; None when all are.
        implementation: None for the fastest that works here, or a name.
        chunk: voxels held in memory at once. Memory only, never the result.

    Returns:
        Predictions [B, V] float32, without intercept; 0 for an image without a real token.

    Raises:
        ValueError: if the shapes do not belong together.
        NotImplementedError: for an unknown implementation.
    """
    _check(query, position, readout, keys, values, mask, implementation)
    if implementation == "reference":
        return reference.voxel_attention(query, position, readout, keys, values, mask)
    return xla.forward(query, position, readout, keys, values, mask, chunk=min(chunk, query.shape[0]))


def voxel_attention_gradients(
    query,
    position,
    readout,
    intercept,
    keys,
    values,
    responses,
    mask=None,
    *,
    with_trunk: bool = True,
    with_readout: bool = True,
    implementation: Implementation | None = None,
    chunk: int = DEFAULT_CHUNK,
):
    """Computes the squared error of each voxel and all its gradients in one pass.

    Args:
        query: [V, H, E], already divided by the square root of the head width.
        position: [V, H, P].
        readout: [V, H, E].
        intercept: [V].
        keys: [B, P, G, E] with G = 1 or H.
        values: [B, P, G, E]; the same object as `keys` when both are one projection.
        responses: [B, V].
        mask: [B, P] bool or None.
        with_trunk: whether the gradients of `keys` and `values` are wanted (a sum over voxels).
        with_readout: whether the gradient of `readout` is wanted.
        implementation: None for the fastest that works here, or a name.
        chunk: voxels held in memory at once. Memory only, never the result.

    Returns:
        The loss [V], mean over the batch of the squared error, and a dictionary with the
        gradient of its sum over voxels: "query", "position", "intercept", and on request
        "readout", "keys" and "values", each shaped like the argument.

    Raises:
        ValueError: if the shapes do not belong together.
        NotImplementedError: for an unknown implementation.
    """
    _check(query, position, readout, keys, values, mask, implementation)
    if responses.shape != (keys.shape[0], query.shape[0]) or intercept.shape != query.shape[:1]:
        raise ValueError(
            f"`responses` must have shape [B, V] = {(keys.shape[0], query.shape[0])} and `intercept` [V], "
            f"but have shapes {responses.shape} and {intercept.shape}."
        )
    if implementation == "reference":
        names = ["query", "position", "intercept"]
        names += ["readout"] * with_readout + ["keys", "values"] * with_trunk
        given = {"query": query, "position": position, "readout": readout, "intercept": intercept}
        given |= {"keys": keys, "values": values}

        def total(wanted):
            loss = reference.squared_error(**(given | wanted), responses=responses, mask=mask)
            return loss.sum(), loss

        grads, loss = jax.grad(total, has_aux=True)({name: given[name] for name in names})
        return loss, grads
    return xla.gradients(
        query,
        position,
        readout,
        intercept,
        keys,
        None if values is keys else values,
        responses,
        mask,
        chunk=min(chunk, query.shape[0]),
        with_trunk=with_trunk,
        with_readout=with_readout,
    )


def _check(query, position, readout, keys, values, mask, implementation):
    if implementation is not None and implementation not in _KNOWN:
        raise NotImplementedError(f"`implementation` must be one of {_KNOWN} or None, but is {implementation!r}.")
    for name, array, axes in (("query", query, "V H E"), ("position", position, "V H P"), ("keys", keys, "B P G E")):
        if array.ndim != len(axes.split()):
            raise ValueError(f"`{name}` must have shape [{axes.replace(' ', ', ')}], but has shape {array.shape}.")
    n_voxels, n_heads, width = query.shape
    if readout.shape != query.shape or position.shape[:2] != (n_voxels, n_heads):
        raise ValueError(
            f"`readout` and `position` must start as `query` {query.shape} does, "
            f"but have shapes {readout.shape} and {position.shape}."
        )
    if keys.shape[1] != position.shape[2] or keys.shape[3] != width or keys.shape[2] not in (1, n_heads):
        raise ValueError(
            f"`keys` must have shape [B, {position.shape[2]}, 1 or {n_heads}, {width}], but has shape {keys.shape}."
        )
    if values.shape != keys.shape:
        raise ValueError(f"`values` must have the shape of `keys` {keys.shape}, but has shape {values.shape}.")
    if mask is not None and mask.shape != keys.shape[:2]:
        raise ValueError(f"`mask` must have shape [B, P] = {keys.shape[:2]}, but has shape {mask.shape}.")
