"""The mesh of devices and what goes where on it.

A mesh has the axes `voxel` and `data`. Voxels are independent unless they share a trunk, so
they are divided twice: processes take shares of the voxels and meet only to exchange results
(`divided`), and within a process each device has its own voxels (`mapped` over `voxel`) or its
own images of each batch (over `data`). A frozen model runs on a mesh of its own (`model_mesh`),
with the axes `data` and `model`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mine_jax.errors import ConfigError
from mine_jax.sharding.processes import exchange, n_processes, process_id

VOXEL, DATA, MODEL = "voxel", "data", "model"
DEVICES = (VOXEL, DATA)
_T = TypeVar("_T")


def platform() -> str:
    """Returns "cpu", "gpu" or another kind of device."""
    return jax.default_backend()


def mesh(axes: Mapping[str, int] | None = None) -> Mesh | None:
    """Returns the mesh of all devices of all processes.

    Args:
        axes: sizes of `voxel` and `data`: `run.mesh`. `data` is 1 and `voxel` takes all devices
            where they are not given. A single process may leave devices unused. `model` is for `model_mesh`.

    Returns:
        Mesh [voxel, data]; None for one device, which needs none.

    Raises:
        ConfigError: for an unknown axis, or sizes that do not suit the devices.
    """
    axes = axes or {}
    unknown = sorted(set(axes) - {*DEVICES, MODEL})
    if unknown:
        raise ConfigError(f"run.mesh: unknown axis {unknown[0]!r}; the axes are {', '.join((*DEVICES, MODEL))}.")
    devices, data = jax.devices(), axes.get(DATA, 1)
    voxel = axes.get(VOXEL, max(1, len(devices) // data))
    n, n_local = voxel * data, jax.local_device_count()
    if n > len(devices) or (VOXEL not in axes and n != len(devices)):
        raise ConfigError(f"run.mesh asks for {voxel} x {data} devices (voxel x data), but there are {len(devices)}.")
    if n_processes() > 1 and (n != len(devices) or n_local % data):
        raise ConfigError(
            f"run.mesh = {voxel} x {data} (voxel x data) does not suit {n_processes()} processes of {n_local} devices: "
            f"it must use all {len(devices)}, and `data` must divide {n_local}, as batches stay in a process."
        )
    return None if n == 1 else Mesh(np.asarray(devices[:n]).reshape(voxel, data), DEVICES)


def local(mesh: Mesh | None) -> Mesh | None:
    """Returns the part of the mesh that belongs to this process; None for one device."""
    if mesh is None or not _is_of_several_processes(mesh):
        return mesh
    return None if mesh.local_mesh.size == 1 else mesh.local_mesh


def model_mesh(axes: Mapping[str, int]) -> Mesh | None:
    """Returns the mesh of a frozen model over the devices of this process.

    Args:
        axes: `run.mesh`: sizes of `model` (devices that share one copy of the weights; 1 if not given) and
            `data` (copies; as many as there are devices for). `voxel` is for `mesh`.

    Returns:
        Mesh [data, model]; None for one device, which needs none.

    Raises:
        ConfigError: if there are not so many devices, or they cannot be divided so.
    """
    devices, model = jax.local_devices(), axes.get(MODEL, 1)
    data = axes.get(DATA, len(devices) // model)
    if data < 1 or data * model > len(devices) or (DATA not in axes and len(devices) % model):
        raise ConfigError(
            f"`run.mesh` asks for {data} x {model} devices, but there are {len(devices)}; "
            "`model` must divide their number, and `data` x `model` not exceed it."
        )
    if data * model == 1:
        return None
    return Mesh(np.asarray(devices[: data * model]).reshape(data, model), (DATA, MODEL))


def n_shards(mesh: Mesh | None, *axes: str) -> int:
    """Returns the number of devices along some axes; 1 without a mesh."""
    return 1 if mesh is None else int(np.prod([mesh.shape[axis] for axis in axes]))


def padded(length: int, mesh: Mesh | None, *axes: str) -> int:
    """Returns the length rounded up to a multiple of the devices along some axes."""
    return -(-length // n_shards(mesh, *axes)) * n_shards(mesh, *axes)


def placed(array: Any, mesh: Mesh | None, *axes: Any) -> Any:
    """Puts an array on the devices.

    Args:
        array: the whole array, the same in every process; None stays None.
        mesh: the devices, or None for the default device.
        axes: for each dimension the axis of the mesh that divides it, or None; dimensions not
            named are copied to every device.

    Returns:
        The array, on its devices.
    """
    if array is None or mesh is None:
        return None if array is None else on_device(array)
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    whole = np.asarray(array)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def on_device(array: Any) -> jax.Array:
    """Puts an array on the default device.

    `jnp.asarray` compiles a program for each new shape instead.

    Args:
        array: on the host, or on the device already; the device may share the memory of the host, so whoever
            changes the array does so after the results were fetched.

    Returns:
        The array, in a dtype that devices have.
    """
    return array if isinstance(array, jax.Array) else jax.device_put(np.asarray(array))


def split_batch(array: Any, mesh: Mesh | None) -> Any:
    """Divides a batch [B, ...] over `data`; copies of its last row fill up what devices divide.

    Args:
        array: the batch, on the host or on devices.
        mesh: the devices, or None to leave the batch as it is.

    Returns:
        The array [>= B, ...].
    """
    if mesh is None:
        return array
    n_missing = padded(len(array), mesh, DATA) - len(array)
    if n_missing:
        stack = jnp.concatenate if isinstance(array, jax.Array) else np.concatenate
        array = stack([array, array[-1:].repeat(n_missing, 0)])
    return placed(array, mesh, DATA)


def whole(tree: Any, mesh: Mesh | None) -> Any:
    """Puts all arrays of a tree on every device; without a mesh, leaves them as they are."""
    return tree if mesh is None else jax.tree.map(lambda array: placed(array, mesh), tree)


def host(array: Any) -> np.ndarray:
    """Returns the whole array in every process; all of them must call it."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def mapped(function: Callable[..., Any], mesh: Mesh | None, in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """Returns a function whose work is divided over the mesh; without one, the function itself.

    Args:
        function: computes with the part of each array that one device has.
        mesh: the devices.
        in_specs: for each argument a `PartitionSpec`, or a tree of them.
        out_specs: the same for the results.

    Returns:
        A function of whole arrays; jit it.
    """
    if mesh is None:
        return function
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def summed(tree: Any, mesh: Mesh | None, *axes: str) -> Any:
    """Sums over devices along some axes, inside a `mapped` function; without a mesh, nothing."""
    return tree if n_shards(mesh, *axes) == 1 else jax.lax.psum(tree, axes)


def own_images(arrays: Any, mesh: Mesh | None) -> tuple[Any, jax.Array]:
    """Takes one device's part of arrays [N, ...] that each device has, inside a `mapped` function.

    Args:
        arrays: a tree of arrays with the same images.
        mesh: the devices; `data` divides the images.

    Returns:
        The tree of equal parts, in the order of the devices, and weights [n]: 0 for images that
        fill up the last part.
    """
    length, n = jax.tree.leaves(arrays)[0].shape[0], n_shards(mesh, DATA)
    if n == 1:
        return arrays, jnp.ones(length)
    size = -(-length // n)
    rows = jax.lax.axis_index(DATA) * size + jnp.arange(size)
    own = jnp.minimum(rows, length - 1)
    return jax.tree.map(lambda array: array[own], arrays), (rows < length).astype(jnp.float32)


def divided(compute: Callable[[np.ndarray], _T], n_voxels: int, mesh: Mesh | None) -> _T:
    """Lets each process of the mesh compute its share of the voxels, and gives every process all results.

    Args:
        compute: takes positions of voxels [v] and returns a tree of arrays [v, ...]; it must not
            depend on other voxels, nor wait for other processes.
        n_voxels: how many voxels there are, at least 1.
        mesh: all processes call this if their devices are in it.

    Returns:
        What `compute` returns for all voxels in their order; host arrays with several processes.
    """
    if mesh is None or not _is_of_several_processes(mesh):
        return compute(np.arange(n_voxels))
    count = n_processes()
    share = -(-n_voxels // count)
    # equal shares: the last voxel fills up the last one
    positions = np.minimum(np.arange(share) + process_id() * share, n_voxels - 1)
    made = jax.tree.map(np.asarray, compute(positions))
    exchange()  # device collectives wait for half a minute only
    return jax.tree.map(lambda part: _gathered(part)[:n_voxels], made)


def _is_of_several_processes(mesh: Mesh) -> bool:
    return n_processes() > 1 and len({device.process_index for device in mesh.devices.flat}) > 1


def _gathered(part: np.ndarray) -> np.ndarray:
    """Joins arrays [v, ...] of all processes along axis 0, as bytes, so that no dtype is converted."""
    as_bytes = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
    whole = np.asarray(multihost_utils.process_allgather(as_bytes))
    return np.ascontiguousarray(whole).view(part.dtype).reshape(-1, *part.shape[1:])
