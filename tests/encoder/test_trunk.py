"""Moments of image-tokens, summed on the device in float32, against NumPy in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mine_jax import encoder
from mine_jax.config import QueryConfig, RidgeConfig
from mine_jax.encoder import trunk
from mine_jax.memory import ChosenRows
from mine_jax.types import ImageTokens


def _hard_tokens(*, masked=False, dtype=np.float32, n_images=150):
    """Means far from 0, spreads over three decades, correlated dimensions."""
    rng = np.random.default_rng(3)
    width = 24
    mixing = rng.standard_normal((width, width)) * np.logspace(0, -3, width)
    states = rng.standard_normal((n_images, 30, width)) @ mixing + 50 * rng.standard_normal(width)
    mask = rng.random((n_images, 30)) < 0.6 if masked else None
    states = states.astype(dtype)
    if masked:
        mask[:, 0] = True
        mask[:70] = False  # nothing real in the first chunk
        states[~mask] = np.nan
    return ImageTokens(states, np.arange(n_images).astype(str), mask)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_moments_equal_float64(masked, dtype):
    tokens = _hard_tokens(masked=masked, dtype=dtype)
    real = (tokens.tokens[tokens.mask] if masked else tokens.tokens.reshape(-1, 24)).astype(np.float64)
    expected = (real - real.mean(0)).T @ (real - real.mean(0))
    # as correlations: what the components are made of
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    for image_chunk in (None, 7):
        found = encoder.token_moments(tokens, image_chunk=image_chunk)
        assert found.count == len(real)
        np.testing.assert_allclose(found.mean, real.mean(0), rtol=1e-7)
        np.testing.assert_allclose(found.scatter / scale, expected / scale, atol=1e-5)
    np.testing.assert_allclose(trunk.token_mean(tokens, image_chunk=7), real.mean(0), rtol=1e-9)


def test_chunks_leave_every_digit_as_it_is():
    tokens = _hard_tokens(masked=True)
    expected, *others = (encoder.token_moments(tokens, image_chunk=chunk) for chunk in (None, 1, 7, 150))
    for found in others:
        np.testing.assert_array_equal(found.mean, expected.mean)
        np.testing.assert_array_equal(found.scatter, expected.scatter)


def test_trunk_equals_float64():
    tokens = _hard_tokens()
    real = tokens.tokens.reshape(-1, 24).astype(np.float64)
    spread = real.std(0) + 1e-3
    values, vectors = np.linalg.eigh(np.corrcoef(real.T) * np.outer(real.std(0) / spread, real.std(0) / spread))
    found = trunk.fit_trunk(encoder.token_moments(tokens), width=5)
    weight = found["key_weight"][:, 0] * spread[:, None]
    expected = vectors[:, ::-1][:, :5] / np.sqrt(values[-5:].mean())
    signs = np.sign((weight * expected).sum(0))
    np.testing.assert_allclose(weight, expected * signs, atol=1e-5 * np.abs(expected).max())


def test_moments_of_halves_add_up():
    tokens = _hard_tokens()
    rows = np.random.default_rng(0).permutation(150)
    parts = [encoder.token_moments(tokens.take_images(own)) for own in (rows[:50], rows[50:])]
    both, expected = parts[0].merged(parts[1]), encoder.token_moments(tokens)
    assert both.count == expected.count
    np.testing.assert_allclose(both.mean, expected.mean, rtol=1e-6)
    scale = np.sqrt(np.outer(np.diag(expected.scatter), np.diag(expected.scatter)))
    np.testing.assert_allclose(both.scatter / scale, expected.scatter / scale, atol=1e-6)


def test_what_rounding_leaves_out_is_kept():
    # plain float32 stays at 2^25: one is half of its last digit
    def add(total, part):
        return trunk.plus(total, part), None

    start = (jnp.float32(2**25), jnp.float32(0))
    (high, low), _ = jax.jit(lambda parts: jax.lax.scan(add, start, parts))(jnp.ones(10_001))
    assert float(high) + float(low) == 2**25 + 10_001


def test_given_moments_are_used_and_tokens_read_once_less(make):
    made = make.tokens(40)
    reads = []

    class Counted(ChosenRows):
        def __getitem__(self, key):
            reads.append(key)
            return super().__getitem__(key)

    split = make.split(made, np.random.default_rng(0).standard_normal((40, 3)))
    counted = dataclasses.replace(split, tokens=dataclasses.replace(made, tokens=Counted(made.tokens, np.arange(40))))
    moments, key = encoder.token_moments(made), jax.random.key(0)
    for config in (QueryConfig(width=4, epochs=1, position_order=2), RidgeConfig(folds=3), RidgeConfig(summary="grid")):
        fits, n_reads = [], []
        for given in (None, moments):
            reads.clear()
            fits.append(encoder.fit(counted, validation=split, key=key, config=config, moments=given))
            n_reads.append(len(reads))
        assert n_reads[1] < n_reads[0]
        for name, value in fits[0].per_voxel.items():
            np.testing.assert_array_equal(value, fits[1].per_voxel[name])
