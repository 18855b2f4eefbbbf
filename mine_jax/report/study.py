"""The figure of a study: claimed against true false discoveries, and power against ceiling and images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mine_jax import _optional
from mine_jax.report import canvas

NAME = "study"
_KINDS = ("concept", "category", "place", "attribute")
_COLORS = {"concept": canvas.BLUE, "category": canvas.ORANGE, "place": canvas.GREEN, "attribute": "#CC79A7"}
_STYLES = ("-", "--", ":")
_CLAIMED = np.array([0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2])
_EDGES = np.array([0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.7])
_WORDLESS = ("noise", "lowlevel")


def write_study_figure(directory: Path, voxels: pd.DataFrame) -> Path:
    """Draws the figure of a study.

    Args:
        directory: receives `study.png` and `study.svg`.
        voxels: one row per voxel and run: model, seed, n_images, n_test, kind, true_ceiling, explained, and
            q_predicted, q_reliable, q_words.

    Returns:
        The path of the PNG.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    figures = _optional.require("matplotlib.figure", extra="report", why=canvas.WHY)
    backend = _optional.require("matplotlib.backends.backend_svg", extra="report", why=canvas.WHY)
    # with one size there is nothing to draw against it
    n_panels = 3 if voxels["n_images"].nunique() > 1 else 2
    fig = figures.Figure(figsize=(4.2 * n_panels, 4.2), dpi=180, layout="constrained", facecolor="white")
    left, middle, *right = fig.subplots(1, n_panels)
    largest = voxels[voxels["n_images"] == voxels["n_images"].max()]
    _false_discoveries(left, largest)
    _against_ceiling(middle, largest)
    for ax in right:
        _against_images(ax, voxels)
    titles = ("Claims that are false", "Power against noise", "Power against data")
    for ax, title in zip((left, middle, *right), titles, strict=False):
        canvas.tidy(ax)
        ax.set_title(title, fontsize=11, color=canvas.INK, loc="left")
    left.legend(fontsize=8, frameon=False)
    middle.legend(fontsize=8, frameon=False, loc="upper left", ncols=2)
    for ax in (middle, *right):
        ax.set_yticks(np.linspace(0, 1, 6))
    path = directory / f"{NAME}.png"
    fig.savefig(path, metadata={"Software": None})
    backend.FigureCanvasSVG(fig).print_svg(directory / f"{NAME}.svg", metadata={"Date": None})
    return path


def _false_discoveries(ax: Any, voxels: pd.DataFrame) -> None:
    tested = voxels.assign(largest_q=voxels[["q_predicted", "q_reliable", "q_words"]].fillna(1).max(axis=1))
    top = 0.0
    for color, (model, group) in zip((canvas.BLUE, canvas.ORANGE), tested.groupby("model", sort=False), strict=False):
        seeds = [rows for _, rows in group.groupby("seed")]
        by_seed = [[_wordless(rows[rows["largest_q"] <= q]) for q in _CLAIMED] for rows in seeds]
        mean, half = _mean_and_half(np.array(by_seed))
        ax.errorbar(_CLAIMED, mean, yerr=half, color=color, marker="o", markersize=4, label=f"q of all rungs, {model}")
        full = np.mean([_wordless(rows[rows["explained"]]) for rows in seeds])
        ax.plot([0.05], [full], color=color, marker="*", markersize=13, linestyle="")
        top = max(top, float(mean.max()))
    limit = max(0.21, 1.15 * top)
    ax.plot([0, limit], [0, limit], color=canvas.GREY, linewidth=1)
    ax.plot([], [], color=canvas.INK, marker="*", markersize=11, linestyle="", label="claim `words`, all rules")
    ax.set(xlabel="claimed q", ylabel="true share of voxels without words", xlim=(0, 0.21), ylim=(0, limit))


def _wordless(claimed: pd.DataFrame) -> float:
    return float(claimed["kind"].isin(_WORDLESS).mean()) if len(claimed) else 0.0


def _against_ceiling(ax: Any, voxels: pd.DataFrame) -> None:
    centres = (_EDGES[1:] + _EDGES[:-1]) / 2
    binned = voxels.assign(bin=np.digitize(voxels["true_ceiling"], _EDGES) - 1)

    def share(rows: pd.DataFrame) -> list[float]:
        return [rows.loc[rows["bin"] == b, "explained"].mean() for b in range(len(centres))]

    _by_model_and_kind(ax, binned, centres, share)
    ax.set(xlabel="true noise ceiling (fraction of variance)", ylabel="share that reaches `words`", ylim=(0, 1.28))


def _against_images(ax: Any, voxels: pd.DataFrame) -> None:
    model = voxels["model"].iloc[0]
    strong = voxels[(voxels["model"] == model) & (voxels["true_ceiling"] >= 0.3)]
    sizes = np.sort(strong["n_images"].unique())

    def share(rows: pd.DataFrame) -> list[float]:
        return [rows.loc[rows["n_images"] == size, "explained"].mean() for size in sizes]

    _by_model_and_kind(ax, strong, sizes, share)
    ax.set(xlabel="images", ylabel="the same, ceiling at least .3", xscale="log", ylim=(0, 1.28))
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    ax.set_xlim(sizes[0] / 1.2, sizes[-1] * 1.2)


def _by_model_and_kind(
    ax: Any, voxels: pd.DataFrame, x: np.ndarray, share: Callable[[pd.DataFrame], list[float]]
) -> None:
    for style, (model, group) in zip(_STYLES, voxels.groupby("model", sort=False), strict=False):
        for kind in _KINDS:
            rows = group[group["kind"] == kind]
            if rows.empty:
                continue
            mean, half = _mean_and_half(np.array([share(one) for _, one in rows.groupby("seed")], float))
            label = kind if style == _STYLES[0] else None
            ax.plot(x, mean, color=_COLORS[kind], linestyle=style, marker="o", markersize=4, label=label)
            # bands of both models over each other cannot be read
            if style == _STYLES[0]:
                low, high = np.clip(mean - half, 0, 1), np.clip(mean + half, 0, 1)
                ax.fill_between(x, low, high, color=_COLORS[kind], alpha=0.13, linewidth=0)
        if voxels["model"].nunique() > 1:
            ax.plot([], [], color=canvas.INK, linestyle=style, label=model)


def _mean_and_half(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and half of the 95 % interval over seeds (rows); 0 where there is one."""
    stats = _optional.require("scipy.stats", extra="report", why=canvas.WHY)
    known = np.isfinite(values)
    n = known.sum(0)
    mean = np.where(n > 0, np.nansum(values, 0) / np.maximum(n, 1), np.nan)
    spread = np.sqrt(np.nansum((values - mean) ** 2, 0) / np.maximum(n - 1, 1))
    half = stats.t.ppf(0.975, np.maximum(n - 1, 1)) * spread / np.sqrt(np.maximum(n, 1))
    return mean, np.where(n > 1, half, 0.0)
