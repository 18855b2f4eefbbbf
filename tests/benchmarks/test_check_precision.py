"""Emulated products are those of the arithmetic they stand for, and runs are compared as is said."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax

from benchmarks import check_precision as check


def bits(values, n):
    """Rounds float32 to n bits after the leading one, half to even: by hand, in integers."""
    raw, dropped = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64), 23 - n
    half = (1 << (dropped - 1)) - 1 + ((raw >> dropped) & 1)
    return ((raw + half) >> dropped << dropped).astype(np.uint32).view(np.float32)


@pytest.fixture(scope="module")
def operands():
    rng = np.random.default_rng(0)
    return rng.standard_normal((5, 33)).astype(np.float32), rng.standard_normal((33, 7)).astype(np.float32)


def test_operands_are_rounded_as_a_tensor_core_does(operands):
    ((tf32, _),) = check.rounded("tf32", *map(jnp.asarray, operands))
    np.testing.assert_array_equal(tf32, bits(operands[0], 10))
    ((bf16, _),) = check.rounded("bf16", *map(jnp.asarray, operands))
    np.testing.assert_array_equal(bf16, operands[0].astype(ml_dtypes.bfloat16).astype(np.float32))
    pairs = check.rounded("bf16_3x", *map(jnp.asarray, operands))
    exact = operands[0].astype(np.float64) @ operands[1]
    three = sum(np.asarray(a, np.float64) @ np.asarray(b, np.float64) for a, b in pairs)
    # what is left out is low times low, 2^-16 of the product
    assert 2.0**-20 < np.abs(three - exact).max() / np.abs(exact).max() < 2.0**-14


def test_only_products_that_were_not_asked_for_exactly_change(operands):
    a, b = operands
    exact = a.astype(np.float64) @ b
    with check.emulated("bf16"):
        loose, strict = (jax.jit(lambda x, y, p=p: lax.dot(x, y, precision=p))(a, b) for p in ("default", "highest"))
    after = jax.jit(lambda x, y: lax.dot(x, y, precision="default"))(a, b)
    rounded = [part.astype(ml_dtypes.bfloat16).astype(np.float64) for part in operands]
    np.testing.assert_allclose(loose, rounded[0] @ rounded[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose([strict, after], [exact, exact], rtol=1e-5, atol=1e-5)
    assert np.abs(np.asarray(loose) - exact).max() > 1e-3


def test_comparison_of_runs():
    exact = check.Found(
        {1: 0.5, 2: 0.25, 3: np.nan},
        {(1, "a"): frozenset({1, 2}), (2, "a"): frozenset({3, 4}), (2, "b"): frozenset({5, 6})},
        {1: "words", 2: "predicted"},
    )
    other = check.Found(
        {1: 0.5005, 2: 0.2485, 3: 0.1},
        {(1, "a"): frozenset({2, 1}), (2, "a"): frozenset({3, 9})},
        {1: "words", 2: "reliable"},
    )
    found = check.compare(exact, other)
    assert found["n_voxels"] == 2 and found["n_pairs"] == 2
    assert found["mean_r2_change"] == pytest.approx((5e-4 - 1.5e-3) / 2)
    assert found["largest_r2_change"] == pytest.approx(1.5e-3)
    assert found["same_critical_tokens"] == pytest.approx(0.75) and found["same_claim"] == pytest.approx(0.5)
    assert not found["passes"]
    assert check.compare(exact, exact)["passes"]
