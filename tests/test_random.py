"""Random numbers from few programs are those that jax draws."""

import jax
import numpy as np
import pytest

from mine_jax import _random
from mine_jax._random import normal, permutation


@pytest.mark.parametrize("n", [0, 1, 2, 7, 89, 1625, 1626, 4097, 30_000])
def test_permutations_are_those_of_jax(n, key):
    np.testing.assert_array_equal(permutation(key, n), np.asarray(jax.random.permutation(key, n)))


def test_permutations_of_other_keys_differ():
    first, second = (permutation(jax.random.key(seed), 100) for seed in (1, 2))
    assert (first != second).any() and sorted(first) == sorted(second) == list(range(100))


@pytest.mark.parametrize("shape", [(), (3,), (4, 5, 6), (70, 80)])
def test_normal_numbers_are_those_of_jax(shape, key):
    drawn = normal(key, shape)
    assert drawn.shape == shape and drawn.dtype == np.float32
    # sums that fuse differently with the shape may round the last bit differently
    np.testing.assert_allclose(drawn, jax.random.normal(key, shape), rtol=1e-6)


def test_lengths_share_a_program(key):
    permutation(key, 10)
    compiled = _random._bits._cache_size()
    for n in (11, 500, 4096):
        permutation(key, n)
    assert _random._bits._cache_size() == compiled
