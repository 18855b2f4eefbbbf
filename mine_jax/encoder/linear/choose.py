"""Gives a linear term to the voxels whose validation images are predicted better with it than by the query alone.

Queries are those of the best epoch. Penalties are weighed, and the term is kept or not, by validation images
that had no part in the readouts compared; what is kept is then solved again from training and validation
images, as the readouts are. Nothing couples voxels, and a voxel without the term is what it is without the setting.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from mine_jax import sharding
from mine_jax.encoder.linear import banded
from mine_jax.encoder.linear.components import Components, fit_components
from mine_jax.encoder.query import readout, solving
from mine_jax.encoder.query.images import IMAGE_CHUNK, Batch, Examples
from mine_jax.encoder.query.state import ARRAYS, IMAGES, VOXELS, Arrays, keys_and_values, scaled_query
from mine_jax.types import Array


class Grids(NamedTuple):
    """What linear terms read of the images: components of the training images, and of these with the validation images.

    Attributes:
        training: of the training images.
        validation: [n, R] the validation images in the same components.
        both: of training and validation images, one below the other.
    """

    training: Components
    validation: np.ndarray
    both: Components

    def divided_as(self, rows: tuple[np.ndarray, np.ndarray], splits: tuple[Examples, Examples], width: int) -> Grids:
        """Returns the same for other training and validation images, whose weights are of the same components.

        Args:
            rows: positions of the training and of the validation images in `both`.
            splits: their keys.
            width: components at most, R.
        """
        fitted = fit_components([splits[0]], width)
        both = self.both._replace(features=self.both.features[np.concatenate(rows)])
        return Grids(fitted, fitted.of(splits[1]), both)


class Chosen(NamedTuple):
    """Readouts [V, H E], intercepts [V], weights of components [V, R], and squared errors of validation images [V]."""

    readout: np.ndarray
    intercept: np.ndarray
    linear: np.ndarray
    errors: np.ndarray
    is_kept: np.ndarray


def grids_of(training: Examples, validation: Examples, width: int) -> Grids:
    """Finds the components of two splits.

    Args:
        training: keys of the training images.
        validation: of the validation images.
        width: components at most, R.
    """
    fitted = fit_components([training], width)
    return Grids(fitted, fitted.of(validation), fit_components([training, validation], width))


def chosen(best: Arrays, training: Examples, validation: Examples, basis: np.ndarray, grids: Grids) -> Chosen:
    """Solves for linear terms, and says which voxels keep theirs.

    Args:
        best: arrays of a `State`, with readouts of the query alone from the training images.
        training: training images with responses [N, V].
        validation: validation images.
        basis: [C, J] functions of the position term.
        grids: components of both.

    Returns:
        What voxels that keep the term get, and which voxels do, `is_kept` [V].
    """
    mesh, position = training.mesh, best["position"] @ basis.T
    fit, held = training.with_components(grids.training.features), validation.with_components(grids.validation)
    candidates = _solved(best, [fit], basis, grids.training.squares)
    weights = banded.weights_of(_errors(best, position, held, candidates), n_images=len(held.responses))
    mean = banded.averaged(candidates, weights)
    readouts = best["readout"].reshape(len(weights), 1, -1)
    alone = (readouts, jnp.zeros((*readouts.shape[:2], mean[1].shape[1])), best["intercept"][:, None])
    compared = [jnp.concatenate([part[:, None], other], 1) for part, other in zip(mean, alone, strict=True)]
    errors = sharding.host(
        _errors(best, position, held, tuple(sharding.placed(x, mesh, sharding.VOXEL) for x in compared))
    )
    both = np.split(grids.both.features, [len(fit.responses)])
    every = [one.with_components(rows) for one, rows in zip((training, validation), both, strict=True)]
    refitted = banded.averaged(_solved(best, every, basis, grids.both.squares), weights)
    readouts, linear, intercept = (sharding.host(part) for part in refitted)
    sound = np.isfinite(readouts).all(1) & np.isfinite(linear).all(1) & np.isfinite(intercept)
    return Chosen(
        readout=readouts,
        intercept=intercept - linear @ grids.both.center,
        linear=linear,
        errors=errors[:, 0],
        is_kept=sound & (errors[:, 0] < errors[:, 1]),
    )


def _solved(best: Arrays, splits: list[Examples], basis: np.ndarray, squares: np.ndarray) -> banded.Solution:
    """Solves all candidates; of several devices one does it for all, as batches of LAPACK calls wait for each other."""
    mesh, sums = splits[0].mesh, solving.sums_of(best, splits, basis)
    if mesh is not None:
        sums = jax.tree.map(sharding.host, sums)
    with sharding.single_thread():
        solution = jax.block_until_ready(banded.solved(sums, squares))
    return _placed(solution, mesh)


def _placed(solution: Sequence[Array], mesh: Mesh | None) -> banded.Solution:
    return tuple(sharding.placed(part, mesh, sharding.VOXEL) for part in solution)


def _errors(best: Arrays, position: Array, examples: Examples, solution: banded.Solution) -> jax.Array:
    """Sums squared errors [V, J] of candidates over images."""
    total = None
    for images in examples.in_order():
        options = {"is_projected": examples.is_projected, "mesh": examples.mesh}
        errors = jax.block_until_ready(errors_of(best, position, images, solution, **options))
        total = errors if total is None else total + errors
    return jnp.asarray(total)


@functools.partial(jax.jit, static_argnames=("is_projected", "mesh"))
def errors_of(
    arrays: Arrays,
    position: Array,
    images: Batch,
    solution: banded.Solution,
    *,
    is_projected: bool,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Sums squared errors [V, J] of candidates; devices of `data` have each their part of the images."""

    def on_device(arrays: Arrays, position: Array, images: Batch, solution: banded.Solution) -> jax.Array:
        batch, weights = sharding.own_images(images, mesh)
        keys, values = keys_and_values(arrays, batch.tokens, is_projected=is_projected)
        readouts, linear, intercept = solution

        def one_part(total: jax.Array, part: tuple[Array, ...]) -> tuple[jax.Array, None]:
            keys, y, w, mask, values, z = part
            values = keys if values is None else values
            attended = readout.attended_tokens(scaled_query(arrays), position, keys, values, mask)
            predicted = jnp.einsum("bvi,vji->bvj", attended, readouts) + jnp.einsum("br,vjr->bvj", z, linear)
            residual = (predicted + intercept[None] - y[..., None]) * w[:, None, None]
            return total + (residual**2).sum(0), None

        parts = readout.folded((keys, batch.responses, weights, batch.mask, values, batch.components), IMAGE_CHUNK)
        return sharding.summed(lax.scan(one_part, jnp.zeros_like(intercept), parts)[0], mesh, sharding.DATA)

    specs: tuple[PartitionSpec | dict | Batch, ...] = (ARRAYS, VOXELS, IMAGES, VOXELS)
    return sharding.mapped(on_device, mesh, specs, VOXELS)(arrays, position, images, solution)
