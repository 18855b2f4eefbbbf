"""Readouts in closed form on devices: sums over images, then one ridge regression per voxel."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from mine_jax import sharding
from mine_jax.encoder.query import readout
from mine_jax.encoder.query.images import IMAGE_CHUNK, Batch, Examples
from mine_jax.encoder.query.state import (
    ARRAYS,
    IMAGES,
    VOXELS,
    WHOLE,
    Arrays,
    keys_and_values,
    scaled_query,
)
from mine_jax.types import Array

_SUMS = dict.fromkeys(("gram", "cross", "total", "y_total", "y_square"), VOXELS) | {"count": WHOLE}
_LINEAR_SUMS = _SUMS | dict.fromkeys(("linear_cross", "linear_y"), VOXELS)


def solved(arrays: Arrays, splits: Sequence[Examples], basis: Array) -> Arrays:
    """Returns arrays of a `State` with the best readouts [V, H, E] and intercepts [V] for its queries."""
    sums = sums_of(arrays, splits, basis)
    readouts, intercept = _finished(sums, heads=arrays["query"].shape[1], mesh=splits[0].mesh)
    return arrays | {"readout": readouts, "intercept": intercept}


def sums_of(arrays: Arrays, splits: Sequence[Examples], basis: Array) -> Arrays:
    """Sums over the images of some splits what readouts are solved from."""
    position = arrays["position"] @ basis.T
    sums: Any = None
    for examples in splits:
        for images in examples.in_order():
            options = {"is_projected": examples.is_projected, "mesh": examples.mesh}
            sums = jax.block_until_ready(add_images(sums, arrays, position, images, **options))
    return sums


@functools.partial(jax.jit, static_argnames=("is_projected", "mesh"))
def add_images(
    sums: Arrays | None,
    arrays: Arrays,
    position: Array,
    images: Batch,
    *,
    is_projected: bool,
    mesh: Mesh | None = None,
) -> Arrays:
    """Adds images to the sums of all voxels; devices of `data` have each their part of the images."""
    is_divided = sharding.n_shards(mesh, sharding.DATA) > 1

    def on_device(sums: Arrays | None, arrays: Arrays, position: Array, images: Batch) -> Arrays:
        batch, weights = sharding.own_images(images, mesh)
        keys, values = keys_and_values(arrays, batch.tokens, is_projected=is_projected)
        sums = readout.add(
            None if is_divided else sums,
            scaled_query(arrays),
            position,
            keys,
            batch.responses,
            weights,
            batch.mask,
            values,
            batch.components,
            image_chunk=IMAGE_CHUNK,
        )
        return sharding.summed(sums, mesh, sharding.DATA)

    of_sums = _SUMS if images.components is None else _LINEAR_SUMS
    specs = (None if sums is None else of_sums, ARRAYS, VOXELS, IMAGES)
    added = sharding.mapped(on_device, mesh, specs, of_sums)(sums, arrays, position, images)
    return jax.tree.map(jnp.add, sums, added) if is_divided and sums is not None else added


def _finished(sums: Arrays, *, heads: int, mesh: Mesh | None = None) -> Sequence[Array]:
    """Solves the readouts; of CPUs, one device of each process does it for all."""
    if sharding.platform() != "cpu":
        return finished_by_all(sums, heads=heads, mesh=mesh)
    # Batched LAPACK calls share the threads of the process: two devices at once wait for each other
    # for ever (jaxlib 0.10.1).
    alone = sums if mesh is None else jax.tree.map(sharding.host, sums)
    with sharding.single_thread():
        solution = jax.block_until_ready(readout.finish(alone, heads=heads)[:2])
    return [sharding.placed(x, mesh, sharding.VOXEL) for x in solution]


@functools.partial(jax.jit, static_argnames=("heads", "mesh"))
def finished_by_all(sums: Arrays, *, heads: int, mesh: Mesh | None = None) -> Sequence[Array]:
    """Solves the readouts; devices of `data` divide the voxels too, and hand the solutions round."""
    devices = PartitionSpec(sharding.DEVICES)
    specs = {name: WHOLE if name == "count" else devices for name in sums}
    finish = functools.partial(readout.finish, heads=heads, method="cholesky")
    return sharding.mapped(finish, mesh, (specs,), devices)(sums)[:2]
