"""A pen that draws in a sprite's own unit coordinates onto a supersampled layer.

Sprites are written for the square [-1, 1] x [-1, 1] with y pointing down; the pen scales,
mirrors, rotates and moves them to their place in the scene.
"""

import math

import numpy as np
from PIL import ImageDraw, ImageFont

Color = tuple[int, int, int]
Point = tuple[float, float]

INK: Color = (24, 24, 30)
PAPER: Color = (250, 249, 242)
# Uncoloured sprites that could be coloured: a grey that no colour word names.
NEUTRAL: Color = (150, 150, 156)


class Pen:
    """Draws one sprite.

    Attributes:
        rng: the thing's own random state; a sprite may use it for small variations.
        color: the named colour with a slight variation, RGB in 0..255.
        attributes: extra features to draw, see `concepts.ATTRIBUTES`.
    """

    def __init__(
        self,
        draw: ImageDraw.ImageDraw,
        *,
        center: Point,
        radius: float,
        rng: np.random.Generator,
        color: Color | None = None,
        attributes: tuple[str, ...] = (),
        flip: bool = False,
        rotation: float = 0.0,
    ) -> None:
        """Places the sprite: `center` and `radius` in layer pixels, `rotation` in radians."""
        self.rng = rng
        self.color = vary(rng, color or NEUTRAL, 8)
        self.attributes = attributes
        self._draw = draw
        self._center = center
        self._radius = radius
        self._sign = -1.0 if flip else 1.0
        self._cos, self._sin = math.cos(rotation), math.sin(rotation)
        # About a third of an image pixel after reduction: edges read, small sprites do not clog.
        self._edge = max(1, round(0.055 * radius))

    def polygon(self, points: list[Point], fill: Color, *, edge: Color | None = INK) -> None:
        """Fills a closed outline and traces its edge."""
        path = [self._place(x, y) for x, y in points]
        self._draw.polygon(path, fill=fill)
        if edge is not None:
            self._draw.line([*path, path[0]], fill=edge, width=self._edge, joint="curve")

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Color, *, edge: Color | None = INK) -> None:
        """Fills a rectangle between two corners."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill, edge=edge)

    def ellipse(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float | None = None,
        *,
        fill: Color,
        edge: Color | None = INK,
        span: tuple[float, float] = (0.0, 360.0),
    ) -> None:
        """Fills an ellipse, or the chord-bounded part of it between two angles in degrees."""
        self.polygon(curve(x, y, rx, rx if ry is None else ry, span), fill, edge=edge)

    def arc(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        span: tuple[float, float],
        *,
        fill: Color = INK,
        width: float = 0.1,
    ) -> None:
        """Strokes an elliptic arc between two angles in degrees (clockwise, 0 = right)."""
        self.line(curve(x, y, rx, ry, span), fill=fill, width=width)

    def line(self, points: list[Point], *, fill: Color = INK, width: float = 0.1) -> None:
        """Strokes a path; `width` in units of the sprite's radius."""
        path = [self._place(x, y) for x, y in points]
        self._draw.line(path, fill=fill, width=max(1, round(width * self._radius)), joint="curve")

    def text(self, x: float, y: float, letters: str, size: float, fill: Color) -> None:
        """Writes upright letters centred on a point; `size` in units of the radius."""
        font = ImageFont.load_default(size=max(6, round(size * self._radius)))
        self._draw.text(self._place(x, y), letters, font=font, fill=fill, anchor="mm", stroke_width=1)

    def _place(self, x: float, y: float) -> Point:
        """Sprite coordinates -> layer pixels."""
        x *= self._sign
        return (
            self._center[0] + self._radius * (self._cos * x - self._sin * y),
            self._center[1] + self._radius * (self._sin * x + self._cos * y),
        )


def curve(x: float, y: float, rx: float, ry: float, span: tuple[float, float]) -> list[Point]:
    """Returns points on an elliptic arc, about 14 degrees apart."""
    start, stop = (math.radians(angle) for angle in span)
    n_steps = max(4, round(abs(stop - start) / 0.25))
    angles = (start + (stop - start) * step / n_steps for step in range(n_steps + 1))
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


def vary(rng: np.random.Generator, color: Color, amount: int = 12) -> Color:
    """Returns the colour moved by up to `amount` (of 255) in each channel."""
    moved = np.clip(np.add(color, rng.integers(-amount, amount + 1, 3)), 0, 255)
    return (int(moved[0]), int(moved[1]), int(moved[2]))


def shade(color: Color, factor: float) -> Color:
    """Returns the colour with its brightness scaled, at most white."""
    return (
        min(255, int(color[0] * factor)),
        min(255, int(color[1] * factor)),
        min(255, int(color[2] * factor)),
    )


def contrast(color: Color) -> Color:
    """Returns ink or paper, whichever reads better on the colour."""
    return PAPER if sum(color) < 480 else INK


def pick(rng: np.random.Generator, colors: tuple[Color, ...]) -> Color:
    """Returns one of several natural colours, slightly varied."""
    return vary(rng, colors[int(rng.integers(len(colors)))], 10)
