"""The training loop of query encoders: Adam on what moves, closed-form readouts between epochs.

Nothing couples voxels but a shared trunk: the loss is a sum over voxels, and each voxel has its
own optimiser state, learning rate, best epoch, early stopping and divergence. A shared trunk has a
learning rate of its own, and a voxel that breaks has no part in it.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from mine_jax import sharding
from mine_jax._progress import Progress
from mine_jax.config import QueryConfig
from mine_jax.encoder.query import model, readout
from mine_jax.encoder.query.images import IMAGE_CHUNK, Examples
from mine_jax.encoder.query.stopping import Record
from mine_jax.errors import ConfigError

_PER_VOXEL = ("query", "position", "readout", "intercept")
# Where arrays are: divided with their voxels, or whole on every device.
_VOXELS, _WHOLE = PartitionSpec(sharding.VOXEL), PartitionSpec()
_STATE = {"trunk": _WHOLE} | dict.fromkeys(_PER_VOXEL, _VOXELS)
_SUMS = dict.fromkeys(("gram", "cross", "total", "y_total", "y_square"), _VOXELS) | {"count": _WHOLE}
_RESPONSES = PartitionSpec(None, sharding.VOXEL)
# A voxel with larger parameters or responses is broken. Voxels that share a trunk are so long before they overflow:
# their part of its gradient, and Adam's square of that, must stay float32 numbers. Responses are z-scored.
_LARGEST = {"fixed": float(np.finfo(np.float32).max), "shared": 1e4}


def train(
    trunk: dict[str, Any],
    examples: Examples,
    validation: Examples,
    basis: np.ndarray,
    voxel_ids: np.ndarray,
    *,
    key: jax.Array,
    config: QueryConfig,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, Any], np.ndarray]:
    """Fits all voxels given, with early stopping per voxel, and refits the readouts on everything.

    A voxel whose numbers stop being finite, or whose validation error explodes, starts again from
    its best epoch at half its learning rate, `config.restarts` times at most; then it has diverged.
    A shared trunk that breaks starts again in the same way, and all its voxels with it; after as many
    times the fit ends with the best epoch, and says so in the log.

    Args:
        trunk: arrays of the projection; returned changed only when it is shared.
        examples: training images; their mesh divides the work.
        validation: images for early stopping; the final readouts use them too.
        basis: [C, J] functions of the position term.
        voxel_ids: [V] int64; start values depend on the id, not on the position.
        key: random key.
        config: settings.
        progress: called after each epoch.

    Returns:
        The trunk, the per-voxel parameters (`query` unscaled), and diverged [V] bool, on the host.

    Raises:
        ConfigError: if devices cannot divide a batch equally.
    """
    n_voxels, mesh, limit = len(voxel_ids), examples.mesh, _LARGEST[config.trunk]
    n_images, n_columns = examples.responses.shape
    # whole batches only: the images left out differ in every epoch
    batch = min(config.batch_size, n_images)
    _check_batch(batch, mesh)
    # more columns than voxels where devices divide them: zero responses have zero readouts and move nothing
    n_more = n_columns - n_voxels
    state = _start(trunk, basis, np.pad(voxel_ids, (0, n_more), mode="edge"), key, config)
    moving = ("query",) + ("position",) * (basis.shape[1] > 0) + ("readout", "intercept") * (config.solver == "adam")
    moving += ("trunk",) * (config.trunk == "shared")
    fresh = moments = _placed(_moments(state, moving, config), mesh)
    state = _placed(state, mesh)
    best, record = dict(state), Record(n_voxels, config)
    y = sharding.host(validation.responses)[:, :n_voxels].astype(np.float64)
    sound = sharding.host(_bounded([examples.responses], limit=limit, axis=1))[:n_voxels]
    for epoch in range(config.epochs + 1):
        if config.solver == "varpro" or epoch == 0:
            state = _solved(state, [examples], basis)
        finite = sharding.host(_bounded(_voxels(state), limit=limit))[:n_voxels]
        changes = record.update(_validation_r2(state, validation, y, basis), finite & sound)
        best = _keep(best, state, np.pad(changes.improved, (0, n_more)))
        if changes.restart.any():
            restart = np.pad(changes.restart, (0, n_more), constant_values=changes.restart_trunk)
            state, moments = _restarted(state, best, moments, fresh, restart, with_trunk=changes.restart_trunk)
        progress(epoch + 1, config.epochs + 1)
        if epoch == config.epochs or record.finished:
            break
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), n_images))
        order = order[: n_images // batch * batch].reshape(-1, batch)
        rates: dict[str, Any] = {"voxels": np.pad(record.rate, (0, n_more)).astype(np.float32)}
        rates |= {"trunk": np.float32(record.trunk_rate)} if "trunk" in moving else {}
        state, moments = _epoch(state, moments, rates, examples, basis, order, config=config, moving=moving)
    if config.solver == "varpro":
        best = _solved(best, [examples, validation], basis)
    diverged = record.diverged | ~sharding.host(_bounded(_voxels(best), limit=limit))[:n_voxels]
    parameters = {name: sharding.host(value)[:n_voxels] for name, value in _parameters(best, basis).items()}
    return jax.tree.map(sharding.host, best["trunk"]), parameters, diverged


def _start(trunk, basis, voxel_ids, key, config: QueryConfig) -> dict[str, Any]:
    width = trunk["key_bias"].shape[1]
    n_voxels = len(voxel_ids)
    query = jnp.zeros((n_voxels, config.heads, width))
    if config.heads > 1:
        # heads that start equal stay equal
        keys = jax.vmap(lambda voxel: jax.random.fold_in(key, voxel))(jnp.asarray(voxel_ids, jnp.uint32))
        query = 0.3 * jax.vmap(lambda k: jax.random.normal(k, (config.heads, width)))(keys)
    return {
        "trunk": jax.tree.map(jnp.asarray, trunk),
        "query": query,
        "position": jnp.zeros((n_voxels, config.heads, basis.shape[1])),
        "readout": jnp.zeros((n_voxels, config.heads, width)),
        "intercept": jnp.zeros(n_voxels),
    }


def _check_batch(batch: int, mesh: Mesh | None) -> None:
    n = sharding.n_shards(mesh, sharding.DATA)
    if batch % n:
        raise ConfigError(
            f"run.mesh: data = {n} must divide the batches of {batch} images "
            "(encoder.batch_size, or the number of training images if that is smaller)."
        )


def _placed(tree, mesh: Mesh | None):
    """Puts a state, or Adam's, on the devices."""
    if mesh is None:
        return tree

    def put(path, array):
        axes = () if path[0].key == "trunk" else (sharding.VOXEL,)
        return sharding.placed(array, mesh, *axes)

    return jax.tree_util.tree_map_with_path(put, tree)


