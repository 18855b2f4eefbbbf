"""Compiled programs outlive the process, wherever that is possible."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mine_jax.run import programs

PROGRAM = """
import sys, jax, jax.numpy as jnp
from mine_jax.run.programs import keep_programs
print(keep_programs(sys.argv[1]))
found = []
jax.monitoring.register_event_listener(lambda name, **rest: found.append(name))
jax.jit(lambda x: jax.lax.fori_loop(0, 9, lambda i, y: jnp.linalg.eigh(y @ y.T)[1] + jnp.sort(y), x))(jnp.eye(5))
print(sum("cache_hits" in name for name in found))
"""


def started(directory, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    command = [sys.executable, "-c", PROGRAM, str(directory)]
    environment = {
        **kept,
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **{name: str(value) for name, value in environment.items()},
    }
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.split()


def test_the_next_process_finds_what_this_one_compiled(tmp_path):
    where = tmp_path / "mine_jax" / "programs"
    assert started("default", XDG_CACHE_HOME=tmp_path) == [str(where), "0"]
    assert list(where.iterdir())
    directory, hits = started("default", XDG_CACHE_HOME=tmp_path)
    assert directory == str(where) and int(hits) > 0


def test_none_keeps_nothing_and_what_was_set_for_jax_stays(tmp_path):
    assert started("none", XDG_CACHE_HOME=tmp_path) == ["None", "0"]
    assert not list(tmp_path.iterdir())
    elsewhere = tmp_path / "elsewhere"
    assert started(tmp_path / "here", JAX_COMPILATION_CACHE_DIR=elsewhere)[0] == "None"
    assert not (tmp_path / "here").exists() and elsewhere.exists()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_place_that_cannot_be_written_is_no_error(tmp_path, name):
    (tmp_path / "file").write_text("")
    assert started(tmp_path / name) == ["None", "0"]


def test_the_folder_of_the_user(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setattr(sys, "platform", "linux")
    assert programs.user_cache() == Path("/somewhere/mine_jax/programs")
