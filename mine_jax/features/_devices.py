"""Which devices a frozen model runs on: a mesh with the axes `data` and `model`.

Batches are split over `data`; weights are copied along it, and split over `model` by the
families that can.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mine_jax.errors import ConfigError
from mine_jax.types import Array


def model_mesh(axes: Mapping[str, int]) -> Mesh | None:
    """Returns the mesh of a frozen model over the devices of this process.

    Args:
        axes: sizes of `model` (devices that share one copy of the weights; 1 if not given) and
            `data` (copies; as many as there are devices for). Other axes are for other stages.

    Returns:
        Mesh of shape [data, model]; None for a single device, which needs none.

    Raises:
        ConfigError: if there are not so many devices, or they cannot be divided so.
    """
    devices, model = jax.local_devices(), axes.get("model", 1)
    data = axes.get("data", len(devices) // model)
    if data < 1 or data * model > len(devices) or ("data" not in axes and len(devices) % model):
        raise ConfigError(
            f"`run.mesh` asks for {data} x {model} devices, but there are {len(devices)}; "
            "`model` must divide their number, and `data` x `model` not exceed it."
        )
    if data * model == 1:
        return None
    return Mesh(np.asarray(devices[: data * model]).reshape(data, model), ("data", "model"))


def replicated(mesh: Mesh | None) -> Any:
    """Returns the placement of weights that every device holds; None without a mesh."""
    return None if mesh is None else lambda path, shape: NamedSharding(mesh, PartitionSpec())


def split_batch(array: Array, mesh: Mesh | None) -> tuple[Array, int]:
    """Splits a batch [B, ...] over the `data` axis of the mesh.

    The batch is padded with copies of its last row to a multiple of the devices.

    Returns:
        The placed array [>= B, ...], and B.
    """
    n_rows = array.shape[0]
    if mesh is None:
        return array, n_rows
    n_missing = -n_rows % mesh.shape["data"]
    if n_missing:
        stack = jnp.concatenate if isinstance(array, jax.Array) else np.concatenate
        array = stack([array, array[-1:].repeat(n_missing, 0)])
    return jax.device_put(array, _batch_sharding(mesh)), n_rows


@functools.cache
def _batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec("data"))
