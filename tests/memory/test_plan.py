"""Plans of memory, and what happens when one was wrong."""

import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mine_jax import attribution, encoder, memory, sharding
from mine_jax.attribution import blocks
from mine_jax.config import Config, PrecomputedConfig, QueryConfig, RidgeConfig
from mine_jax.encoder import needs
from mine_jax.encoder.linear import banded, choose
from mine_jax.encoder.query import adam, readout, solving, train
from mine_jax.encoder.query.images import Batch
from mine_jax.encoder.ridge import kfold
from mine_jax.errors import ResourceError
from mine_jax.run.graph import STEPS

EXHAUSTED = "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"


def limited(limit, seen):
    """A function of positions that exhausts the memory for more of them than the limit."""

    def compute(positions):
        seen.append(len(positions))
        if len(positions) > limit:
            raise jax.errors.JaxRuntimeError(EXHAUSTED)
        return positions**2

    return compute


@pytest.mark.parametrize(("wanted", "limit", "tried"), [(None, 20, [20]), (8, 8, [7, 7, 7]), (None, 6, [20, 10, 5])])
def test_chunks_are_halved_until_they_fit(wanted, limit, tried, caplog):
    """F-80: halved until it fits."""
    seen = []
    made = list(memory.in_chunks(limited(limit, seen), 20, wanted, setting="run.voxel_chunk"))
    np.testing.assert_array_equal(np.concatenate([part[:n] for part, n, _ in made]), np.arange(20) ** 2)
    assert seen[: len(tried)] == tried and made[-1][2] == 20
    assert len(caplog.records) == len([size for size in seen if size > limit])
    assert all("run.voxel_chunk" in record.message for record in caplog.records)


def test_finished_chunks_are_not_done_again():
    seen = []

    def compute(positions):
        seen.extend(positions.tolist())
        if len(positions) > 4 and positions[0] >= 8:
            raise jax.errors.JaxRuntimeError(EXHAUSTED)
        return len(positions)

    assert [n for _, n, _ in memory.in_chunks(compute, 16, 8, setting="x")] == [8, 4, 4]
    assert seen.count(0) == 1 and seen.count(8) == 2


def test_chunks_stay_multiples():
    seen = []
    list(memory.in_chunks(limited(5, seen), 17, None, setting="x", multiple=4))
    assert seen[0] == 20 and set(seen[1:]) == {8, 4} and all(size % 4 == 0 for size in seen)


def test_what_never_fits_is_a_named_error(caplog):
    """F-80: the smallest chunk is too large."""
    with pytest.raises(ResourceError, match=r"even with run\.voxel_chunk = 1: RESOURCE_EXHAUSTED"):
        list(memory.in_chunks(limited(0, []), 5, None, setting="run.voxel_chunk"))
    assert len(caplog.records) == 2
    with pytest.raises(ResourceError, match="= 2"):
        list(memory.in_chunks(limited(0, []), 5, None, setting="x", multiple=2))


