"""The numbers of a stage in `run.json`: made finite, and said in one line."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mine_jax._numbers import decimal, size


def finite_mean(values: Any) -> float | None:
    """Computes the mean of the finite ones of some values [n]; None where there are none."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def finite_median(values: Any) -> float | None:
    """Computes the median of the finite ones of some values [...]; None where there are none."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def sentence(parts: Sequence[str], summary: Mapping[str, Any], *, units: str = "voxels") -> str:
    """Says what a stage found, rounded for people.

    Args:
        parts: texts with fields in braces that are named as in the summary; one that lacks a field is left out.
        summary: the numbers of the stage; `reason` and `warning` are always said.
        units: what columns of the responses are called, for `{units}`.

    Returns:
        The parts, separated by commas; "" without any.
    """
    shown = {name: _rounded(value) for name, value in summary.items() if value is not None} | {"units": units}
    said = [part.format_map(shown) for part in parts if _fields(part) <= shown.keys()]
    said += [shown[name] for name in ("reason", "warning") if name in shown]
    return ", ".join(said)


def _fields(part: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(part) if name}


def _rounded(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_rounded(one)}" for name, one in value.items()) or "none"
    if isinstance(value, float):
        return decimal(value) if abs(value) < 1000 else size(value)
    return f"{value:,}" if isinstance(value, int) else str(value)
