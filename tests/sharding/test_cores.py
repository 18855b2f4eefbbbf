"""Threads of linear algebra: one for small solves, no more than cores, as before afterwards."""

import os

import pytest
import threadpoolctl

from mine_jax.sharding import cores


def threads():
    return {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two_threads():
    with cores._controller().limit(limits=2, user_api="blas"):
        yield


def test_one_thread_inside_and_as_many_as_before_afterwards():
    with cores.single_thread():
        assert threads() == {1}
    assert threads() == {2}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be taken away here")
def test_no_more_threads_than_cores_that_are_left():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with cores.own_cores():
            assert threads() == {1}
    finally:
        os.sched_setaffinity(0, before)


def test_what_was_set_by_hand_is_not_raised():
    with cores._controller().limit(limits=1, user_api="blas"), cores.own_cores():
        assert threads() == {1}


@pytest.mark.parametrize(("text", "expected"), [("150000 100000\n", 1), ("max 100000\n", None), ("5000 100000", 1)])
def test_quota_of_a_container(tmp_path, text, expected):
    (tmp_path / "cpu.max").write_text(text)
    assert cores.available_cores(tmp_path / "cpu.max") == (expected or cores.available_cores(tmp_path / "none"))
