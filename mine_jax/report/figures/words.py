"""Profiles: the words of single voxels as bars with intervals, and the words of areas as a matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mine_jax import _optional
from mine_jax.report.figures import style

_WORDS = 8
_COLUMNS = 4


@style.styled
def profile_bars(profiles: Mapping[str, pd.DataFrame]) -> Any:
    """Draws the words of each profile as bars, with their intervals, all on one scale.

    Args:
        profiles: title, such as "voxel 12, FFA-1" -> rows of profile/words.tsv of one voxel: word, weight and,
            where known, low and high.

    Returns:
        The figure, two columns wide for two profiles and more.
    """
    columns = min(_COLUMNS, len(profiles))
    rows = -(-len(profiles) // columns)
    width = style.SINGLE if columns == 1 else style.DOUBLE
    fig, axes = style.panels(width=width, height=6 + rows * 40, shape=(rows, columns), sharex=True)
    for ax in axes.flat[len(profiles) :]:
        ax.set_axis_off()
    for ax, (title, table) in zip(axes.flat, profiles.items(), strict=False):
        shown = table.sort_values("weight", ascending=False, kind="stable").head(_WORDS)
        places, weights = -np.arange(len(shown)), shown["weight"].to_numpy(float)
        ax.barh(places, weights, height=0.7, color=style.BLUE)
        if {"low", "high"} <= set(shown):
            ends = np.stack([weights - shown["low"].to_numpy(float), shown["high"].to_numpy(float) - weights])
            # a bootstrap interval need not hold the mean
            ax.errorbar(
                weights, places, xerr=np.clip(ends, 0, None), fmt="none", ecolor=style.INK, elinewidth=0.7, capsize=1.5
            )
        ax.set_yticks(places, [style.plain(word, limit=16) for word in shown["word"]])
        ax.set_ylim(0.6 - _WORDS, 0.6)
        ax.set_title(style.plain(title, limit=24))
        ax.grid(visible=False, axis="y")
        ax.tick_params(axis="y", length=0)
    fig.supxlabel("Share of the critical attribution that the word explains", fontsize=8)
    return fig


@style.styled
def area_words(words: pd.DataFrame, *, n_words: int = 2, max_areas: int = 30) -> Any:
    """Draws how much of the profiles of each area the leading words fill.

    Args:
        words: one row per area, voxel and word: area, voxel_id, word, weight; voxels with words only.
        n_words: leading words of each area that become columns.
        max_areas: areas with the most voxels that become rows.

    Returns:
        The figure; its width follows the number of words, up to two columns.
    """
    sizes = words.drop_duplicates(["area", "voxel_id"])["area"].value_counts()
    chosen = words[words["area"].isin(sizes.index[:max_areas])]
    sums = chosen.groupby(["area", "word"])["weight"].sum().unstack(fill_value=0.0)
    mean = sums.div(sizes.reindex(sums.index), axis=0)
    leading = {area: row.sort_values(ascending=False, kind="stable").index[:n_words] for area, row in mean.iterrows()}
    order = _alike_together(mean)
    columns = list(dict.fromkeys(word for area in order for word in leading[area]))
    values = mean.loc[order, columns].to_numpy(float)
    width = float(np.clip(38 + 5.5 * len(columns), style.SINGLE, style.DOUBLE))
    fig, ((ax,),) = style.panels(width=width, height=26 + 4.6 * len(order))
    image = ax.imshow(values, cmap=style.color_map("cividis"), vmin=0, aspect="auto")
    names = [f"{style.plain(area, limit=18)} ({sizes[area]:,})" for area in order]
    style.name_cells(ax, names, columns)
    fig.colorbar(image, ax=ax, fraction=0.05, pad=0.02, label="Mean share")
    return fig


def _alike_together(shares: pd.DataFrame) -> list[Any]:
    """Orders areas (rows) so that those with like words are neighbours."""
    if len(shares) < 3:
        return list(shares.index)
    hierarchy = _optional.require("scipy.cluster.hierarchy", extra="report", why=style.WHY)
    tree = hierarchy.linkage(shares.to_numpy(float), "average", optimal_ordering=True)
    return [shares.index[row] for row in hierarchy.leaves_list(tree)]
