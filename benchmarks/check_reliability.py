"""Does a run that is killed, damaged or short of disk ever give another result, or end without a named error?

    python -m benchmarks.check_reliability [--kills 200] [--damages 500] [--inputs 250] [--hostile 250] [--disks 50]

Runs a tiny data set once, and then again and again with a fault each time:

- kills: SIGKILL at a random moment, up to three times, then `--resume`.
- damages: one file of a finished run is damaged (a byte, cut short, emptied, deleted), then `--resume`.
- inputs: the same of one frozen input (or a new file among them), then `--resume` and `check`.
- hostile: a photo, array, volume, HDF5 or JSON file, configuration or list that was made to hurt, then `check`.
- disks: the disk is full at a random moment (a file system in memory, or a limit of file sizes), then `--resume`.

Allowed ends are the result of the undisturbed run with files of others untouched, and a named error: its exit code, one
message, no traceback. Of a changed input only the error is. The table counts ends; what else came stands below it, and
the exit status is then 1. One seed gives the same faults; moments of kills depend on the machine.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.reliability import hostile
from benchmarks.reliability.commands import Disk, run_command
from benchmarks.reliability.outcomes import NAMED, RIGHT, WRONG, Outcome, contents, damage, named_error, verdict

# Names of files that no run made, in a run directory.
FOREIGN = ("note.txt", "encoder/note.txt", "own/deep/a.json")


class Reliability:
    """A tiny data set, its finished run, and the faults that are tried on copies of them.

    Args:
        folder: where everything is written.
        seed: of the faults.
    """

    def __init__(self, folder: Path, *, seed: int = 0) -> None:
        self.folder = folder
        self.rng = np.random.default_rng(seed)
        self.config = hostile.write_data_set(folder / "inputs")
        hostile.write_hdf5_data_set(folder / "inputs")
        self.finished, self.begun = folder / "finished", folder / "begun"
        self._expect(["run", self.config, "--out", self.begun, "--until", "data"])
        start = time.monotonic()
        self._expect(["run", self.config, "--out", self.finished])
        self.seconds = time.monotonic() - start
        for directory in (self.begun, self.finished):
            for name in FOREIGN:
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                (directory / name).write_text(f"mine: {name}", encoding="utf-8")
        self.expected = contents(self.finished)
        self._expect(["check", self.config, "--freeze"])

    def kill(self) -> Outcome:
        """Kills a run up to three times, and resumes it."""
        directory = self._copy(self.begun)
        for _ in range(self.rng.integers(1, 4)):
            run_command(self._resume(directory), kill_after=float(self.rng.uniform(0, self.seconds)))
        return verdict(run_command(self._resume(directory)), directory, self.expected)

    def damage_output(self) -> Outcome:
        """Damages one file of the finished run, and resumes it."""
        directory = self._copy(self.finished)
        names = [name for name in contents(directory, everything=True) if name not in FOREIGN]
        name = str(self.rng.choice(names))
        how = damage(directory / name, self.rng)
        return verdict(run_command(self._resume(directory)), directory, self.expected, what=f"{how} {name}")

    def damage_input(self) -> Outcome:
        """Changes one frozen input; a run and a check must both refuse it."""
        inputs = self._copy(self.config.parent)
        config = inputs / self.config.name
        listed = [line.split("  ", 1)[1] for line in config.with_suffix(".sha256").read_text("utf-8").splitlines()]
        name = str(self.rng.choice(listed))
        if self.rng.random() < 0.1:
            how, name = "added", f"photos/{self.rng.integers(1 << 30)}.png"
            (inputs / name).write_bytes(b"new")
        else:
            how = damage(inputs / name, self.rng)
        out = self.folder / "of_changed_inputs"
        shutil.rmtree(out, ignore_errors=True)
        for command in (["run", config, "--out", out], ["check", config]):
            outcome = named_error(run_command(command), what=f"{command[0]}, {how} {name}", only="IntegrityError")
            if outcome.end == WRONG:
                break
        return outcome

    def open_hostile(self) -> Outcome:
        """Opens a file that was made to hurt."""
        inputs = self._copy(self.config.parent)
        (inputs / self.config.name).with_suffix(".sha256").unlink()
        name = str(self.rng.choice(sorted(hostile.FILES)))
        how = hostile.FILES[name](inputs, self.rng)
        ended = run_command(["check", inputs / ("hdf5.toml" if name == "hdf5" else self.config.name)])
        # what is still a valid photo or number may be accepted
        return Outcome(RIGHT) if ended.code == 0 else named_error(ended, what=f"{name}: {how}")

    def fill_disk(self) -> Outcome:
        """Runs on a disk that gets full, and resumes once there is space."""
        used = sum(len(content) for content in contents(self.finished, everything=True).values())
        with Disk(self.folder / "disk", int(self.rng.integers(used // 4, used))) as disk:
            directory = self._copy(self.begun, disk.folder / "run" if disk.has_size else None)
            ended = run_command(self._resume(directory), max_file_bytes=disk.max_file_bytes)
            outcome = named_error(ended, what="full disk", only="ResourceError")
            if ended.code != 0 and outcome.end == WRONG:
                return outcome
            disk.grow()
            resumed = verdict(run_command(self._resume(directory)), directory, self.expected, what="after a full disk")
            return outcome if resumed.end == RIGHT and ended.code else resumed

    def _resume(self, directory: Path) -> list[str | Path]:
        return ["run", self.config, "--out", directory, "--resume"]

    def _copy(self, directory: Path, to: Path | None = None) -> Path:
        target = to or self.folder / "copy"
        shutil.rmtree(target, ignore_errors=True)
        return shutil.copytree(directory, target)

    def _expect(self, command: list[str | Path]) -> None:
        ended = run_command(command)
        if ended.code:
            raise SystemExit(f"{command[0]} fails without any fault:\n{ended.said}")


# Kind of fault -> how many, and how one is tried.
FAULTS: dict[str, tuple[int, Callable[[Reliability], Outcome]]] = {
    "kills": (200, Reliability.kill),
    "damages": (500, Reliability.damage_output),
    "inputs": (250, Reliability.damage_input),
    "hostile": (250, Reliability.open_hostile),
    "disks": (50, Reliability.fill_disk),
}


def main() -> int:
    """Parses the arguments, tries all faults, prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (count, _) in FAULTS.items():
        parser.add_argument(f"--{name}", type=int, default=count, help=f"how many (default: {count})")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = tried(Path(folder), {name: getattr(args, name) for name in FAULTS}, seed=args.seed)
    print(table(outcomes))
    return int(any(outcome.end == WRONG for ends in outcomes.values() for outcome in ends))


def tried(folder: Path, counts: dict[str, int], *, seed: int = 0) -> dict[str, list[Outcome]]:
    """Tries faults.

    Args:
        folder: where everything is written.
        counts: kind of fault -> how many.
        seed: of the faults.

    Returns:
        Kind of fault -> what came after each.
    """
    outcomes: dict[str, list[Outcome]] = {name: [] for name in counts}
    faults = Reliability(folder, seed=seed)
    for name, count in counts.items():
        for number in range(count):
            outcomes[name].append(FAULTS[name][1](faults))
            if outcomes[name][-1].end == WRONG or number % 25 == 24:
                print(f"{name} {number + 1}/{count}: {outcomes[name][-1].end}", file=sys.stderr, flush=True)
    return outcomes


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
