"""Places: whole-scene backgrounds, each with its own colours and layout of the ground."""

import math

import numpy as np
from PIL import ImageDraw

from mine_jax.phantom.sprites.pen import Color, pick, vary

SKY: Color = (150, 200, 242)


class Backdrop:
    """Draws in scene fractions: (0, 0) is the top left, (1, 1) the bottom right corner."""

    def __init__(self, draw: ImageDraw.ImageDraw, extent: int, rng: np.random.Generator) -> None:
        """Holds the layer of `extent` x `extent` pixels and the background's random state."""
        self.rng = rng
        self._draw = draw
        self._extent = extent

    def band(self, top: float, bottom: float, color: Color) -> None:
        """Fills a horizontal band across the scene."""
        self.polygon([(0, top), (1, top), (1, bottom), (0, bottom)], color)

    def polygon(self, points: list[tuple[float, float]], color: Color) -> None:
        """Fills a closed outline."""
        self._draw.polygon([(x * self._extent, y * self._extent) for x, y in points], fill=color)

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        """Fills a rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color)

    def disc(self, x: float, y: float, radius: float, color: Color) -> None:
        """Fills a circle."""
        edge = [(x - radius) * self._extent, (y - radius) * self._extent,
                (x + radius) * self._extent, (y + radius) * self._extent]  # fmt: skip
        self._draw.ellipse(edge, fill=color)

    def waves(self, top: float, height: float, period: float, color: Color) -> None:
        """Fills everything below a sine edge."""
        phase = float(self.rng.uniform(0, 2 * math.pi))
        edge = [(step / 24, top + height * math.sin(step / 24 * 2 * math.pi / period + phase)) for step in range(25)]
        self.polygon([*edge, (1, 1), (0, 1)], color)


def plain(backdrop: Backdrop) -> None:
    """One pale, almost grey tone: no place."""
    tone = int(backdrop.rng.integers(168, 236))
    backdrop.band(0, 1, vary(backdrop.rng, (tone, tone, tone), 9))


def beach(backdrop: Backdrop) -> None:
    """Sky, a band of sea, yellow sand and a sun."""
    rng = backdrop.rng
    backdrop.band(0, 1, vary(rng, (140, 210, 250), 8))
    backdrop.disc(float(rng.uniform(0.15, 0.85)), 0.14, 0.08, (255, 240, 120))
    backdrop.band(0.34, 0.64, vary(rng, (24, 120, 200), 8))
    for _ in range(6):
        x, y = float(rng.uniform(0, 0.9)), float(rng.uniform(0.4, 0.54))
        backdrop.box(x, y, x + 0.12, y + 0.015, (200, 232, 250))
    backdrop.waves(0.6, 0.02, 0.35, (240, 248, 252))
    backdrop.waves(0.64, 0.02, 0.35, vary(rng, (240, 214, 150), 8))


def forest(backdrop: Backdrop) -> None:
    """Rows of dark firs with brown trunks on a mossy floor."""
    rng = backdrop.rng
    backdrop.band(0, 1, vary(rng, (120, 170, 120), 8))
    backdrop.band(0.7, 1, vary(rng, (58, 92, 44), 8))
    for base, count in ((0.72, 6), (0.95, 5)):
        for index in range(count):
            x = (index + float(rng.uniform(0.1, 0.9))) / count
            height = float(rng.uniform(0.5, 0.75))
            green = vary(rng, (20, 88, 44), 14)
            backdrop.box(x - 0.025, base - height * 0.3, x + 0.025, base, (88, 58, 36))
            for part, half in ((0.2, 0.14), (0.45, 0.11), (0.68, 0.07)):
                tip = base - height * min(1.0, part + 0.4)
                foot = base - height * part
                backdrop.polygon([(x - half, foot), (x + half, foot), (x, tip)], green)


def city(backdrop: Backdrop) -> None:
    """A night skyline with lit windows."""
    rng = backdrop.rng
    backdrop.band(0, 1, vary(rng, (66, 62, 110), 8))
    x = float(rng.uniform(-0.1, 0))
    while x < 1:
        width, top = float(rng.uniform(0.14, 0.22)), float(rng.uniform(0.08, 0.5))
        backdrop.box(x, top, x + width, 1, pick(rng, ((62, 66, 82), (84, 78, 84), (48, 56, 78))))
        for row in np.arange(top + 0.05, 0.96, 0.09):
            for column in np.arange(x + 0.025, x + width - 0.03, 0.055):
                if rng.random() < 0.6:
                    backdrop.box(column, row, column + 0.03, row + 0.045, (252, 226, 120))
        x += width + 0.01


def mountain(backdrop: Backdrop) -> None:
    """Grey peaks with white caps over a green meadow."""
    rng = backdrop.rng
    backdrop.band(0, 1, vary(rng, SKY, 8))
    for center in (0.15, 0.85, 0.5):
        x, height = center + float(rng.uniform(-0.12, 0.12)), float(rng.uniform(0.5, 0.74))
        half, rock = height * float(rng.uniform(0.55, 0.7)), vary(rng, (112, 104, 116), 14)
        backdrop.polygon([(x - half, 0.84), (x + half, 0.84), (x, 0.84 - height)], rock)
        cap, low = 0.84 - 0.66 * height, 0.84 - 0.58 * height
        backdrop.polygon(
            [(x, 0.84 - height), (x + half * 0.36, cap), (x + half * 0.15, low), (x, cap),
             (x - half * 0.15, low), (x - half * 0.36, cap)],
            (252, 252, 252),
        )  # fmt: skip
    backdrop.waves(0.82, 0.015, 0.8, vary(rng, (112, 166, 72), 8))


def room(backdrop: Backdrop) -> None:
    """A warm wall with a window and a picture, a skirting board and a plank floor."""
    rng = backdrop.rng
    backdrop.band(0, 1, pick(rng, ((232, 206, 168), (226, 190, 170))))
    backdrop.band(0.7, 1, vary(rng, (150, 96, 56), 8))
    backdrop.band(0.67, 0.71, (250, 246, 236))
    for index in range(8):
        x = 0.5 + (index - 3.5) * 0.16
        bottom = 0.5 + (index - 3.5) * 0.34
        backdrop.polygon([(x, 0.71), (x + 0.012, 0.71), (bottom + 0.03, 1), (bottom, 1)],
                         (112, 70, 40))  # fmt: skip
    left = float(rng.uniform(0.06, 0.2))
    backdrop.box(left, 0.08, left + 0.32, 0.5, (108, 74, 46))
    backdrop.box(left + 0.03, 0.11, left + 0.15, 0.47, (176, 220, 248))
    backdrop.box(left + 0.17, 0.11, left + 0.29, 0.47, (176, 220, 248))
    x = float(rng.uniform(0.62, 0.74))
    backdrop.box(x, 0.14, x + 0.2, 0.4, (92, 60, 40))
    backdrop.box(x + 0.03, 0.17, x + 0.17, 0.37, pick(rng, ((90, 150, 140), (190, 110, 90))))


def desert(backdrop: Backdrop) -> None:
    """Orange dunes under a pale sky with two cacti."""
    rng = backdrop.rng
    backdrop.band(0, 1, vary(rng, (254, 226, 170), 8))
    backdrop.disc(float(rng.uniform(0.1, 0.9)), 0.15, 0.1, (255, 250, 214))
    backdrop.waves(0.46, 0.05, 0.9, vary(rng, (232, 158, 84), 8))
    backdrop.waves(0.68, 0.05, 1.1, vary(rng, (206, 122, 56), 8))
    for low in (0.04, 0.66):
        x, foot = low + float(rng.uniform(0.05, 0.25)), float(rng.uniform(0.68, 0.8))
        green = vary(rng, (58, 132, 62), 8)
        backdrop.box(x - 0.03, foot - 0.36, x + 0.03, foot, green)
        for side in (-1, 1):
            arm = foot - float(rng.uniform(0.12, 0.2))
            left, right = min(x, x + side * 0.1), max(x, x + side * 0.1)
            backdrop.box(left, arm, right, arm + 0.04, green)
            backdrop.box(x + side * 0.1 - 0.02, arm - 0.12, x + side * 0.1 + 0.02, arm + 0.04,
                         green)  # fmt: skip


def snow(backdrop: Backdrop) -> None:
    """White hills, frosted firs and falling flakes under a grey-blue sky."""
    rng = backdrop.rng
    backdrop.band(0, 1, vary(rng, (172, 190, 212), 8))
    for _ in range(3):
        x, height = float(rng.uniform(0, 1)), float(rng.uniform(0.28, 0.42))
        for part in (0.0, 0.3, 0.55):
            foot = 0.66 - height * part
            half = 0.14 * (1 - part)
            backdrop.polygon([(x - half, foot), (x + half, foot), (x, foot - height * 0.45)],
                             (92, 124, 128))  # fmt: skip
            backdrop.polygon(
                [(x - half / 2, foot - height * 0.22), (x + half / 2, foot - height * 0.22),
                 (x, foot - height * 0.45)],
                (250, 252, 255),
            )  # fmt: skip
    backdrop.waves(0.6, 0.04, 0.9, (246, 249, 253))
    backdrop.waves(0.8, 0.03, 0.7, (226, 234, 244))
    for x, y in rng.uniform(0, 1, (36, 2)):
        backdrop.disc(float(x), float(y), 0.014, (255, 255, 255))


def street(backdrop: Backdrop) -> None:
    """A grey road with a dashed line running away between pavements and brick fronts."""
    rng = backdrop.rng
    backdrop.band(0, 1, vary(rng, (196, 216, 232), 8))
    vanish = float(rng.uniform(0.42, 0.58))
    for side, edge in ((-1, 0.0), (1, 1.0)):
        brick = pick(rng, ((178, 92, 72), (196, 130, 90)))
        far = vanish + side * 0.1
        backdrop.polygon([(edge, 0.02), (far, 0.36), (far, 0.55), (edge, 0.85)], brick)
        for near, away in ((0.12, 0.3), (0.45, 0.6), (0.72, 0.84)):
            x0, x1 = edge + (far - edge) * near, edge + (far - edge) * away
            y0, y1 = 0.02 + 0.34 * near + 0.1, 0.02 + 0.34 * away + 0.08
            backdrop.polygon([(x0, y0), (x1, y1), (x1, y1 + 0.12), (x0, y0 + 0.17)],
                             (236, 236, 214))  # fmt: skip
    backdrop.polygon([(vanish - 0.1, 0.54), (vanish + 0.1, 0.54), (1, 0.84), (1, 1), (0, 1),
                      (0, 0.84)], (180, 176, 170))  # fmt: skip
    backdrop.polygon([(vanish - 0.05, 0.54), (vanish + 0.05, 0.54), (vanish + 0.42, 1),
                      (vanish - 0.42, 1)], vary(rng, (72, 74, 80), 6))  # fmt: skip
    for top, bottom in ((0.58, 0.64), (0.7, 0.79), (0.87, 1.0)):
        half = 0.03 * (top - 0.45)
        backdrop.polygon([(vanish - half, top), (vanish + half, top), (vanish + 2 * half, bottom),
                          (vanish - 2 * half, bottom)], (252, 244, 210))  # fmt: skip
