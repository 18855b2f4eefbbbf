"""What an op must know of the device that it runs on, to choose how much is worked on at once."""

from __future__ import annotations

from typing import NamedTuple

import jax

# Of an accelerator that does not say; most have more.
UNKNOWN_MEMORY = 4 << 30


class Device(NamedTuple):
    """A kind of device, such as "cpu" or "gpu", and its memory in bytes (0 for CPUs, whose caches count)."""

    platform: str
    memory: int


def default_device() -> Device:
    """Returns the kind of the default device of this process, and its memory."""
    platform = jax.default_backend()
    if platform == "cpu":
        return Device(platform, 0)
    stats = jax.local_devices()[0].memory_stats() or {}
    return Device(platform, stats.get("bytes_limit", UNKNOWN_MEMORY))
