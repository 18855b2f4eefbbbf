"""Shows long work: a bar on a terminal, a plain line every 30 s elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from typing import TextIO

from mine_jax._progress import PLAIN_INTERVAL_S, Progress, bar, lines, silent, write_line


class Reporter:
    """Shows nothing; the base of the two that do."""

    @contextlib.contextmanager
    def task(self, name: str) -> Generator[Progress, None, None]:
        """Gives the progress callback of one piece of work while the block runs."""
        del name
        yield silent

    def say(self, text: str) -> None:
        """Shows one line about the work."""
        del text

    def found(self, text: str) -> None:
        """Gives one line of results."""
        del text


class PlainReporter(Reporter):
    """Writes lines; while work runs, one every `interval_s` seconds."""

    def __init__(self, stream: TextIO | None = None, *, interval_s: float = PLAIN_INTERVAL_S) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._interval_s = interval_s

    def say(self, text: str) -> None:
        """Writes one line."""
        write_line(self._stream, text)

    def found(self, text: str) -> None:
        """Writes one line to standard output."""
        write_line(sys.stdout, text)

    @contextlib.contextmanager
    def task(self, name: str) -> Generator[Progress, None, None]:
        """Gives a callback; a line is written at each interval, also while nothing reports."""
        with lines(name, self.say, interval_s=self._interval_s) as update:
            yield update


class TerminalReporter(Reporter):
    """Shows a bar with rate and remaining time."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        """Writes one line above the bar."""
        self._console.print(text, markup=False, soft_wrap=True)

    def found(self, text: str) -> None:
        """Writes one line to standard output."""
        write_line(sys.stdout, text)

    @contextlib.contextmanager
    def task(self, name: str) -> Generator[Progress, None, None]:
        """Gives a callback that moves the bar."""
        with bar(name, self._console) as update:
            yield update


def default_reporter() -> Reporter:
    """Returns the reporter that fits standard error: a bar on a terminal, lines elsewhere."""
    return TerminalReporter() if sys.stderr.isatty() else PlainReporter()
