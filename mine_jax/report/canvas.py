"""Matplotlib figures without global state, and pixels, as embedded WebP pictures.

Colors stay apart for color-blind readers (Okabe-Ito, Tol, cividis, PuOr); fonts are sized
so that a figure can shrink to the width of a phone.
"""

from __future__ import annotations

import base64
import functools
import io
from typing import Any

import numpy as np
from PIL import Image

from mine_jax import _optional
from mine_jax.report.page import Picture, Uri

WHY = "draw the figures of the report"
INK = "#1a1a1a"
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6b6b6b"
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
MAX_PHOTO_PIXELS = 240


def figure(*, width: float = 5.4, height: float = 3.4) -> tuple[Any, Any]:
    """Makes a figure with one axes, sized in inches of the page (100 CSS pixels each).

    Returns:
        The figure and its axes.
    """
    figures = _optional.require("matplotlib.figure", extra="report", why=WHY)
    fig = figures.Figure(figsize=(width, height), dpi=180, layout="constrained", facecolor="white")
    ax = fig.add_subplot()
    tidy(ax)
    return fig, ax


def tidy(ax: Any) -> None:
    """Gives axes the look of all figures: two thin spines, faint grid, dark text."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#8c8c8c")
    ax.tick_params(labelsize=10, colors=INK, color="#8c8c8c")
    ax.xaxis.label.set(fontsize=11, color=INK)
    ax.yaxis.label.set(fontsize=11, color=INK)
    ax.grid(color="#e8e8e8", linewidth=0.8)
    ax.set_axisbelow(True)


def picture(fig: Any, *, alt: str, caption: str = "") -> Picture:
    """Draws a figure with Agg and embeds it."""
    agg = _optional.require("matplotlib.backends.backend_agg", extra="report", why=WHY)
    drawn = agg.FigureCanvasAgg(fig)
    drawn.draw()
    return Picture(_uri(np.asarray(drawn.buffer_rgba())[..., :3], lossless=True), alt, caption)


def pixels(rgb: np.ndarray, *, alt: str, caption: str = "", size: int = MAX_PHOTO_PIXELS) -> Picture:
    """Embeds an image [height, width, 3] uint8; sides above `size` pixels are made smaller."""
    image = Image.fromarray(np.ascontiguousarray(rgb))
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return Picture(_uri(np.asarray(image), lossless=False), alt, caption)


def plain(text: str, *, limit: int = 28) -> str:
    """Makes any text safe to draw: no math mode, no glyph that the font lacks, not too long."""
    font = _font()
    shown = "".join(c if font.get_char_index(ord(c)) else "?" for c in text if c.isprintable())
    return (shown if len(shown) <= limit else shown[: limit - 1] + "…").replace("$", r"\$")


def color_map(name: str) -> Any:
    """Returns a matplotlib color map with white for NaN."""
    matplotlib = _optional.require("matplotlib", extra="report", why=WHY)
    return matplotlib.colormaps[name].with_extremes(bad="white")


@functools.cache
def _font() -> Any:
    manager = _optional.require("matplotlib.font_manager", extra="report", why=WHY)
    return manager.get_font(manager.findfont("DejaVu Sans"))


def _uri(rgb: np.ndarray, *, lossless: bool) -> Uri:
    """Encodes pixels: drawings without loss, photos at a quality whose loss nobody sees."""
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(rgb))
    # of a lossless picture, quality is only the effort
    image.save(buffer, format="WEBP", lossless=lossless, quality=40 if lossless else 88, method=1 if lossless else 4)
    return Uri("data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"))
