"""The training loop of query encoders: Adam on what moves, closed-form readouts between epochs.

Nothing couples voxels but a shared trunk: the loss is a sum over voxels, and each voxel has its
own optimiser state, learning rate, best epoch, early stopping and divergence. A shared trunk has a
learning rate of its own, and a voxel that breaks has no part in it.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import mine_kernels
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from mine_jax import sharding
from mine_jax._progress import Progress
from mine_jax._random import permutation
from mine_jax.encoder.linear import choose
from mine_jax.encoder.query import adam, solving
from mine_jax.encoder.query.images import Batch, Examples
from mine_jax.encoder.query.state import (
    ARRAYS,
    LARGEST,
    WHOLE,
    Arrays,
    Problem,
    State,
    bounded,
    kept,
    keys_and_values,
    of_voxels,
    placed,
    position_term,
    restarted,
    scaled_query,
    start,
)
from mine_jax.encoder.query.stopping import Record
from mine_jax.errors import ConfigError
from mine_jax.types import Array

# Products (queries by keys) that must be saved for new programs, which take seconds to compile, to pay off.
_WORTH, _WORTH_ELSEWHERE = {"cpu": 4e9}, 2e13


class Trained(NamedTuple):
    """Fitted voxels, on the host.

    Attributes:
        trunk: arrays of the projection; changed only when it is shared.
        per_voxel: `query` [V, H, E] unscaled, `position` [V, H, C], `readout` [V, H, E], `intercept` [V], and
            with linear terms `linear` [V, R], zeros for a voxel that has none.
        diverged: [V] bool.
        selection_r2: [V] float32, validation R2 of the best epoch, or with the linear term that it asked for.
    """

    trunk: Arrays
    per_voxel: Arrays
    diverged: np.ndarray
    selection_r2: np.ndarray


def train(problem: Problem, *, key: jax.Array, progress: Progress) -> Trained:
    """Fits all voxels given, with early stopping per voxel, and refits the readouts on everything.

    A voxel whose numbers stop being finite, or whose validation error explodes, starts again from
    its best epoch at half its learning rate, `config.restarts` times at most; then it has diverged.
    A shared trunk that breaks starts again in the same way, and all its voxels with it; after as many
    times the fit ends with the best epoch, and says so in the log.

    Args:
        problem: what is fitted, V voxels.
        key: random key.
        progress: called after each epoch.

    Returns:
        Trunk, parameters [V, ...] and who has diverged [V].

    Raises:
        ConfigError: if devices cannot divide a batch equally.
    """
    state = solve_readouts(init_fit(problem, key=key), problem)
    state = _judged(state, problem, problem.measured, _sound(problem))
    progress(1, problem.config.epochs + 1)
    return _finished(_trained(state, problem, 0, key, progress), problem, problem.measured)


def _trained(state: State, problem: Problem, epoch: int, key: jax.Array, progress: Progress) -> State:
    """Trains from an epoch on; where few voxels are left, they go on by themselves."""
    n_epochs, measured, sound = problem.config.epochs, problem.measured, _sound(problem)
    while epoch < n_epochs and not state.record.finished:
        left = _left(state.record, problem, n_epochs - epoch)
        if left is not None:
            part = problem.take(left)
            rest = _trained(state.take(left, part), part, epoch, key, progress)
            return state.put(left, rest, problem.mesh)
        state = _epoch(state, problem, batches(problem, epoch, key=key))
        if problem.config.solver == "varpro":
            state = solve_readouts(state, problem)
        state = _judged(state, problem, measured, sound)
        epoch += 1
        progress(epoch + 1, n_epochs + 1)
    return state


def _left(record: Record, problem: Problem, n_epochs: int) -> np.ndarray | None:
    """Positions of the voxels to go on with, if leaving out the others for so many epochs pays off.

    Of V voxels it is a half, a quarter, ... so that chunks of voxels share their programs; some that have
    stopped fill them up.
    """
    if problem.config.trunk == "shared":
        return None
    n_voxels, running = problem.n_voxels, record.running
    size = n_voxels
    while size > 1 and -(-size // 2) >= running.sum():
        size = -(-size // 2)
    n_images, n_cells, *width = problem.training.tokens.shape
    products = n_images * n_cells * width[-1] * problem.config.heads * n_epochs
    if size == n_voxels or (n_voxels - size) * products < _WORTH.get(sharding.platform(), _WORTH_ELSEWHERE):
        return None
    return np.sort(np.argsort(~running, kind="stable")[:size])


def init_fit(problem: Problem, *, key: jax.Array) -> State:
    """Starts a fit.

    Args:
        problem: what is fitted, V voxels.
        key: random key; a voxel's start depends on it and on the voxel's id.

    Returns:
        The state before the first epoch; its readouts [V, H, E] are zeros.

    Raises:
        ConfigError: if devices cannot divide a batch equally.
    """
    check_batch(problem.batch_size, problem.mesh)
    voxel_ids = problem.padded(problem.voxel_ids, mode="edge")
    arrays = start(problem.trunk, problem.basis, voxel_ids, key, problem.config)
    moments = placed(adam.first_moments(arrays, problem.moving), problem.mesh)
    arrays = placed(arrays, problem.mesh)
    return State(arrays, moments, moments, dict(arrays), Record(problem.n_voxels, problem.config))


def solve_readouts(state: State, problem: Problem) -> State:
    """Puts the best readouts for the queries of a state in their place.

    Args:
        state: where the fit stands.
        problem: what is fitted; its training images [N] are used.

    Returns:
        The state with ridge solutions [V, H, E] of its attended tokens, penalties by cross-validation.
    """
    return state._replace(arrays=solving.solved(state.arrays, [problem.training], problem.basis))


def batches(problem: Problem, epoch: int, *, key: jax.Array) -> np.ndarray:
    """Draws the batches of one epoch.

    Args:
        problem: what is fitted.
        epoch: from 0.
        key: random key of the fit.

    Returns:
        Positions of training images [n, B]; those that fill no batch are left out.
    """
    n_images, size = problem.training.responses.shape[0], problem.batch_size
    order = permutation(jax.random.fold_in(key, epoch), n_images)
    return order[: n_images // size * size].reshape(-1, size)


def fit_step(state: State, batch: Batch, problem: Problem) -> State:
    """Takes one step of Adam: the inside of an epoch, for those who own the loop.

    Args:
        state: where the fit stands.
        batch: images [B, ...] with the responses [B, V] of all voxels, as of `problem.training.batch`.
        problem: what is fitted.

    Returns:
        The state with moved arrays and moments; voxels and trunk at the learning rates of its record.
    """
    rows = np.arange(batch.responses.shape[0])[None]
    return _stepped(state, problem, batch, rows)


def check_batch(batch: int, mesh: Mesh | None) -> None:
    """Checks that devices can divide a batch.

    Args:
        batch: images.
        mesh: devices; `data` divides a batch.

    Raises:
        ConfigError: if they cannot.
    """
    n = sharding.n_shards(mesh, sharding.DATA)
    if batch % n:
        raise ConfigError(
            f"run.mesh: data = {n} must divide the batches of {batch} images "
            "(encoder.batch_size, or the number of training images if that is smaller)."
        )


def _epoch(state: State, problem: Problem, order: np.ndarray) -> State:
    """Takes a step on each batch, `order` [n, B]; streamed images are staged some batches at a time."""
    examples = problem.training
    if examples.block_images is None:
        return _stepped(state, problem, Batch(examples.tokens, examples.mask, examples.responses), order)
    n_batches, size = order.shape
    at_once = max(1, examples.block_images // size)
    parts = [order[a : a + at_once].reshape(-1) for a in range(0, n_batches, at_once)]
    for block in examples.staged(parts):
        rows = np.arange(len(block.tokens)).reshape(-1, size)
        state = _stepped(state, problem, block, rows)
        jax.block_until_ready((state.arrays, state.moments))
    return state


def _stepped(state: State, problem: Problem, images: Batch, order: np.ndarray) -> State:
    rates: dict[str, Any] = {"voxels": problem.padded(state.record.rate).astype(np.float32)}
    rates |= {"trunk": np.float32(state.record.trunk_rate)} if "trunk" in problem.moving else {}
    options = {"moving": problem.moving, "is_projected": problem.training.is_projected, "mesh": problem.mesh}
    arrays, moments = adam.steps(state.arrays, state.moments, rates, images, problem.basis, order, **options)
    return state._replace(arrays=arrays, moments=moments)


def _judged(state: State, problem: Problem, measured: np.ndarray, sound: np.ndarray) -> State:
    """Compares with the measured validation responses [n, V]: keeps the best epochs, and puts back who failed."""
    finite = _bounded_voxels(of_voxels(state.arrays), problem)
    r2 = _validation_r2(state.arrays, problem.validation, measured, problem.basis)
    changes = state.record.update(r2, finite & sound)
    state = state._replace(best=kept(state.best, state.arrays, problem.padded(changes.improved)))
    if changes.restart.any():
        restart = problem.padded(changes.restart, constant_values=changes.restart_trunk)
        state = restarted(state, restart, with_trunk=changes.restart_trunk)
    return state


def _finished(state: State, problem: Problem, measured: np.ndarray) -> Trained:
    best, n_voxels, r2 = state.best, problem.n_voxels, state.record.best
    if problem.config.solver == "varpro":
        best = solving.solved(best, [problem.training, problem.validation], problem.basis)
    diverged = state.record.diverged | ~_bounded_voxels(of_voxels(best), problem)
    parameters = of_voxels(best) | {"position": best["position"] @ problem.basis.T}
    on_host = {name: sharding.host(value)[:n_voxels] for name, value in parameters.items()}
    if problem.grids is not None:
        on_host, r2 = _with_linear(state, problem, on_host, measured)
    return Trained(jax.tree.map(sharding.host, best["trunk"]), on_host, diverged, r2.astype(np.float32))


def _with_linear(
    state: State, problem: Problem, alone: dict[str, np.ndarray], measured: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Adds linear terms to fitted voxels, zeros to those that do better without; and validation R2 [V]."""
    found = choose.chosen(state.best, problem.training, problem.validation, problem.basis, problem.grids)
    readouts, intercept, linear, errors, kept = (part[: problem.n_voxels] for part in found)
    spread = ((measured - measured.mean(0)) ** 2).sum(0)
    r2 = 1 - errors / np.where(spread > 0, spread, np.inf)
    added = {
        "readout": np.where(kept[:, None, None], readouts.reshape(alone["readout"].shape), alone["readout"]),
        "intercept": np.where(kept, intercept, alone["intercept"]),
        "linear": np.where(kept[:, None], linear, 0).astype(np.float32),
    }
    return alone | added, np.where(kept, r2, state.record.best)


