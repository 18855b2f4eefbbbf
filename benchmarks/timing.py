"""Times implementations in turn and keeps CPU seconds, wall seconds and peak memory apart.

On shared machines wall time says little: ratios are of CPU seconds of the whole process,
medians over rounds in which every implementation runs once. The first call of each is
separate, in time and in memory, since it compiles. On accelerators wall time of the blocked
call is what counts.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

_FIELDS = ("VmRSS", "RssAnon")


@dataclasses.dataclass
class Timing:
    """What one implementation took.

    Attributes:
        first_s: wall seconds of the first call, with compilation.
        wall_s: wall seconds of each counted call.
        cpu_s: CPU seconds of the process in each counted call.
        first_peak_bytes: most memory of the first call above what was held before it.
        peak_bytes: the same, over the counted calls.
        result: of the last call.
    """

    first_s: float
    wall_s: list[float]
    cpu_s: list[float]
    first_peak_bytes: int
    peak_bytes: int
    result: Any

    def seconds(self) -> list[float]:
        """Returns what counts on the default device: CPU seconds on a CPU, else wall seconds."""
        return self.cpu_s if jax.default_backend() == "cpu" else self.wall_s


def time_in_turn(calls: dict[str, Callable[[], Any]], *, rounds: int = 3) -> dict[str, Timing]:
    """Runs every call once to warm up, then all of them in turn, `rounds` times.

    Args:
        calls: name -> function without arguments whose result can be blocked on.
        rounds: counted calls of each.

    Returns:
        name -> Timing.
    """
    timings = {}
    for name, call in calls.items():
        with PeakMemory() as memory:
            start = time.perf_counter()
            result = jax.block_until_ready(call())
        timings[name] = Timing(time.perf_counter() - start, [], [], memory.peak["VmRSS"], 0, result)
    for _ in range(rounds):
        for name, call in calls.items():
            with PeakMemory() as memory:
                wall, cpu = time.perf_counter(), time.process_time()
                result = jax.block_until_ready(call())
            timings[name].wall_s.append(time.perf_counter() - wall)
            timings[name].cpu_s.append(time.process_time() - cpu)
            timings[name].peak_bytes = max(timings[name].peak_bytes, memory.peak["VmRSS"])
            timings[name].result = result
    return timings


class PeakMemory:
    """Samples the memory of the process while a block runs, from a heap without free pages.

    Attributes:
        peak: most bytes above what was held at the start: "VmRSS", all resident pages, and
            "RssAnon", those that no file backs.
    """

    def __enter__(self) -> PeakMemory:
        gc.collect()
        _give_back_free_pages()
        self._start, self.peak = _memory(), dict.fromkeys(_FIELDS, 0)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            now = _memory()
            self.peak = {name: max(peak, now[name] - self._start[name]) for name, peak in self.peak.items()}


def _give_back_free_pages() -> None:
    """Lets the C library return what it keeps, or a call could use memory that is already counted."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _memory() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) * 1024 for name in _FIELDS}
