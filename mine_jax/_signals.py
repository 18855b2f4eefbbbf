"""Turns SIGTERM, SIGUSR1 (Slurm's warning) and Ctrl-C into an orderly stop.

The first signal sets a flag that long loops poll through their progress callback; a
second one stops at once.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType

from mine_jax.errors import Stopped

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class StopFlag:
    """Remembers the first signal that came in."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def check(self) -> None:
        """Raises `Stopped` if a signal came in."""
        if self.signal is not None:
            raise Stopped(self.signal)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        del frame
        if self.signal is not None:
            raise Stopped(signum)
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
        del frame
        raise Stopped(signum)

    for number in _SIGNALS:
        signal.signal(number, stop)
