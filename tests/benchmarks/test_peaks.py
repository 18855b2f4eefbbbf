"""The counted work of our algorithms, and what is made of it."""

import jax
import jax.numpy as jnp
import mine_kernels
import pytest

from benchmarks import bench_ig, bench_query, bench_ridge, peaks
from benchmarks.cases import CASES

SMOKE = CASES["smoke"]


def _counted(function, *shapes):
    """FLOP that the compiler finds in a function of float32 arrays; the body of a loop counts once."""
    return jax.jit(function).lower(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)).cost_analysis()["flops"]


def test_query_flop_against_the_compiler():
    # one block of images and one of voxels, so that no loop hides work; wide heads, so that products prevail
    case = SMOKE._replace(voxels=16, batch=2, tokens=24, width=512, heads=2)
    step = bench_query.implementations(case, bench_query.inputs(case))["mine_jax"]
    found = jax.jit(step).lower().cost_analysis()["flops"]
    assert 0 < found - bench_query.flop(case) < 0.03 * found


def test_ridge_flop_of_a_voxel_against_a_plain_expression():
    case = SMOKE._replace(images=400, width=60, voxels=50, folds=4, penalties=9)
    n, f, v, a, k = case.images, case.width, case.voxels, case.penalties, case.folds

    def plain(x, y, turn, vectors, factor, weights):
        cross = jnp.einsum("ktf,ktv->kfv", x, y)
        valid = jnp.einsum("kfg,kgv->kfv", turn, cross)
        train = jnp.einsum("kfg,gv->kfv", turn, cross.sum(0))
        curves = [jnp.einsum("akf,kfv->av", weights, z) for z in (valid, train)]
        exact = [jnp.einsum("krf,kfv->krv", factor, scale * train) for scale in (1.0, 2.0, 3.0)]
        return curves, exact, vectors @ (vectors.T @ cross.sum(0))

    shapes = [(k, n // k, f), (k, n // k, v), (k, f, f), (f, f), (k, f, f), (a, k, f)]
    found = _counted(plain, *shapes)
    # the plain form also multiplies the zeros below the diagonal
    found -= 3 * k * v * (2 * f**2 - f * (f + 1))
    own = bench_ridge.flop(case._replace(voxels=2 * v)) - bench_ridge.flop(case)
    assert own == pytest.approx(found, rel=0.02)


def test_ridge_flop_counts_what_is_left_out_by_closed_forms():
    counted = {name: bench_ridge.flop(CASES["cpu"], name) for name in ("kfold", "loo", "gcv")}
    # by hand: rotation of 5,000 images 41 GFLOP, of 5 folds 42, three candidates 32, solution 8
    assert counted["kfold"] == pytest.approx(41e9 + 42e9 + 32e9 + 8e9 + 2e9 + 8e9, rel=0.02)
    assert counted["gcv"] < 0.5 * counted["kfold"] and counted["gcv"] < counted["loo"]


def test_ig_flop_against_the_compiler():
    case = SMOKE._replace(ig_voxels=8, ig_images=1, tokens=32, width=1, heads=4)
    ends, n = [(8, 4, 32)] * 5, 8 * 4 * 32

    def one_step(*arrays):
        return mine_kernels.token_ig(*arrays, jnp.array([0.3]), jnp.array([1.0]))

    sweep = bench_ig.flop(case, 1) - bench_ig.flop(case, 0)
    # The compiler counts a sum over tokens, made as a product, twice, and what is done once for all
    # steps: two changes over the path, three bounds of 3, and 4 to join the integrals.
    assert sweep == 13 * n
    assert _counted(one_step, *ends) == pytest.approx(sweep + 2 * n + (2 + 9 + 4) * n, rel=0.01)
    products = bench_ig.flop(case._replace(width=64), 0)
    plain = _counted(
        lambda x, w, q: [jnp.einsum("ve,pe->vp", q, jnp.einsum("pd,de->pe", x, w)), 2.0 * x],
        (32, 64), (64, 64), (8, 64),
    )  # fmt: skip
    assert products == 2 * (plain - 32 * 64)


def test_roofline_is_set_by_the_slowest_kind_of_work():
    rates = peaks.Work(arithmetic=100.0, memory=10.0, exponentials=1.0)
    found = peaks.roofline(peaks.Work(200.0, 30.0, 1.0), rates, seconds=6.0)
    assert (found["roofline"], found["bound"]) == (0.5, "memory")
    assert peaks.roofline(peaks.Work(200.0), rates, seconds=2.0)["bound"] == "arithmetic"


def test_measured_rates_are_of_the_work_done(monkeypatch):
    def fixed(calls, *, rounds, with_memory):
        assert (rounds, with_memory) == (3, False)
        for call in calls.values():
            jax.block_until_ready(call())
        return {name: _Fixed() for name in calls}

    class _Fixed:
        def seconds(self):
            return [4.0, 2.0]

    monkeypatch.setattr(peaks, "time_in_turn", fixed)
    square, flat = peaks.Product(16, 16, 16), peaks.Product(4, 16, 16)
    rates = peaks.measure((square, flat), side=16, rounds=1)
    # the flat product is done four times, to take as long as a square one
    assert rates == peaks.Work(2 * 16**3 / 2.0, 3 * 64 * 4 * 4 * 16**2 / 2.0, 8 * 32 * 4 * 16 / 2.0)
