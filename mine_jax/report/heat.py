"""Token scores over the photo they belong to, as small pictures.

Red-orange marks tokens that raise the predicted response, violet those that lower it,
both over a grey photo; a line surrounds the critical tokens.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from mine_jax import _optional
from mine_jax.report import canvas, page

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


def overlay(
    photo: np.ndarray | None,
    scores: np.ndarray,
    critical: np.ndarray,
    *,
    grid: tuple[int, int],
    limit: float,
    alt: str,
) -> page.Picture:
    """Draws token scores over a photo, with a line around the critical tokens.

    Args:
        photo: what `fit_to_grid` gave, or None for a blank ground.
        scores: [P] in the unit of the responses.
        critical: [K] tokens to surround.
        grid: rows and columns; P is their product.
        limit: score that gets the full color, on both sides of 0.
        alt: the picture in words.

    Returns:
        The picture.
    """
    figures = _optional.require("matplotlib.figure", extra="report", why=canvas.WHY)
    collections = _optional.require("matplotlib.collections", extra="report", why=canvas.WHY)
    columns, rows = _size(grid)
    field = Image.fromarray(scores.reshape(grid).astype(np.float32))
    field = np.asarray(field.resize((columns, rows), Image.Resampling.BICUBIC)) / limit
    color = _colors(field)
    strength = (0.85 * np.clip(np.abs(field), 0, 1) ** 0.7)[..., None]
    ground = np.full((rows, columns, 3), 0.93) if photo is None else _grey(photo)
    fig = figures.Figure(figsize=(columns / 100, rows / 100), dpi=100)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.imshow(ground * (1 - strength) + color * strength, extent=(0, grid[1], grid[0], 0), aspect="auto")
    ax.set_axis_off()
    edges = outline(critical, grid)
    for line, width in (("white", 3.2), (canvas.INK, 1.4)):
        ax.add_collection(collections.LineCollection(edges, colors=line, linewidths=width, capstyle="round"))
    return canvas.picture(fig, alt=alt)


def scale() -> page.Picture:
    """Draws the color bar of the heat maps, whose ends are each voxel's own."""
    figures = _optional.require("matplotlib.figure", extra="report", why=canvas.WHY)
    fig = figures.Figure(figsize=(4.2, 0.75), dpi=180, layout="constrained")
    ax = fig.add_subplot()
    ax.imshow(_colors(np.linspace(-1, 1, 256)[None]), aspect="auto", extent=(-1, 1, 0, 1))
    ax.set_yticks([])
    ax.set_xticks([-1, 0, 1], ["lowers", "0", "raises"], fontsize=10)
    alt = "Color bar from violet, tokens that lower the prediction, over white, 0, to orange, those that raise it."
    return canvas.picture(fig, alt=alt)


def _colors(share: np.ndarray) -> np.ndarray:
    """Colors scores [...] in units of the limit as RGB [..., 3]."""
    low, high = RANGE
    return canvas.color_map(COLORS)(low + (high - low) * np.clip(0.5 + share / 2, 0, 1))[..., :3]


def _size(grid: tuple[int, int]) -> tuple[int, int]:
    """Returns width and height in pixels."""
    largest = max(grid)
    return max(1, round(PIXELS * grid[1] / largest)), max(1, round(PIXELS * grid[0] / largest))


def _grey(photo: np.ndarray) -> np.ndarray:
    """Returns a light grey photo [height, width, 3] in 0..1, on which colors stay readable."""
    grey = photo.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    return np.repeat((0.22 + 0.74 * grey)[..., None], 3, axis=2)


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
