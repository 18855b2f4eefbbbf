"""What claims are worth where the truth is planted: false discoveries, and power against noise and data.

Voxels of one run are drawn as they are; of several (column `seed`), as means, from three on with 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from mine_jax import _optional
from mine_jax.report.figures import style

_KINDS = ("concept", "category", "place", "attribute")
_COLORS = dict(zip(_KINDS, (style.BLUE, style.ORANGE, style.GREEN, style.PINK), strict=True))
_LINES = ("-", "--", ":")
_CLAIMED = np.array([0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2])
_EDGES = np.array([0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.7, 0.85, 1.0])
# Kinds of planted voxels without words: a signal that none describes, no signal, nothing that can be fitted.
WORDLESS = ("lowlevel", "noise", "constant", "invalid")
# Of fewer runs an interval would be as wide as the axis.
MIN_SEEDS = 3
# Power against data counts voxels of at least this true ceiling.
_MIN_CEILING = 0.3


@style.styled
def false_discoveries(voxels: pd.DataFrame) -> Any:
    """Draws the true share of false claims against the share that is claimed.

    Args:
        voxels: one row per voxel, as in truth_voxels.tsv: kind, explained, q_predicted, q_reliable, q_words; of
            several runs also seed and model.

    Returns:
        The figure, one column wide.
    """
    return _alone(_false_discoveries, voxels)


@style.styled
def power_against_ceiling(voxels: pd.DataFrame) -> Any:
    """Draws how many planted voxels reach `words` against their noise ceiling.

    Args:
        voxels: one row per voxel, as in truth_voxels.tsv: kind, explained, true_ceiling; of several runs also seed
            and model.

    Returns:
        The figure, one column wide.
    """
    return _alone(_against_ceiling, voxels)


@style.styled
def worth_of_claims(voxels: pd.DataFrame) -> Any:
    """Draws false discoveries and power side by side.

    Where the number of images varies, power against images stands beside them.

    Args:
        voxels: as for `false_discoveries` and `power_against_ceiling`; with n_images where it varies.

    Returns:
        The figure, two columns wide.
    """
    voxels = _labelled(voxels)
    n_panels = 3 if voxels["n_images"].nunique() > 1 else 2
    fig, axes = style.panels(width=style.DOUBLE, height=70, shape=(1, n_panels))
    largest = voxels[voxels["n_images"] == voxels["n_images"].max()]
    _false_discoveries(axes[0, 0], largest)
    _against_ceiling(axes[0, 1], largest)
    titles = ["Claims that are false", "Power against noise"]
    if n_panels == 3:
        _against_images(axes[0, 2], voxels)
        titles.append("Power against data")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    return fig


def _alone(draw: Callable[[Any, pd.DataFrame], None], voxels: pd.DataFrame) -> Any:
    fig, ((ax,),) = style.panels(height=66)
    draw(ax, _labelled(voxels))
    return fig


def _labelled(voxels: pd.DataFrame) -> pd.DataFrame:
    """Adds what tells runs apart where there is one."""
    return voxels.assign(**{name: 0 for name in ("model", "seed", "n_images") if name not in voxels})


def _false_discoveries(ax: Any, voxels: pd.DataFrame) -> None:
    tested = voxels.assign(largest_q=voxels[["q_predicted", "q_reliable", "q_words"]].fillna(1).max(axis=1))
    top, several = 0.0, voxels["model"].nunique() > 1
    for color, (model, group) in zip((style.BLUE, style.ORANGE), tested.groupby("model", sort=False), strict=False):
        seeds = [rows for _, rows in group.groupby("seed")]
        by_seed = [[_wordless(rows[rows["largest_q"] <= q]) for q in _CLAIMED] for rows in seeds]
        mean, half = _mean_and_half(np.array(by_seed))
        ends = [np.minimum(half, mean), half]
        label = f"q of all rungs, {model}" if several else "q of all rungs"
        ax.errorbar(_CLAIMED, mean, yerr=ends, color=color, marker="o", linewidth=1, label=label, clip_on=False)
        full = np.mean([_wordless(rows[rows["explained"]]) for rows in seeds])
        ax.plot([0.05], [full], color=color, marker="*", markersize=9, linestyle="", clip_on=False, zorder=3)
        top = max(top, float(mean.max()), float(full))
    limit = max(0.21, 1.15 * top)
    ax.plot([0, limit], [0, limit], color=style.GREY, linewidth=0.8, linestyle="--", label="as claimed")
    star = "explained, by all rules" if several else f"explained, by all rules: {full:.3f}"
    ax.plot([], [], color=style.INK, marker="*", markersize=7, linestyle="", label=star)
    ax.set(xlabel="Claimed: q at most", ylabel="True: share without words", xlim=(0, 0.21), ylim=(0, limit))
    ax.set_xticks(np.linspace(0, 0.2, 5))
    ax.locator_params(axis="y", nbins=5)
    ax.legend(loc="upper left")


def _wordless(claimed: pd.DataFrame) -> float:
    return float(claimed["kind"].isin(WORDLESS).mean()) if len(claimed) else 0.0


def _against_ceiling(ax: Any, voxels: pd.DataFrame) -> None:
    centres = (_EDGES[1:] + _EDGES[:-1]) / 2
    binned = voxels.assign(bin=np.digitize(voxels["true_ceiling"], _EDGES) - 1)

    def share(rows: pd.DataFrame) -> list[float]:
        return [rows.loc[rows["bin"] == b, "explained"].mean() for b in range(len(centres))]

    _by_model_and_kind(ax, binned, centres, share)
    ax.set(xlabel="True noise ceiling (fraction of variance)", ylabel="Share explained")


def _against_images(ax: Any, voxels: pd.DataFrame) -> None:
    model = voxels["model"].iloc[0]
    strong = voxels[(voxels["model"] == model) & (voxels["true_ceiling"] >= _MIN_CEILING)]
    sizes = np.sort(strong["n_images"].unique())

    def share(rows: pd.DataFrame) -> list[float]:
        return [rows.loc[rows["n_images"] == size, "explained"].mean() for size in sizes]

    _by_model_and_kind(ax, strong, sizes, share)
    ax.set(xlabel="Images", ylabel=f"The same, ceiling at least {_MIN_CEILING:g}", xscale="log")
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    ax.set_xlim(sizes[0] / 1.2, sizes[-1] * 1.2)


def _by_model_and_kind(
    ax: Any, voxels: pd.DataFrame, x: np.ndarray, share: Callable[[pd.DataFrame], list[float]]
) -> None:
    for line, (model, group) in zip(_LINES, voxels.groupby("model", sort=False), strict=False):
        for kind in _KINDS:
            rows = group[group["kind"] == kind]
            if rows.empty:
                continue
            mean, half = _mean_and_half(np.array([share(one) for _, one in rows.groupby("seed")], float))
            label = kind if line == _LINES[0] else None
            ax.plot(x, mean, color=_COLORS[kind], linestyle=line, marker="o", label=label)
            # bands of both models over each other cannot be read
            if line == _LINES[0]:
                low, high = np.clip(mean - half, 0, 1), np.clip(mean + half, 0, 1)
                ax.fill_between(x, low, high, color=_COLORS[kind], alpha=0.13, linewidth=0)
        if voxels["model"].nunique() > 1:
            ax.plot([], [], color=style.INK, linestyle=line, label=model)
    # room above for the legend
    ax.set_ylim(0, 1.3)
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.legend(loc="upper left", ncols=2)


def _mean_and_half(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and half of the 95 % interval over seeds (rows); 0 where they are too few."""
    stats = _optional.require("scipy.stats", extra="report", why=style.WHY)
    known = np.isfinite(values)
    n = known.sum(0)
    mean = np.where(n > 0, np.nansum(values, 0) / np.maximum(n, 1), np.nan)
    deviation = np.sqrt(np.nansum((values - mean) ** 2, 0) / np.maximum(n - 1, 1))
    half = stats.t.ppf(0.975, np.maximum(n - 1, 1)) * deviation / np.sqrt(np.maximum(n, 1))
    return mean, np.where(n >= MIN_SEEDS, half, 0.0)
