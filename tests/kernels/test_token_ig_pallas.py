"""The GPU kernel, run step by step on the CPU, and the choice of the K largest scores."""

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
import pytest
from mine_kernels.token_ig.specs import Spec

NAMES = ("logits_0", "logits_1", "scalars_0", "scalars_1", "position")
# ragged: neither heads nor tokens are powers of two
CASES = {"ragged": Spec(2, 2, 9, 3, 4), "aligned": Spec(2, 1, 8, 2, 3), "one": Spec(1, 1, 1, 1, 1)}


def case(spec, *, equal_start=False, gain=1.0):
    rng = np.random.default_rng(spec.tokens)
    arrays = [
        rng.standard_normal((spec.voxels, spec.images, spec.heads, spec.tokens)).astype(np.float32) for _ in NAMES
    ]
    arrays[0], arrays[1] = gain * arrays[0], gain * arrays[1]
    if equal_start:
        arrays[0], arrays[2] = arrays[0][:, :1, :, :1], arrays[2][:, :1, :, :1]
    nodes, weights = np.polynomial.legendre.leggauss(spec.steps)
    return *arrays, ((nodes + 1) / 2).astype(np.float32), (weights / 2).astype(np.float32)


@pytest.mark.parametrize("equal_start", [False, True])
@pytest.mark.parametrize("spec", CASES.values(), ids=CASES)
def test_kernel_matches_reference(spec, equal_start):
    arguments = case(spec, equal_start=equal_start)
    expected = mine_kernels.token_ig(*arguments, implementation="reference")
    got = mine_kernels.token_ig(*arguments, implementation="pallas", interpret=True)
    assert got.shape == expected.shape == (spec.voxels, spec.images, spec.tokens)
    np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.parametrize("implementation", ["xla", "pallas"])
@pytest.mark.parametrize("k", [1, 5, 9])
def test_top_k_matches_reference(k, implementation):
    arguments = case(CASES["ragged"])
    for array in arguments[:5]:
        array[..., 3:6] = array[..., 3:4]  # equal tokens have equal scores
    expected = mine_kernels.token_ig_top_k(*arguments, k=k, implementation="reference")
    got = mine_kernels.token_ig_top_k(
        *arguments, k=k, implementation=implementation, interpret=implementation == "pallas"
    )
    assert got[0].shape == (2, 2, k) and got[0].dtype == jnp.int32
    np.testing.assert_array_equal(got[0], expected[0])
    for a, b in zip(got[1:], expected[1:], strict=True):
        np.testing.assert_allclose(a, b, atol=3e-6)


def test_top_k_of_special_numbers():
    scores = jnp.array([[0.0, -0.0, jnp.nan, -jnp.inf, 2.0, jnp.nan, jnp.inf, 2.0, -0.0, -1.0]])
    expected = np.argsort(-np.asarray(scores), kind="stable")
    for implementation in ("reference", "xla"):
        np.testing.assert_array_equal(mine_kernels.top_k(scores, k=10, implementation=implementation), expected)


def test_kernel_is_in_the_program():
    arguments = case(CASES["aligned"])

    def attribute(*given):
        return mine_kernels.token_ig(*given, implementation="pallas", interpret=True)

    assert "pallas_call" in str(jax.make_jaxpr(attribute)(*arguments))
    assert "pallas_call" not in str(jax.make_jaxpr(mine_kernels.token_ig)(*arguments))


def test_kernel_lowers_for_gpus():
    """Triton takes blocks of powers of two only; this needs no GPU."""
    arguments = [jnp.asarray(x) for x in case(CASES["ragged"])]
    from mine_kernels.token_ig import pallas
    from mine_kernels.token_ig.specs import BLOCKS

    for attribute in (pallas.token_ig, lambda *given, **options: pallas.token_ig_top_k(*given, k=5, **options)):
        compute = jax.jit(lambda *given, f=attribute: f(*given, blocks=BLOCKS, interpret=False))
        lowered = compute.trace(*arguments).lower(lowering_platforms=("cuda",))
        assert "xla.gpu.triton" in lowered.as_text()


def test_messages():
    arguments = case(CASES["ragged"])
    with pytest.raises(NotImplementedError, match=r"needs a GPU, but the device is 'cpu'.*\"xla\""):
        mine_kernels.token_ig(*arguments, implementation="pallas")
    with pytest.raises(NotImplementedError, match="has no `cells`"):
        mine_kernels.token_ig_top_k(
            *arguments, k=2, cells=np.eye(9, dtype=np.float32), implementation="pallas", interpret=True
        )
    with pytest.raises(ValueError, match=r"`k` must be in 1\.\.9"):
        mine_kernels.token_ig_top_k(*arguments, k=10)
    with pytest.raises(NotImplementedError, match="'pallas'"):
        mine_kernels.top_k(np.zeros((2, 9)), k=1, implementation="pallas")
