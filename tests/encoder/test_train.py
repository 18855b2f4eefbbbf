"""Streaming, storage and restarts: what the training loop does beside fitting."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mine_jax import encoder
from mine_jax._progress import silent
from mine_jax.config import EncoderConfig
from mine_jax.encoder import stopping, train
from mine_jax.encoder.examples import Examples

QUICK = EncoderConfig(width=4, heads=2, position_order=2, batch_size=8, epochs=2, learning_rate=0.01)


class CountedTokens:
    """Tokens on the host that remember how many bytes each read returned."""

    def __init__(self, array):
        self._array, self.shape, self.ndim, self.dtype, self.reads = array, array.shape, array.ndim, array.dtype, []

    def __len__(self):
        return len(self._array)

    def __getitem__(self, rows):
        block = self._array[rows]
        self.reads.append(block.nbytes)
        return block


@pytest.fixture
def splits(make):
    """40 training and 24 validation images, 3 voxels."""
    rng, out = np.random.default_rng(1), []
    weights = rng.standard_normal((6, 3))
    for n_images, masked in ((40, True), (24, True)):
        tokens = make.tokens(n_images, masked=masked, seed=n_images)
        signal = np.nan_to_num(tokens.tokens).mean(1) @ weights
        out.append(make.split(tokens, signal + 0.3 * rng.standard_normal(signal.shape)))
    return out


def fit(splits, config):
    return encoder.fit(splits[0], key=jax.random.key(0), validation=splits[1], config=config)


@pytest.mark.parametrize(
    "options", [{}, {"trunk": "shared"}, {"solver": "adam", "storage": "bfloat16"}], ids=["fixed", "shared", "adam"]
)
def test_streamed_equals_resident(splits, options):
    """A budget of 11 images (or fewer states), against everything resident."""
    config = QUICK.model_copy(update=options)
    expected, got = fit(splits, config), fit(splits, config.model_copy(update={"resident_bytes": 11 * 16 * 4 * 4}))
    a, b = (encoder.predict(x, splits[1].tokens) for x in (got, expected))
    # float32 sums over other blocks of images round differently
    np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(b).max(), rtol=0)
    np.testing.assert_array_equal(got.status, expected.status)


def test_reads_stay_within_the_budget(splits):
    """A token store larger than the budget: no read of a learned trunk exceeds half of it."""
    counted = [
        dataclasses.replace(s, tokens=dataclasses.replace(s.tokens, tokens=CountedTokens(s.tokens.tokens)))
        for s in splits
    ]
    whole = splits[0].tokens.tokens.nbytes
    fit(counted, QUICK.model_copy(update={"trunk": "shared", "resident_bytes": whole // 4}))
    # the projection that the trunk starts from reads 64 images at once, before the loop
    reads = counted[0].tokens.tokens.reads[1:]
    assert len(reads) > 8 and max(reads) <= whole // 8


def test_bfloat16_storage(splits):
    """Keys rounded once to 8 bits err by 2^-9 each; predictions sum few of them with weights of order 1."""
    a, b = (
        encoder.predict(fit(splits, QUICK.model_copy(update={"storage": dtype})), splits[1].tokens)
        for dtype in ("bfloat16", "float32")
    )
    assert 0 < np.abs(a - b).max() <= 2e-2 * np.abs(b).max()


def examples(n_images, scale, seed):
    rng = np.random.default_rng(seed)
    keys = rng.standard_normal((n_images, 5, 1, 3)).astype(np.float32)
    responses = keys[:, 2, 0] * np.asarray(scale, np.float32)
    return Examples(jnp.asarray(keys), True, None, jnp.asarray(responses))


def trained(scale, config):
    basis = np.zeros((5, 0), np.float32)
    trunk = {"key_weight": np.zeros((3, 1, 3), np.float32), "key_bias": np.zeros((1, 3), np.float32)}
    return train.train(
        trunk,
        examples(32, scale, 0),
        examples(16, scale, 1),
        basis,
        np.arange(3),
        key=jax.random.key(0),
        config=config,
        progress=silent,
    )


def test_exploding_voxel_leaves_the_others_alone():
    """The squared responses of voxel 1 overflow float32: it is given up, its neighbours do not notice."""
    config = EncoderConfig(width=3, solver="adam", position_order=0, batch_size=8, epochs=6, learning_rate=0.05)
    _, expected, healthy = trained([1, 1, 1], config)
    _, got, diverged = trained([1, 1e30, 1], config)
    assert not healthy.any()
    np.testing.assert_array_equal(diverged, [False, True, False])
    for name, value in expected.items():
        np.testing.assert_array_equal(np.asarray(got[name])[[0, 2]], np.asarray(value)[[0, 2]], err_msg=name)


def test_restarts_halve_the_rate_of_one_voxel():
    config = EncoderConfig(restarts=2, learning_rate=0.4, patience=9)
    record, finite = stopping.Record(3, config), np.ones(3, bool)
    record.update(np.array([0.5, 0.5, 0.5]), finite)
    improved, restart = record.update(np.array([0.6, -5.0, np.nan]), np.array([True, True, False]))
    np.testing.assert_array_equal(improved, [True, False, False])
    np.testing.assert_array_equal(restart, [False, True, True])
    np.testing.assert_allclose(record.rate, [0.4, 0.2, 0.2])
    np.testing.assert_array_equal(record.since, [0, 0, 0])
    record.update(np.array([0.5, 0.7, np.nan]), np.array([True, True, False]))
    np.testing.assert_allclose(record.best, [0.6, 0.7, 0.5])
    record.update(np.array([0.5, 0.7, np.nan]), np.array([True, True, False]))
    np.testing.assert_array_equal(record.diverged, [False, False, True])
    np.testing.assert_allclose(record.rate, [0.4, 0.2, 0])
