"""Damages files, and judges what came after a fault: the right result, a named error, or what must not be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.reliability.commands import Ended

RIGHT, NAMED, WRONG = "right result", "named error", "WRONG"
# Exit codes of errors with a name: usage, data, integrity, resources.
_CODES = (2, 3, 4, 5)
_NAMED = re.compile(r"^mine-jax: ([A-Z]\w*(?:Error)): ", re.MULTILINE)
# Files with times, and those of a checkpoint, whose names are drawn anew for every write; what they hold is in tables.
_VARY = re.compile(r"run\.json|report\.html|encoder/(.*/)?(params/.*|meta\.json)")


class Outcome(NamedTuple):
    """What came after a fault.

    Attributes:
        end: `RIGHT`, `NAMED` or `WRONG`.
        what: of a wrong end, the fault and what came.
    """

    end: str
    what: str = ""


def damage(path: Path, rng: np.random.Generator) -> str:
    """Damages a file, and says how: another byte, cut short, emptied or deleted."""
    content = bytearray(path.read_bytes())
    how = str(rng.choice(["flipped", "cut", "emptied", "deleted"])) if content else "deleted"
    if how == "deleted":
        path.unlink()
        return how
    if how == "flipped":
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content if how == "flipped" else content[: rng.integers(len(content))] if how == "cut" else b"")
    return how


def contents(directory: Path, *, everything: bool = False) -> dict[str, bytes]:
    """Returns the files of a run that two equal runs have alike, or all of them, by relative name."""
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    return {name: (directory / name).read_bytes() for name in names if everything or not _VARY.fullmatch(name)}


def verdict(
    ended: Ended, directory: Path, expected: dict[str, bytes], *, what: str = "", is_whole: bool = True
) -> Outcome:
    """Judges a run that was resumed, to its report or to what is before it: the expected files, or an error's name."""
    if ended.code != 0:
        return named_error(ended, what=what)
    found = contents(directory)
    others = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    needed = ("run.json", "report.html") if is_whole else ("run.json",)
    missing = [name for name in needed if not (directory / name).is_file()]
    if others or missing:
        return Outcome(WRONG, f"{what}: other content of {', '.join([*others, *missing][:5])}")
    return Outcome(RIGHT)


def named_error(ended: Ended, *, what: str, only: str | None = None) -> Outcome:
    """Judges a command that had to fail: an error with a name (of `only` one kind), and no traceback."""
    said = ended.said[-2000:]
    names = _NAMED.findall(ended.said)
    is_named = ended.code in _CODES and len(names) == 1 and (only is None or names[0] == only)
    if is_named and "Traceback" not in ended.said and "is a fault of" not in ended.said:
        return Outcome(NAMED)
    return Outcome(WRONG, f"{what}: ended with {ended.code}\n{said}")
