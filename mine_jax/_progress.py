"""The one way in which long work reports and is stopped: a callback `(done, total)`.

Every loop of every stage calls it at least once per chunk. A callback may raise to stop
the work; the command line's one does so after SIGTERM or Ctrl-C. Functions that a script
calls for long work take True in its place, and show a bar on a terminal. What would be said
twice is `silenced`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, TextIO

from mine_jax._numbers import count, duration, size

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[int, int], None]
# Between lines about work that is not shown on a terminal.
PLAIN_INTERVAL_S = 30.0


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
        self._start = self._begun = self._last = time.monotonic()

    def update(self, done: int, total: int) -> None:
        """Takes what is done."""
        self._last = time.monotonic()
        if total != self._total or done < self._done:
            self._first, self._start = done, self._last
        self._done, self._total = done, total

    def text(self) -> str:
        """Says what is done, how fast, and how long the rest takes, as long as that can be told."""
        now = time.monotonic()
        so_far = f"{duration(now - self._begun)} so far"
        if not self._total:
            return f"working, {so_far}"
        if self._done >= self._total:
            return f"finishing, {so_far}"
        parts = [f"{count(self._done)} of {count(self._total)} ({self._done / self._total:.0%})"]
        n_steps = self._done - self._first
        each_s = (self._last - self._start) / n_steps if n_steps > 0 else 0.0
        left_s = (self._total - self._done) * each_s - (now - self._last)
        # work of another kind, or a compilation, has begun where the rest should have been done by now
        parts += [f"{size(1 / each_s)}/s", f"{duration(max(left_s, 1.0))} left"] if left_s > 0 else [so_far]
        return ", ".join(parts)


@contextlib.contextmanager
def bar(name: str, console: Console) -> Generator[Progress, None, None]:
    """Gives a callback that moves a bar while the block runs."""
    from rich import progress, text

    state = State()

    class Said(progress.ProgressColumn):
        """What is done, as it stands when the bar is drawn."""

        def render(self, task: progress.Task) -> text.Text:
            """Writes the column."""
            del task
            return text.Text(state.text())

    columns = (progress.TextColumn("{task.description:<12}"), progress.BarColumn(), Said())
    with progress.Progress(*columns, console=console, transient=True) as shown_bar:
        task = shown_bar.add_task(name, total=None)

        def update(done: int, total: int) -> None:
            state.update(done, total)
            shown_bar.update(task, completed=done, total=total)

        yield update


@contextlib.contextmanager
def lines(name: str, say: Callable[[str], None], *, interval_s: float) -> Generator[Progress, None, None]:
    """Gives a callback; a thread says a line at each interval, also while nothing reports."""
    state, finished = State(), threading.Event()

    def watch() -> None:
        while not finished.wait(interval_s):
            say(f"{name}: {state.text()}")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield state.update
    finally:
        finished.set()
        thread.join()


def write_line(stream: TextIO, text: str) -> None:
    """Writes one line; nobody may be there to read it, which is no reason to stop."""
    with contextlib.suppress(BrokenPipeError, ValueError):
        stream.write(text + "\n")
        stream.flush()


@contextlib.contextmanager
def silenced(logger_name: str) -> Generator[None, None, None]:
    """Holds back what a logger says while the block runs, for what is raised or said again elsewhere."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def shown(name: str, progress: Progress | bool, *, elsewhere: bool = False) -> Generator[Progress, None, None]:
    """Gives the callback that was given; for True one that moves a bar if standard error is a terminal.

    With `elsewhere`, True writes lines where there is no terminal, as in a notebook.
    """
    if callable(progress):
        yield progress
    elif progress and sys.stderr.isatty():
        from rich.console import Console

        with bar(name, Console(stderr=True)) as update:
            yield update
    elif progress and elsewhere:
        with lines(name, functools.partial(write_line, sys.stderr), interval_s=PLAIN_INTERVAL_S) as update:
            yield update
    else:
        yield silent
