"""Several processes that work as one: where they meet, what they tell each other, how they fail together.

They are started by Slurm's `srun`, or by hand with MINE_COORDINATOR ("host:port"), MINE_N_PROCESSES
and MINE_PROCESS_ID. Process 0 writes; the others compute.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
from collections.abc import Generator
from typing import Any

import jax

from mine_jax.errors import ConfigError, ResourceError
from mine_jax.sharding import rendezvous

_HEARTBEAT_S, _GOODBYE_S, _POLL_S = 30, 30, 1.0
_PREFIX = "mine_jax"
_rounds = itertools.count()
logger = logging.getLogger("mine_jax")


def devices() -> list[jax.Device]:
    """Returns the devices that jax uses.

    Raises:
        ConfigError: if JAX_PLATFORMS asks for what is not there.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS")
        if not asked:
            raise
        said = f" ({str(error).splitlines()[0][:300]})" if str(error) else ""
        raise ConfigError(
            f"JAX_PLATFORMS is {asked!r} in the environment, but there is no such device{said}. Unset it, or set it "
            "to cpu."
        ) from error


def start(*, timeout_s: float = 300) -> int:
    """Connects this process with the others of the run, where the environment says that there are any.

    Call it before anything else uses jax. Calling it again does nothing.

    Args:
        timeout_s: how long to wait for the others.

    Returns:
        The number of processes.

    Raises:
        ConfigError: if the environment contradicts itself.
        ResourceError: if the processes do not find each other in time, or the port is taken.
    """
    found = rendezvous.place_and_number(os.environ)
    if found is None or jax.distributed.is_initialized():
        return n_processes()
    address, count, number = found
    rendezvous.meet(address, n_processes=count, process_id=number, timeout_s=timeout_s)
    try:
        jax.distributed.initialize(
            address,
            count,
            number,
            # without it, jax takes one device per Slurm task, also where a task has several
            cluster_detection_method="deactivate",
            initialization_timeout=int(timeout_s),
            heartbeat_timeout_seconds=_HEARTBEAT_S,
            shutdown_timeout_seconds=_GOODBYE_S,
        )
    except RuntimeError as error:
        raise ResourceError(f"process {number} of {count} cannot connect at {address}: {error}.") from error
    logger.info("process %d of %d, %d of %d devices", number, count, jax.local_device_count(), jax.device_count())
    return count


def n_processes() -> int:
    """Returns how many processes work together; 1 without `start`."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def process_id() -> int:
    """Returns the number of this process; process 0 writes the run directory."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def exchange(text: str = "") -> list[str]:
    """Waits for all processes, however long they take, and gives each the texts of all.

    Args:
        text: what this process tells the others.

    Returns:
        Texts of all processes, in their order.

    Raises:
        ResourceError: if another process gave up or is gone.
    """
    if n_processes() == 1:
        return [text]
    name = f"{_PREFIX}/{next(_rounds)}"
    _client().key_value_set(f"{name}/{process_id()}", f"={text}")
    return [_value_of(f"{name}/{other}") for other in range(n_processes())]


@contextlib.contextmanager
def telling_others() -> Generator[None, None, None]:
    """Tells the other processes when this one fails in the block, so that they do not wait for it."""
    try:
        yield
    except BaseException as error:
        if n_processes() > 1:
            with contextlib.suppress(RuntimeError):
                reason = f"={type(error).__name__}: {error}"[:2000]
                _client().key_value_set(f"{_PREFIX}/stopped/{process_id()}", reason)
        raise


def _value_of(key: str) -> str:
    while True:
        try:
            return _client().blocking_key_value_get(key, int(1000 * _POLL_S))[1:]
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise ResourceError(f"lost the other processes: {str(error).splitlines()[0]}") from error
        for path, reason in _client().key_value_dir_get(f"{_PREFIX}/stopped/"):
            raise ResourceError(f"process {path.rsplit('/', 1)[-1]} stopped: {reason[1:]}")


@functools.cache
def _client() -> Any:
    # jax shows no public form of its store of keys and values. Its collectives are no way to
    # wait for a process that is busy: on CPUs they give up after half a minute.
    from jax._src import distributed

    return distributed.global_state.client
