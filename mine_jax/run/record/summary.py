"""The numbers of a stage in `run.json`: made finite, and shown in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def finite_mean(values: Any) -> float | None:
    """Computes the mean of the finite ones of some values [n]; None where there are none."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def shown(summary: Mapping[str, Any]) -> str:
    """Returns the first numbers of a summary in brackets; "" without any."""
    parts = []
    for key, value in summary.items():
        if isinstance(value, float):
            parts.append(f"{key} {value:.4g}")
        elif isinstance(value, (int, str)):
            parts.append(f"{key} {value}")
    return f" ({', '.join(parts[:8])})" if parts else ""