def _sound(problem: Problem) -> np.ndarray:
    return _bounded_voxels([problem.training.responses], problem, axis=1)


def _bounded_voxels(tree: Any, problem: Problem, *, axis: int = 0) -> np.ndarray:
    limit = LARGEST[problem.config.trunk]
    return sharding.host(bounded(tree, limit=limit, axis=axis))[: problem.n_voxels]


def _validation_r2(arrays: Arrays, validation: Examples, measured: np.ndarray, basis: np.ndarray) -> np.ndarray:
    options = {"is_projected": validation.is_projected, "mesh": validation.mesh}
    predicted = []
    for images in validation.in_order():
        block = sharding.host(predict_images(arrays, images.tokens, images.mask, basis, **options))
        predicted.append(block[: len(images.tokens), : measured.shape[1]].astype(np.float64))
    with np.errstate(over="ignore", invalid="ignore"):
        residual = ((np.concatenate(predicted) - measured) ** 2).sum(0)
    spread = ((measured - measured.mean(0)) ** 2).sum(0)
    return 1 - residual / np.where(spread > 0, spread, np.inf)


@functools.partial(jax.jit, static_argnames=("is_projected", "mesh"))
def predict_images(
    arrays: Arrays, tokens: Array, mask: Array | None, basis: Array, *, is_projected: bool, mesh: Mesh | None = None
) -> jax.Array:
    """Predicts [N, V] from the arrays of a `State`; more rows than images where devices of `data` divide them."""

    def on_device(arrays: Arrays, tokens: Array, mask: Array | None, basis: Array) -> jax.Array:
        (tokens, mask), _ = sharding.own_images((tokens, mask), mesh)
        keys, values = keys_and_values(arrays, tokens, is_projected=is_projected)
        position, functions = position_term(arrays, basis)
        values = keys if values is None else values
        predicted = mine_kernels.voxel_attention(
            scaled_query(arrays), position, arrays["readout"], keys, values, mask, functions
        )
        return predicted + arrays["intercept"][None]

    divided = sharding.mapped(
        on_device, mesh, (ARRAYS, WHOLE, WHOLE, WHOLE), PartitionSpec(sharding.DATA, sharding.VOXEL)
    )
    return divided(arrays, tokens, mask, basis)
