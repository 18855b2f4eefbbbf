"""Images of several models: small pipelines side by side, and what stops one stops all."""

import threading
import time
from pathlib import Path

import pytest

from mine_jax import sharding
from mine_jax.errors import GenerationError
from mine_jax.validation.makers import diffusion, make, models
from mine_jax.validation.makers.make import Bar
from mine_jax.validation.makers.models import Model
from mine_jax.validation.makers.pictures import Item

SMALL = {"directory": "small"}


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(sharding, "available_cores", lambda: 2)
    monkeypatch.setattr(diffusion, "is_small", lambda directory: directory == "small")


def carry_out(names, *, loaders, bar):
    orders = [make._Order(Model(name, {}, loader=loaders.get(name)), name, [], []) for name in names]
    todo = [[Item(f"{name}-000000.png", "", 0)] * (number + 1) for number, name in enumerate(names)]
    return make._carry_out(orders, todo, [20] * len(names), Path(), retries=0, bar=bar)


@pytest.mark.usefixtures("two_cores")
def test_small_pipelines_work_side_by_side(monkeypatch):
    """Each waits for the other, as two can only that run at once; the bar moves in one thread, up to the sum."""
    meet, moves, threads = threading.Barrier(2, timeout=20), [], {}

    def work(model, items, folder, *, name, retries, progress):
        threads[name] = threading.current_thread()
        if model.loader == SMALL:
            meet.wait()
        progress(len(items), len(items))
        return {item.file: {"maker": model.name} for item in items}

    monkeypatch.setattr(models, "make", work)
    bar = Bar(lambda done, total: moves.append((threading.current_thread(), done, total)))
    bar.total = 6 * 20
    records = carry_out(["a", "exact", "b"], loaders={"a": SMALL, "b": SMALL}, bar=bar)
    assert [list(made) for made in records] == [["a-000000.png"], ["exact-000000.png"], ["b-000000.png"]]
    here = threading.current_thread()
    assert threads["exact"] is here and here not in (threads["a"], threads["b"])
    assert {thread for thread, *_ in moves} == {here} and moves[-1][1:] == (120, 120)


@pytest.mark.usefixtures("two_cores")
def test_large_pipelines_work_one_after_the_other(monkeypatch):
    running, most = [], []

    def work(model, items, folder, *, name, retries, progress):
        running.append(name)
        most.append(len(running))
        time.sleep(0.05)
        running.remove(name)
        return {}

    monkeypatch.setattr(models, "make", work)
    carry_out(["a", "b"], loaders={name: {"directory": "large"} for name in "ab"}, bar=Bar(lambda done, total: None))
    assert most == [1, 1]


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("where", ["a pipeline", "the bar"])
def test_what_stops_one_stops_all(monkeypatch, where):
    ended, meet = [], threading.Barrier(2, timeout=20)

    def work(model, items, folder, *, name, retries, progress):
        meet.wait()
        if where == "a pipeline" and name == "b":
            raise GenerationError("no such model")
        for _ in range(2000):
            try:
                progress(0, 1)
            except BaseException as error:
                ended.append((name, type(error).__name__))
                raise
            time.sleep(0.01)
        raise AssertionError(f"{name} was not stopped")

    def move(done, total):
        if where == "the bar":
            raise KeyboardInterrupt

    monkeypatch.setattr(models, "make", work)
    names = ["a", "b"]
    with pytest.raises(GenerationError if where == "a pipeline" else KeyboardInterrupt):
        carry_out(names, loaders=dict.fromkeys(names, SMALL), bar=Bar(move))
    assert sorted(ended) == [(name, "CancelledError") for name in ("ab" if where == "the bar" else "a")]
