"""How much is worked on at once, by platform and shape: the platform is pretended, as accelerators are rare."""

import functools

import jax
import jax.numpy as jnp
import mine_kernels
import numpy as np
import pytest
from jax.extend import core
from mine_kernels.devices import Device, default_device
from mine_kernels.voxel_attention import xla
from mine_kernels.voxel_attention.op import voxel_attention, voxel_attention_gradients
from mine_kernels.voxel_attention.specs import default_tile

GIB = 1 << 30
H100, SMALL, CPU = Device("gpu", 80 * GIB), Device("gpu", 4 * GIB), Device("cpu", 0)
TPU = Device("tpu", 16 * GIB)


@pytest.mark.parametrize(
    ("device", "voxels", "batch", "tokens", "heads", "trips"),
    [
        (CPU, 4096, 64, 576, 1, 384),
        (H100, 4096, 64, 576, 1, 3),
        (TPU, 4096, 64, 576, 1, 3),
        (SMALL, 4096, 64, 576, 1, 11),
        (H100, 1000, 8, 196, 8, 1),
        (H100, 15_000, 32, 256, 8, 15),
        (H100, 15_000, 32, 256, 128, 236),
        (H100, 4096, 64, 49, 1, 1),
        (H100, 1, 1, 1, 1, 1),
    ],
)
def test_trips_per_batch(device, voxels, batch, tokens, heads, trips):
    tile = default_tile(voxels, batch, tokens, heads, 512 // heads, device=device)
    assert tile.trips(voxels, batch) == trips
    assert tile.voxels <= voxels and tile.images <= batch
    if device.platform != "cpu":
        logits = voxels * batch * tokens * heads
        # nearly as few as the budget of logits allows
        budget = min(1 << 26, device.memory // 256)
        assert tile.voxels * tile.images * tokens * heads <= budget
        assert tile.trips(voxels, batch) <= 1.3 * -(-logits // budget) + 1


def test_a_tile_has_at_most_the_voxels_that_the_user_allows():
    assert default_tile(4096, 64, 576, 1, 96, chunk=100, device=H100).voxels <= 100


@pytest.fixture
def pretend(monkeypatch):
    """Sets the platform; programs for it are forgotten afterwards."""

    def platform(name):
        monkeypatch.setattr(jax, "default_backend", lambda: name)
        jax.clear_caches()

    yield platform
    jax.clear_caches()


def test_an_accelerator_that_does_not_say_its_memory(pretend, monkeypatch):
    pretend("gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [type("Device", (), {"memory_stats": lambda self: None})()])
    assert default_device() == Device("gpu", 4 * GIB)


def loops(jaxpr, times=1):
    """The largest product of the lengths of nested loops."""
    most = times
    for equation in jaxpr.eqns:
        inside = times * equation.params["length"] if equation.primitive.name == "scan" else times
        for value in equation.params.values():
            if isinstance(value, core.ClosedJaxpr | core.Jaxpr):
                most = max(most, loops(getattr(value, "jaxpr", value), inside))
    return most


@pytest.mark.parametrize(("platform", "trips"), [("cpu", 384), ("gpu", 11)])
def test_the_program_has_as_many_trips(platform, trips, pretend):
    pretend(platform)
    v, b, p, e = 4096, 64, 576, 16
    shapes = ((v, 1, e), (v, 1, p), (v, 1, e), (v,), (b, p, 1, e), (b, p, 1, e), (b, v))
    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    assert loops(jax.make_jaxpr(voxel_attention_gradients)(*given).jaxpr) == trips
    query, position, readout, _, keys, values, _ = given
    assert loops(jax.make_jaxpr(voxel_attention)(query, position, readout, keys, values).jaxpr) == trips


def test_a_tile_takes_no_more_memory_than_it_is_counted_with():
    device, (v, b, p, e) = Device("gpu", GIB), (896, 8, 576, 64)
    tile = default_tile(v, b, p, 1, e, device=device)
    assert tile.trips(v, b) == 1
    shapes = ((v, 1, e), (v, 1, p), (v, 1, e), (v,))
    query, position, readout, intercept = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    keys, responses = jax.ShapeDtypeStruct((b, p, 1, e), jnp.float32), jax.ShapeDtypeStruct((b, v), jnp.float32)
    options = {"tile": tile, "with_trunk": True, "with_readout": True}
    rest = (None, responses, None, None)
    lowered = xla.gradients.lower(query, position, readout, intercept, {"keys": keys, "values": keys}, *rest, **options)
    assert lowered.compile().memory_analysis().temp_size_in_bytes <= device.memory / 8


def test_tiles_of_an_accelerator_give_the_same_numbers(pretend):
    rng = np.random.default_rng(0)
    query, readout = rng.standard_normal((2, 300, 2, 8)).astype(np.float32)
    position = rng.standard_normal((300, 2, 49)).astype(np.float32)
    keys, values = rng.standard_normal((2, 20, 49, 2, 8)).astype(np.float32)
    one = functools.partial(mine_kernels.voxel_attention, query, position, readout, keys, values)
    expected = np.asarray(one())
    pretend("gpu")
    np.testing.assert_allclose(one(), expected, atol=1e-5)
