"""One process at a time in a run directory: a lock file that names its owner."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from mine_jax._signals import last_act
from mine_jax.errors import ResourceError

NAME = ".lock"
# An owner writes its name at once.
_WRITING_S = 10
logger = logging.getLogger("mine_jax")


@contextlib.contextmanager
def locked(directory: Path) -> Generator[None, None, None]:
    """Holds the lock of a directory while the block runs.

    Raises:
        ResourceError: if a live process holds it, or the lock cannot be written.
    """
    path = directory / NAME
    owner = {
        **{"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())},
        "since": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    if not _create(path, owner):
        _take_over(path)
        if not _create(path, owner):
            raise ResourceError(
                f"{directory} was locked by another process just now. Wait for it, or use another folder."
            )

    def release() -> None:
        if _read(path) == owner:
            path.unlink(missing_ok=True)

    try:
        with last_act(release):
            yield
    finally:
        release()


def is_alive(pid: int) -> bool:
    """Returns whether a process of this machine exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _started(pid: int) -> str | None:
    """Returns what tells a process from others that have had its number: boot, and time of start since; or None."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return f"{boot}:{fields[19]}"


def _is_owner_alive(owner: dict[str, Any]) -> bool:
    """Says whether the process that wrote a lock is there, and not another one that has its number now."""
    if not is_alive(owner["pid"]):
        return False
    written, there = owner.get("started"), _started(owner["pid"])
    return written is None or there is None or written == there


def _create(path: Path, owner: dict[str, Any]) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    except OSError as error:
        raise ResourceError(f"cannot write in {path.parent}: {error}. Choose another output folder.") from error
    with os.fdopen(descriptor, "w") as file:
        json.dump(owner, file)
    return True


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        owner = json.loads(path.read_text())
        if isinstance(owner, dict):
            return owner
    return {}


def _is_abandoned(path: Path) -> bool:
    """Says whether a lock is empty for longer than writing its owner takes."""
    with contextlib.suppress(FileNotFoundError):
        status = path.stat()
        return status.st_size == 0 and time.time() - status.st_mtime > _WRITING_S
    return False


def _take_over(path: Path) -> None:
    """Removes the lock of a process of this machine that is gone; otherwise raises."""
    owner = _read(path)
    pid = owner.get("pid")
    if not owner and _is_abandoned(path):
        logger.warning("removed the empty lock of a process that ended before it wrote its name")
        path.unlink(missing_ok=True)
        return
    if not isinstance(pid, int) or owner.get("host") != socket.gethostname() or _is_owner_alive(owner):
        who = f"process {pid} on {owner.get('host')} since {owner.get('since')}" if owner else "another process"
        raise ResourceError(
            f"{path.parent} is in use by {who}. Wait for it, or use another folder; "
            f"if you know that it is gone, delete {path}."
        )
    logger.warning("removed the lock of process %d, which is gone", pid)
    # Renamed first, so that of two processes that find the same stale lock only one removes it.
    aside = path.with_name(f"{NAME}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if _read(aside) != owner:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()
