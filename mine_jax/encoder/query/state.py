"""What a fit of query encoders is given, and where it stands between two epochs.

The arrays of a state are a dictionary: the `trunk`, and with leading axis V the `query` [V, H, E], the
weights of the position functions `position` [V, H, J], the `readout` [V, H, E] and the `intercept` [V].
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from mine_jax import sharding
from mine_jax.config import QueryConfig
from mine_jax.encoder.query import model
from mine_jax.encoder.query.images import Batch, Examples
from mine_jax.encoder.query.stopping import Record
from mine_jax.types import Array

Arrays = dict[str, Any]
PER_VOXEL = ("query", "position", "readout", "intercept")
# Where arrays are: divided with their voxels, or whole on every device.
VOXELS, WHOLE = PartitionSpec(sharding.VOXEL), PartitionSpec()
ARRAYS = {"trunk": WHOLE} | dict.fromkeys(PER_VOXEL, VOXELS)
RESPONSES = PartitionSpec(None, sharding.VOXEL)
IMAGES = Batch(WHOLE, WHOLE, RESPONSES, WHOLE)
# A voxel with larger parameters or responses is broken. Voxels that share a trunk are so long before they overflow:
# their part of its gradient, and Adam's square of that, must stay float32 numbers. Responses are z-scored.
LARGEST = {"fixed": float(np.finfo(np.float32).max), "shared": 1e4}


@dataclass(frozen=True)
class Problem:
    """What is fitted, and to what.

    Attributes:
        trunk: arrays of the projection.
        basis: [C, J] functions of the position term.
        training: training images; their mesh divides the work.
        validation: images for early stopping; the final readouts use them too.
        voxel_ids: [V] int; start values depend on the id, not on the position.
        config: settings.
        grids: what linear terms read of the images; None without them.
    """

    trunk: Arrays
    basis: np.ndarray
    training: Examples
    validation: Examples
    voxel_ids: np.ndarray
    config: QueryConfig
    grids: Any = None

    @property
    def mesh(self) -> Mesh | None:
        """Devices of this process; None for one."""
        return self.training.mesh

    @property
    def n_voxels(self) -> int:
        """V."""
        return len(self.voxel_ids)

    @property
    def measured(self) -> np.ndarray:
        """Validation responses [n, V] float64, on the host."""
        return sharding.host(self.validation.responses)[:, : self.n_voxels].astype(np.float64)

    @property
    def batch_size(self) -> int:
        """Images of a batch: all batches are whole, and the images left out differ in every epoch."""
        return min(self.config.batch_size, self.training.responses.shape[0])

    @property
    def moving(self) -> tuple[str, ...]:
        """Names of the arrays that Adam moves."""
        moving = ("query",) + ("position",) * (self.basis.shape[1] > 0)
        moving += ("readout", "intercept") * (self.config.solver == "adam")
        return moving + ("trunk",) * (self.config.trunk == "shared")

    def padded(self, values: np.ndarray, **options: Any) -> np.ndarray:
        """Fills [V] up to the columns that devices divide: zero responses have zero readouts and move nothing."""
        return np.pad(values, (0, self.training.responses.shape[1] - self.n_voxels), **options)

    def take(self, voxels: np.ndarray) -> Problem:
        """Returns the problem of some voxels, positions [v], with the same images."""
        training, validation = (
            examples.with_responses(sharding.host(examples.responses)[:, voxels])
            for examples in (self.training, self.validation)
        )
        return replace(self, training=training, validation=validation, voxel_ids=self.voxel_ids[voxels])


class State(NamedTuple):
    """Where a fit stands.

    Attributes:
        arrays: trunk and voxels, as the module says.
        moments: Adam's, of `voxels` and of a shared `trunk`.
        fresh: the moments of the start, for voxels that start again.
        best: the arrays of each voxel's best epoch.
        record: who improved, starts again or has stopped; one object for all states of a fit.
    """

    arrays: Arrays
    moments: Arrays
    fresh: Arrays
    best: Arrays
    record: Record

    def take(self, voxels: np.ndarray, problem: Problem) -> State:
        """Returns where some voxels stand, positions [v], for the problem of them."""
        rows = problem.padded(voxels, mode="edge")

        def of(path: Any, array: Array) -> Any:
            return array if path[0].key == "trunk" else sharding.host(array)[rows]

        trees = (jax.tree_util.tree_map_with_path(of, tree) for tree in self[:-1])
        return State(*(placed(tree, problem.mesh) for tree in trees), self.record.take(voxels))

    def put(self, voxels: np.ndarray, part: State, mesh: Mesh | None) -> State:
        """Puts the best epochs of some voxels, positions [v], in their place."""
        self.record.put(voxels, part.record)
        best = {name: np.array(sharding.host(value)) for name, value in of_voxels(self.best).items()}
        for name, value in best.items():
            value[voxels] = sharding.host(part.best[name])[: len(voxels)]
        return self._replace(best=placed(self.best | best, mesh))


def start(trunk: Arrays, basis: np.ndarray, voxel_ids: np.ndarray, key: jax.Array, config: QueryConfig) -> Arrays:
    """Returns the arrays of a state before the first epoch."""
    width = trunk["key_bias"].shape[1]
    n_voxels = len(voxel_ids)
    zeros = functools.partial(np.zeros, dtype=np.float32)
    query = zeros((n_voxels, config.heads, width))
    if config.heads > 1:
        # heads that start equal stay equal
        keys = jax.vmap(lambda voxel: jax.random.fold_in(key, voxel))(voxel_ids.astype(np.uint32))
        query = 0.3 * jax.vmap(lambda k: jax.random.normal(k, (config.heads, width)))(keys)
    arrays = {
        "trunk": trunk,
        "query": query,
        "position": zeros((n_voxels, config.heads, basis.shape[1])),
        "readout": zeros((n_voxels, config.heads, width)),
        "intercept": zeros(n_voxels),
    }
    return jax.tree.map(sharding.on_device, arrays)


def placed(tree: Arrays, mesh: Mesh | None) -> Arrays:
    """Puts arrays of a state, or Adam's moments, on the devices."""
    if mesh is None:
        return tree

    def put(path: Any, array: Array) -> Any:
        axes = () if path[0].key == "trunk" else (sharding.VOXEL,)
        return sharding.placed(array, mesh, *axes)

    return jax.tree_util.tree_map_with_path(put, tree)


