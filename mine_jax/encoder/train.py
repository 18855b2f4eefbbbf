"""The training loop of query encoders: Adam on what moves, closed-form readouts between epochs.

Nothing couples voxels but a shared trunk: the loss is a sum over voxels, Adam acts on
each number alone, best epoch, early stopping and divergence are kept per voxel.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
import optax

from mine_jax._progress import Progress
from mine_jax.config import EncoderConfig
from mine_jax.encoder import query as model
from mine_jax.encoder import readout

IMAGE_CHUNK = 128


@dataclass(frozen=True)
class Examples:
    """Cell states, or their keys when the trunk is fixed, and responses of one split.

    Attributes:
        states: [N, C, D] when the trunk is learned, else None.
        keys: [N, C, 1, E] when the trunk is fixed, else None.
        mask: [N, C] bool or None.
        responses: [N, V] float32, z-scored beta.
    """

    states: Any
    keys: Any
    mask: Any
    responses: Any


def train(
    trunk: dict[str, Any],
    examples: Examples,
    validation: Examples,
    basis: np.ndarray,
    voxel_ids: np.ndarray,
    *,
    key: jax.Array,
    config: EncoderConfig,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, Any], np.ndarray]:
    """Fits all voxels given, with early stopping per voxel, and refits the readouts on everything.

    Args:
        trunk: arrays of the projection; returned changed only when it is shared.
        examples: training images.
        validation: images for early stopping; the final readouts use them too.
        basis: [C, J] functions of the position term.
        voxel_ids: [V] int64; start values depend on the id, not on the position.
        key: random key.
        config: settings.
        progress: called after each epoch.

    Returns:
        The trunk, the per-voxel parameters (`query` unscaled), and diverged [V] bool.
    """
    state = _start(trunk, basis, voxel_ids, key, config)
    optimizer = optax.adam(config.learning_rate)
    moving = ["query", "position"] + ["readout", "intercept"] * (config.solver == "adam")
    moving += ["trunk"] * (config.trunk == "shared")
    moments = optimizer.init({name: state[name] for name in moving})
    best, record = dict(state), _Record(len(voxel_ids), config)
    n_images = examples.responses.shape[0]
    for epoch in range(config.epochs + 1):
        if config.solver == "varpro" or epoch == 0:
            state = _solved(state, examples, basis, jnp.ones(n_images))
        improved = record.update(
            _validation_r2(state, validation, basis), _finite(state), shared=config.trunk == "shared"
        )
        best = _keep(best, state, improved)
        progress(epoch + 1, config.epochs + 1)
        if epoch == config.epochs or record.finished:
            break
        order = jax.random.permutation(jax.random.fold_in(key, epoch), n_images)
        # whole batches only: the images left out differ in every epoch
        batch = min(config.batch_size, n_images)
        order = order[: n_images // batch * batch].reshape(-1, batch)
        state, moments = _epoch(state, moments, examples, basis, order, config=config, moving=tuple(moving))
    if config.solver == "varpro":
        best = _solved(best, _joined(examples, validation), basis, None)
    diverged = record.diverged | ~np.asarray(_finite(best))
    return best["trunk"], _parameters(best, basis), diverged


class _Record:
    """Best validation R2 of each voxel, epochs since, and who has stopped."""

    def __init__(self, n_voxels: int, config: EncoderConfig):
        self.best = np.full(n_voxels, -np.inf)
        self.since = np.zeros(n_voxels, int)
        self.diverged = np.zeros(n_voxels, bool)
        self.patience = config.patience

    @property
    def finished(self) -> bool:
        return bool(((self.since >= self.patience) | self.diverged).all())

    def update(self, r2: np.ndarray, finite: np.ndarray, *, shared: bool) -> np.ndarray:
        running = (self.since < self.patience) & ~self.diverged
        usable = np.asarray(finite) & np.isfinite(r2)
        self.diverged |= running & ~usable
        improved = running & usable & (r2 > self.best)
        if shared:
            # one trunk serves all voxels, so all keep the epoch that is best on average
            better = np.where(usable, r2, -1.0).mean() > np.where(np.isfinite(self.best), self.best, -1e9).mean()
            improved = usable & better
        self.best = np.where(improved, r2, self.best)
        self.since = np.where(improved, 0, self.since + 1)
        return improved


def _start(trunk, basis, voxel_ids, key, config: EncoderConfig) -> dict[str, Any]:
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


def _scaled(state) -> jax.Array:
    return state["query"] / np.sqrt(state["query"].shape[-1])


def _keys(state, examples: Examples, rows=slice(None)):
    if examples.keys is not None:
        return examples.keys[rows], examples.keys[rows]
    return model.project(state["trunk"], examples.states[rows])


@jax.jit
def _finite(state):
    per_voxel = [state[name] for name in ("query", "position", "readout", "intercept")]
    return jnp.stack([jnp.isfinite(x).reshape(len(x), -1).all(1) for x in per_voxel]).all(0)


def _solved(state, examples: Examples, basis, weights):
    if weights is None:
        weights = jnp.ones(examples.responses.shape[0])
    return _solved_jit(state, examples.keys, examples.states, examples.mask, examples.responses, basis, weights)


@jax.jit
def _solved_jit(state, keys, states, mask, responses, basis, weights):
    values = None
    if keys is None:
        keys, values = model.project(state["trunk"], states)
    position = state["position"] @ basis.T
    solved, intercept, _ = readout.solve(
        _scaled(state), position, keys, responses, weights, mask, values, image_chunk=IMAGE_CHUNK
    )
    return state | {"readout": solved, "intercept": intercept}


def _validation_r2(state, validation: Examples, basis) -> np.ndarray:
    predicted = _predict(state, validation.keys, validation.states, validation.mask, basis)
    y = np.asarray(validation.responses, np.float64)
    residual = ((np.asarray(predicted, np.float64) - y) ** 2).sum(0)
    spread = ((y - y.mean(0)) ** 2).sum(0)
    return 1 - residual / np.where(spread > 0, spread, np.inf)


@jax.jit
def _predict(state, keys, states, mask, basis):
    values = keys
    if keys is None:
        keys, values = model.project(state["trunk"], states)
    position = state["position"] @ basis.T
    predicted = mine_kernels.voxel_attention(_scaled(state), position, state["readout"], keys, values, mask)
    return predicted + state["intercept"][None]


@functools.partial(jax.jit, static_argnames=("config", "moving"))
def _epoch_jit(state, moments, keys, states, mask, responses, basis, order, *, config, moving):
    optimizer = optax.adam(config.learning_rate)

    def step(carry, rows):
        state, moments = carry
        batch = Examples(
            None if states is None else states[rows],
            None if keys is None else keys[rows],
            None if mask is None else mask[rows],
            responses[rows],
        )
        gradients = _gradients(state, batch, basis, moving)
        updates, moments = optimizer.update(gradients, moments)
        return (state | optax.apply_updates({name: state[name] for name in moving}, updates), moments), None

    (state, moments), _ = jax.lax.scan(step, (state, moments), order)
    return state, moments


def _epoch(state, moments, examples: Examples, basis, order, *, config, moving):
    e = examples
    return _epoch_jit(state, moments, e.keys, e.states, e.mask, e.responses, basis, order, config=config, moving=moving)


def _gradients(state, batch: Examples, basis, moving):
    with_trunk = "trunk" in moving
    if with_trunk:
        (keys, values), pull = jax.vjp(lambda trunk: model.project(trunk, batch.states), state["trunk"])
    else:
        keys, values = _keys(state, batch)
    _, gradients = mine_kernels.voxel_attention_gradients(
        _scaled(state),
        state["position"] @ basis.T,
        state["readout"],
        state["intercept"],
        keys,
        values,
        batch.responses,
        batch.mask,
        with_trunk=with_trunk,
        with_readout="readout" in moving,
    )
    out = {
        "query": gradients["query"] / np.sqrt(state["query"].shape[-1]),
        "position": gradients["position"] @ basis,
        "readout": gradients.get("readout"),
        "intercept": gradients["intercept"],
    }
    if with_trunk:
        (out["trunk"],) = pull((gradients["keys"], gradients["values"]))
    return {name: out[name] for name in moving}


def _keep(best, state, improved):
    """Takes the state of improved voxels; the trunk only moves when it is shared, with all voxels."""
    chosen = jnp.asarray(improved)

    def pick(new, old):
        return jnp.where(chosen.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    kept = {name: pick(state[name], best[name]) for name in ("query", "position", "readout", "intercept")}
    return kept | {"trunk": state["trunk"] if improved.any() else best["trunk"]}


def _joined(a: Examples, b: Examples) -> Examples:
    def join(x, y):
        return None if x is None else jnp.concatenate([x, y])

    return Examples(
        join(a.states, b.states), join(a.keys, b.keys), join(a.mask, b.mask), join(a.responses, b.responses)
    )


def _parameters(state, basis) -> dict[str, Any]:
    return {
        "query": state["query"],
        "position": state["position"] @ basis.T,
        "readout": state["readout"],
        "intercept": state["intercept"],
    }
