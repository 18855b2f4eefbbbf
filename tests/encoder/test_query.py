import dataclasses

import numpy as np
import pytest

from mine_jax.encoder.cells import cells, n_cells, pooled_tokens, position_basis
from mine_jax.encoder.trunk import fit_trunk, token_moments
from mine_jax.errors import ConfigError, DataError
from mine_jax.types import Architecture

GRID = Architecture("query", (4, 4))
POOLED = Architecture("query", (4, 4), 2)


@pytest.mark.parametrize("masked", [False, True])
def test_trunk_whitens_the_tokens(make, masked):
    tokens = make.tokens(30, masked=masked)
    real = tokens.tokens[tokens.mask] if masked else tokens.tokens.reshape(-1, 6)
    trunk = fit_trunk(token_moments(tokens, image_chunk=7), width=4)
    np.testing.assert_allclose(trunk["mean"], real.mean(0), atol=1e-5)
    projected = real.astype(np.float64) @ trunk["key_weight"][:, 0] + trunk["key_bias"][0]
    covariance = np.cov(projected.T, bias=True)
    np.testing.assert_allclose(projected.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-5)
    np.testing.assert_allclose(np.diag(covariance).mean(), 1, atol=1e-5)
    standard = (real - real.mean(0)) / (real.std(0) + 1e-3)
    expected = np.linalg.eigvalsh(np.cov(standard.T, bias=True))[::-1][:4]
    np.testing.assert_allclose(np.diag(covariance), expected / expected.mean(), atol=1e-4)


def test_trunk_is_no_wider_than_the_tokens(make):
    assert fit_trunk(token_moments(make.tokens(5)), width=99)["key_weight"].shape == (6, 1, 6)


def test_trunk_of_constant_tokens_is_finite(make):
    tokens = dataclasses.replace(make.tokens(3), tokens=np.ones((3, 16, 6), np.float32))
    assert all(np.isfinite(value).all() for value in fit_trunk(token_moments(tokens), width=4).values())


def test_pooled_tokens_match_numpy(make):
    tokens = make.tokens(3)
    states, mask = pooled_tokens(tokens, np.arange(3), POOLED)
    expected = tokens.tokens.reshape(3, 2, 2, 2, 2, 6).mean((2, 4)).reshape(3, 4, 6)
    assert mask is None
    np.testing.assert_allclose(states, expected, atol=1e-6)


def test_pooled_tokens_average_the_real_ones(make):
    tokens = make.tokens(3, masked=True)
    tokens.mask[0, [0, 1, 4, 5]] = False  # all of the first cell
    states, mask = pooled_tokens(tokens, np.arange(3), POOLED)
    windows = tokens.tokens.reshape(3, 2, 2, 2, 2, 6).swapaxes(2, 3).reshape(3, 4, 4, 6)
    real = tokens.mask.reshape(3, 2, 2, 2, 2).swapaxes(2, 3).reshape(3, 4, 4)
    np.testing.assert_array_equal(mask, real.any(2))
    for image, cell in np.argwhere(real.any(2)):
        expected = windows[image, cell][real[image, cell]].mean(0)
        np.testing.assert_allclose(states[image, cell], expected, atol=1e-6)


@pytest.mark.parametrize(("architecture", "order"), [(GRID, 4), (GRID, 9), (POOLED, 2), (GRID, 1), (GRID, 0)])
def test_position_basis_is_orthonormal(architecture, order):
    basis = position_basis(architecture, 16, order)
    side = min(order, 4 // architecture.pool)
    assert basis.shape == (n_cells(architecture, 16), max(side**2 - 1, 0))
    np.testing.assert_allclose(basis.T @ basis / len(basis), np.eye(basis.shape[1]), atol=1e-5)
    np.testing.assert_allclose(basis.sum(0), 0, atol=1e-5)


@pytest.mark.parametrize("grid", [(3, 4), (4, 3), (5, 5)])
def test_message_pool_must_divide_the_grid(grid):
    with pytest.raises(ConfigError, match=r"encoder.pool = 2 must divide the token grid"):
        cells(Architecture("query", grid, 2), grid[0] * grid[1])


def test_message_grid():
    with pytest.raises(ConfigError, match=r"encoder.pool needs the token grid"):
        cells(Architecture("query", None, 2), 16)
    with pytest.raises(ConfigError, match=r"encoder.position_order needs the token grid"):
        position_basis(Architecture("query"), 16, 4)
    with pytest.raises(ConfigError, match=r"must hold all 17 tokens"):
        position_basis(GRID, 17, 4)


def test_message_no_real_token(make):
    tokens = make.tokens(3, masked=True)
    tokens.mask[:] = False
    with pytest.raises(DataError, match="no training image has a real token"):
        token_moments(tokens)
