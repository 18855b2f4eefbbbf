"""Times implementations in turn and keeps CPU seconds, wall seconds and peak memory apart.

On shared machines wall time says little: ratios are of CPU seconds of the whole process,
medians over rounds in which every implementation runs once. The first call of each is
separate, in time and in memory, since it compiles; seconds in the compiler are kept apart too. On
accelerators wall time of the blocked call is what counts.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

_FIELDS = ("VmRSS", "RssAnon")
# What jax calls the time that a program spends in the compiler, or that a kept one takes to be found.
_COMPILATION = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass
class Timing:
    """What one implementation took.

    Attributes:
        first_s: wall seconds of the first call, with compilation.
        wall_s: wall seconds of each counted call.
        cpu_s: CPU seconds of the process in each counted call.
        first_peak_bytes: most memory of the first call above what was held before it.
        peak_bytes: the same, over the counted calls.
        compile_s: seconds that the first call spent in the compiler.
        late_compile_s: the same, of the counted calls: 0, or they were not ready to be counted.
        device_peak_bytes: most memory of an accelerator in the first call above what was held before; None on a CPU,
            and where an earlier call of this process had held more.
        result: of the last call.
    """

    first_s: float
    wall_s: list[float]
    cpu_s: list[float]
    first_peak_bytes: int
    peak_bytes: int
    compile_s: float
    late_compile_s: float
    device_peak_bytes: int | None
    result: Any

    def seconds(self) -> list[float]:
        """Returns what counts on the default device: CPU seconds on a CPU, else wall seconds."""
        return self.cpu_s if jax.default_backend() == "cpu" else self.wall_s


def time_in_turn(
    calls: dict[str, Callable[[], Any]], *, rounds: int = 3, with_memory: bool = True
) -> dict[str, Timing]:
    """Runs every call once to warm up, then all of them in turn, `rounds` times.

    Args:
        calls: name -> function without arguments whose result can be blocked on.
        rounds: counted calls of each.
        with_memory: whether the memory of the process is watched, which takes a while before each call.

    Returns:
        name -> Timing.
    """
    watched = PeakMemory if with_memory else _Unwatched
    timings = {}
    for name, call in calls.items():
        with watched() as memory:
            held, compiled = _device_memory(), sum(_compilations())
            start = time.perf_counter()
            result = jax.block_until_ready(call())
            first_s = time.perf_counter() - start
        compile_s, peak = sum(_compilations()) - compiled, _device_memory().get("peak_bytes_in_use", 0)
        is_new = peak > held.get("peak_bytes_in_use", 0)
        on_device = peak - held.get("bytes_in_use", 0) if is_new else None
        timings[name] = Timing(first_s, [], [], memory.peak["VmRSS"], 0, compile_s, 0.0, on_device, result)
        del result
    for _ in range(rounds):
        for name, call in calls.items():
            timings[name].result, compiled = None, sum(_compilations())
            with watched(is_fresh=False) as memory:
                wall, cpu = time.perf_counter(), time.process_time()
                result = jax.block_until_ready(call())
            timings[name].wall_s.append(time.perf_counter() - wall)
            timings[name].cpu_s.append(time.process_time() - cpu)
            timings[name].late_compile_s += sum(_compilations()) - compiled
            timings[name].peak_bytes = max(timings[name].peak_bytes, memory.peak["VmRSS"])
            timings[name].result = result
    return timings


class PeakMemory:
    """Samples the memory of the process while a block runs, from a heap without free pages.

    Attributes:
        peak: most bytes above what was held at the start: "VmRSS", all resident pages, and
            "RssAnon", those that no file backs.
    """

    def __init__(self, *, is_fresh: bool = True) -> None:
        """Collects all garbage before it starts, or only what is young, which is faster."""
        self._generation = 2 if is_fresh else 1

    def __enter__(self) -> PeakMemory:
        gc.collect(self._generation)
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


class _Unwatched:
    """In the place of `PeakMemory` where nobody asks."""

    def __init__(self, *, is_fresh: bool = True) -> None:
        del is_fresh
        self.peak = dict.fromkeys(_FIELDS, 0)

    def __enter__(self) -> _Unwatched:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@functools.cache
def _compilations() -> list[float]:
    """Seconds of every compilation from the first call on, in a list that grows."""
    seconds: list[float] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILATION:
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return seconds


def _device_memory() -> dict[str, int]:
    """What an accelerator says of its memory; nothing of a CPU, whose memory is that of the process."""
    return jax.devices()[0].memory_stats() or {}


def _give_back_free_pages() -> None:
    """Lets the C library return what it keeps, or a call could use memory that is already counted."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _memory() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) * 1024 for name in _FIELDS}