def _scaled(state) -> jax.Array:
    return state["query"] / np.sqrt(state["query"].shape[-1])


@functools.partial(jax.jit, static_argnames=("limit", "axis"))
def _bounded(tree, *, limit: float, axis: int = 0):
    """Returns for which voxels, an axis of all arrays of a tree, all numbers are finite and within the limit."""

    def bounded(x):
        return (jnp.abs(x) <= limit).all(tuple(other for other in range(x.ndim) if other != axis))

    return jnp.stack([bounded(x) for x in jax.tree.leaves(tree)]).all(0)


def _voxels(state) -> dict[str, Any]:
    return {name: state[name] for name in _PER_VOXEL}


def _solved(state, splits: list[Examples], basis):
    position = state["position"] @ basis.T
    sums, mesh = None, splits[0].mesh
    for examples in splits:
        for tokens, mask, responses in examples.in_order():
            options = {"is_projected": examples.is_projected, "mesh": mesh}
            sums = jax.block_until_ready(_added(sums, state, position, tokens, mask, responses, **options))
    solved, intercept = _finished(sums, heads=state["query"].shape[1], mesh=mesh)
    return state | {"readout": solved, "intercept": intercept}


@functools.partial(jax.jit, static_argnames=("is_projected", "mesh"))
def _added(sums, state, position, tokens, mask, responses, *, is_projected, mesh=None):
    """Adds images to the sums of all voxels; devices of `data` have each their part of the images."""
    is_divided = sharding.n_shards(mesh, sharding.DATA) > 1

    def on_device(sums, state, position, *images):
        (tokens, mask, responses), weights = sharding.own_images(images, mesh)
        given = (_scaled(state), position, *_keys(state, tokens, is_projected))
        sums = _more(None if is_divided else sums, given, responses, weights, mask)
        return sharding.summed(sums, mesh, sharding.DATA)

    specs = (None if sums is None else _SUMS, _STATE, _VOXELS, _WHOLE, _WHOLE, _RESPONSES)
    made = sharding.mapped(on_device, mesh, specs, _SUMS)(sums, state, position, tokens, mask, responses)
    return jax.tree.map(jnp.add, sums, made) if is_divided and sums is not None else made


def _more(sums, given, responses, weights, mask):
    query, position, keys, values = given
    return readout.add(sums, query, position, keys, responses, weights, mask, values, image_chunk=IMAGE_CHUNK)


