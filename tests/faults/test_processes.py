"""F-83: nothing forks after JAX has started."""

import multiprocessing
import os
import warnings

import jax.numpy as jnp
import pytest

from mine_jax import run
from mine_jax.config import from_dict
from mine_jax.run import graph
from mine_jax.run.checks import inputs


def test_loading_and_extraction_do_not_fork(tmp_path, monkeypatch):
    """F-83: a fork beside the threads of JAX may wait for ever, and Python warns of it."""
    jnp.ones(3).block_until_ready()
    for name in ("fork", "forkpty"):
        monkeypatch.setattr(os, name, lambda: pytest.fail("os.fork"))
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", lambda self: pytest.fail("multiprocessing"))
    shape = {"n_images": 30, "n_shared": 6, "shape": [8, 8, 8], "roi": []}
    settings = from_dict({"data": {"kind": "phantom", **shape}, "features": {"model": "phantom"}})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*fork", category=RuntimeWarning)
        warnings.filterwarnings("error", message=".*fork", category=DeprecationWarning)
        run.execute(settings, tmp_path / "run", graph.STEPS, until="features")
        values = {"kind": "phantom", "root": str(tmp_path / "run" / "phantom"), "roi": []}
        assert inputs.check(from_dict({"data": values, "features": {"model": "phantom"}}))
