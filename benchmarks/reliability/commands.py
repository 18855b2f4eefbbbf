"""Runs `mine-jax` in processes that have it loaded already, and gives them disks that get full."""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# A command that takes longer hangs.
LIMIT_S = 600
_PRELOADED = ["mine_jax.cli", "mine_jax.run.graph", "mine_jax.run.checks.inputs", "benchmarks.reliability.commands"]


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
