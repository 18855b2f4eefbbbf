"""How much is held in memory at once: planned before a stage starts, halved if it was too much.

Each stage counts what it holds for one voxel and what it holds besides, a `Need`. Chunks never
change results, so a plan may be wrong: the chunk that exhausts the memory is done again in halves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from mine_jax.errors import ResourceError
from mine_jax.memory.chunks import chunk_size

# Share of the free memory that a plan may use: programs need some room besides their arrays.
SAFE_SHARE = 0.6
_T = TypeVar("_T")
logger = logging.getLogger("mine_jax")


class Need(NamedTuple):
    """Bytes on one device: `fixed` whatever the chunk, and `each` for every voxel of a chunk."""

    fixed: int
    each: int


class Plan(NamedTuple):
    """Voxels that each device holds at once, and the bytes that they need with all the rest."""

    chunk: int
    bytes: int


def plan_chunk(
    need: Need, length: int, *, available: int, wanted: int | None = None, largest: int | None = None
) -> Plan:
    """Chooses how many voxels each device holds at once.

    Args:
        need: bytes.
        length: voxels of one device.
        available: its free bytes.
        wanted: what the user set; None to choose.
        largest: no more than this where nothing is set, for speed; None for as many as fit.

    Returns:
        The plan; at least one voxel, though it may not fit: that is found out when it is tried.
    """
    chunk = max(1, min(length, wanted or min(fitting(need, available), largest or length)))
    return Plan(chunk, need.fixed + chunk * need.each)


def fitting(need: Need, available: int) -> int:
    """Returns how many voxels fit into the share of the free bytes that a plan may use; 0 for none."""
    return max(0, int(SAFE_SHARE * available) - need.fixed) // max(1, need.each)


def in_chunks(
    compute: Callable[[np.ndarray], _T], length: int, wanted: int | None, *, setting: str, multiple: int = 1
) -> Iterator[tuple[_T, int, int]]:
    """Applies a function to equal chunks of an axis; a chunk that exhausts the memory is done again in halves.

    Args:
        compute: takes positions [chunk]; the last ones may repeat.
        length: of the axis.
        wanted: largest chunk; None for one.
        setting: what the user can set instead, for messages.
        multiple: chunks are multiples of it.

    Yields:
        What `compute` returns, how many of its positions are real, and how many are done.

    Raises:
        ResourceError: if not even `multiple` at once fit.
    """
    size, start = _whole(chunk_size(length, wanted) if length else 0, multiple), 0
    while start < length:
        positions = np.minimum(np.arange(start, start + size), length - 1)
        try:
            result = compute(positions)
        except jax.errors.JaxRuntimeError as error:
            size = _half(size, error, setting=setting, multiple=multiple)
            continue
        n_valid = min(size, length - start)
        start += n_valid
        yield result, n_valid, start


def halving(compute: Callable[[int], _T], wanted: int, *, setting: str) -> _T:
    """Calls a function with a chunk size, and with half of it each time the memory is exhausted.

    Args:
        compute: takes the chunk size; starts from the beginning in each call.
        wanted: first size.
        setting: what the user can set instead, for messages.

    Returns:
        What `compute` returns.

    Raises:
        ResourceError: if a chunk of 1 does not fit.
    """
    while True:
        try:
            return compute(wanted)
        except jax.errors.JaxRuntimeError as error:
            wanted = _half(wanted, error, setting=setting, multiple=1)


def is_exhausted(error: BaseException) -> bool:
    """Says whether an error of jax means that a device has no memory left; a smaller chunk may then fit."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def readable(n_bytes: float) -> str:
    """Returns bytes as people read them."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:.1f} {name}"
    return f"{n_bytes / 2**10:.1f} KiB"


def _half(size: int, error: jax.errors.JaxRuntimeError, *, setting: str, multiple: int) -> int:
    """Returns the next smaller chunk; raises what is no lack of memory, or cannot be helped."""
    if not is_exhausted(error):
        raise error
    if size <= multiple:
        raise ResourceError(
            f"out of device memory even with {setting} = {size}: {str(error).splitlines()[0][:300]}. "
            "Use a device with more memory, more devices, or smaller encoders (encoder.width, encoder.heads); "
            "`mine-jax run ... --dry-run` says what each part needs."
        ) from error
    smaller = max(1, size // 2 // multiple) * multiple
    logger.warning("out of device memory with %s = %d; goes on with %d", setting, size, smaller)
    return smaller


def _whole(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