def _finished(sums, *, heads, mesh=None):
    """Solves the readouts; of CPUs, one device of each process does it for all."""
    if mesh is None or mesh.devices.flat[0].platform != "cpu":
        return _finished_by_all(sums, heads=heads, mesh=mesh)
    # Batched LAPACK calls share the threads of the process: two devices at once wait for each other
    # for ever (jaxlib 0.10.1).
    alone = jax.tree.map(sharding.host, sums)
    return [sharding.placed(x, mesh, sharding.VOXEL) for x in readout.finish(alone, heads=heads)[:2]]


@functools.partial(jax.jit, static_argnames=("heads", "mesh"))
def _finished_by_all(sums, *, heads, mesh=None):
    """Solves the readouts; devices of `data` divide the voxels too, and hand the solutions round."""
    devices = PartitionSpec(sharding.DEVICES)
    specs = {name: _WHOLE if name == "count" else devices for name in sums}
    finish = functools.partial(readout.finish, heads=heads)
    return sharding.mapped(finish, mesh, (specs,), devices)(sums)[:2]


def _keys(state, tokens, is_projected):
    """Keys and values of tokens; values are None where they are the keys."""
    if is_projected:
        return tokens, None
    keys, values = model.project(state["trunk"], tokens)
    return keys, None if values is keys else values


def _validation_r2(state, validation: Examples, y, basis) -> np.ndarray:
    options = {"is_projected": validation.is_projected, "mesh": validation.mesh}
    predicted = [
        sharding.host(_predict(state, tokens, mask, basis, **options))[: len(tokens), : y.shape[1]].astype(np.float64)
        for tokens, mask, _ in validation.in_order()
    ]
    with np.errstate(over="ignore", invalid="ignore"):
        residual = ((np.concatenate(predicted) - y) ** 2).sum(0)
    spread = ((y - y.mean(0)) ** 2).sum(0)
    return 1 - residual / np.where(spread > 0, spread, np.inf)


@functools.partial(jax.jit, static_argnames=("is_projected", "mesh"))
def _predict(state, tokens, mask, basis, *, is_projected, mesh=None):
    """Predictions [N, V]; more rows than images where devices of `data` divide them."""

    def on_device(state, tokens, mask, basis):
        (tokens, mask), _ = sharding.own_images((tokens, mask), mesh)
        keys, values = _keys(state, tokens, is_projected)
        predicted = mine_kernels.voxel_attention(
            _scaled(state), *_position_and_readout(state), keys, keys if values is None else values, mask, _used(basis)
        )
        return predicted + state["intercept"][None]

    divided = sharding.mapped(
        on_device, mesh, (_STATE, _WHOLE, _WHOLE, _WHOLE), PartitionSpec(sharding.DATA, sharding.VOXEL)
    )
    return divided(state, tokens, mask, basis)


def _moments(state, moving, config: QueryConfig):
    """Adam's state: one for each voxel, and one for the trunk."""
    adam = optax.scale_by_adam()
    moments = {"voxels": jax.vmap(adam.init)({name: state[name] for name in moving if name != "trunk"})}
    return moments | ({"trunk": adam.init(state["trunk"])} if "trunk" in moving else {})


