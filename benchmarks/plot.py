"""Draws how the cost of our implementations grows with each size, from the committed results.

Costs and sizes are relative to the smallest of a curve: no absolute time of a CPU is shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mine_jax import artifacts

FILE = "scaling.svg"
# One colour per size; the same size of two benchmarks has the same colour.
_COLORS = {
    "voxels": "#0072b2",
    "images": "#d55e00",
    "tokens": "#009e73",
    "width": "#cc79a7",
    "heads": "#e69f00",
    "batch": "#56b4e9",
}
# Constant text and numbers give a constant file.
_SETTINGS: dict[Any, Any] = {"svg.hashsalt": "mine_jax", "svg.fonttype": "none", "font.size": 10}


def curves(files: dict[Path, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Collects the curves of each benchmark.

    Args:
        files: contents of the files of results by path.

    Returns:
        Benchmark -> curves with `size`, `values`, `costs` relative to the first, and `exponent`.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for content in files.values():
        rows = [row for row in content["rows"] if "scale" in row]
        for what in dict.fromkeys(row["what"] for row in rows):
            own = [row for row in rows if row["what"] == what]
            curve = {
                "size": own[0]["scale"]["size"],
                "values": [row["scale"]["value"] for row in own],
                "costs": [row["seconds"] / own[0]["seconds"] for row in own],
                "exponent": own[0]["scale"]["exponent"],
            }
            found.setdefault(what, []).append(curve)
    return found


def draw(found: dict[str, list[dict[str, Any]]], path: Path, *, titles: dict[str, str]) -> None:
    """Writes one panel per benchmark, both axes logarithmic.

    Args:
        found: of `curves`.
        path: SVG file that is written.
        titles: benchmark -> title of its panel, in the order of the panels.
    """
    # heavy, and the rest of the page does without it
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(4.2 * len(found), 4.0), layout="constrained")
        axes = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for panel, what in zip(axes, sorted(found, key=list(titles).index), strict=True):
            _panel(panel, found[what], title=titles[what])
        axes[0].set_ylabel("cost relative to the smallest")
        with artifacts.atomic(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def _panel(axes: Any, own: list[dict[str, Any]], *, title: str) -> None:
    """Draws the curves of one benchmark, and a line of slope 1."""
    largest = max(curve["values"][-1] / curve["values"][0] for curve in own)
    axes.plot([1, largest], [1, largest], color="0.6", linestyle="--", linewidth=1, label="proportional")
    for curve in own:
        size = curve["size"].removeprefix("ig_")
        factors = [value / curve["values"][0] for value in curve["values"]]
        label = f"{size} {curve['values'][0]:,} to {curve['values'][-1]:,}: power {curve['exponent']:.2f}"
        axes.plot(factors, curve["costs"], marker="o", markersize=4, color=_COLORS.get(size, "0.2"), label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.set_xlabel("size relative to the smallest")
    axes.set_title(title, fontsize=10)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
