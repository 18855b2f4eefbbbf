"""What compiled programs hold besides their arguments, against what plans count, at the sizes of one subject."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mine_jax import memory, sharding
from mine_jax.attribution import blocks, methods, patching
from mine_jax.attribution.path import Steps
from mine_jax.config import QueryConfig, RidgeConfig
from mine_jax.encoder import needs, ridge
from mine_jax.encoder.query import adam, readout, solving, train
from mine_jax.encoder.query.images import Batch
from mine_jax.encoder.ridge import kfold
from mine_jax.sharding import memory as device_memory
from mine_jax.types import Architecture, Encoders, ImageTokens

N_VOXELS, N_IMAGES, TOKEN_WIDTH, WIDTH, N_FUNCTIONS = 15_000, 10_000, 1024, 512, 15
MOST = 1.2


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def integers(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def temporary(lowered):
    return lowered.compile().memory_analysis().temp_size_in_bytes


def subject(n_tokens, heads):
    """Query encoders without numbers, and tokens that take no memory."""
    side = int(n_tokens**0.5)
    shapes = {"query": (heads, WIDTH), "position": (heads, n_tokens), "readout": (heads, WIDTH), "intercept": ()}
    encoders = Encoders(
        shared={"key_weight": floats(TOKEN_WIDTH, 1, WIDTH), "key_bias": floats(1, WIDTH)},
        per_voxel={name: floats(N_VOXELS, *shape) for name, shape in shapes.items()},
        baseline=np.zeros(TOKEN_WIDTH, np.float32),
        voxel_ids=np.arange(N_VOXELS),
        status=np.zeros(N_VOXELS, np.int8),
        architecture=Architecture("query", (side, side)),
    )
    states = np.broadcast_to(np.float32(0), (N_IMAGES, n_tokens, TOKEN_WIDTH))
    return encoders, ImageTokens(states, np.arange(N_IMAGES).astype(str), None, (side, side))


@pytest.mark.parametrize(
    ("program", "n_tokens", "heads", "is_grid"),
    [
        ("scores", 256, 8, True),
        ("top tokens", 576, 1, True),
        ("autodiff", 256, 8, True),
        ("patch_by_sums", 256, 8, True),
        ("patch_by_points", 576, 1, False),
    ],
)
def test_attribution(program, n_tokens, heads, is_grid):
    encoders, tokens = subject(n_tokens, heads)
    needs_states = program == "autodiff"
    room = blocks.pairs_at_once(encoders, tokens, needs_states=needs_states)
    planned = room * n_tokens * (TOKEN_WIDTH if needs_states else heads) * blocks.BYTES_PER_ELEMENT
    n_images = min(16, room)
    n_voxels, mask = room // n_images, None if is_grid else jax.ShapeDtypeStruct((n_images, n_tokens), bool)
    if needs_states:
        images, start = blocks.Images(floats(n_images, n_tokens, TOKEN_WIDTH)), floats(n_tokens, TOKEN_WIDTH)
    else:
        images = blocks.Images(None, floats(n_images, n_tokens, 1, WIDTH), None, mask)
        start = blocks.Images(None, floats(1, 1, WIDTH))
    scores = floats(n_images, n_voxels, n_tokens) if program.startswith("patch") else None
    voxels = integers(n_voxels) if is_grid else integers(n_images, n_voxels)
    block = blocks.Block(encoders.shared, encoders.per_voxel, voxels, images, scores)
    if program.startswith("patch"):
        points = patching.Points(start, integers(len(patching.curve_points(n_tokens, 50))), integers(5, n_tokens))
        lowered = getattr(patching, program).lower(block, points, how=encoders.architecture, mesh=None)
    else:
        how = methods.How(encoders.architecture, "sum", 50 if program == "top tokens" else None)
        method = methods.METHODS["autodiff" if needs_states else "exact"]
        lowered = method.lower(block, Steps(start, floats(32), floats(32)), how=how, mesh=None)
    assert temporary(lowered) <= MOST * planned


@pytest.mark.parametrize("program", ["readout sums", "readouts", "predictions", "steps"])
def test_query_fit(program):
    n_tokens, heads = 256, 1
    config = QueryConfig(width=WIDTH, heads=heads, solver="adam" if program == "steps" else "varpro")
    given = {"n_images": N_IMAGES, "token_shape": (n_tokens, TOKEN_WIDTH)}
    plan = needs.plan_query(config, n_voxels=N_VOXELS, available=64 << 30, **given)
    v, n_images = plan.chunk, config.resident_bytes // (4 * n_tokens * WIDTH)
    state = {"trunk": {}, "query": floats(v, heads, WIDTH), "position": floats(v, heads, N_FUNCTIONS)}
    state |= {"readout": floats(v, heads, WIDTH), "intercept": floats(v)}
    images = Batch(floats(n_images, n_tokens, 1, WIDTH), None, floats(n_images, v))
    sums = {"gram": floats(v, WIDTH, WIDTH), "cross": floats(v, WIDTH), "total": floats(v, WIDTH)}
    sums |= {"y_total": floats(v), "y_square": floats(v), "count": floats()}
    basis = floats(n_tokens, N_FUNCTIONS)
    if program == "readout sums":
        lowered = solving.add_images.lower(sums, state, floats(v, heads, n_tokens), images, is_projected=True)
    elif program == "readouts":
        lowered = readout.finish.lower(sums, heads=heads)
    elif program == "predictions":
        lowered = train.predict_images.lower(state, images.tokens, None, basis, is_projected=True)
    else:
        moving = ("query", "position", "readout", "intercept")
        moments = jax.eval_shape(lambda arrays: adam.first_moments(arrays, moving), state)
        rest = ({"voxels": floats(v)}, images, basis, integers(100, 64))
        lowered = adam.steps.lower(state, moments, *rest, moving=moving, is_projected=True)
    assert temporary(lowered) <= MOST * plan.bytes


def test_ridge():
    config, n_features = RidgeConfig(summary="mean"), 512
    given = {"n_images": N_IMAGES, "token_shape": (256, n_features)}
    plan = needs.plan_ridge(config, n_voxels=N_VOXELS, available=64 << 30, **given)
    k, f, n = config.folds, n_features, N_IMAGES // config.folds
    rows = min(n, f)
    shapes = [(f,), (f, f), (f, f), (k, f), (k, f, f), (k, rows, f), (k, f), (k, f), (k, f), (k,), (k,), (k,)]
    folds = kfold.Folds((floats(f, n),) * k, floats(k, k * n), *(floats(*shape) for shape in shapes))
    lowered = kfold.solve_block.lower(floats(N_IMAGES, plan.chunk), folds, floats(config.penalties))
    assert temporary(lowered) <= MOST * plan.bytes


def device(platform, stats):
    return types.SimpleNamespace(platform=platform, memory_stats=lambda: stats)


@pytest.mark.parametrize("stats", [None, {}, {"bytes_in_use": 7}])
def test_an_accelerator_that_does_not_say_has_no_part_in_host_memory(stats, monkeypatch, caplog):
    device_memory._warn_of_unknown.cache_clear()
    monkeypatch.setattr(jax, "local_devices", lambda: [device("gpu", stats)] * 2)
    monkeypatch.setattr(device_memory, "_free_host_bytes", lambda: 1 << 50)
    assert sharding.free_bytes() == sharding.free_bytes() == device_memory.UNKNOWN_BYTES
    assert [record.getMessage() for record in caplog.records] == [
        "devices of platform gpu do not say how much memory they have; plans count on 4 GiB of each. "
        "run.voxel_chunk and run.image_chunk set how much is held at once instead"
    ]


def test_free_bytes_are_those_of_the_fullest_device(monkeypatch, caplog):
    free = [device("gpu", {"bytes_limit": 100, "bytes_in_use": used}) for used in (10, 70)]
    monkeypatch.setattr(jax, "local_devices", lambda: free)
    assert sharding.free_bytes() == 30 and not caplog.records
    monkeypatch.setattr(jax, "local_devices", lambda: [device("cpu", None)] * 2)
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    monkeypatch.setattr(device_memory, "_free_host_bytes", lambda: 1000)
    assert sharding.free_bytes() == 500


@pytest.mark.parametrize(
    ("platform", "n_voxels", "n_images", "tile"),
    [("cpu", 256, 64, (64, 28)), ("gpu", 4096, 256, (4096, 113)), ("tpu", 4096, 256, (4096, 113))],
)
def test_what_is_done_at_once_follows_the_platform(platform, n_voxels, n_images, tile, monkeypatch):
    """Loop trips of readouts, fits and predictions; what a readout reads at once fits a cache, or fills a device."""
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    config, given = QueryConfig(width=96), {"n_images": 1000, "token_shape": (576, 1024)}
    assert needs.plan_query(config, n_voxels=N_VOXELS, available=1 << 40, **given).chunk == n_voxels
    assert needs.plan_ridge(RidgeConfig(), n_voxels=N_VOXELS, available=1 << 40, **given).chunk == n_voxels
    assert memory.images_at_once() == n_images
    assert readout.tile(n_voxels, 128, 576) == tile

    # the public solver takes as many voxels as suit the device, too
    rng = np.random.default_rng(0)
    features, responses = rng.standard_normal((20, 3)), rng.standard_normal((20, 300)).astype(np.float32)
    counts = []
    ridge.solve(features, responses, 10.0 ** np.arange(3), folds=2, progress=lambda done, _: counts.append(done))
    assert len(counts) == (2 if platform == "cpu" else 1)
