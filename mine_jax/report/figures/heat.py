"""Token scores over the photo they belong to.

Orange marks tokens that raise the predicted response, violet those that lower it,
both over a grey photo; a line surrounds the critical tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mine_jax import _optional
from mine_jax.report.figures import style

# PuOr, reversed: orange is positive, violet negative; safe for color-blind readers.
COLORS = "PuOr_r"
# Its ends are nearly black; the middle part keeps orange and violet apart from shadows.
RANGE = (0.1, 0.9)
PIXELS = 240


def token_scores(
    heat: np.ndarray | None, indices: np.ndarray, scores: np.ndarray, *, n_tokens: int
) -> tuple[np.ndarray, bool]:
    """Returns the scores of all tokens of one pair, or of the critical ones alone.

    Args:
        heat: [P] scores of all tokens, or None where they were not stored.
        indices: [K] critical tokens.
        scores: [K] their scores.
        n_tokens: P.

    Returns:
        Scores [P] float32, and whether they cover all tokens.
    """
    if heat is not None and len(heat) == n_tokens:
        return np.nan_to_num(np.asarray(heat, np.float32)), True
    filled = np.zeros(n_tokens, np.float32)
    usable = (indices >= 0) & (indices < n_tokens) & np.isfinite(scores)
    filled[indices[usable]] = scores[usable]
    return filled, False


def fit_to_grid(photo: np.ndarray, grid: tuple[int, int], *, crop: float | None) -> np.ndarray:
    """Cuts from a photo the part that the tokens cover.

    Args:
        photo: [height, width, 3] uint8.
        grid: rows and columns of tokens.
        crop: share of the largest centered window of the grid's aspect that the model sees;
            None when the model sees the whole photo, stretched.

    Returns:
        The part, [height, width, 3] uint8, stretched to the aspect of the grid.
    """
    if crop is not None:
        height, width = photo.shape[:2]
        side = crop * min(height / grid[0], width / grid[1])
        rows, columns = max(1, round(side * grid[0])), max(1, round(side * grid[1]))
        top, left = (height - rows) // 2, (width - columns) // 2
        photo = photo[top : top + rows, left : left + columns]
    size = _size(grid)
    return np.asarray(Image.fromarray(np.ascontiguousarray(photo)).resize(size, Image.Resampling.BICUBIC))


def outline(critical: np.ndarray, grid: tuple[int, int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Returns the outline of a set of tokens.

    Args:
        critical: [K] tokens; positions outside the grid are left out.
        grid: rows and columns.

    Returns:
        Line segments between two corners (x, y) in token units, y downward.
    """
    inside = np.zeros((grid[0] + 2, grid[1] + 2), bool)
    usable = critical[(critical >= 0) & (critical < grid[0] * grid[1])]
    inside[usable // grid[1] + 1, usable % grid[1] + 1] = True
    below = np.argwhere(inside[:-1] != inside[1:])
    beside = np.argwhere(inside[:, :-1] != inside[:, 1:])
    lines = [((x - 1, y), (x, y)) for y, x in below.tolist()]
    return lines + [((x, y - 1), (x, y)) for y, x in beside.tolist()]


class HeatMap(NamedTuple):
    """One image for one voxel.

    Attributes:
        title: what stands above it, one or two lines.
        photo: what `fit_to_grid` gave, [height, width, 3] uint8; None for a blank ground.
        scores: [P] in the unit of the responses.
        critical: [K] tokens to surround; positions outside the grid are left out.
        grid: rows and columns; P is their product.
        limit: score that gets the full color, on both sides of 0.
    """

    title: str
    photo: np.ndarray | None
    scores: np.ndarray
    critical: np.ndarray
    grid: tuple[int, int]
    limit: float


@style.styled
def heat_map(shown: HeatMap) -> Any:
    """Draws token scores over a photo, with a line around the critical tokens.

    Args:
        shown: the image; its title is not drawn.

    Returns:
        The figure, without margins.
    """
    figures = _optional.require("matplotlib.figure", extra="report", why=style.WHY)
    columns, rows = _size(shown.grid)
    fig = figures.Figure(figsize=(columns / 100, rows / 100), dpi=100)
    _paint(fig.add_axes((0, 0, 1, 1)), shown)
    return fig


@style.styled
def heat_maps(shown: Sequence[HeatMap]) -> Any:
    """Draws images with their heat maps below, side by side, over one color bar.

    Args:
        shown: the images; up to six are legible.

    Returns:
        The figure, two columns wide.
    """
    side = style.DOUBLE / max(4, len(shown))
    tallest = max(one.grid[0] / one.grid[1] for one in shown)
    width = side * len(shown)
    fig, axes = style.panels(width=width, height=2 * side * tallest + 19, shape=(2, len(shown)))
    for (above, below), one in zip(axes.T, shown, strict=True):
        if one.photo is not None:
            above.imshow(one.photo, extent=(0, one.grid[1], one.grid[0], 0))
        above.set_axis_off()
        above.set_title("\n".join(style.plain(line, limit=26) for line in one.title.split("\n")), fontsize=7)
        _paint(below, one)
        below.set_aspect("equal")
    _bar(fig.colorbar(_mappable(), ax=axes, orientation="horizontal", fraction=0.035, pad=0.02, aspect=60))
    return fig


@style.styled
def heat_scale() -> Any:
    """Draws the color bar of heat maps, whose ends are each voxel's own.

    Returns:
        The figure.
    """
    fig, ((ax,),) = style.panels(width=70, height=11)
    _bar(fig.colorbar(_mappable(), cax=ax, orientation="horizontal"))
    return fig


def _paint(ax: Any, shown: HeatMap) -> None:
    """Draws one heat map into axes, in token units."""
    collections = _optional.require("matplotlib.collections", extra="report", why=style.WHY)
    columns, rows = _size(shown.grid)
    field = Image.fromarray(shown.scores.reshape(shown.grid).astype(np.float32))
    field = np.asarray(field.resize((columns, rows), Image.Resampling.BICUBIC)) / shown.limit
    strength = (0.85 * np.clip(np.abs(field), 0, 1) ** 0.7)[..., None]
    ground = np.full((rows, columns, 3), 0.93) if shown.photo is None else _grey(shown.photo)
    mixed = ground * (1 - strength) + _colors(field) * strength
    ax.imshow(mixed, extent=(0, shown.grid[1], shown.grid[0], 0), aspect="auto")
    ax.set_axis_off()
    edges = outline(shown.critical, shown.grid)
    for line, width in (("white", 3.2), (style.INK, 1.4)):
        ax.add_collection(collections.LineCollection(edges, colors=line, linewidths=width, capstyle="round"))


def _mappable() -> Any:
    """The colors of scores from -1 to 1, in units of the limit."""
    colors = _optional.require("matplotlib.colors", extra="report", why=style.WHY)
    cm = _optional.require("matplotlib.cm", extra="report", why=style.WHY)
    shades = colors.ListedColormap(_colors(np.linspace(-1, 1, 256)))
    return cm.ScalarMappable(colors.Normalize(-1, 1), shades)


def _bar(bar: Any) -> None:
    bar.set_ticks([-1, 0, 1], labels=["lowers the prediction", "0", "raises it"])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    for label, side in zip(bar.ax.get_xticklabels(), ("left", "center", "right"), strict=True):
        label.set_horizontalalignment(side)


def _colors(share: np.ndarray) -> np.ndarray:
    """Colors scores [...] in units of the limit as RGB [..., 3]."""
    low, high = RANGE
    return style.color_map(COLORS)(low + (high - low) * np.clip(0.5 + share / 2, 0, 1))[..., :3]


def _size(grid: tuple[int, int]) -> tuple[int, int]:
    """Returns width and height in pixels."""
    largest = max(grid)
    return max(1, round(PIXELS * grid[1] / largest)), max(1, round(PIXELS * grid[0] / largest))


def _grey(photo: np.ndarray) -> np.ndarray:
    """Returns a light grey photo [height, width, 3] in 0..1, on which colors stay readable."""
    grey = photo.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    return np.repeat((0.22 + 0.74 * grey)[..., None], 3, axis=2)
