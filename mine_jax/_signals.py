"""Turns SIGTERM, SIGUSR1 (Slurm's warning) and Ctrl-C into an orderly stop.

The first signal sets a flag that long loops poll through their progress callback; a second one stops at once. On
the command line a watch sends the second one itself, and then ends the process where one long call of a library
answers neither: files are written whole or not at all, so the run goes on as after a crash. The watch is a thread. A
call that holds the interpreter's lock, as loading a large library from a slow disk does, keeps it from running; then a
small process beside this one kills it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from types import FrameType
from typing import NoReturn

from mine_jax.errors import Stopped

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
# After a first signal: until `Stopped` is raised wherever the program is, the process ends, and it is killed.
_RAISED_AFTER_S, _ENDED_AFTER_S, _KILLED_AFTER_S = 0.7, 2.0, 2.8
# The process beside this one. Its input is the socket that signals are written to; it reads without taking anything
# away, and ends with the process that started it.
_KEEPER = """
import os, signal, socket, sys, time
owner, after_s, numbers = int(sys.argv[1]), float(sys.argv[2]), set(map(int, sys.argv[3:]))
came = socket.socket(fileno=0)
while not numbers.intersection(seen := came.recv(4096, socket.MSG_PEEK)):
    if not seen:
        sys.exit()
    time.sleep(0.1)
end = time.monotonic() + after_s
while time.monotonic() < end:
    time.sleep(0.05)
    if os.getppid() != owner:
        sys.exit()
name = signal.Signals(next(number for number in seen if number in numbers)).name
os.write(2, f"mine-jax: killed after {name}: a library let nothing else run; `run --resume` goes on.\\n".encode())
os.kill(owner, signal.SIGKILL)
"""
_is_raised, _is_watched = threading.Event(), threading.Event()
_last_acts: list[Callable[[], None]] = []


class StopFlag:
    """Remembers the first signal that came in."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def check(self) -> None:
        """Raises `Stopped` if a signal came in."""
        if self.signal is not None:
            raise _stopped(self.signal)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise _stopped(signum, frame)
        self.signal = signum


@contextlib.contextmanager
def stop_flag() -> Generator[StopFlag, None, None]:
    """Gives a flag that signals set while the block runs; outside the main thread, one that nothing sets."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    previous = {number: signal.signal(number, flag._handle) for number in _SIGNALS}
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def raise_on_signals() -> None:
    """Makes the signals raise `Stopped` wherever the program is; for the command line only."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise _stopped(signum, frame)

    for number in _SIGNALS:
        signal.signal(number, stop)


def end_in_time() -> None:
    """Makes a signal end the process in time, whatever it is doing; for the command line only.

    Handlers in Python wait until a call of a library returns. Here the system's own handler wakes a thread, and a
    process that needs nothing of this one.
    """
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    # detached: it stays open as long as the process lives
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()
    _is_watched.set()
    streams = [(os.POSIX_SPAWN_DUP2, reading.fileno(), 0), (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    command = [sys.executable, "-I", "-S", "-c", _KEEPER, os.getpid(), _KILLED_AFTER_S, *map(int, _SIGNALS)]
    # where no process can be started, the thread remains
    with contextlib.suppress(OSError):
        os.posix_spawn(
            sys.executable,
            [str(part) for part in command],
            os.environ,
            file_actions=streams,
            # neither a terminal's Ctrl-C nor a signal to all processes of a job ends it
            setpgroup=0,
            setsigmask=_SIGNALS,
        )


def end_if_stopped(code: object) -> None:
    """Ends the process at once, if a signal stopped it: an orderly end waits for what devices are computing.

    Otherwise signals end it at once from now on: libraries that clean up would show what a handler raises.
    """
    if not _is_raised.is_set():
        for number in _SIGNALS:
            signal.signal(number, lambda number, frame: os._exit(128 + number))
        return
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 1)


@contextlib.contextmanager
def last_act(act: Callable[[], None]) -> Generator[None, None, None]:
    """Has something done, while the block runs, before a process ends that answers no signal."""
    _last_acts.append(act)
    try:
        yield
    finally:
        _last_acts.remove(act)


def _stopped(number: int, frame: FrameType | None = None) -> Stopped:
    """Returns what is to be raised; where a watch would end the process, and modules are being loaded, ends it.

    Libraries that are left half loaded may crash, even at exit.
    """
    if _is_watched.is_set() and any(name.startswith("<frozen importlib") for name in _files_of(frame)):
        _end(number)
    _is_raised.set()
    return Stopped(number)


def _files_of(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        yield frame.f_code.co_filename
        frame = frame.f_back


def _watch(reading: socket.socket) -> None:
    # signals that stop stay in the socket, where the process beside this one sees them
    while (number := reading.recv(1, socket.MSG_PEEK)[0]) not in _SIGNALS:
        reading.recv(1)
    start = time.monotonic()
    time.sleep(_RAISED_AFTER_S)
    if not _is_raised.is_set():
        os.kill(os.getpid(), number)
    time.sleep(max(0.0, start + _ENDED_AFTER_S - time.monotonic()))
    _end(number)


def _end(number: int) -> NoReturn:
    """Ends the process as it is."""
    for act in reversed(_last_acts):
        with contextlib.suppress(OSError):
            act()
    stop = Stopped(number)
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h\r")  # a progress bar hides the cursor
        if not _is_raised.is_set():
            how = "the same command, `run` with --resume, goes on"
            os.write(2, f"mine-jax: stopped by {stop} in the middle of a long call; {how}.\n".encode())
    os._exit(stop.exit_code)
