"""Reading one part ahead: a thread reads the next part while the last one is worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Part = TypeVar("_Part")
_Read = TypeVar("_Read")


def read_ahead(read: Callable[[_Part], _Read], parts: Iterable[_Part]) -> Iterator[_Read]:
    """Yields what is read of each part, in order.

    Args:
        read: reads one part; called in another thread.
        parts: what to read.

    Yields:
        What `read` returns; at most two of these are held, the one given out and the next.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for part in parts:
            ahead = pool.submit(read, part)
            if waiting is not None:
                yield waiting.result()
            waiting = ahead
        if waiting is not None:
            yield waiting.result()
