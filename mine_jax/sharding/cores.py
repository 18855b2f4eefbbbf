"""Threads of the linear-algebra library: one where matrices are small, never more than there are cores.

OpenBLAS decides at start how many threads it has, and its threads wait by spinning. Where fewer cores are left
than that (a narrowed affinity, a container's quota, a busy machine), thousands of small solves wait for each other.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@contextmanager
def single_thread() -> Generator[None]:
    """Solves on the host with one thread; for many small systems. Wait for the results inside."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@contextmanager
def own_cores() -> Generator[None]:
    """Keeps to the cores that this process may use now; never raises what was set by hand."""
    threads = [library["num_threads"] for library in _controller().info() if library["user_api"] == "blas"]
    with _controller().limit(limits=min([available_cores(), *threads]), user_api="blas"):
        yield


def available_cores(quota: Path = _QUOTA) -> int:
    """Counts the cores of this process: those of its affinity, and what its container may use of them.

    Args:
        quota: the file of cgroup v2 that holds microseconds of every period, and the period.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        used, period = quota.read_text().split()
        return max(1, min(cores, int(used) // int(period)))
    except (OSError, ValueError):  # no container, or no limit ("max")
        return cores


@functools.cache
def _controller() -> Any:
    """Finds the libraries of NumPy and of scipy; jax solves with the latter's."""
    import scipy.linalg  # noqa: F401
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()
