"""Streaming, storage and restarts: what the training loop does beside fitting."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import threadpoolctl

from mine_jax import encoder
from mine_jax._progress import silent
from mine_jax.config import QueryConfig, RidgeConfig
from mine_jax.encoder.linear import banded
from mine_jax.encoder.query import adam, readout, stopping, train
from mine_jax.encoder.query.images import Batch, Examples
from mine_jax.errors import ConfigError, DataError

QUICK = QueryConfig(width=4, heads=2, position_order=2, batch_size=8, epochs=2, learning_rate=0.01)


class CountedTokens:
    """Tokens on the host that remember how many bytes each read returned."""

    def __init__(self, array):
        self._array, self.shape, self.ndim, self.dtype, self.reads = array, array.shape, array.ndim, array.dtype, []

    def __len__(self):
        return len(self._array)

    def __getitem__(self, rows):
        block = self._array[rows]
        self.reads.append(block.nbytes)
        return block


@pytest.fixture
def splits(make):
    """40 training and 25 validation images, 3 voxels."""
    rng, out = np.random.default_rng(1), []
    weights = rng.standard_normal((6, 3))
    for n_images, masked in ((40, True), (25, True)):
        tokens = make.tokens(n_images, masked=masked, seed=n_images)
        signal = np.nan_to_num(tokens.tokens).mean(1) @ weights
        out.append(make.split(tokens, signal + 0.3 * rng.standard_normal(signal.shape)))
    return out


def fit(splits, config):
    return encoder.fit(splits[0], key=jax.random.key(0), validation=splits[1], config=config)


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({}, 2e-6),
        ({"trunk": "shared"}, 2e-6),
        ({"solver": "adam"}, 2e-6),
        # a key that rounds differently in another block may be stored as the next number of 8 bits
        ({"storage": "bfloat16"}, 2e-5),
    ],
    ids=["fixed", "shared", "adam", "bfloat16"],
)
def test_streamed_equals_resident(splits, options, tolerance):
    """A budget of 11 images (or fewer states), against everything resident."""
    config = QUICK.model_copy(update=options)
    expected, got = fit(splits, config), fit(splits, config.model_copy(update={"resident_bytes": 11 * 16 * 4 * 4}))
    a, b = (encoder.predict(x, splits[1].tokens) for x in (got, expected))
    # float32 sums over other blocks of images round differently
    np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(b).max(), rtol=0)
    np.testing.assert_array_equal(got.status, expected.status)


def test_reads_stay_within_the_budget(splits):
    """A token store larger than the budget: no read of a learned trunk exceeds half of it."""
    counted = [
        dataclasses.replace(s, tokens=dataclasses.replace(s.tokens, tokens=CountedTokens(s.tokens.tokens)))
        for s in splits
    ]
    whole = splits[0].tokens.tokens.nbytes
    fit(counted, QUICK.model_copy(update={"trunk": "shared", "resident_bytes": whole // 4}))
    # the projection that the trunk starts from reads 64 images at once, before the loop
    reads = counted[0].tokens.tokens.reads[1:]
    assert len(reads) > 8 and max(reads) <= whole // 8


def test_bfloat16_storage(splits):
    """Keys rounded once to 8 bits err by 2^-9 each; predictions sum few of them with weights of order 1."""
    a, b = (
        encoder.predict(fit(splits, QUICK.model_copy(update={"storage": dtype})), splits[1].tokens)
        for dtype in ("bfloat16", "float32")
    )
    assert 0 < np.abs(a - b).max() <= 2e-2 * np.abs(b).max()


def examples(n_images, scale, seed):
    rng = np.random.default_rng(seed)
    keys = rng.standard_normal((n_images, 5, 1, 3)).astype(np.float32)
    responses = keys[:, 2, 0] * np.asarray(scale, np.float32)
    return Examples(jnp.asarray(keys), True, None, jnp.asarray(responses))


def trained(scale, config):
    basis = np.zeros((5, 0), np.float32)
    trunk = {"key_weight": np.zeros((3, 1, 3), np.float32), "key_bias": np.zeros((1, 3), np.float32)}
    sides = (examples(32, scale, 0), examples(16, scale, 1))
    problem = encoder.Problem(trunk, basis, *sides, np.arange(3), config)
    return train.train(problem, key=jax.random.key(0), progress=silent)


def test_exploding_voxel_leaves_the_others_alone():
    """The squared responses of voxel 1 overflow float32: it is given up, its neighbours do not notice (F-17, F-65)."""
    config = QueryConfig(width=3, solver="adam", position_order=0, batch_size=8, epochs=6, learning_rate=0.05)
    expected, got = trained([1, 1, 1], config), trained([1, 1e30, 1], config)
    assert not expected.diverged.any()
    np.testing.assert_array_equal(got.diverged, [False, True, False])
    for name, value in expected.per_voxel.items():
        np.testing.assert_array_equal(got.per_voxel[name][[0, 2]], value[[0, 2]], err_msg=name)


def test_restarts_halve_the_rate_of_one_voxel():
    config = QueryConfig(restarts=2, learning_rate=0.4, patience=9)
    record, finite = stopping.Record(3, config), np.ones(3, bool)
    record.update(np.array([0.5, 0.5, 0.5]), finite)
    improved, restart, _ = record.update(np.array([0.6, -5.0, np.nan]), np.array([True, True, False]))
    np.testing.assert_array_equal(improved, [True, False, False])
    np.testing.assert_array_equal(restart, [False, True, True])
    np.testing.assert_allclose(record.rate, [0.4, 0.2, 0.2])
    np.testing.assert_array_equal(record.since, [0, 0, 0])
    record.update(np.array([0.5, 0.7, np.nan]), np.array([True, True, False]))
    np.testing.assert_allclose(record.best, [0.6, 0.7, 0.5])
    record.update(np.array([0.5, 0.7, np.nan]), np.array([True, True, False]))
    np.testing.assert_array_equal(record.diverged, [False, False, True])
    np.testing.assert_allclose(record.rate, [0.4, 0.2, 0])


SHARED = QueryConfig(
    width=3, trunk="shared", solver="adam", position_order=0, batch_size=8, epochs=4, learning_rate=0.05
)


def trained_together(scale, voxel_ids, config):
    """Fits voxels that share a trunk; each reads one axis of the third token."""

    def shown(n_images, seed):
        states = np.random.default_rng(seed).standard_normal((n_images, 5, 3)).astype(np.float32)
        responses = states[:, 2, voxel_ids] * np.asarray(scale, np.float32)
        return Examples(jnp.asarray(states), False, None, jnp.asarray(responses))

    trunk = {f"{kind}_weight": np.eye(3, dtype=np.float32)[:, None] for kind in ("key", "value")}
    trunk |= {f"{kind}_bias": np.zeros((1, 3), np.float32) for kind in ("key", "value")}
    problem = encoder.Problem(trunk, np.zeros((5, 0), np.float32), shown(32, 0), shown(16, 1), voxel_ids, config)
    return train.train(problem, key=jax.random.key(0), progress=silent)


@pytest.mark.parametrize("solver", ["adam", "varpro"])
def test_voxel_that_overflows_does_not_touch_a_shared_trunk(solver):
    """Trunk and neighbours are those of a fit without it; the trunk has learned (F-17)."""
    config = SHARED.model_copy(update={"solver": solver})
    expected = trained_together([1, 1], np.array([0, 2]), config)
    got = trained_together([1, 1e30, 1], np.arange(3), config)
    assert not expected.diverged.any() and np.abs(expected.trunk["value_weight"][:, 0] - np.eye(3)).max() > 0.01
    np.testing.assert_array_equal(got.diverged, [False, True, False])
    pairs = {name: (value[[0, 2]], expected.per_voxel[name]) for name, value in got.per_voxel.items()}
    # the bias of keys moves all logits alike: its gradient is nothing but rounding
    pairs |= {name: (value, expected.trunk[name]) for name, value in got.trunk.items() if name != "key_bias"}
    for name, (a, b) in pairs.items():
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1, np.abs(b).max()), rtol=0, err_msg=name)


@pytest.mark.parametrize(
    ("broken", "rate"),
    [
        ({}, 0.0),
        ({"query": np.nan}, 1.0),
        ({"readout": np.inf}, 1.0),
        ({"intercept": 3e38}, 1.0),
        ({"query": 1e30}, 0.0),
    ],
    ids=str,
)
def test_broken_voxel_gives_the_trunk_nothing(broken, rate):
    """Steps with a voxel that overflowed between them, or was given up before, against steps without it (F-17)."""
    rng, moving = np.random.default_rng(0), ("query", "readout", "intercept", "trunk")
    trunk = {"key_weight": rng.standard_normal((3, 1, 3)), "key_bias": np.zeros((1, 3))}
    shapes = {"query": (3, 1, 3), "position": (3, 1, 0), "readout": (3, 1, 3), "intercept": (3,)}
    voxels = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    tokens, responses = (rng.standard_normal(shape).astype(np.float32) for shape in ((16, 5, 3), (16, 3)))
    for name, value in broken.items():
        voxels[name][1] = value

    def stepped(chosen):
        state = {name: value[chosen] for name, value in voxels.items()} | {"trunk": trunk}
        state = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), state)
        rates = {"voxels": np.array([1, rate, 1], np.float32)[chosen] * 0.01, "trunk": np.float32(0.01)}
        images = Batch(jnp.asarray(tokens), None, jnp.asarray(responses[:, chosen]))
        rest = (images, np.zeros((5, 0), np.float32), np.arange(16).reshape(4, 4))
        moments = adam.first_moments(state, moving)
        return adam.steps(state, moments, rates, *rest, moving=moving, is_projected=False)[0]

    got, expected = stepped(np.arange(3)), stepped(np.array([0, 2]))
    assert np.abs(expected["trunk"]["key_weight"] - trunk["key_weight"]).max() > 0.01
    for name, value in expected["trunk"].items():
        np.testing.assert_allclose(got["trunk"][name], value, atol=2e-6, err_msg=name)
    for name in moving[:3]:
        np.testing.assert_allclose(got[name][np.array([0, 2])], expected[name], atol=2e-6, err_msg=name)


def test_trunk_that_breaks_halves_its_own_rate():
    """One voxel's failure is its own; that of most voxels is the trunk's, and ends the fit in the end."""
    config = SHARED.model_copy(update={"restarts": 2, "learning_rate": 0.4, "patience": 9})
    record, finite, good = stopping.Record(3, config), np.ones(3, bool), np.full(3, 0.5)
    assert not record.update(good, finite).restart_trunk
    changes = record.update(np.array([0.6, 0.6, -9.0]), finite)
    np.testing.assert_array_equal(changes.improved, [True, True, False])
    np.testing.assert_array_equal(changes.restart, [False, False, True])
    assert not changes.restart_trunk and record.trunk_rate == 0.4
    for rate in (0.2, 0.1):
        changes = record.update(np.array([0.9, np.nan, -9.0]), finite)
        assert changes.restart_trunk and changes.restart.all() and not changes.improved.any()
        assert record.trunk_rate == rate and not record.finished
    np.testing.assert_allclose(record.rate, [0.4, 0.1, 0.05])
    record.update(np.full(3, np.nan), ~finite)
    assert record.finished and record.trunk_diverged and not record.diverged.any() and record.trunk_rate == 0.1
    np.testing.assert_allclose(record.best, [0.6, 0.6, 0.5])


def test_given_up_voxels_have_no_part_in_early_stopping():
    """Two of three never were usable: the trunk is not blamed, and the third one stops in its own time."""
    record, finite = stopping.Record(3, SHARED.model_copy(update={"patience": 2})), np.ones(3, bool)
    for r2, improved in ((0.3, True), (0.2, False), (0.2, False)):
        assert not record.finished
        changes = record.update(np.array([np.nan, np.nan, r2]), finite)
        np.testing.assert_array_equal(changes.improved, [False, False, improved])
        assert not changes.restart_trunk
    np.testing.assert_array_equal(record.diverged, [True, True, False])
    assert record.finished


def test_wild_rate_of_a_shared_trunk_keeps_the_best_epoch(monkeypatch, caplog):
    """Every epoch breaks the trunk: its rate halves as often as allowed, and the start is what remains."""
    records = []

    def recorded(*given):
        records.append(stopping.Record(*given))
        return records[-1]

    monkeypatch.setattr(train, "Record", recorded)
    wild = SHARED.model_copy(update={"learning_rate": 1e9, "restarts": 2, "epochs": 9})
    got = trained_together([1, 1], np.array([0, 2]), wild)
    start = trained_together([1, 1], np.array([0, 2]), wild.model_copy(update={"epochs": 0}))
    assert records[0].trunk_rate == 0.25e9 and "shared trunk broke after 2 restarts" in caplog.text
    assert not got.diverged.any()
    jax.tree.map(np.testing.assert_array_equal, (got.trunk, got.per_voxel), (start.trunk, start.per_voxel))


LOOPS = {
    "fixed": {"heads": 2},
    "adam": {"solver": "adam"},
    "shared": {"trunk": "shared", "heads": 2},
    "streamed": {"resident_bytes": 11 * 16 * 4 * 4},
}


@pytest.mark.parametrize("name", LOOPS)
def test_steps_of_your_own_loop_are_those_of_an_epoch(splits, name):
    """One epoch of `train`, and the same batches one by one: the same parameters."""
    key, config = jax.random.key(3), QUICK.model_copy(update=LOOPS[name] | {"epochs": 1, "patience": 9})
    problem = encoder.fit_problem(*splits, config=config)
    seen = []
    trained = train.train(problem, key=key, progress=lambda *counts: seen.append(counts))
    assert seen == [(1, 2), (2, 2)]
    state = encoder.solve_readouts(encoder.init_fit(problem, key=key), problem)
    start = {name: np.asarray(value) for name, value in state.arrays.items() if name != "trunk"}
    order = encoder.batches(problem, 0, key=key)
    assert order.shape == (5, 8) and len(np.unique(order)) == 40
    for rows in order:
        state = encoder.fit_step(state, problem.training.batch(rows), problem)
    assert np.abs(state.arrays["query"] - start["query"]).max() > 1e-3
    # whose validation error grew kept the start
    moved = np.abs(trained.per_voxel["query"] - start["query"]).max((1, 2)) > 0
    assert moved.any()
    np.testing.assert_array_equal(trained.per_voxel["query"][moved], np.asarray(state.arrays["query"])[moved])
    if name == "shared":
        jax.tree.map(np.testing.assert_array_equal, trained.trunk, jax.tree.map(np.asarray, state.arrays["trunk"]))


def test_problem_of_your_own_loop_wants_voxels_that_can_be_fitted(splits):
    splits[0].responses.responses[:, 1] = 4
    with pytest.raises(DataError, match="1 of 3 voxels cannot be fitted"):
        encoder.fit_problem(*splits, config=QUICK)


def test_a_ridge_has_no_loop(splits):
    with pytest.raises(ConfigError, match="only query encoders"):
        encoder.fit_problem(*splits, config=RidgeConfig())


@pytest.mark.parametrize("options", [{}, {"solver": "adam", "resident_bytes": 11 * 16 * 4 * 4}], ids=str)
def test_voxels_that_go_on_by_themselves_end_where_they_would_have(splits, make, monkeypatch, options):
    """Voxels of noise stop early; those left are fitted in smaller blocks, and all end as in one block."""
    rng, together = np.random.default_rng(5), []
    for split in splits:
        noise = rng.standard_normal((len(split.responses.image_ids), 5))
        together.append(make.split(split.tokens, np.concatenate([split.responses.responses, noise], 1)))
    splits = together
    config = QUICK.model_copy(update=options | {"epochs": 12, "patience": 2})
    expected = fit(splits, config)
    sizes = []

    def taken(state, voxels, problem):
        sizes.append(len(voxels))
        return original(state, voxels, problem)

    original = train.State.take
    monkeypatch.setattr(train.State, "take", taken)
    monkeypatch.setattr(train, "_WORTH", {"cpu": 0})
    got = fit(splits, config)
    assert sizes and set(sizes) <= {4, 2, 1}
    np.testing.assert_allclose(got.selection_r2, expected.selection_r2, atol=1e-5)
    a, b = (encoder.predict(x, splits[1].tokens) for x in (got, expected))
    # float32 products over other numbers of voxels round differently
    np.testing.assert_allclose(a, b, atol=5e-6 * np.abs(b).max(), rtol=0)


@pytest.mark.parametrize("linear", [False, True])
def test_small_systems_are_solved_with_one_thread(splits, monkeypatch, linear):
    """More would wait for each other wherever cores are short."""
    seen = []

    def watched(function):
        def call(*args, **options):
            seen.append({one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"})
            return function(*args, **options)

        return call

    monkeypatch.setattr(readout, "finish", watched(readout.finish))
    monkeypatch.setattr(banded, "solved", watched(banded.solved))
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        fit(splits, QUICK.model_copy(update={"linear": linear}))
    # the start, two epochs and the end; candidates of linear terms and those chosen
    assert seen == [{1}] * (4 + 2 * linear)
