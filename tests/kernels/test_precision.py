"""The precision that is asked for reaches every matrix product of the lowered program."""

import re

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
import pytest
from mine_kernels.voxel_attention import pallas
from mine_kernels.voxel_attention.specs import BLOCKS, Blocks

from mine_jax.encoder.query import readout

V, B, P, H, E, J = 40, 4, 9, 2, 8, 3
TERMS = ((V, H, E), (V, H, J), (V, H, E))
KEYS = (B, P, H, E)


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def gradients(query, position, weights, intercept, keys, values, responses, basis):
    given = (query, position, weights, intercept, keys, values, responses, None, basis)
    return mine_kernels.voxel_attention_gradients(*given)


def sums(query, position, keys, responses, weights):
    return readout.add(None, query, position, keys, responses, weights)


PROGRAMS = {
    "predictions": (
        lambda *given: mine_kernels.voxel_attention(*given[:5], None, given[5]),
        (*TERMS, KEYS, KEYS, (P, J)),
    ),
    "gradients": (gradients, (*TERMS, (V,), KEYS, KEYS, (B, V), (P, J))),
    "readout sums": (sums, ((V, H, E), (V, H, P), KEYS, (B, V), (B,))),
}


def products(text):
    return re.findall(r"stablehlo\.dot_general.*", text)


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_products_have_the_precision_asked_for(name, precision):
    """F-64: in every program."""
    function, shapes = PROGRAMS[name]
    with jax.default_matmul_precision(precision):
        found = products(jax.jit(function).lower(*(floats(*shape) for shape in shapes)).as_text())
    wanted = f"precision = [{precision.upper()}, {precision.upper()}]"
    assert found and all(wanted in line for line in found)


@pytest.mark.parametrize("precision", ["high", "highest"])
@pytest.mark.parametrize("op", ["ridge", "integrated gradients"])
def test_no_precision_makes_what_must_be_exact_coarser(op, precision):
    """Penalties and completeness need float32 whatever is asked for."""
    if op == "ridge":
        shapes = ((3, 24, 24), (3, 24), (3, 24, V), (3, 24, V), (3,), (3, V))
        function = mine_kernels.ridge_sweep
    else:
        shapes = (*[(V, H, P)] * 5, (8,), (8,))
        function = mine_kernels.token_ig
    with jax.default_matmul_precision(precision):
        found = products(jax.jit(function).lower(*(floats(*shape) for shape in shapes)).as_text())
    assert found and all("precision = [HIGHEST, HIGHEST]" in line for line in found)


def test_kernels_lower_at_every_precision():
    """One pass in tf32, three, and float32 are three programs."""
    arrays = [floats(*shape) for shape in (*TERMS, (V,), KEYS, KEYS, (B, V), (P, J))]

    def step(query, position, weights, intercept, keys, values, responses, basis):
        given = (query, position, weights, intercept, keys, values, responses, None, basis)
        return pallas.gradients(*given, with_trunk=True, with_readout=True, blocks=BLOCKS)

    texts, asked = set(), {"default": "DEFAULT", "high": "TF32_TF32_F32_X3", "highest": "HIGHEST"}
    for precision, named in asked.items():
        with jax.default_matmul_precision(precision):
            traced = jax.jit(step).trace(*arrays)
        products = re.findall(r"dot_general\[.*?precision=(.*?)\n", str(traced.jaxpr), re.DOTALL)
        assert products and all(named in product for product in products)
        texts.add(traced.lower(lowering_platforms=("cuda",)).as_text())
    assert len(texts) == 3


def test_kernels_are_interpreted_in_float32():
    """F-64: float32 agrees to 1e-5."""
    rng = np.random.default_rng(0)
    query, weights = rng.standard_normal((2, V, H, E)).astype(np.float32)
    keys, values = rng.standard_normal((2, *KEYS)).astype(np.float32)
    expected = mine_kernels.voxel_attention(query, None, weights, keys, values)
    options = {"implementation": "pallas", "interpret": True, "blocks": Blocks(rows=16, step=16, columns=8)}
    with jax.default_matmul_precision("high"):
        got = mine_kernels.voxel_attention(query, None, weights, keys, values, **options)
    np.testing.assert_allclose(got, expected, atol=1e-5)
