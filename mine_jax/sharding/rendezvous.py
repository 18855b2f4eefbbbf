"""Where the processes of a run meet before jax connects them, so that a missing one is named.

jax itself ends the program from C++ when a process does not come; here it is an error with
a message. Process 0 listens; the others send their number and wait for an answer.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import time
from collections.abc import Mapping

from mine_jax.errors import ConfigError, ResourceError

_VARIABLES = ("MINE_COORDINATOR", "MINE_N_PROCESSES", "MINE_PROCESS_ID")
_GREETING, _GO, _REFUSED = b"mine_jax", b"go", b"no"
_PAUSE_S, _ANSWER_S = 0.2, 5.0
logger = logging.getLogger("mine_jax")


def place_and_number(environment: Mapping[str, str]) -> tuple[str, int, int] | None:
    """Reads from the environment whether this process is one of several.

    Args:
        environment: variables of Slurm, or MINE_COORDINATOR, MINE_N_PROCESSES and MINE_PROCESS_ID,
            which win. MINE_N_PROCESSES = 1 alone makes it work alone.

    Returns:
        Address "host:port" of process 0, number of processes and number of this one; None for a
        process alone.

    Raises:
        ConfigError: if the variables contradict each other.
    """
    given = {name: environment[name] for name in _VARIABLES if environment.get(name)}
    if given.get("MINE_N_PROCESSES") == "1":
        return None
    slurm = _slurm(environment)
    if not given and slurm is None:
        return None
    values = dict(zip(_VARIABLES, slurm or (), strict=False)) | given
    missing = [name for name in _VARIABLES if name not in values]
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be set beside {', '.join(given)}, or start with srun.")
    address = values["MINE_COORDINATOR"]
    if not re.fullmatch(r".+:\d+", address):
        raise ConfigError(f"MINE_COORDINATOR must be host:port of process 0, but is {address!r}.")
    try:
        count, number = int(values["MINE_N_PROCESSES"]), int(values["MINE_PROCESS_ID"])
    except ValueError as error:
        raise ConfigError(f"MINE_N_PROCESSES and MINE_PROCESS_ID must be whole numbers: {error}.") from None
    if not 0 <= number < count:
        raise ConfigError(f"there is no process {number} of {count}; they are numbered 0 to {count - 1}.")
    return None if count == 1 else (address, count, number)


def meet(address: str, *, n_processes: int, process_id: int, timeout_s: float) -> None:
    """Returns when all processes have come to the address.

    Args:
        address: "host:port" of process 0.
        n_processes: how many must come.
        process_id: number of this one.
        timeout_s: how long to wait.

    Raises:
        ConfigError: if two processes have the same number, or expect another count.
        ResourceError: if the port is taken, or a process does not come in time.
    """
    host, _, port = address.rpartition(":")
    end = time.monotonic() + timeout_s
    if process_id == 0:
        _receive(int(port), n_processes, end, timeout_s)
    else:
        _call(host, int(port), n_processes, process_id, end, timeout_s)


def _receive(port: int, n_processes: int, end: float, timeout_s: float) -> None:
    came: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listening(port))
        while len(came) < n_processes - 1:
            server.settimeout(max(end - time.monotonic(), 0.01))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                missing = sorted(set(range(1, n_processes)) - set(came))
                raise ResourceError(
                    f"process {', '.join(map(str, missing))} of {n_processes} did not come within {timeout_s:g} s. "
                    "Was it started, with the same coordinator address and number of processes?"
                ) from None
            stack.enter_context(connection)
            number = _greeted(connection, n_processes)
            if number is None:
                continue
            if number in came:
                connection.sendall(_REFUSED)
                raise ConfigError(f"process {number} came twice. Check the numbers that the processes were given.")
            came[number] = connection
        for connection in came.values():
            connection.sendall(_GO)


def _greeted(connection: socket.socket, n_processes: int) -> int | None:
    """Returns the number that a process sent; None where something else knocked."""
    connection.settimeout(_ANSWER_S)
    try:
        greeting, *numbers = connection.recv(64).split()
        number, count = map(int, numbers)
    except (OSError, ValueError):
        return None
    if greeting != _GREETING:
        return None
    if count != n_processes or not 0 < number < n_processes:
        connection.sendall(_REFUSED)
        raise ConfigError(
            f"process {number} of {count} came to where {n_processes} processes meet. "
            "Check the numbers that the processes were given."
        )
    return number


def _listening(port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        return socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6)
    except OSError as error:
        raise ResourceError(
            f"process 0 cannot listen on port {port}: {error}. Set MINE_COORDINATOR to host:port with another port."
        ) from error


def _call(host: str, port: int, n_processes: int, process_id: int, end: float, timeout_s: float) -> None:
    answer = b""
    while not answer:
        left = end - time.monotonic()
        if left <= 0:
            raise ResourceError(
                f"process {process_id} of {n_processes} waited {timeout_s:g} s for process 0 at {host}:{port}. "
                "Do all of them run, and can this host reach that one?"
            )
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=left) as connection:
            connection.sendall(b"%s %d %d" % (_GREETING, process_id, n_processes))
            answer = connection.recv(2)
        if not answer:
            time.sleep(_PAUSE_S)
    if answer != _GO:
        raise ConfigError(
            f"process {process_id} of {n_processes} was refused at {host}:{port}: another process has its number, "
            "or another run meets there. Check the numbers, or use another port."
        )


def _slurm(environment: Mapping[str, str]) -> tuple[str, str, str] | None:
    """Returns what Slurm says of a step with several tasks; None outside of one."""
    nodes, job = environment.get("SLURM_STEP_NODELIST"), environment.get("SLURM_JOB_ID", "")
    if not nodes:
        n_tasks = environment.get("SLURM_NTASKS", "1")
        if job and n_tasks != "1":
            logger.warning("Slurm gave %s tasks, but this process was not started by srun: it works alone", n_tasks)
        return None
    count = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS", "1")
    number = environment.get("SLURM_PROCID", "")
    if count == "1":
        return None
    # "node[001-004],other": the first host; a port of its own for each job
    first = re.match(r"([^\[,]+)(?:\[(\d+))?", nodes)
    if first is None or not job.isdigit():
        raise ConfigError(f"cannot read SLURM_STEP_NODELIST {nodes!r} and SLURM_JOB_ID {job!r}; set {_VARIABLES[0]}.")
    return f"{first[1]}{first[2] or ''}:{61440 + int(job) % 4096}", count, number
