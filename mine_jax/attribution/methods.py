"""Methods of integrated gradients: what one block of pairs goes through on the device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np

from mine_jax import encoder
from mine_jax.attribution import blocks
from mine_jax.attribution.path import Steps
from mine_jax.attribution.terms import Parameters, Terms, block_terms
from mine_jax.types import Architecture, Array, Attributions


class How(NamedTuple):
    """What is static in a compiled method: the encoder, the sum over D, and how many scores are kept (None: all)."""

    architecture: Architecture
    reduce: str
    k: int | None


class Integrals(NamedTuple):
    """Results of pairs, [V, I] or those of a block [A, B].

    With `k`, scores [..., K] are the largest, best first, and `indices` [..., K] their tokens;
    without it, scores are those of all P tokens, and indices None.
    """

    scores: Array
    predicted: Array
    predicted_baseline: Array
    completeness_gap: Array
    indices: Array | None

    def attributions(self, voxel_ids: Array, image_ids: np.ndarray) -> Attributions:
        """Returns results [V, I] with the ids of their pairs; scores are empty, [V, I, 0], where some were dropped."""
        scores = np.asarray(self.scores)
        return Attributions(
            voxel_ids=np.asarray(voxel_ids),
            image_ids=image_ids,
            scores=scores if self.indices is None else np.zeros((*image_ids.shape, 0), np.float32),
            predicted=np.asarray(self.predicted),
            predicted_baseline=np.asarray(self.predicted_baseline),
            completeness_gap=np.asarray(self.completeness_gap),
        )


class Kept(NamedTuple):
    """Scores that are kept, their tokens (None for all of them), and the sum of all scores."""

    indices: jax.Array | None
    scores: jax.Array
    total: jax.Array


@blocks.on_devices
def exact(block: blocks.Block, steps: Steps, how: How) -> Integrals:
    """Integrates through token terms, as keys and values are linear in the token states."""
    architecture = how.architecture
    terms = block_terms(
        block.shared, steps.start, block.parameters(), block.images, architecture, is_grid=block.is_grid
    )
    after, before = terms.image.predicted, jnp.broadcast_to(terms.start.predicted, terms.image.predicted.shape)
    if not blocks.is_query(architecture):
        # the gradient of a linear encoder is the same all along the path
        return _integrals(_kept((terms.image.scalars - terms.start.scalars)[..., 0, :], how.k), after, before)
    if terms.cells is not None and terms.cells.ndim == 3:  # every image averages its own real tokens
        terms = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(after), *x.shape[1:])), terms)
        return _integrals(jax.vmap(lambda image: _through_kernel(image, steps, how.k))(terms), after, before)
    return _integrals(_through_kernel(terms, steps, how.k), after, before)


def _through_kernel(terms: Terms, steps: Steps, k: int | None) -> Kept:
    start, image = terms.start, terms.image
    ends = (start.logits, image.logits, start.scalars, image.scalars, terms.position)
    if k is None:
        scores = mine_kernels.token_ig(*ends, steps.nodes, steps.weights, cells=terms.cells)
        return Kept(None, scores, jax.lax.optimization_barrier(scores).sum(-1))
    return Kept(*mine_kernels.token_ig_top_k(*ends, steps.nodes, steps.weights, k=k, cells=terms.cells))


@blocks.on_devices
def autodiff(block: blocks.Block, steps: Steps, how: How) -> Integrals:
    """Integrates gradients of any encoder that is differentiable in the token states."""
    one = functools.partial(_autodiff_one, block.shared, steps, how=how)
    scores, after, before = blocks.over_pairs(one, block.is_grid)(block.parameters(), block.images)
    return _integrals(_kept(scores, how.k), after, before)


def _autodiff_one(
    shared: Parameters, steps: Steps, voxel: Parameters, image: blocks.Images, *, how: How
) -> tuple[Array, Array, Array]:
    """Returns scores [P], h(x) and h(x') of one pair."""
    start, states = steps.start, image.states

    def predict(x: jax.Array) -> Array:
        return encoder.model(how.architecture).predict_one(shared, voxel, x, image.mask, how.architecture)

    def step(number: Array, total: jax.Array) -> jax.Array:
        point = start + steps.nodes[number] * (states - start)
        return total + steps.weights[number] * jax.grad(predict)(point)

    gradient = jax.lax.fori_loop(0, jnp.count_nonzero(steps.weights), step, jnp.zeros_like(states))
    scores = gradient * (states - start)
    return (jnp.abs(scores) if how.reduce == "abs" else scores).sum(-1), predict(states), predict(start)


def _kept(scores: jax.Array, k: int | None) -> Kept:
    scores = jax.lax.optimization_barrier(scores)
    if k is None:
        return Kept(None, scores, scores.sum(-1))
    indices = mine_kernels.top_k(scores, k=k)
    return Kept(indices, jnp.take_along_axis(scores, indices, -1), scores.sum(-1))


def _integrals(kept: Kept, after: jax.Array, before: jax.Array) -> Integrals:
    return Integrals(kept.scores, after, before, after - before - kept.total, kept.indices)


# Names of `Path.method`.
METHODS: dict[str, Callable[..., Integrals]] = {"exact": exact, "autodiff": autodiff}
