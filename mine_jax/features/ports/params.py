"""A flax module and a checkpoint directory -> its parameters, whole or sharded.

Modules are named after the keys of the checkpoint, so the map between the two is a rule:
`encoder/layers_0/mlp/fc1/kernel` is `encoder.layers.0.mlp.fc1.weight`, transposed.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mine_jax._random import normal
from mine_jax.features.ports.weights import Tensors

# (path of a parameter, its shape) -> axes of the mesh that divide it
Split = Callable[[str, tuple[int, ...]], PartitionSpec]


def load_params(
    model: nn.Module,
    directory: Path,
    *,
    unused: Collection[str] = (),
    rename: Mapping[str, str] | None = None,
    dtype: Any = jnp.float32,
    keep_float32: Callable[[str], bool] = lambda path: False,
    mesh: Mesh | None = None,
    split: Split = lambda path, shape: PartitionSpec(),
    extra: Mapping[str, tuple[int, ...]] | None = None,
) -> tuple[dict[str, Any], Tensors]:
    """Loads the parameters of a module whose method `everything` touches all of them.

    Tensors are read one at a time, and on a mesh only the slice that a device holds, so no
    second copy of the model is ever in memory.

    Args:
        model: the module.
        directory: the checkpoint.
        unused: see `Tensors`.
        rename: see `Tensors`.
        dtype: of the parameters.
        keep_float32: whether a parameter (by path) stays float32 whatever `dtype` is.
        mesh: the devices; None for the default device.
        split: how a mesh divides each parameter; every device holds all of it by default.
        extra: tensors (key -> shape) that must be there too, but are not loaded.

    Returns:
        Nested dictionary of arrays, and the reader of the checkpoint.

    Raises:
        WeightsError: for tensors that are missing, unexpected, misshapen, quantized or not finite.
    """
    flat = parameter_shapes(model)
    keys = {path: checkpoint_key(path) for path in flat}
    expected = {keys[path]: _torch_shape(path, leaf.shape) for path, leaf in flat.items()} | dict(extra or {})
    tensors = Tensors(directory, expected, unused=unused, rename=rename)
    arrays = {}
    for path, leaf in flat.items():
        kind = jnp.float32 if keep_float32(path) else dtype
        read = functools.partial(_read, tensors, keys[path], path, kind)
        if mesh is None:
            arrays[path] = jax.device_put(read((slice(None),) * leaf.ndim))
        else:
            sharding = NamedSharding(mesh, split(path, leaf.shape))
            arrays[path] = jax.make_array_from_callback(leaf.shape, sharding, read, dtype=kind)  # ty: ignore[invalid-argument-type]
    tensors.check_finite()
    return flax.traverse_util.unflatten_dict(arrays, sep="/"), tensors


def random_params(
    model: nn.Module, *, key: jax.Array, dtype: Any = jnp.float32, keep_float32: Callable[[str], bool]
) -> dict[str, Any]:
    """Makes parameters of the shapes of `load_params`, each on the default device and in its dtype.

    Kernels and tables have standard deviation 0.02, norms are at their initial values.
    """
    arrays = {}
    for number, (path, leaf) in enumerate(parameter_shapes(model).items()):
        kind = jnp.float32 if keep_float32(path) else dtype
        if path.endswith("/scale"):
            arrays[path] = jnp.ones(leaf.shape, kind)
        else:
            drawn = normal(jax.random.fold_in(key, number), leaf.shape)
            arrays[path] = _scaled(drawn, dtype=jnp.dtype(kind))
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


@functools.partial(jax.jit, static_argnames="dtype")
def _scaled(array: jax.Array, *, dtype: Any) -> jax.Array:
    return (0.02 * array).astype(dtype)


def parameter_shapes(model: nn.Module) -> Mapping[str, Any]:
    """Returns path -> shape and dtype of every parameter; nothing is allocated."""
    return _shapes(cast(Any, model))  # flax makes modules hashable, but does not say so


@functools.lru_cache(maxsize=64)
def _shapes(model: nn.Module) -> Mapping[str, Any]:
    shapes = jax.eval_shape(functools.partial(model.init, method="everything"), jax.random.key(0))["params"]
    return types.MappingProxyType(flax.traverse_util.flatten_dict(shapes, sep="/"))


def checkpoint_key(path: str) -> str:
    """Returns the key of a parameter in a checkpoint of transformers."""
    key = re.sub(r"(layers|blocks|block_list|mlp)_(\d+)", r"\1.\2", path).replace("/", ".")
    return re.sub(r"\.(kernel|scale|embedding)$", ".weight", key)


def _read(tensors: Tensors, key: str, path: str, dtype: Any, index: tuple[slice, ...]) -> np.ndarray:
    """Reads the slice `index` (axes of flax) of a parameter."""
    axes = _to_torch_axes(path, len(index))
    # slices as jax gives them may carry a step of None
    pieces = tuple(slice(index[axis].start, index[axis].stop) for axis in axes)
    tensor = tensors.read(key, pieces)
    return np.transpose(tensor, np.argsort(axes)).astype(dtype)


def _torch_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in _to_torch_axes(path, len(shape)))


def _to_torch_axes(path: str, n_axes: int) -> tuple[int, ...]:
    """Axes that turn a flax kernel [..., in, out] to torch's [out, in, ...]."""
    if not path.endswith("/kernel"):
        return tuple(range(n_axes))
    return (n_axes - 1, n_axes - 2, *range(n_axes - 2))
