"""Runs `mine-jax` in this process, or in others that have it loaded already, and gives them disks that get full."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple

# A command that takes longer hangs.
LIMIT_S = 600
_PRELOADED = ["mine_jax.cli", "mine_jax.run.graph", "mine_jax.run.checks.inputs", "benchmarks.reliability.commands"]
# What these load only when it is needed.
_PRELOADED += ["h5py", "jinja2", "matplotlib.backends.backend_agg", "matplotlib.figure", "mine_jax.report"]
_PRELOADED += ["orbax.checkpoint", "scipy.linalg", "scipy.ndimage", "scipy.sparse", "scipy.stats"]


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        code: its exit code; negative after a signal, None where it had to be ended after `LIMIT_S`.
        said: standard output and error.
    """

    code: int | None
    said: str


def run_command(
    arguments: Sequence[str | Path], *, kill_after: float | None = None, max_file_bytes: int | None = None
) -> Ended:
    """Runs `mine-jax` with these arguments.

    Args:
        arguments: of the command line.
        kill_after: seconds until SIGKILL; never by default.
        max_file_bytes: no file may become larger, as on a full disk.

    Returns:
        How it ended.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with tempfile.NamedTemporaryFile("r", encoding="utf-8", errors="replace") as said:
        given = ([str(argument) for argument in arguments], said.name, max_file_bytes)
        process = context.Process(target=_command, args=given)
        process.start()
        process.join(LIMIT_S if kill_after is None else kill_after)
        is_hanging = process.is_alive() and kill_after is None
        if process.is_alive():
            process.kill()
        process.join()
        return Ended(None if is_hanging else process.exitcode, said.read())


def run_here(arguments: Sequence[str | Path]) -> Ended:
    """Runs `mine-jax` in this process, whose programs are compiled already; one that hangs ends the process.

    Args:
        arguments: of the command line.

    Returns:
        How it ended.
    """
    from mine_jax import cli

    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    try:
        with _as_before(), tempfile.TemporaryFile("r+", encoding="utf-8", errors="replace") as said:
            sys.argv = ["mine-jax", *map(str, arguments)]
            with _written_to(said.fileno()):
                try:
                    cli.command_line()
                    code = 0
                except SystemExit as error:
                    code = error.code if isinstance(error.code, int) else int(error.code is not None)
            said.seek(0)
            return Ended(code, said.read())
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def _written_to(descriptor: int) -> Generator[None]:
    """Sends output to a file; by number, since libraries keep the streams that they find when they are loaded."""
    kept = [os.dup(number) for number in (1, 2)]
    with contextlib.redirect_stdout(sys.__stdout__), contextlib.redirect_stderr(sys.__stderr__):
        try:
            for number in (1, 2):
                os.dup2(descriptor, number)
            yield
        finally:
            for stream, number, before in zip((sys.stdout, sys.stderr), (1, 2), kept, strict=True):
                stream.flush()
                os.dup2(before, number)
                os.close(before)


@contextlib.contextmanager
def _as_before() -> Generator[None]:
    """Restores what a command changes of its process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    logger, argv, show, environment = logging.getLogger("mine_jax"), sys.argv, warnings.showwarning, dict(os.environ)
    kept = logger.handlers, logger.level, logger.propagate
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        logger.handlers, logger.level, logger.propagate = kept
        sys.argv, warnings.showwarning = argv, show
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


def _command(arguments: list[str], said: str, max_file_bytes: int | None) -> None:
    from mine_jax import cli

    descriptor = os.open(said, os.O_WRONLY | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    if max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, resource.RLIM_INFINITY))
    sys.argv = ["mine-jax", *arguments]
    cli.main()


class Disk:
    """A small disk while a block runs: a file system in memory where this user may mount one, else a limit of sizes.

    Args:
        folder: where the file system is mounted.
        n_bytes: its size.
    """

    def __init__(self, folder: Path, n_bytes: int) -> None:
        self.folder = folder
        self.n_bytes = n_bytes
        self.has_size = False

    def __enter__(self) -> Disk:
        self.folder.mkdir(exist_ok=True)
        self.has_size = self._mount(f"size={self.n_bytes}")
        return self

    def __exit__(self, *error: object) -> None:
        if self.has_size:
            subprocess.run(["umount", str(self.folder)], check=True)

    @property
    def max_file_bytes(self) -> int | None:
        """The limit of sizes that stands for the disk; None where there is one."""
        return None if self.has_size else self.n_bytes // 20

    def grow(self) -> None:
        """Makes space."""
        if self.has_size:
            self._mount("remount,size=1g")

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
