"""The one way in which long work reports and is stopped: a callback `(done, total)`.

Every loop of every stage calls it at least once per chunk. A callback may raise to stop
the work; the command line's one does so after SIGTERM or Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Callable

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
