"""Adam on what moves: gradients of a batch, and one step after the other, compiled as one program.

Each voxel has its own optimiser state and learning rate, and so has a shared trunk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from mine_jax import sharding
from mine_jax.encoder.query.images import Batch
from mine_jax.encoder.query.state import (
    ARRAYS,
    IMAGES,
    LARGEST,
    VOXELS,
    WHOLE,
    Arrays,
    bounded,
    keys_and_values,
    of_voxels,
    per_voxel,
    picked,
    position_term,
    scaled_query,
)
from mine_jax.types import Array


def first_moments(arrays: Arrays, moving: tuple[str, ...]) -> Arrays:
    """Returns Adam's state before the first step: one for each voxel, and one for a trunk that moves."""
    moments = {"voxels": _first({name: arrays[name] for name in moving if name != "trunk"}, each=True)}
    return moments | ({"trunk": _first(arrays["trunk"], each=False)} if "trunk" in moving else {})


@functools.partial(jax.jit, static_argnames=("each",))
def _first(arrays: Arrays, *, each: bool) -> Any:
    init = optax.scale_by_adam().init
    return (jax.vmap(init) if each else init)(arrays)


@functools.partial(jax.jit, static_argnames=("moving", "is_projected", "mesh"))
def steps(
    arrays: Arrays,
    moments: Arrays,
    rates: Arrays,
    images: Batch,
    basis: Array,
    order: Array,
    *,
    moving: tuple[str, ...],
    is_projected: bool,
    mesh: Mesh | None = None,
) -> tuple[Arrays, Arrays]:
    """One step of Adam on each batch of images; devices of `data` have each their part of a batch.

    Args:
        arrays: of a `State`.
        moments: Adam's, of `first_moments` or of the call before.
        rates: learning rates of `voxels` [V], and of a `trunk` that moves.
        images: N images.
        basis: [C, J] functions of the position term.
        order: [n, B] positions of the images of each batch.
        moving: names of the arrays that move.
        is_projected: whether the tokens of the images are keys.
        mesh: devices of this process; None for one.

    Returns:
        The arrays and moments after n steps.
    """

    def on_device(
        arrays: Arrays, moments: Arrays, rates: Arrays, images: Batch, basis: Array, order: Array
    ) -> tuple[Arrays, Arrays]:
        def gradients(arrays: Arrays, rows: Array) -> Arrays:
            batch = jax.tree.map(lambda array: array[rows], images)
            if "trunk" in moving:
                arrays, batch = _without_broken(arrays, batch, rates["voxels"] > 0)
            return _over_devices(_gradients(arrays, batch, basis, moving, is_projected), mesh)

        return _scanned(gradients, arrays, moments, rates, order)

    kept = (ARRAYS, {name: WHOLE if name == "trunk" else VOXELS for name in moments})
    specs = (*kept, kept[1], IMAGES, WHOLE, PartitionSpec(None, sharding.DATA))
    divided = sharding.mapped(on_device, mesh, specs, kept)
    return divided(arrays, moments, rates, images, basis, order)


def _scanned(
    gradients_of: Callable[[Arrays, Array], Arrays], arrays: Arrays, moments: Arrays, rates: Arrays, order: Array
) -> tuple[Arrays, Arrays]:
    adam = optax.scale_by_adam()

    def step(carry: tuple[Arrays, Arrays], rows: Array) -> tuple[tuple[Arrays, Arrays], None]:
        arrays, moments = carry
        gradients = gradients_of(arrays, rows)
        trunk = gradients.pop("trunk", None)
        updates, voxel_moments = jax.vmap(lambda g, m: adam.update(g, m))(gradients, moments["voxels"])
        moved = {name: arrays[name] for name in gradients}
        new = jax.tree.map(lambda x, u: x - per_voxel(rates["voxels"], u) * u, moved, updates)
        out = {"voxels": voxel_moments}
        if trunk is not None:
            update, out["trunk"] = adam.update(trunk, moments["trunk"])
            new["trunk"] = jax.tree.map(lambda x, u: x - rates["trunk"] * u, arrays["trunk"], update)
        return (arrays | new, out), None

    return jax.lax.scan(step, (arrays, moments), order)[0]


def _without_broken(arrays: Arrays, batch: Batch, running: Array) -> tuple[Arrays, Batch]:
    """Puts zeros in place of voxels that have no part in a shared trunk: their gradients are exactly 0.

    The trunk's gradient is a sum over voxels, and masking it would come too late: 0 x NaN is not 0.
    """
    voxels = of_voxels(arrays)
    sound = running & bounded(voxels, limit=LARGEST["shared"])
    voxels = picked(sound, voxels, jax.tree.map(jnp.zeros_like, voxels))
    return arrays | voxels, batch._replace(responses=jnp.where(sound[None], batch.responses, 0.0))


def _over_devices(gradients: Arrays, mesh: Mesh | None) -> Arrays:
    """Averages over equal parts of a batch; the trunk's gradient is a sum over voxels besides."""
    n = sharding.n_shards(mesh, sharding.DATA)
    if n > 1:
        gradients = sharding.summed(jax.tree.map(lambda g: g / n, gradients), mesh, sharding.DATA)
    if "trunk" in gradients:
        gradients["trunk"] = sharding.summed(gradients["trunk"], mesh, sharding.VOXEL)
    return gradients


def _gradients(arrays: Arrays, batch: Batch, basis: Array, moving: tuple[str, ...], is_projected: bool) -> Arrays:
    position, functions = position_term(arrays, basis)
    parameters = (scaled_query(arrays), position, arrays["readout"], arrays["intercept"])
    with_readout = "readout" in moving
    if "trunk" in moving:
        _, gradients = mine_kernels.voxel_attention_trunk_gradients(
            *parameters,
            arrays["trunk"],
            batch.tokens,
            batch.responses,
            batch.mask,
            functions,
            with_readout=with_readout,
        )
    else:
        keys, values = keys_and_values(arrays, batch.tokens, is_projected=is_projected)
        values = keys if values is None else values
        _, gradients = mine_kernels.voxel_attention_gradients(
            *parameters,
            keys,
            values,
            batch.responses,
            batch.mask,
            functions,
            with_trunk=False,
            with_readout=with_readout,
        )
    gradients["query"] = gradients["query"] / np.sqrt(arrays["query"].shape[-1])
    out = {name: gradients[name] for name in moving if name != "trunk"}
    if "trunk" in moving:
        out["trunk"] = {name: gradients[name] for name in arrays["trunk"]}
    return out
