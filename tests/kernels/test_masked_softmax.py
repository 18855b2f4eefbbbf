import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
import pytest

masked_softmax = jax.jit(mine_kernels.masked_softmax)


def test_matches_softmax_of_the_real_tokens():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((4, 6))
    mask = rng.random((4, 6)) < 0.5
    mask[:, 2] = True
    got = np.asarray(masked_softmax(jnp.asarray(logits, jnp.float32), jnp.asarray(mask)))
    for row, real, weights in zip(logits, mask, got, strict=True):
        expected = np.exp(row[real]) / np.exp(row[real]).sum()
        np.testing.assert_allclose(weights[real], expected, atol=1e-6)
        assert not weights[~real].any()


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_large_logits(size):
    logits = jnp.array([[size, -size, 0.0], [-size, -size, -size]])
    got = masked_softmax(logits, jnp.array([[True, True, False], [True, True, False]]))
    np.testing.assert_allclose(got, [[1, 0, 0], [0.5, 0.5, 0]])


def test_nothing_real_gives_zero_and_a_finite_gradient():
    """F-58: a fully masked set."""
    logits, mask = jnp.ones((2, 3)), jnp.array([[False] * 3, [True] * 3])
    assert not np.asarray(masked_softmax(logits, mask))[0].any()
    gradient = jax.grad(lambda x: (masked_softmax(x, mask) ** 2).sum())(logits)
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[0].any()


def test_masked_logits_may_be_anything():
    mask = jnp.array([True, True, False])
    for junk in (np.nan, np.inf, -np.inf):
        logits = jnp.array([0.0, 1.0, junk])
        np.testing.assert_allclose(masked_softmax(logits, mask).sum(), 1, rtol=1e-6)
        assert np.isfinite(jax.jit(jax.grad(lambda x: masked_softmax(x, mask)[0]))(logits)).all()