@functools.partial(jax.jit, static_argnames=("limit", "axis"))
def bounded(tree: Any, *, limit: float, axis: int = 0) -> jax.Array:
    """Returns for which voxels, an axis of all arrays of a tree, all numbers are finite and within the limit."""

    def is_bounded(x: Array) -> jax.Array:
        return (jnp.abs(x) <= limit).all(tuple(other for other in range(x.ndim) if other != axis))

    return jnp.stack([is_bounded(x) for x in jax.tree.leaves(tree)]).all(0)


def of_voxels(arrays: Arrays) -> Arrays:
    """Returns the arrays with a voxel axis."""
    return {name: arrays[name] for name in PER_VOXEL}


@jax.jit
def picked(chosen: Array, new: Any, old: Any) -> Any:
    """Returns a tree [V, ...] with the new numbers of chosen voxels [V] and the old ones of others."""
    return jax.tree.map(lambda a, b: jnp.where(per_voxel(chosen, b), a, b), new, old)


def per_voxel(values: Array, like: Array) -> Array:
    """Reads [V] with as many axes as `like` has."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def kept(best: Arrays, arrays: Arrays, improved: np.ndarray) -> Arrays:
    """Takes the arrays of improved voxels; the trunk only moves when it is shared, with all voxels."""
    trunk = arrays["trunk"] if improved.any() else best["trunk"]
    return picked(improved, of_voxels(arrays), of_voxels(best)) | {"trunk": trunk}


def restarted(state: State, restart: np.ndarray, *, with_trunk: bool) -> State:
    """Puts voxels back to their best epoch, with new moments; a trunk that broke goes back too."""
    arrays = state.arrays | picked(restart, of_voxels(state.best), of_voxels(state.arrays))
    moments = state.moments | {"voxels": picked(restart, state.fresh["voxels"], state.moments["voxels"])}
    if with_trunk:
        arrays, moments = arrays | {"trunk": state.best["trunk"]}, moments | {"trunk": state.fresh["trunk"]}
    return state._replace(arrays=arrays, moments=moments)


def scaled_query(arrays: Arrays) -> jax.Array:
    """Returns queries [V, H, E] over the square root of their width."""
    return arrays["query"] / np.sqrt(arrays["query"].shape[-1])


def position_term(arrays: Arrays, basis: Array) -> tuple[Array | None, Array | None]:
    """Returns weights [V, H, J] and functions [C, J] of the position term; None twice where there is none."""
    position = arrays["position"]
    return position if position.shape[2] else None, basis if basis.shape[1] else None


def keys_and_values(arrays: Arrays, tokens: Array, *, is_projected: bool) -> tuple[Array, Array | None]:
    """Returns keys and values of tokens; values are None where they are the keys."""
    if is_projected:
        return tokens, None
    keys, values = model.project(arrays["trunk"], tokens)
    return keys, None if values is keys else values
