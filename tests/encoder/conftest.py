"""Small data with a known truth, and random encoders of every kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mine_jax.encoder.cells import n_cells as count_cells
from mine_jax.types import Architecture, Encoders, ImageTokens, Responses, Split

KINDS = ("query", "query_pool", "query_heads", "query_shared", "query_linear", "query_linear_pool")
KINDS += ("ridge_mean", "ridge_grid", "ridge_grid_pool")


def image_tokens(n_images, *, grid=(4, 4), width=6, masked=False, seed=0):
    rng = np.random.default_rng(seed)
    n_tokens = grid[0] * grid[1]
    states = rng.standard_normal((n_images, n_tokens, width)).astype(np.float32)
    mask = None
    if masked:
        mask = rng.random((n_images, n_tokens)) < 0.7
        mask[:, 0] = True
        states[~mask] = np.nan  # padding may hold anything
    return ImageTokens(states, np.arange(n_images).astype(str), mask, grid)


def split_of(tokens, responses, *, voxel_ids=None, status=None, ceiling=None):
    n_images, n_voxels = responses.shape
    return Split(
        tokens,
        Responses(
            responses=responses.astype(np.float32),
            image_ids=tokens.image_ids,
            n_repeats=np.ones(n_images, int),
            voxel_ids=np.arange(n_voxels) if voxel_ids is None else voxel_ids,
            status=np.array(["ok"] * n_voxels) if status is None else status,
            ncsnr=np.full(n_voxels, np.nan),
            noise_ceiling=np.full(n_voxels, np.nan) if ceiling is None else ceiling,
            rois=np.array([""] * n_voxels),
        ),
    )


def random_encoders(kind, *, n_voxels=5, grid=(4, 4), width=6, inner=4, seed=0):
    """Encoders of a kind with random numbers of order 1, not fitted."""
    rng = np.random.default_rng(seed)
    n_tokens = grid[0] * grid[1]
    pool = 2 if "pool" in kind else 1
    heads = 3 if kind in ("query_heads", "query_shared") else 1
    groups = heads if kind == "query_shared" else 1

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    shared = {"key_weight": normal(width, groups, inner), "key_bias": normal(groups, inner)}
    if kind == "query_shared":
        shared |= {"value_weight": normal(width, groups, inner), "value_bias": normal(groups, inner)}
    if kind.startswith("query"):
        architecture = Architecture("query", grid, pool)
        n_cells = count_cells(architecture, n_tokens)
        per_voxel = {
            "query": normal(n_voxels, heads, inner),
            "position": normal(n_voxels, heads, n_cells),
            "readout": normal(n_voxels, heads, inner),
        }
        if "linear" in kind:
            shared["linear_basis"] = normal(n_cells, inner, 7)
            per_voxel["linear"] = normal(n_voxels, 7)
    elif kind == "ridge_mean":
        architecture = Architecture("ridge")
        shared = {"center": normal(width)}
        per_voxel = {"coef": normal(n_voxels, width)}
    else:
        architecture = Architecture("ridge", grid, pool, "grid")
        size = count_cells(architecture, n_tokens) * inner
        shared |= {"center": normal(size)}
        per_voxel = {"coef": normal(n_voxels, size)}
    return Encoders(
        shared=shared,
        per_voxel=per_voxel | {"intercept": normal(n_voxels)},
        baseline=normal(width),
        voxel_ids=np.arange(n_voxels) + 100,
        status=np.zeros(n_voxels, np.int8),
        architecture=architecture,
    )


@pytest.fixture(params=KINDS)
def encoders(request):
    return random_encoders(request.param)


@pytest.fixture
def make():
    """The builders of this file: `make.tokens`, `make.split`, `make.encoders`, `make.planted`."""
    return Builders


class Builders:
    tokens = staticmethod(image_tokens)
    split = staticmethod(split_of)
    encoders = staticmethod(random_encoders)

    @staticmethod
    def planted(n_images, *, n_voxels=4, ceiling=0.6, width=6, grid=(4, 4), seed=0):
        """Voxel v reads how strong concept v is at the token where it appears; noise sets the ceiling.

        Every image shows each concept (an axis of token space) at a token of its own; what is
        read is the last axis of that token. Mean tokens know a share of it at best.
        """
        rng = np.random.default_rng(seed)
        n_tokens = grid[0] * grid[1]
        states = 0.3 * rng.standard_normal((n_images, n_tokens, width))
        signal = np.zeros((n_images, n_voxels))
        places = rng.permuted(np.tile(np.arange(n_tokens), (n_images, 1)), axis=1)
        for concept in range(n_voxels):
            row, place = np.arange(n_images), places[:, concept]
            states[row, place, concept] += 4
            states[row, place, -1] = rng.standard_normal(n_images)
            signal[:, concept] = states[row, place, -1]
        noise = rng.standard_normal(signal.shape) * np.sqrt((1 - ceiling) / ceiling)
        tokens = ImageTokens(states.astype(np.float32), np.array([f"i{i}" for i in range(n_images)]), None, grid)
        return split_of(tokens, signal + noise, ceiling=np.full(n_voxels, ceiling))


@pytest.fixture
def predict_all():
    """Predictions [N, V] of the definition for one voxel and one image, vmapped."""
    from mine_jax import encoder

    def predict(encoders, tokens):
        def one(voxel, states, mask):
            return encoder.predict_one(encoders.shared, voxel, states, mask, encoders.architecture)

        per_image = jax.vmap(one, in_axes=(None, 0, None if tokens.mask is None else 0))
        per_voxel = jax.vmap(per_image, in_axes=(0, None, None))
        mask = None if tokens.mask is None else jnp.asarray(tokens.mask)
        return np.asarray(jax.jit(per_voxel)(encoders.per_voxel, tokens.tokens, mask)).T

    return predict
