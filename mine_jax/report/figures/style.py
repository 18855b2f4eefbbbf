"""The look of all figures: widths of a journal's columns, fonts of 7 to 8 pt, colors; and the way to a file.

Colors stay apart for color-blind readers (Okabe-Ito, Tol, cividis, PuOr). A figure carries its settings: those of the
user's matplotlib change nothing, and no text is read as mathematics.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np

from mine_jax import _optional, artifacts

WHY = "draw figures"
# Above so many, dots are pixels in vector files, too.
MANY_DOTS = 5000
# Width of one and of two columns of a journal, in millimetres.
SINGLE, DOUBLE = 89.0, 183.0
INK, EDGE, GRID = "#1a1a1a", "#8c8c8c", "#e8e8e8"
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6b6b6b"
# Paul Tol's "muted" scheme, for categories.
CATEGORIES = (
    "#332288",
    "#DDCC77",
    "#117733",
    "#CC6677",
    "#88CCEE",
    "#882255",
    "#44AA99",
    "#999933",
    "#AA4499",
    "#E08214",
)
_LOOK = {
    "axes.axisbelow": True,
    "axes.edgecolor": EDGE,
    "axes.formatter.use_mathtext": False,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 8,
    "axes.unicode_minus": True,
    "figure.dpi": 300,
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "legend.fontsize": 7,
    "legend.edgecolor": "none",
    "legend.fancybox": False,
    "legend.framealpha": 0.8,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": EDGE,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 7,
    "ytick.color": EDGE,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 7,
}
# Text stays text, so that an editor can change it; equal figures are equal files.
_FILE = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "mine_jax"}
_NO_DATE = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}
KINDS = tuple(_NO_DATE)
Parameters = ParamSpec("Parameters")


def styled(draw: Callable[Parameters, Any]) -> Callable[Parameters, Any]:
    """Lets a function draw in the look of all figures, and leaves the settings of matplotlib as they were."""

    @functools.wraps(draw)
    def inner(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Any:
        matplotlib = _optional.require("matplotlib", extra="report", why=WHY)
        with matplotlib.rc_context(_LOOK):
            return draw(*args, **kwargs)

    return inner


def panels(*, width: float = SINGLE, height: float = 58.0, shape: tuple[int, int] = (1, 1), **sharing: Any) -> Any:
    """Makes a figure with panels.

    Args:
        width: in millimetres.
        height: in millimetres.
        shape: rows and columns of panels.
        **sharing: of the axes, as `Figure.subplots` takes them.

    Returns:
        The figure, and its axes [rows, columns].
    """
    figures = _optional.require("matplotlib.figure", extra="report", why=WHY)
    fig = figures.Figure(figsize=(width / 25.4, height / 25.4), layout="constrained", facecolor="white")
    return fig, fig.subplots(*shape, squeeze=False, **sharing)


def save(fig: Any, path: Path) -> Path:
    """Writes a figure, whole or not at all; equal figures give equal files.

    Args:
        fig: what a function of this package gave.
        path: file that ends in .pdf, .svg or .png.

    Returns:
        The path.

    Raises:
        ResourceError: if the disk refuses.
    """
    matplotlib = _optional.require("matplotlib", extra="report", why=WHY)
    kind = path.suffix.removeprefix(".")
    with artifacts.atomic(path) as temporary, matplotlib.rc_context({**_LOOK, **_FILE}):
        fig.savefig(temporary, format=kind, metadata=_NO_DATE[kind])
    return path


def plain(text: Any, *, limit: int = 28) -> str:
    """Makes any text fit to be drawn: no control characters, no glyph that the font lacks, not too long."""
    font = _font()
    shown = "".join(c if font.get_char_index(ord(c)) else "?" for c in str(text) if c.isprintable())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def color_map(name: str) -> Any:
    """Returns a matplotlib color map with white for NaN."""
    matplotlib = _optional.require("matplotlib", extra="report", why=WHY)
    return matplotlib.colormaps[name].with_extremes(bad="white")


def spread(n: int, *, width: float = 0.28) -> np.ndarray:
    """Returns offsets [n] that keep dots on one line apart, the same ones each time."""
    return np.random.default_rng(0).uniform(-width, width, n)


def boxes(ax: Any, groups: list[np.ndarray], places: np.ndarray) -> None:
    """Draws the values [n] of each group as dots on its line, with a box of quartiles over them."""
    for place, values in zip(places, groups, strict=True):
        shown = values[:: max(1, len(values) // 400)]
        ax.scatter(shown, place + spread(len(shown)), s=2, c=BLUE, alpha=0.35, edgecolors="none")
    drawn = ax.boxplot(groups, positions=places, orientation="horizontal", widths=0.62, showfliers=False)
    for part in ("boxes", "whiskers", "caps"):
        for line in drawn[part]:
            line.set(color=INK, linewidth=0.7)
    for line in drawn["medians"]:
        line.set(color=ORANGE, linewidth=1.4)
    ax.axvline(0, color=INK, linewidth=0.6)
    ax.grid(visible=False, axis="y")


def name_cells(ax: Any, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Names the rows and columns of a matrix that is drawn as an image."""
    ax.set_xticks(range(len(columns)), [plain(name, limit=14) for name in columns], rotation=45, ha="right")
    ax.tick_params(axis="x", length=0, pad=1)
    ax.set_yticks(range(len(rows)), [plain(name) for name in rows])
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False)


@functools.cache
def _font() -> Any:
    manager = _optional.require("matplotlib.font_manager", extra="report", why=WHY)
    return manager.get_font(manager.findfont("DejaVu Sans"))
