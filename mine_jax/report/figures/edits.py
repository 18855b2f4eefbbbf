"""Edited images: pairs before and after, how far responses shift, and whether the shift is the true one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mine_jax.report.figures import style
from mine_jax.statistics import pearson

ACTIONS = {"insert": "words inserted", "remove": "words removed", "noop": "nothing changed", "other": "others removed"}
_MAKERS = ((style.BLUE, "o"), (style.ORANGE, "x"), (style.GREEN, "^"))


class EditPair(NamedTuple):
    """One edited image.

    Attributes:
        title: what was done to which voxel's image, one or two lines.
        before: [height, width, 3] uint8.
        after: [height, width, 3] uint8.
        shift: of the predicted response, in its unit.
    """

    title: str
    before: np.ndarray
    after: np.ndarray
    shift: float


@style.styled
def edit_pairs(pairs: Sequence[EditPair], *, scale: str = "z-scored beta") -> Any:
    """Draws images before and after their edit, with the shift of the response.

    Args:
        pairs: the edits; up to six are legible.
        scale: the unit of responses.

    Returns:
        The figure, two columns wide.
    """
    side = style.DOUBLE / max(4, len(pairs))
    fig, axes = style.panels(width=side * len(pairs), height=2 * side + 13, shape=(2, len(pairs)))
    for (above, below), pair in zip(axes.T, pairs, strict=True):
        for ax, image in ((above, pair.before), (below, pair.after)):
            ax.imshow(image)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        above.set_title("\n".join(style.plain(line, limit=24) for line in pair.title.split("\n")), fontsize=7)
        below.set_xlabel(f"{pair.shift:+.2f}", fontsize=7)
    axes[0, 0].set_ylabel("before")
    axes[1, 0].set_ylabel("after")
    fig.supxlabel(f"Shift of the predicted response ({style.plain(scale)})", fontsize=8)
    return fig


@style.styled
def edit_shifts(edits: pd.DataFrame, *, scale: str = "z-scored beta") -> Any:
    """Draws how far each kind of edit shifts the predicted response.

    Args:
        edits: usable rows of validation/edits.tsv of one evaluator and one maker: action, shift.
        scale: the unit of responses.

    Returns:
        The figure, one column wide.
    """
    known = edits[edits["shift"].notna()]
    groups = {name: known.loc[known["action"] == action, "shift"].to_numpy(float) for action, name in ACTIONS.items()}
    groups = {name: shifts for name, shifts in groups.items() if len(shifts)}
    places = np.arange(len(groups))[::-1]
    fig, ((ax,),) = style.panels(height=14 + 9 * len(groups))
    style.boxes(ax, list(groups.values()), places)
    ax.set_yticks(places, [f"{name} ({len(shifts):,})" for name, shifts in groups.items()])
    ax.set(xlabel=f"Predicted shift ({style.plain(scale)})", ylim=(-0.7, len(groups) - 0.3))
    return fig


def shift_correlations(edits: pd.DataFrame) -> dict[str, tuple[float, int]]:
    """Correlates predicted with true shifts, for each maker of images.

    Args:
        edits: rows of validation/edits.tsv with true_shift, shift and maker, all known.

    Returns:
        Maker -> Pearson's r, and the number of edits.
    """
    parts = {str(name): part for name, part in edits.groupby("maker", sort=False)}
    return {
        name: (float(pearson(part["true_shift"].to_numpy(float), part["shift"].to_numpy(float))), len(part))
        for name, part in parts.items()
    }


@style.styled
def true_shifts(edits: pd.DataFrame, *, unit: str = "voxel", scale: str = "z-scored beta") -> Any:
    """Draws predicted against true shifts of edits, where the truth is known.

    Args:
        edits: rows of validation/edits.tsv with true_shift (sd of the signal), shift and maker, all known.
        unit: what one column of the responses is called.
        scale: the unit of responses.

    Returns:
        The figure, one column wide.
    """
    fig, ((ax,),) = style.panels(height=66)
    ax.axhline(0, color=style.GREY, linewidth=0.6)
    ax.axvline(0, color=style.GREY, linewidth=0.6)
    for (maker, (r, n)), (color, marker) in zip(shift_correlations(edits).items(), _MAKERS, strict=False):
        part = edits[edits["maker"] == maker]
        label = f"{style.plain(maker) or 'edits'}: r = {r:.2f} ({n:,})"
        line = {"linewidths": 0.7} if marker == "x" else {"edgecolors": "none"}
        ax.scatter(part["true_shift"], part["shift"], s=6, c=color, marker=marker, alpha=0.6, label=label, **line)
    ax.set(xlabel=f"True shift of the simulated {style.plain(unit)} (sd)", ylabel=f"Predicted shift ({scale})")
    ax.legend(loc="upper left")
    return fig
