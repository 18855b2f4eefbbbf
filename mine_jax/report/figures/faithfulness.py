"""Whether the critical tokens drive the prediction: necessity and sufficiency over the number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mine_jax.report.figures import style

# order -> its name, color, line, marker
ORDERS = {
    "ig": ("highest attribution first", style.BLUE, "-", "o"),
    "random": ("random order", style.GREY, "--", "s"),
    "lowest": ("lowest attribution first", style.ORANGE, ":", "^"),
}
_KINDS = {
    "necessity": ("Necessity", "Image-tokens patched (k)"),
    "sufficiency": ("Sufficiency", "Image-tokens kept (k)"),
}


@style.styled
def faithfulness_curves(curves: pd.DataFrame, *, kinds: Sequence[str] = tuple(_KINDS)) -> Any:
    """Draws relative performance against the number of tokens patched or kept.

    Args:
        curves: kind (necessity, sufficiency), order (ig, random, lowest), k, relative_performance and, where
            known, low and high, as in attribution/curves.tsv.
        kinds: which kinds, one panel each.

    Returns:
        The figure, two columns wide for two kinds.
    """
    width = style.SINGLE if len(kinds) == 1 else style.DOUBLE
    fig, axes = style.panels(width=width, height=60, shape=(1, len(kinds)), sharey=True)
    for ax, kind in zip(axes[0], kinds, strict=True):
        for order, (label, color, line, marker) in ORDERS.items():
            part = curves[(curves["kind"] == kind) & (curves["order"] == order)].sort_values("k")
            if part.empty:
                continue
            ax.plot(part["k"], part["relative_performance"], color=color, linestyle=line, marker=marker, label=label)
            if {"low", "high"} <= set(part):
                ax.fill_between(part["k"], part["low"], part["high"], color=color, alpha=0.18, linewidth=0)
        ax.axhline(0, color=style.INK, linewidth=0.6)
        ax.axhline(1, color=style.INK, linewidth=0.6, alpha=0.4)
        ax.set(title=_KINDS[kind][0], xlabel=_KINDS[kind][1])
    axes[0, 0].set_ylabel("Relative performance\n(1: whole image, 0: baseline)")
    # curves may run anywhere, so names stand above them
    labels = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels()), strict=True))
    fig.legend(labels.values(), labels, loc="outside upper center", ncols=min(len(labels), 2 * len(kinds) - 1))
    return fig
