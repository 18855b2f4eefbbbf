"""How much memory is free: on the devices, in the machine, in the container."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
from pathlib import Path

import jax

# Limits of a container on Linux, version 2 and 1, and what is used of them.
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
# What plans may count on where an accelerator does not say what it has; most have more.
UNKNOWN_BYTES = 4 << 30
logger = logging.getLogger("mine_jax")


def free_bytes() -> int:
    """Returns the memory that is free on the fullest device of this process.

    CPU devices share what the machine, or the container this process is in, has left. Of an
    accelerator that does not say, `UNKNOWN_BYTES` are taken, with a warning: it has no part in
    the memory of the machine.
    """
    return min(_free_bytes_of(device) for device in jax.local_devices())


def _free_bytes_of(device: jax.Device) -> int:
    if device.platform == "cpu":
        return _free_host_bytes() // jax.local_device_count()
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return max(0, stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    _warn_of_unknown(device.platform)
    return UNKNOWN_BYTES


@functools.cache
def _warn_of_unknown(platform: str) -> None:
    logger.warning(
        "devices of platform %s do not say how much memory they have; plans count on %.0f GiB of each. "
        "run.voxel_chunk and run.image_chunk set how much is held at once instead",
        platform,
        UNKNOWN_BYTES / 2**30,
    )


def _free_host_bytes() -> int:
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")]
    with contextlib.suppress(OSError):
        # also what the cache of files holds can be had
        free = [1024 * int(re.findall(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[0])]
    for limit, used in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            free.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(0, min(free))