def _epoch(state, moments, rates, examples: Examples, basis, order, *, config: QueryConfig, moving):
    options = {"config": config, "moving": moving, "is_projected": examples.is_projected, "mesh": examples.mesh}
    if examples.block_images is None:
        resident = (examples.tokens, examples.mask, examples.responses)
        return _steps(state, moments, rates, *resident, basis, order, **options)
    n_batches, batch = order.shape
    at_once = max(1, examples.block_images // batch)
    parts = [order[a : a + at_once].reshape(-1) for a in range(0, n_batches, at_once)]
    for block in examples.staged(parts):
        rows = np.arange(len(block[0])).reshape(-1, batch)
        state, moments = jax.block_until_ready(_steps(state, moments, rates, *block, basis, rows, **options))
    return state, moments


@functools.partial(jax.jit, static_argnames=("config", "moving", "is_projected", "mesh"))
def _steps(state, moments, rates, tokens, mask, responses, basis, order, *, config, moving, is_projected, mesh=None):
    """One step of Adam on each batch of images, `order` [n, B]; devices of `data` have each their part of a batch."""

    def on_device(state, moments, rates, tokens, mask, responses, basis, order):
        def gradients(state, rows):
            batch = (tokens[rows], None if mask is None else mask[rows], responses[rows])
            if "trunk" in moving:
                state, batch = _without_broken(state, batch, rates["voxels"] > 0)
            return _over_devices(_gradients(state, *batch, basis, moving, is_projected), mesh)

        return _adam(gradients, state, moments, rates, order)

    kept = (_STATE, {name: _WHOLE if name == "trunk" else _VOXELS for name in moments})
    specs = (*kept, kept[1], _WHOLE, _WHOLE, _RESPONSES, _WHOLE, PartitionSpec(None, sharding.DATA))
    divided = sharding.mapped(on_device, mesh, specs, kept)
    return divided(state, moments, rates, tokens, mask, responses, basis, order)


def _without_broken(state, batch, running):
    """Puts zeros in place of voxels that have no part in a shared trunk: their gradients are exactly 0.

    The trunk's gradient is a sum over voxels, and masking it would come too late: 0 x NaN is not 0.
    """
    tokens, mask, responses = batch
    voxels = _voxels(state)
    sound = running & _bounded(voxels, limit=_LARGEST["shared"])
    voxels = _of_voxels(sound, voxels, jax.tree.map(jnp.zeros_like, voxels))
    return state | voxels, (tokens, mask, jnp.where(sound[None], responses, 0.0))


def _over_devices(gradients, mesh: Mesh | None):
    """Averages over equal parts of a batch; the trunk's gradient is a sum over voxels besides."""
    n = sharding.n_shards(mesh, sharding.DATA)
    if n > 1:
        gradients = sharding.summed(jax.tree.map(lambda g: g / n, gradients), mesh, sharding.DATA)
    if "trunk" in gradients:
        gradients["trunk"] = sharding.summed(gradients["trunk"], mesh, sharding.VOXEL)
    return gradients


def _adam(gradients_of, state, moments, rates, order):
    adam = optax.scale_by_adam()

    def step(carry, rows):
        state, moments = carry
        gradients = gradients_of(state, rows)
        trunk = gradients.pop("trunk", None)
        updates, voxel_moments = jax.vmap(lambda g, m: adam.update(g, m))(gradients, moments["voxels"])
        moved = {name: state[name] for name in gradients}
        new = jax.tree.map(lambda x, u: x - _per_voxel(rates["voxels"], u) * u, moved, updates)
        out = {"voxels": voxel_moments}
        if trunk is not None:
            update, out["trunk"] = adam.update(trunk, moments["trunk"])
            new["trunk"] = jax.tree.map(lambda x, u: x - rates["trunk"] * u, state["trunk"], update)
        return (state | new, out), None

    (state, moments), _ = jax.lax.scan(step, (state, moments), order)
    return state, moments


def _gradients(state, tokens, mask, responses, basis, moving, is_projected):
    given = (_scaled(state), *_position_and_readout(state), state["intercept"])
    basis = _used(basis)
    with_readout = "readout" in moving
    if "trunk" in moving:
        _, gradients = mine_kernels.voxel_attention_trunk_gradients(
            *given, state["trunk"], tokens, responses, mask, basis, with_readout=with_readout
        )
    else:
        keys, values = _keys(state, tokens, is_projected)
        values = keys if values is None else values
        _, gradients = mine_kernels.voxel_attention_gradients(
            *given, keys, values, responses, mask, basis, with_trunk=False, with_readout=with_readout
        )
    gradients["query"] = gradients["query"] / np.sqrt(state["query"].shape[-1])
    out = {name: gradients[name] for name in moving if name != "trunk"}
    if "trunk" in moving:
        out["trunk"] = {name: gradients[name] for name in state["trunk"]}
    return out


def _position_and_readout(state):
    position = state["position"]
    return position if position.shape[2] else None, state["readout"]


def _used(basis):
    """Returns the basis, or None when it has no functions: then there is no position term."""
    return basis if basis.shape[1] else None


def _per_voxel(values, like):
    """Reads [V] with as many axes as `like` has."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _restarted(state, best, moments, fresh, restart, *, with_trunk: bool):
    """Puts voxels back to their best epoch, with new moments; a trunk that broke goes back too."""
    state = state | _picked(restart, best, state)
    moments = moments | {"voxels": _of_voxels(restart, fresh["voxels"], moments["voxels"])}
    if with_trunk:
        state, moments = state | {"trunk": best["trunk"]}, moments | {"trunk": fresh["trunk"]}
    return state, moments


def _keep(best, state, improved):
    """Takes the state of improved voxels; the trunk only moves when it is shared, with all voxels."""
    return _picked(improved, state, best) | {"trunk": state["trunk"] if improved.any() else best["trunk"]}


def _picked(chosen: np.ndarray, new, old):
    """Returns the per-voxel arrays of the new state for chosen voxels [V], of the old one for others."""
    return _of_voxels(chosen, _voxels(new), _voxels(old))


@jax.jit
def _of_voxels(chosen, new, old):
    return jax.tree.map(lambda a, b: jnp.where(_per_voxel(chosen, b), a, b), new, old)


def _parameters(state, basis) -> dict[str, Any]:
    return {
        "query": state["query"],
        "position": state["position"] @ basis.T,
        "readout": state["readout"],
        "intercept": state["intercept"],
    }
