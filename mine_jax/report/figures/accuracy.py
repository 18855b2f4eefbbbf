"""How well voxels are predicted: against the noise ceiling, as a distribution, and by area."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mine_jax.report.figures import style

LABEL = "R² on held-out images"
_GROUPS = ((False, "not explained", style.ORANGE, "x"), (True, "explained", style.BLUE, "o"))


@style.styled
def accuracy_against_ceiling(voxels: pd.DataFrame) -> Any:
    """Draws R2 against the noise ceiling, with the line on which they are equal.

    Args:
        voxels: one row per voxel: r2, noise_ceiling (fractions of variance) and, where known, explained. Of the
            type `Scores`: `pd.DataFrame({"r2": scores.r2, "noise_ceiling": scores.noise_ceiling})`.

    Returns:
        The figure, one column wide.
    """
    known = voxels[voxels["noise_ceiling"].notna() & voxels["r2"].notna()]
    x, y = known["noise_ceiling"].to_numpy(float), known["r2"].to_numpy(float)
    low = max(-0.5, min(y.min(initial=0), 0.0)) - 0.02
    right = min(1, x.max(initial=0) * 1.08) or 1.0
    fig, ((ax,),) = style.panels(height=66)
    ax.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.8, linestyle="--", label="R² = ceiling")
    size = float(np.clip(2000 / max(len(known), 1), 1.5, 10))
    for is_explained, label, color, marker in _GROUPS if "explained" in known else ((None, "all", style.BLUE, "o"),):
        part = np.full(len(known), True) if is_explained is None else known["explained"].to_numpy(bool) == is_explained
        if part.any():
            line = {"linewidths": 0.7} if marker == "x" else {"edgecolors": "none"}
            points = np.clip(y[part], low, None)
            label = f"{label} ({part.sum():,})"
            ax.scatter(
                x[part],
                points,
                s=size,
                c=color,
                marker=marker,
                alpha=0.6,
                label=label,
                rasterized=len(known) > style.MANY_DOTS,
                **line,
            )
    ax.set(xlabel="Noise ceiling (fraction of variance)", ylabel=LABEL)
    ax.set(xlim=(0, right), ylim=(low, max(y.max(initial=0), x.max(initial=0), 0.05) * 1.05))
    ax.legend(loc="upper left")
    return fig


@style.styled
def accuracy_distribution(
    values: np.ndarray, *, label: str = LABEL, units: str = "Voxels", limits: tuple[float, float] | None = None
) -> Any:
    """Draws a histogram of scores with their mean and median.

    Args:
        values: [V] finite scores.
        label: of the axis.
        units: what is counted.
        limits: ends of the axis; values beyond them stand in its end bars. By default all fit.

    Returns:
        The figure, one column wide.
    """
    low, high = limits or (min(values.min(), 0.0), max(values.max(), 0.05))
    fig, ((ax,),) = style.panels(height=54)
    bins = np.linspace(low, high, 41)
    ax.hist(np.clip(values, low, high), bins=bins, color=style.BLUE, edgecolor="white", linewidth=0.3)
    ax.axvline(0, color=style.INK, linewidth=0.6)
    for name, place, line in (("mean", values.mean(), "-"), ("median", np.median(values), "--")):
        ax.axvline(place, color=style.ORANGE, linewidth=1.2, linestyle=line, label=f"{name} {place:.2f}")
    ax.legend()
    ax.set(xlabel=label, ylabel=style.plain(units), xlim=(low, high))
    ax.grid(visible=False, axis="x")
    return fig


@style.styled
def accuracy_by_area(values: Mapping[str, np.ndarray], *, label: str = LABEL) -> Any:
    """Draws the scores of each area as dots and boxes, in the order given.

    Args:
        values: area -> scores [n] of its voxels, finite.
        label: of the axis.

    Returns:
        The figure, one column wide.
    """
    places = np.arange(len(values))[::-1]
    fig, ((ax,),) = style.panels(height=max(32.0, 5.2 * len(values) + 13))
    style.boxes(ax, list(values.values()), places)
    ax.set_yticks(places, [f"{style.plain(name, limit=20)} ({len(part):,})" for name, part in values.items()])
    ax.set(xlabel=label, ylim=(-0.7, len(values) - 0.3))
    return fig
