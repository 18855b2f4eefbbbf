"""How much memory is free: on the devices, in the machine, in the container."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import jax

# Limits of a container on Linux, version 2 and 1, and what is used of them.
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def free_bytes() -> int:
    """Returns the memory that is free on the fullest device of this process.

    CPU devices share what the machine, or the container this process is in, has left.
    """
    free = []
    for device in jax.local_devices():
        stats = device.memory_stats() if device.platform != "cpu" else None
        if stats and "bytes_limit" in stats:
            free.append(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    return min(free) if free else _free_host_bytes() // jax.local_device_count()


def _free_host_bytes() -> int:
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")]
    with contextlib.suppress(OSError):
        # also what the cache of files holds can be had
        free = [1024 * int(re.findall(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[0])]
    for limit, used in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            free.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(0, min(free))
