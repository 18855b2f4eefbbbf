"""How numbers are written for people: each kind of number has one form, on every page and line."""

from __future__ import annotations

import math
from typing import Any

UNKNOWN = "not known"
_PLURALS = {"vertex": "vertices"}
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def decimal(value: Any, digits: int = 2) -> str:
    """Writes a score, weight, effect or correlation with fixed decimals; "not known" for NaN, infinity and None."""
    if not _is_known(value):
        return UNKNOWN
    text = f"{float(value):,.{digits}f}"
    # a small negative number has no sign once it is rounded away
    return text if text.strip("-0.,") else text.removeprefix("-")


def signed(value: Any) -> str:
    """Writes a response or a shift of one, with its sign."""
    text = decimal(value)
    return text if text == UNKNOWN or text.startswith("-") else f"+{text}"


def interval(low: Any, high: Any) -> str:
    """Writes the ends of an interval; "not known" if one is missing."""
    return f"{decimal(low)} to {decimal(high)}" if _is_known(low) and _is_known(high) else UNKNOWN


def size(value: Any) -> str:
    """Writes a number of any size with two significant digits, without an exponent: 0.050, 0.069, 13, 6,800."""
    if not _is_known(value):
        return UNKNOWN
    if float(value) == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(float(f"{float(value):.1e}"))))
    return f"{round(float(value), 1 - magnitude):,.{max(0, 1 - magnitude)}f}"


def prefixed(value: float, unit: str) -> str:
    """Writes an amount with a prefix of its unit: 6.9 GFLOP."""
    factor, prefix = next((pair for pair in _PREFIXES if abs(value) >= pair[0]), (1.0, ""))
    return f"{size(value / factor)} {prefix}{unit}"


def duration(seconds: float, digits: int = 0) -> str:
    """Writes a time in the two units that matter: 42 s, 1 min 16 s, 2 h 5 min."""
    if round(seconds, digits) < 60:
        return f"{decimal(seconds, digits)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{count(minutes // 60)} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def plural(noun: str) -> str:
    """Returns the word for several of a noun: voxels, vertices."""
    return _PLURALS.get(noun, f"{noun}s")


def count(value: Any, noun: str = "", many: str = "") -> str:
    """Writes a count with thousands separators, and its noun in the right number."""
    word = noun if value == 1 else many or plural(noun)
    return f"{int(value):,} {word}" if noun else f"{int(value):,}"


def share(value: Any) -> str:
    """Writes a fraction 0..1 as a whole percentage; what is not none and not all is not written as such."""
    if not _is_known(value):
        return UNKNOWN
    if 0 < value < 0.005:
        return "< 1%"
    return "> 99%" if 0.995 <= value < 1 else f"{decimal(100 * float(value), 0)}%"


def p_value(value: Any) -> str:
    """Writes a probability with three decimals; smaller ones as "< 0.001"."""
    if not _is_known(value):
        return UNKNOWN
    return "< 0.001" if float(value) < 1e-3 else decimal(value, 3)


def _is_known(value: Any) -> bool:
    return value is not None and math.isfinite(float(value))
