"""The one way in which long work reports and is stopped: a callback `(done, total)`.

Every loop of every stage calls it at least once per chunk. A callback may raise to stop
the work; the command line's one does so after SIGTERM or Ctrl-C. Functions that a script
calls for long work take True in its place, and show a bar on a terminal.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """Reports nothing; the default."""
    del done, total


def part_of(progress: Progress, i: int, n: int) -> Progress:
    """Reports one of n equal parts of the work."""
    return lambda done, total: progress(i * total + done, n * total)


def at_the_end(progress: Progress) -> Progress:
    """Reports work that comes after all that is counted: the bar stays full, and the work can be stopped."""
    return lambda done, total: progress(1, 1)


class State:
    """How far a piece of work is; a smaller `done` or another `total` starts a new count."""

    def __init__(self) -> None:
        """Starts the clock."""
        self._first = self._done = self._total = 0
        self._start = self._begun = time.monotonic()

    def update(self, done: int, total: int) -> None:
        """Takes what is done."""
        if total != self._total or done < self._done:
            self._first, self._start = done, time.monotonic()
        self._done, self._total = done, total

    def text(self) -> str:
        """Says what is done, how fast, and how long the rest takes."""
        now = time.monotonic()
        if not self._total:
            return f"working, {_duration(now - self._begun)}"
        if self._done >= self._total:
            return f"finishing, {_duration(now - self._begun)}"
        parts = [f"{self._done}/{self._total} ({self._done / self._total:.0%})"]
        passed, n_steps = now - self._start, self._done - self._first
        if n_steps > 0 and passed > 0:
            parts.append(f"{n_steps / passed:.3g}/s")
            parts.append(f"{_duration((self._total - self._done) * passed / n_steps)} left")
        return ", ".join(parts)


@contextlib.contextmanager
def bar(name: str, console: Console) -> Generator[Progress, None, None]:
    """Gives a callback that moves a bar while the block runs."""
    from rich import progress

    columns = (
        progress.TextColumn("{task.description:<12}"),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[text]}"),
    )
    state = State()
    with progress.Progress(*columns, console=console, transient=True) as shown_bar:
        task = shown_bar.add_task(name, total=None, text="")

        def update(done: int, total: int) -> None:
            state.update(done, total)
            shown_bar.update(task, completed=done, total=total, text=state.text())

        yield update


@contextlib.contextmanager
def shown(name: str, progress: Progress | bool) -> Generator[Progress, None, None]:
    """Gives the callback that was given; for True one that moves a bar if standard error is a terminal."""
    if callable(progress):
        yield progress
    elif progress and sys.stderr.isatty():
        from rich.console import Console

        with bar(name, Console(stderr=True)) as update:
            yield update
    else:
        yield silent


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
