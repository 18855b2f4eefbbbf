"""The Pallas kernels in interpret mode, against the reference; no GPU has run them."""

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
import pytest
from mine_kernels.voxel_attention import pallas, reference
from mine_kernels.voxel_attention.specs import Blocks, Spec

# neither voxels nor tokens are multiples of these blocks
BLOCKS = Blocks(voxels=8, tokens=4)
RAGGED = {"heads_apart": Spec(11, 3, 7, 2, 2, 5), "shared_keys": Spec(9, 2, 9, 3, 1, 4)}


def case(spec, *, dtype=jnp.float32, n_basis=None):
    """Arguments of the gradient op; the last image has no real token."""
    v, b, p, h, g, e = spec
    rng = np.random.default_rng(0)
    shapes = {"query": (v, h, e), "position": (v, h, n_basis or p), "readout": (v, h, e), "intercept": (v,)}
    shapes |= {"keys": (b, p, g, e), "values": (b, p, g, e), "responses": (b, v)}
    arrays = {name: jnp.asarray(rng.standard_normal(shape), jnp.float32) for name, shape in shapes.items()}
    arrays |= {name: arrays[name].astype(dtype) for name in ("keys", "values")}
    mask = jnp.asarray(rng.random((b, p)) < 0.6).at[:, 0].set(True).at[-1].set(False)
    basis = None if n_basis is None else jnp.asarray(rng.standard_normal((p, n_basis)), jnp.float32)
    return arrays, mask, basis


def close(got, expected, name):
    np.testing.assert_allclose(got, expected, atol=1e-5 * max(1, float(jnp.abs(expected).max())), err_msg=name)


@pytest.mark.parametrize(
    ("name", "dtype", "n_basis"),
    [("heads_apart", jnp.float32, None), ("heads_apart", jnp.bfloat16, 3), ("shared_keys", jnp.bfloat16, None)],
)
def test_matches_reference(name, dtype, n_basis):
    """Half-precision keys are multiplied in float32: as the reference does with the same rounded keys."""
    arrays, mask, basis = case(RAGGED[name], dtype=dtype, n_basis=n_basis)
    loss, got = pallas.gradients(
        **arrays, mask=mask, basis=basis, with_trunk=True, with_readout=True, blocks=BLOCKS, interpret=True
    )
    single = arrays | {key: arrays[key].astype(jnp.float32) for key in ("keys", "values")}
    expected_loss, expected = mine_kernels.voxel_attention_gradients(
        **single, mask=mask, basis=basis, implementation="reference"
    )
    close(loss, expected_loss, "loss")
    assert set(got) == set(expected)
    for key, value in expected.items():
        close(got[key], value, key)
    given = [arrays[key] for key in ("query", "position", "readout", "keys", "values")]
    predicted = pallas.forward(*given, mask, basis, blocks=BLOCKS, interpret=True)
    in_single = [single[key] for key in ("query", "position", "readout", "keys", "values")]
    close(predicted, reference.voxel_attention(*in_single, mask, basis), "predicted")


def test_without_position_or_mask():
    arrays, _, _ = case(RAGGED["heads_apart"])
    arrays["position"] = None
    options = {"with_trunk": False, "with_readout": False}
    _, got = mine_kernels.voxel_attention_gradients(**arrays, **options, implementation="pallas", interpret=True)
    _, expected = mine_kernels.voxel_attention_gradients(**arrays, **options, implementation="reference")
    assert set(got) == set(expected) == {"query", "intercept"}
    close(got["query"], expected["query"], "query")


def test_message_missing_device():
    arrays, mask, _ = case(RAGGED["heads_apart"])
    if jax.default_backend() == "gpu":
        pytest.skip("this device runs the kernels")
    with pytest.raises(NotImplementedError, match="'pallas' needs a GPU, but the default device is 'cpu'"):
        mine_kernels.voxel_attention_gradients(**arrays, mask=mask, implementation="pallas")
