"""F-69, F-87: a signal ends every command within three seconds. F-83: nothing forks after JAX has started."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
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


# Work that never polls, of each kind: in Python, in one call of a library, where exceptions are swallowed, while a
# module is loaded, and in a call that keeps all threads of Python from running.
WORK = """
    import hashlib, itertools, sys, time
    from pathlib import Path
    from mine_jax import _signals
    from mine_jax.errors import Stopped
    from mine_jax.run.record import lock

    def python():
        while True:
            sum(range(1000))

    def library():
        hashlib.pbkdf2_hmac("sha256", b"", b"", 400_000_000)

    def swallowing():
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass

    def loading():
        sys.path.insert(0, sys.argv[2])
        Path(sys.argv[2], "slow.py").write_text("import time; time.sleep(60)")
        import slow

    def holding():
        sum(itertools.repeat(1, 20_000_000_000))

    _signals.raise_on_signals()
    _signals.end_in_time()
    try:
        with _signals.stop_flag(), lock.locked(Path(sys.argv[2])):
            print("started", flush=True)
            globals()[sys.argv[1]]()
    except Stopped as stop:
        print("stopped", flush=True)
        _signals.end_if_stopped(stop.exit_code)
"""


def ended(work, number, folder):
    """Sends a signal to work that has begun; returns exit code, output and error.

    A machine that others keep busy may make one of three late, not all; then a process that needs no share of the
    processors may end it before it can itself.
    """
    command = [sys.executable, "-c", textwrap.dedent(WORK), work, str(folder)]
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            start = time.monotonic()
            process.send_signal(number)
            # the end of both streams also shows that no process beside this one is left
            said, told = process.communicate(timeout=60)
        is_late = work != "holding" and process.returncode == -signal.SIGKILL
        if time.monotonic() - start < 3 and not is_late:
            return process.returncode, said, told
        (folder / ".lock").unlink(missing_ok=True)
    return pytest.fail(f"{work} went on for more than three seconds after {number.name}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("work", ["python", "library", "swallowing", "loading"])
def test_a_signal_ends_work_that_does_not_poll(tmp_path, work, number):
    """F-69, F-87: within three seconds, with the exit code of the signal, and without leaving a lock."""
    code, said, told = ended(work, number, tmp_path)
    assert code == (130 if number == signal.SIGINT else 143)
    assert not (tmp_path / ".lock").exists() and "Traceback" not in told
    # raised where it can be; what is in one long call says itself why it ends
    assert said.strip() == ("stopped" if work == "python" else "")
    assert ("in the middle of a long call" in told) == (work in ("library", "loading"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_work_shows_no_traceback(number):
    """Libraries clean up while Python ends."""
    program = """
        import atexit, os, signal, sys, time
        from mine_jax import cli
        sys.argv = ["mine-jax", "config"]
        atexit.register(lambda: (print("ending", flush=True), time.sleep(30)))
        cli.main()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.stdout.readline() != "ending\n":
        assert process.poll() is None
    process.send_signal(number)
    said = process.communicate(timeout=10)[1]
    assert process.returncode == 128 + number and not said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_call_that_holds_the_interpreter(tmp_path, number):
    """F-69: no thread of Python runs then, as while a large library is read from a slow disk."""
    code, said, told = ended("holding", number, tmp_path)
    assert code == -signal.SIGKILL and not said
    assert told == (f"mine-jax: killed after {number.name}: a library let nothing else run; `run --resume` goes on.\n")
