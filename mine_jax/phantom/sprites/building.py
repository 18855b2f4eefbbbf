"""Buildings: each has its own outline against the sky and its own main colour."""

import math

from mine_jax.phantom.sprites.pen import INK, PAPER, Pen, vary

GLASS = (150, 200, 235)
DOOR = (112, 70, 42)


def house(pen: Pen) -> None:
    """Coloured walls under a broad brown roof with a chimney, a door and two windows."""
    pen.box(0.4, -0.85, 0.62, -0.3, (120, 74, 60))
    pen.box(-0.76, -0.12, 0.76, 0.9, pen.color)
    pen.polygon([(-1, -0.1), (0, -0.9), (1, -0.1)], (128, 72, 48))
    pen.box(-0.16, 0.32, 0.18, 0.9, DOOR)
    pen.box(-0.6, 0.08, -0.28, 0.4, GLASS)
    pen.box(0.32, 0.08, 0.62, 0.4, GLASS)


def church(pen: Pen) -> None:
    """A white nave and a slate steeple that carries a golden cross."""
    wall, slate = vary(pen.rng, (240, 236, 224)), vary(pen.rng, (84, 92, 116))
    pen.box(-0.2, 0.15, 0.95, 0.95, wall)
    pen.polygon([(-0.2, 0.15), (0.05, -0.25), (0.85, -0.25), (1, 0.15)], slate)
    pen.box(-0.8, -0.2, -0.15, 0.95, wall)
    pen.polygon([(-0.88, -0.2), (-0.48, -0.72), (-0.07, -0.2)], slate)
    pen.line([(-0.48, -0.66), (-0.48, -1.08)], fill=(200, 150, 30), width=0.1)
    pen.line([(-0.64, -0.93), (-0.32, -0.93)], fill=(200, 150, 30), width=0.1)
    pen.ellipse(-0.48, 0.1, 0.15, fill=GLASS)
    pen.box(-0.62, 0.5, -0.34, 0.95, DOOR)
    for x in (0.15, 0.6):
        pen.box(x, 0.35, x + 0.17, 0.72, GLASS)


def castle(pen: Pen) -> None:
    """A grey wall between two battlemented towers with flags and an arched gate."""
    stone = vary(pen.rng, (160, 160, 168))
    pen.box(-0.5, -0.05, 0.5, 0.92, stone)
    for x in (-0.42, -0.1, 0.22):
        pen.box(x, -0.22, x + 0.2, -0.02, stone)
    for side in (-1, 1):
        pen.line([(side * 0.7, -0.6), (side * 0.7, -1.05)], width=0.06)
        pen.polygon([(side * 0.7, -1.05), (side * 0.7 + 0.3, -0.95), (side * 0.7, -0.84)],
                    (220, 40, 44))  # fmt: skip
        pen.box(side * 0.7 - 0.28, -0.5, side * 0.7 + 0.28, 0.92, stone)
        for x in (-0.32, -0.09, 0.14):
            pen.box(side * 0.7 + x, -0.68, side * 0.7 + x + 0.18, -0.46, stone)
        pen.box(side * 0.7 - 0.07, -0.2, side * 0.7 + 0.07, 0.15, INK, edge=None)
    pen.ellipse(0, 0.5, 0.26, 0.3, fill=(80, 50, 34), span=(180, 360))
    pen.box(-0.26, 0.48, 0.26, 0.92, (80, 50, 34), edge=None)


def lighthouse(pen: Pen) -> None:
    """A tapering tower in red and white bands with a lit lantern on top."""
    bands = 5
    for index in range(bands):
        top, bottom = -0.45 + 0.28 * index, -0.45 + 0.28 * (index + 1)
        half_top, half_bottom = 0.26 + 0.05 * index, 0.26 + 0.05 * (index + 1)
        pen.polygon(
            [(-half_top, top), (half_top, top), (half_bottom, bottom), (-half_bottom, bottom)],
            PAPER if index % 2 else (212, 36, 42),
        )
    for side in (-1, 1):
        pen.polygon([(side * 0.2, -0.66), (side * 0.98, -0.9), (side * 0.98, -0.42)],
                    (255, 240, 150), edge=None)  # fmt: skip
    pen.box(-0.36, -0.52, 0.36, -0.42, INK)
    pen.box(-0.22, -0.8, 0.22, -0.5, (255, 225, 80))
    pen.polygon([(-0.3, -0.8), (0, -1.05), (0.3, -0.8)], (60, 60, 70))


def windmill(pen: Pen) -> None:
    """A coloured tapering mill body behind four crossed lattice sails."""
    pen.polygon([(-0.32, -0.35), (0.32, -0.35), (0.55, 0.95), (-0.55, 0.95)], pen.color)
    pen.ellipse(0, -0.35, 0.34, 0.32, fill=(96, 62, 44), span=(180, 360))
    pen.box(-0.14, 0.55, 0.14, 0.95, DOOR)
    start = math.radians(float(pen.rng.uniform(25, 65)))
    for quarter in range(4):
        angle = start + quarter * math.pi / 2
        along, across = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
        corners = [
            (0.72 * reach * along[0] + side * across[0], -0.3 + 0.72 * reach * along[1]
             + side * across[1])
            for reach, side in ((0.25, 0.0), (1.0, 0.0), (1.0, 0.24), (0.25, 0.24))
        ]  # fmt: skip
        pen.polygon(corners, (248, 240, 215))
        pen.line([(0, -0.3), corners[1]], fill=(86, 58, 40), width=0.09)
    pen.ellipse(0, -0.3, 0.11, fill=(86, 58, 40))
