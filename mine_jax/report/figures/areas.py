"""Areas: the enrichment of every category in every area, with what passes its tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mine_jax.report.figures import style

MAX_Q = 0.05
MAX_AREAS = 30


@style.styled
def area_categories(selectivity: pd.DataFrame) -> Any:
    """Draws the enrichment of every category in every area.

    A star marks the preference of an area, a dot a small q without one.

    Args:
        selectivity: rows of roi/selectivity.tsv: roi, the column that `label_column` finds, enrichment and, where
            known, q and preferred.

    Returns:
        The figure, one column wide, or two where there are many categories.
    """
    column = label_column(selectivity)
    table = selectivity.assign(roi=selectivity["roi"].astype(str), label=selectivity[column].astype(str))
    areas = sorted(table["roi"].unique())[:MAX_AREAS]
    categories = list(dict.fromkeys(table["label"]))[:MAX_AREAS]
    values = table.pivot_table(index="roi", columns="label", values="enrichment").reindex(areas, columns=categories)
    limit = float(np.nanmax(np.abs(values))) or 1.0
    width = style.SINGLE if len(categories) <= 12 else style.DOUBLE
    fig, ((ax,),) = style.panels(width=width, height=float(np.clip(24 + 4.6 * len(areas), 50, 220)))
    colors = style.color_map("PuOr_r")
    image = ax.imshow(values.to_numpy(float), cmap=colors, vmin=-limit, vmax=limit, aspect="auto")
    passing = (table["enrichment"] > 0) & (table["q"] <= MAX_Q if "q" in table else False)
    for row, is_marked, passes in zip(table.to_dict("records"), is_preferred(table), passing, strict=True):
        if not (is_marked or passes) or row["roi"] not in areas or row["label"] not in categories:
            continue
        color = "white" if abs(row["enrichment"]) > 0.6 * limit else style.INK
        place = categories.index(row["label"]), areas.index(row["roi"])
        ax.text(*place, "★" if is_marked else "·", ha="center", va="center", fontsize=8, color=color)
    style.name_cells(ax, areas, categories)
    fig.colorbar(image, ax=ax, fraction=0.05, pad=0.02, label="Enrichment\n(difference of shares)")
    return fig


def label_column(selectivity: pd.DataFrame) -> str:
    """Finds the column with what areas may prefer.

    Args:
        selectivity: rows of roi/selectivity.tsv.

    Returns:
        The first of category, word and label that is there; category where none is.
    """
    return next((name for name in ("category", "word", "label") if name in selectivity), "category")


def is_preferred(selectivity: pd.DataFrame) -> pd.Series:
    """Tells which rows are the preference of their area; by q alone in tables that do not say so.

    Args:
        selectivity: rows of roi/selectivity.tsv.

    Returns:
        One boolean per row.
    """
    if "preferred" in selectivity:
        return selectivity["preferred"].astype(str).str.lower() == "true"
    passing = (selectivity["enrichment"] > 0) & (selectivity["q"] < MAX_Q if "q" in selectivity else True)
    largest = selectivity["enrichment"].where(passing).groupby(selectivity["roi"]).transform("max")
    return passing & (selectivity["enrichment"] == largest)
