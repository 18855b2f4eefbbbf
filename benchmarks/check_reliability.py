"""Does a run that is killed, damaged or short of disk ever give another result, or end without a named error?

    python -m benchmarks.check_reliability [--kills 200] [--damages 500] [--inputs 250] [--hostile 250] [--disks 30]

Runs a tiny data set once, and then again and again with a fault each time:

- kills: SIGKILL at a random moment, then `--resume` of a copy; the killed run itself goes on to its next kill.
- damages: one file of a finished run is damaged (a byte, cut short, emptied, deleted), then `--resume`.
- inputs: the same of one frozen input (or a new file among them), then `--resume` and `check`.
- hostile: a photo, array, volume, HDF5 or JSON file, configuration or list that was made to hurt, then `check`.
- disks: the disk is full at a random moment (a file system in memory, or a limit of file sizes), then `--resume`.

Allowed ends are the result of the undisturbed run with files of others untouched, and a named error: its exit code, one
message, no traceback. Of a changed input only the error is. The table counts ends; what else came stands below it, and
the exit status is then 1. One seed gives the same faults; moments of kills depend on the machine.

What must die is a process of its own. Everything else happens in processes that have all programs compiled, on a file
system in memory where there is one; of resumed runs one in ten writes the report again, which takes longer than all
stages before it and whose page is not compared.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.reliability import hostile
from benchmarks.reliability.commands import Disk, run_command, run_here
from benchmarks.reliability.outcomes import NAMED, RIGHT, WRONG, Outcome, contents, damage, named_error, verdict

# Names of files that no run made, in a run directory.
FOREIGN = ("note.txt", "encoder/note.txt", "own/deep/a.json")
_FAULTS: list[Reliability] = []
# What the folders of a check with a few processes need.
_SPACE_BYTES = 2 << 30
# All programs are kept, also those that compile fast.
_CACHE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


@dataclass(frozen=True)
class Reliability:
    """A tiny data set, its finished run, and the faults that are tried on copies of them.

    Kills and full disks need processes of their own. Other faults are tried in this one, where programs are compiled
    already: a crash ends it, and with it everything.

    Attributes:
        folder: where everything is written.
        config: of the data set.
        seconds: that a run takes in a process of its own.
        expected: content of the files of the undisturbed run.
    """

    folder: Path
    config: Path
    seconds: float
    expected: dict[str, bytes]

    @classmethod
    def prepared(cls, folder: Path) -> Reliability:
        """Writes the data set and runs it, until its first stage and whole."""
        config = hostile.write_data_set(folder / "inputs")
        hostile.write_hdf5_data_set(folder / "inputs")
        finished, begun = folder / "finished", folder / "begun"
        _expect(["run", config, "--out", begun, "--until", "data"])
        _expect(["run", config, "--out", finished])
        start = time.monotonic()
        _expect(["run", config, "--out", folder / "again"])
        seconds = time.monotonic() - start
        for directory in (begun, finished):
            for name in FOREIGN:
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                (directory / name).write_text(f"mine: {name}", encoding="utf-8")
        _expect(["check", config, "--freeze"])
        return cls(folder, config, seconds, contents(finished))

    def kill(self, rng: np.random.Generator) -> Outcome:
        """Kills a run of this process once more, and resumes a copy of it; one that ends before begins anew."""
        directory = self._own("killed")
        while True:
            if not directory.is_dir():
                self._copy(self.folder / "begun", directory)
            # mostly soon, for as many moments as can be; at times late enough for the longest stage to end
            longest = self.seconds if rng.random() < 0.25 else self.seconds / 4
            ended = run_command(self._resume(directory), kill_after=float(rng.uniform(0, longest)))
            if ended.code == -signal.SIGKILL:
                return self._resumed(self._copy(directory), rng, what="killed")
            outcome = verdict(ended, directory, self.expected, what="killed, resumed, and not killed again")
            shutil.rmtree(directory)
            if outcome.end != RIGHT:
                return outcome

    def damage_output(self, rng: np.random.Generator) -> Outcome:
        """Damages one file of the finished run, and resumes it."""
        directory = self._copy(self.folder / "finished")
        names = [name for name in contents(directory, everything=True) if name not in FOREIGN]
        name = str(rng.choice(names))
        how = damage(directory / name, rng)
        return self._resumed(directory, rng, what=f"{how} {name}", is_whole=name == "report.html")

    def damage_input(self, rng: np.random.Generator) -> Outcome:
        """Changes one frozen input; a run and a check must both refuse it."""
        inputs = self._copy(self.config.parent)
        config = inputs / self.config.name
        listed = [line.split("  ", 1)[1] for line in config.with_suffix(".sha256").read_text("utf-8").splitlines()]
        name = str(rng.choice(listed))
        if rng.random() < 0.1:
            how, name = "added", f"photos/{rng.integers(1 << 30)}.png"
            (inputs / name).write_bytes(b"new")
        else:
            how = damage(inputs / name, rng)
        out = self._own("of_changed_inputs")
        shutil.rmtree(out, ignore_errors=True)
        outcome = Outcome(NAMED)
        for command in (["run", config, "--out", out], ["check", config]):
            outcome = named_error(run_here(command), what=f"{command[0]}, {how} {name}", only="IntegrityError")
            if outcome.end == WRONG:
                break
        return outcome

    def open_hostile(self, rng: np.random.Generator) -> Outcome:
        """Opens a file that was made to hurt."""
        inputs = self._copy(self.config.parent)
        (inputs / self.config.name).with_suffix(".sha256").unlink()
        name = str(rng.choice(sorted(hostile.FILES)))
        how = hostile.FILES[name](inputs, rng)
        ended = run_here(["check", inputs / ("hdf5.toml" if name == "hdf5" else self.config.name)])
        # what is still a valid photo or number may be accepted
        return Outcome(RIGHT) if ended.code == 0 else named_error(ended, what=f"{name}: {how}")

    def fill_disk(self, rng: np.random.Generator) -> Outcome:
        """Runs on a disk that gets full, and resumes once there is space."""
        used = sum(len(content) for content in contents(self.folder / "finished", everything=True).values())
        with Disk(self._own("disk"), int(rng.integers(used // 4, used))) as disk:
            directory = self._copy(self.folder / "begun", disk.folder / "run" if disk.has_size else None)
            ended = run_command(self._resume(directory), max_file_bytes=disk.max_file_bytes)
            outcome = named_error(ended, what="full disk", only="ResourceError")
            if ended.code != 0 and outcome.end == WRONG:
                return outcome
            disk.grow()
            resumed = self._resumed(directory, rng, what="after a full disk")
            return outcome if resumed.end == RIGHT and ended.code else resumed

    def _resume(self, directory: Path) -> list[str | Path]:
        return ["run", self.config, "--out", directory, "--resume"]

    def _resumed(self, directory: Path, rng: np.random.Generator, *, what: str, is_whole: bool = False) -> Outcome:
        """Resumes a run in this process: to its last stage, or to the one before the report."""
        is_whole = is_whole or rng.random() < 0.1
        ended = run_here([*self._resume(directory), *([] if is_whole else ["--until", "roi"])])
        return verdict(ended, directory, self.expected, what=what, is_whole=is_whole)

    def _own(self, name: str) -> Path:
        """A path that no other process uses."""
        return self.folder / f"{name}-{os.getpid()}"

    def _copy(self, directory: Path, to: Path | None = None) -> Path:
        target = to or self._own("copy")
        shutil.rmtree(target, ignore_errors=True)
        return shutil.copytree(directory, target)


def _expect(command: list[str | Path]) -> None:
    ended = run_command(command)
    if ended.code:
        raise SystemExit(f"{command[0]} fails without any fault:\n{ended.said}")


# Kind of fault -> how many, and how one is tried.
FAULTS: dict[str, tuple[int, Callable[[Reliability, np.random.Generator], Outcome]]] = {
    "kills": (200, Reliability.kill),
    "damages": (500, Reliability.damage_output),
    "inputs": (250, Reliability.damage_input),
    "hostile": (250, Reliability.open_hostile),
    "disks": (30, Reliability.fill_disk),
}


def main() -> int:
    """Parses the arguments, tries all faults, prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (count, _) in FAULTS.items():
        parser.add_argument(f"--{name}", type=int, default=count, help=f"how many (default: {count})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="default: one a core")
    args = parser.parse_args()
    memory = Path("/dev/shm")
    has_memory = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _SPACE_BYTES
    # Each process compiles nothing that an earlier one has compiled.
    with tempfile.TemporaryDirectory(dir=memory if has_memory else None) as folder:
        os.environ |= {"JAX_COMPILATION_CACHE_DIR": f"{folder}/programs", **_CACHE, "OPENBLAS_NUM_THREADS": "1"}
        start = time.monotonic()
        counts = {name: getattr(args, name) for name in FAULTS}
        outcomes = tried(Path(folder), counts, seed=args.seed, processes=args.processes)
    print(table(outcomes))
    print(f"{time.monotonic() - start:.0f} s on {args.processes} cores")
    return int(any(outcome.end == WRONG for ends in outcomes.values() for outcome in ends))


def tried(folder: Path, counts: dict[str, int], *, seed: int = 0, processes: int = 0) -> dict[str, list[Outcome]]:
    """Tries faults.

    Args:
        folder: where everything is written.
        counts: kind of fault -> how many.
        seed: of the faults.
        processes: that try them side by side; 0 for this one alone.

    Returns:
        Kind of fault -> what came after each.
    """
    faults = Reliability.prepared(folder)
    _begin(faults)
    tasks = [(name, [seed, *name.encode(), number]) for name, n in counts.items() for number in range(n)]
    # those of all kinds side by side, so that cores do not wait for the same thing
    np.random.default_rng(seed).shuffle(tasks)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in counts}
    with contextlib.ExitStack() as stack:
        map_: Callable[..., Iterable[tuple[str, Outcome]]] = map
        if processes:
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(faults,))
            map_ = stack.enter_context(pool).map
        for done, (name, outcome) in enumerate(map_(_try, tasks), start=1):
            outcomes[name].append(outcome)
            if outcome.end == WRONG or done % 50 == 0:
                print(f"{done}/{len(tasks)}: {name}: {outcome.end} {outcome.what}", file=sys.stderr, flush=True)
    return outcomes


def _begin(faults: Reliability) -> None:
    """Keeps in this process what all faults are tried on."""
    _FAULTS.append(faults)


def _try(task: tuple[str, list[int]]) -> tuple[str, Outcome]:
    name, seed = task
    return name, FAULTS[name][1](_FAULTS[-1], np.random.default_rng(seed))


def table(outcomes: dict[str, list[Outcome]]) -> str:
    """Formats counts by kind of fault and end, and below them what must not be."""
    ends = (RIGHT, NAMED, WRONG)
    lines = [f"{'fault':10s}{'tried':>8s}" + "".join(f"{end:>14s}" for end in ends)]
    for name, came in outcomes.items():
        counts = Counter(outcome.end for outcome in came)
        lines.append(f"{name:10s}{len(came):8d}" + "".join(f"{counts[end]:14d}" for end in ends))
    wrong = [f"{name}: {outcome.what}" for name, came in outcomes.items() for outcome in came if outcome.end == WRONG]
    return "\n".join([*lines, *wrong])


if __name__ == "__main__":
    sys.exit(main())
