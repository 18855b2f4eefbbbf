"""One suite for all implementations of the penalty sweep: a new one is tested without a new test."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
import pytest
from mine_kernels.ridge_sweep.op import IMPLEMENTATIONS
from mine_kernels.ridge_sweep.specs import SPECS, Blocks, Spec

SMALL = {name: spec for name, spec in SPECS.items() if np.prod(spec) < 1e6}
SMALL["ragged"] = Spec(voxels=21, folds=2, rows=37, features=37, candidates=3)
SMALL["row_blocks"] = Spec(voxels=9, folds=2, rows=200, features=260, candidates=2)
# What an implementation needs to run here; blocks so small that several of them are needed.
OPTIONS = {"pallas": {"interpret": True, "blocks": Blocks(features=16, voxels=16)}}
FLOAT32_ONLY = {"pallas"}


def sweep(*arrays, implementation):
    return mine_kernels.ridge_sweep(*arrays, implementation=implementation, **OPTIONS.get(implementation, {}))


def case(spec, *, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    shape = (spec.folds, spec.features, spec.voxels)
    arrays = (
        np.triu(rng.standard_normal((spec.folds, spec.rows, spec.features))),
        rng.uniform(0.1, 3, (spec.folds, spec.features)),
        rng.standard_normal(shape),
        rng.standard_normal(shape),
        rng.uniform(0.1, 1, spec.folds),
        10 ** rng.uniform(-2, 2, (spec.candidates, spec.voxels)),
    )
    return [x.astype(dtype) for x in arrays]


def float64_sweep(factor, values, train, valid, share, penalties):
    """Errors [C, V] and the size of what is summed, by NumPy in float64, voxel by voxel."""
    errors, size = np.zeros(penalties.shape), np.zeros(penalties.shape)
    for c, v in np.ndindex(penalties.shape):
        for k in range(len(share)):
            coef = train[k, :, v] / (values[k] + penalties[c, v])
            terms = ((factor[k] @ coef) ** 2).sum(), -2 * coef @ valid[k, :, v]
            errors[c, v] += share[k] * sum(terms)
            size[c, v] += share[k] * (terms[0] + 2 * np.abs(coef) @ np.abs(valid[k, :, v]))
    return errors, size


@pytest.mark.parametrize("spec", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_matches_float64_numpy(implementation, spec):
    arrays = case(spec)
    got = sweep(*arrays, implementation=implementation)
    assert got.shape == (spec.candidates, spec.voxels) and got.dtype == jnp.float32
    expected, size = float64_sweep(*(x.astype(np.float64) for x in arrays))
    assert (np.abs(got - expected) <= 1e-6 * np.sqrt(spec.features) * size).all()


def test_none_takes_xla_here():
    arrays = case(SPECS["smoke"])
    np.testing.assert_array_equal(
        mine_kernels.ridge_sweep(*arrays), mine_kernels.ridge_sweep(*arrays, implementation="xla")
    )


@pytest.mark.parametrize("implementation", [name for name in IMPLEMENTATIONS if name not in FLOAT32_ONLY])
def test_in_float64(implementation):
    arrays = case(SMALL["ragged"], dtype=np.float64)
    with jax.enable_x64(True):
        got = np.asarray(sweep(*arrays, implementation=implementation))
    expected, size = float64_sweep(*arrays)
    assert got.dtype == np.float64 and (np.abs(got - expected) <= 1e-13 * size).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_voxel_order_changes_nothing(implementation):
    factor, values, train, valid, share, penalties = case(SMALL["ragged"])
    order = np.random.default_rng(1).permutation(penalties.shape[1])
    got = sweep(factor, values, train, valid, share, penalties, implementation=implementation)
    moved = sweep(
        factor, values, train[..., order], valid[..., order], share, penalties[:, order], implementation=implementation
    )
    np.testing.assert_allclose(moved, got[:, order], rtol=1e-5, atol=1e-5)


def test_the_kernel_is_in_the_program():
    program = jax.make_jaxpr(lambda *arrays: sweep(*arrays, implementation="pallas"))
    assert "pallas_call" in str(program(*case(SPECS["one"])))


def test_importing_the_package_loads_no_kernel_compiler():
    code = "import sys, mine_kernels; print('jax.experimental.pallas' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False"]


def test_messages():
    arrays = case(SPECS["smoke"])
    with pytest.raises(NotImplementedError, match=r"`implementation` must be one of .*'cuda'"):
        mine_kernels.ridge_sweep(*arrays, implementation="cuda")
    if jax.default_backend() == "cpu":
        with pytest.raises(NotImplementedError, match=r"needs one of \('gpu', 'tpu'\), but the device is 'cpu'"):
            mine_kernels.ridge_sweep(*arrays, implementation="pallas")
    with pytest.raises(ValueError, match=r"`train` must have shape \(3, 24, 40\), but has shape \(3, 23, 40\)"):
        mine_kernels.ridge_sweep(arrays[0], arrays[1], arrays[2][:, :-1], *arrays[3:])
    with pytest.raises(ValueError, match="`factor` must have at most 24 rows"):
        mine_kernels.ridge_sweep(np.zeros((3, 25, 24), np.float32), *arrays[1:])