def test_other_errors_pass():
    def compute(_):
        raise jax.errors.JaxRuntimeError("INTERNAL: fault")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        list(memory.in_chunks(compute, 5, None, setting="x"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        memory.halving(compute, 8, setting="x")


def test_halving_starts_again():
    seen = []
    compute = limited(3, seen)
    assert memory.halving(lambda size: compute(np.arange(size)).sum(), 16, setting="x") == 1
    assert seen == [16, 8, 4, 2]


def test_plan_follows_memory():
    need = memory.Need(fixed=1000, each=10)
    share = memory.SAFE_SHARE
    assert memory.plan_chunk(need, 500, available=int(2000 / share) + 1) == (100, 2000)
    assert memory.plan_chunk(need, 50, available=10**6) == (50, 1500)
    assert memory.plan_chunk(need, 500, available=10**6, largest=64).chunk == 64
    assert memory.plan_chunk(need, 500, available=0) == (1, 1010)
    assert memory.plan_chunk(need, 500, available=0, wanted=7).chunk == 7


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def peak(compiled):
    sizes = compiled.memory_analysis()
    return sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes


@pytest.mark.parametrize(
    ("solver", "heads", "width", "n_cells"), [("varpro", 1, 96, 49), ("varpro", 4, 16, 49), ("adam", 1, 64, 100)]
)
def test_query_count_bounds_the_compiled_programs(solver, heads, width, n_cells):
    """Between what the largest program needs and twice that."""
    config = QueryConfig(width=width, heads=heads, solver=solver)
    n_voxels, n_images, n_functions, size = 64, 256, 15, heads * width
    state = {
        "trunk": {},
        "query": floats(n_voxels, heads, width),
        "position": floats(n_voxels, heads, n_functions),
        "readout": floats(n_voxels, heads, width),
        "intercept": floats(n_voxels),
    }
    sums = {"gram": floats(n_voxels, size, size), "cross": floats(n_voxels, size), "total": floats(n_voxels, size)}
    sums |= {"y_total": floats(n_voxels), "y_square": floats(n_voxels), "count": floats()}
    tokens, responses = floats(n_images, n_cells, 1, width), floats(n_images, n_voxels)
    position = floats(n_voxels, heads, n_cells)
    programs = [
        solving.add_images.lower(sums, state, position, Batch(tokens, None, responses), is_projected=True),
        readout.finish.lower(sums, heads=heads),
    ]
    if solver == "adam":
        moving = ("query", "position", "readout", "intercept")
        zeros = jax.tree.map(lambda like: jnp.zeros(like.shape), state)
        moments, order = adam.first_moments(zeros, moving), jax.ShapeDtypeStruct((4, 64), jnp.int32)
        images = Batch(tokens, None, responses)
        rest = ({"voxels": floats(n_voxels)}, images, floats(n_cells, n_functions), order)
        programs.append(adam.steps.lower(state, moments, *rest, moving=moving, is_projected=True))
    measured = max(peak(program.compile()) for program in programs)
    need = needs.query_need(config, n_images=n_images, token_shape=(n_cells, 512))
    assert measured <= need.fixed + n_voxels * need.each <= 2 * measured


@pytest.mark.parametrize(("heads", "width", "n_components"), [(1, 96, 256), (4, 16, 100), (1, 32, 512)])
def test_linear_count_bounds_the_compiled_programs(heads, width, n_components):
    """Each voxel's bytes: between what the largest program needs and twice that; the components are on the host."""
    config = QueryConfig(width=width, heads=heads, linear=True, linear_width=n_components)
    n_voxels, n_images, n_cells, size = 64, 600, 49, heads * width
    state = {"trunk": {}, "query": floats(n_voxels, heads, width), "position": floats(n_voxels, heads, 15)}
    state |= {"readout": floats(n_voxels, heads, width), "intercept": floats(n_voxels)}
    sums = {"gram": floats(n_voxels, size, size), "cross": floats(n_voxels, size), "total": floats(n_voxels, size)}
    sums |= {"linear_cross": floats(n_voxels, n_components, size), "linear_y": floats(n_voxels, n_components)}
    sums |= {"y_total": floats(n_voxels), "y_square": floats(n_voxels), "count": floats()}
    position = floats(n_voxels, heads, n_cells)
    images = Batch(
        floats(n_images, n_cells, 1, width), None, floats(n_images, n_voxels), floats(n_images, n_components)
    )
    n = banded.N_CANDIDATES
    solution = (floats(n_voxels, n, size), floats(n_voxels, n, n_components), floats(n_voxels, n))
    programs = [
        solving.add_images.lower(sums, state, position, images, is_projected=True),
        banded.solved.lower(sums, floats(n_components)),
        choose.errors_of.lower(state, position, images, solution, is_projected=True),
    ]
    measured = max(peak(program.compile()) for program in programs)
    need = needs.query_need(config, n_images=n_images, token_shape=(n_cells, 512))
    plain = needs.query_need(config.model_copy(update={"linear": False}), n_images=n_images, token_shape=(n_cells, 512))
    assert measured <= plain.fixed + n_voxels * need.each <= 2 * measured
    assert need.fixed > plain.fixed


def test_ridge_count_bounds_the_compiled_program():
    n_voxels, n_images, n_features, n_folds, n_penalties = 128, 300, 64, 4, 12
    rows = np.array_split(np.arange(n_images), n_folds)
    features = np.random.default_rng(0).standard_normal((n_images, n_features)).astype(np.float32)
    folds, _ = kfold.prepare(features, np.ones(n_images, np.float32), rows)
    program = kfold.solve_block.lower(floats(n_images, n_voxels), folds, floats(n_penalties))
    config = RidgeConfig(folds=n_folds, penalties=n_penalties)
    need = needs.ridge_need(config, n_images=n_images, token_shape=(9, n_features))
    measured = peak(program.compile())
    assert measured <= need.fixed + n_voxels * need.each <= 2 * measured


def test_streamed_tokens_count_at_most_their_budget():
    config = QueryConfig(resident_bytes=10_000)
    few, many = (needs.query_need(config, n_images=n, token_shape=(196, 1024)).fixed for n in (1, 10_000))
    assert few <= many == 10_000


def test_dry_run_says_chunks_and_memory(tmp_path):
    """Where nothing says how many image-tokens there are, nothing is; else the plan names the chunk and the bytes."""
    config = Config().model_copy(update={"features": PrecomputedConfig()})
    unknown = ["sizes are known after the data and features stages"]
    assert STEPS["encoder"].plan(config, tmp_path) == unknown == STEPS["attribution"].plan(config, tmp_path)
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "responses.npy", np.zeros((90, 700), np.float32))
    np.save(tmp_path / "tokens.npy", np.zeros((90, 16, 32), np.float16))
    features = PrecomputedConfig(tokens=str(tmp_path / "tokens.npy"))
    config = config.model_copy(update={"features": features})
    text = "\n".join(STEPS["encoder"].plan(config, tmp_path))
    assert "free" in text and "700 voxels" in text and "FLOP" in text
    assert "run.voxel_chunk = 256" in text and "MiB" in text
    ridge = config.model_copy(update={"encoder": RidgeConfig()})
    assert "run.voxel_chunk = 256" in "\n".join(STEPS["encoder"].plan(ridge, tmp_path))
    chosen = config.model_copy(update={"run": config.run.model_copy(update={"voxel_chunk": 9})})
    assert "run.voxel_chunk = 9 " in "\n".join(STEPS["encoder"].plan(chosen, tmp_path))


def test_dry_run_says_what_does_not_fit(tmp_path, monkeypatch):
    """128 heads x 512 under a fixed trunk: 65536 x 65536 float32 numbers are 16 GiB, whatever the data."""
    free = 20 * 2**30
    monkeypatch.setattr(sharding, "free_bytes", lambda: free)
    paper = QueryConfig(solver="adam", heads=128, width=512)
    config = Config()
    one_device = config.run.model_copy(update={"mesh": {"voxel": 1}})
    config = config.model_copy(update={"encoder": paper, "run": one_device})
    unknown = "\n".join(STEPS["encoder"].plan(config, tmp_path))
    assert "DOES NOT FIT: 1 voxel" in unknown and "at least 64." in unknown and "20.0 GiB are free" in unknown
    assert "65536 x 65536, 16.0 GiB" in unknown and 'set encoder.trunk = "shared": each head has 4 columns' in unknown
    (tmp_path / "data").mkdir()
    np.lib.format.open_memmap(tmp_path / "tokens.npy", "w+", np.float16, (900, 256, 1024))

    def planned(n_voxels=12_000, **settings):
        np.lib.format.open_memmap(tmp_path / "data" / "responses.npy", "w+", np.float32, (900, n_voxels))
        features = PrecomputedConfig(tokens=str(tmp_path / "tokens.npy"))
        changed = {"features": features, "encoder": paper.model_copy(update=settings)}
        return "\n".join(STEPS["encoder"].plan(config.model_copy(update=changed), tmp_path))

    text = planned()
    heads = int(text.rsplit("encoder.heads = ", 1)[1])
    assert "DOES NOT FIT: 1 voxel" in text and "DOES NOT FIT" not in planned(heads=heads)
    text = planned(trunk="shared")
    together = int(text.split(" fit (see data.roi)")[0].rsplit(" ", 1)[1])
    assert "DOES NOT FIT: 12,000 voxels" in text and 500 < together < 12_000
    assert "DOES NOT FIT" not in planned(together, trunk="shared")
    config = config.model_copy(update={"run": one_device.model_copy(update={"voxel_chunk": 12_000})})
    assert "set run.voxel_chunk = " in planned(heads=1)


@pytest.fixture(scope="module")
def small():
    """Small data, and encoders fitted to it."""
    program = runpy.run_path(str(Path(__file__).parent.parent / "sharding" / "many_devices.py"))
    split = program["made_split"]()
    config = QueryConfig(width=4, position_order=2, batch_size=16, epochs=1)
    return split, config, encoder.fit(split, key=jax.random.key(0), config=config)


def exhausting(function, limit, size_of):
    def limited(*given, **options):
        if size_of(*given, **options) > limit:
            raise jax.errors.JaxRuntimeError(EXHAUSTED)
        return function(*given, **options)

    return limited


def test_only_a_lack_of_memory_is_one():
    assert memory.is_exhausted(jax.errors.JaxRuntimeError(EXHAUSTED))
    assert not memory.is_exhausted(jax.errors.JaxRuntimeError("INTERNAL: broken"))
    assert not memory.is_exhausted(ValueError(EXHAUSTED))


def test_a_fit_that_exhausts_the_memory_goes_on_in_halves(small, monkeypatch, caplog):
    """F-80: the same results."""
    split, config, fitted = small
    monkeypatch.setattr(train, "train", exhausting(train.train, 3, lambda problem, **_: problem.n_voxels))
    halved = encoder.fit(split, key=jax.random.key(0), config=config)
    assert "out of device memory with run.voxel_chunk = 5; goes on with 2" in caplog.text
    expected = encoder.predict(fitted, split.tokens)
    np.testing.assert_allclose(encoder.predict(halved, split.tokens), expected, atol=1e-6 * np.abs(expected).max())


def test_an_attribution_that_exhausts_the_memory_goes_on_in_halves(small, monkeypatch, caplog):
    split, _, fitted = small
    expected = attribution.integrated_gradients(fitted, split.tokens, n_steps=4, max_steps=4).scores
    monkeypatch.setattr(blocks, "pairs_at_once", lambda *given, **_: 40)
    monkeypatch.setattr(blocks, "blocks_of", exhausting(blocks.blocks_of, 20, lambda *_, room, **more: room))
    got = attribution.integrated_gradients(fitted, split.tokens, n_steps=4, max_steps=4).scores
    assert "pairs at once = 40; goes on with 20" in caplog.text
    np.testing.assert_allclose(got, expected, atol=1e-6 * np.abs(expected).max())
