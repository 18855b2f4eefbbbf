"""The ladder of claims: how far the voxels of each area climb."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mine_jax.report.figures import style
from mine_jax.types import CLAIMS

# Greys and blues get darker with each rung; the last one has its own color.
COLORS = dict(zip(CLAIMS, ("#d9d9d9", "#bcd4e6", "#7fb2d6", "#0072b2", "#0a4f8a", "#d55e00"), strict=True))


@style.styled
def claims_by_area(voxels: pd.DataFrame, *, max_areas: int = 30, units: str = "voxels") -> Any:
    """Draws, for each area, the share of voxels whose highest claim is each rung.

    Args:
        voxels: one row per voxel and area: area, claim.
        max_areas: areas with the most voxels that are drawn.
        units: what is counted.

    Returns:
        The figure, one column wide.
    """
    counts = pd.crosstab(voxels["area"], voxels["claim"]).reindex(columns=CLAIMS, fill_value=0)
    sizes = counts.sum(axis=1).sort_values(ascending=False, kind="stable")[:max_areas]
    shares = counts.loc[sizes.index].div(sizes, axis=0)
    reached = shares[list(CLAIMS[CLAIMS.index("words") :])].sum(axis=1)
    shares = shares.loc[reached.sort_values(ascending=False, kind="stable").index]
    places = -np.arange(len(shares))
    fig, ((ax,),) = style.panels(height=24 + 4.6 * len(shares))
    left = np.zeros(len(shares))
    for claim in CLAIMS:
        width = 100 * shares[claim].to_numpy()
        ax.barh(places, width, left=left, height=0.8, color=COLORS[claim], label=claim)
        left += width
    ax.set_yticks(places, [f"{style.plain(area, limit=18)} ({sizes[area]:,})" for area in shares.index])
    ax.set(
        xlabel=f"{style.plain(units).capitalize()} by their highest claim (%)",
        xlim=(0, 100),
        ylim=(0.6 - len(shares), 0.6),
    )
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    fig.legend(loc="outside upper center", ncols=3, handlelength=0.9, columnspacing=1.2)
    return fig
