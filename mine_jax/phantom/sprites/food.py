"""Food: natural colours, except the cake's frosting and the apple, which take any colour."""

import math

from mine_jax.phantom.sprites.pen import INK, Pen, curve, pick, shade, vary

CRUST = (206, 140, 66)
BREAD = (226, 160, 78)


def pizza(pen: Pen) -> None:
    """A slice: cheese triangle, thick crust, salami."""
    pen.polygon([(-0.85, -0.6), (0.85, -0.6), (0, 1)], (252, 212, 92))
    pen.polygon([(-0.96, -0.88), (0.96, -0.88), (0.92, -0.52), (-0.92, -0.52)], CRUST)
    for x, y in ((-0.38, -0.28), (0.32, -0.22), (-0.02, 0.24)):
        pen.ellipse(x, y, 0.19, fill=(206, 46, 38), edge=(140, 30, 30))
    for x, y in ((-0.05, -0.35), (0.2, 0.1)):
        pen.ellipse(x, y, 0.08, fill=(60, 140, 60), edge=None)


def apple(pen: Pen) -> None:
    """Two round lobes, a stalk and one leaf."""
    for x in (-0.3, 0.3):
        pen.ellipse(x, 0.15, 0.6, 0.76, fill=pen.color)
    pen.ellipse(0, 0.18, 0.55, 0.66, fill=pen.color, edge=None)
    pen.ellipse(-0.45, -0.12, 0.14, 0.2, fill=shade(pen.color, 1.35), edge=None)
    pen.line([(0, -0.45), (0.08, -1)], fill=(96, 62, 32), width=0.13)
    pen.polygon([(0.08, -0.7), (0.4, -0.98), (0.78, -0.85), (0.45, -0.62)], (60, 150, 60))


def banana(pen: Pen) -> None:
    """One yellow crescent with dark tips."""
    outer = curve(0, -0.3, 0.98, 1.05, (5, 175))
    inner = curve(0, -0.32, 0.64, 0.52, (170, 10))
    pen.polygon(outer + inner, vary(pen.rng, (252, 220, 62)))
    pen.arc(0, -0.3, 0.82, 0.78, (25, 155), fill=(205, 165, 40), width=0.06)
    pen.box(0.68, -0.52, 0.98, -0.2, (98, 70, 36))
    pen.ellipse(-0.82, -0.25, 0.12, fill=(98, 70, 36))


def cake(pen: Pen) -> None:
    """A layer cake with coloured frosting and three lit candles."""
    pen.box(-0.9, 0.05, 0.9, 0.9, (170, 112, 66))
    pen.line([(-0.88, 0.55), (0.88, 0.55)], fill=(252, 240, 215), width=0.12)
    pen.box(-0.94, -0.2, 0.94, 0.2, pen.color)
    for index in range(5):
        pen.ellipse(-0.74 + 0.37 * index, 0.2, 0.18, 0.2, fill=pen.color, edge=None)
    for x in (-0.5, 0.0, 0.5):
        pen.line([(x, -0.2), (x, -0.62)], fill=(120, 190, 250), width=0.12)
        pen.ellipse(x, -0.78, 0.1, 0.18, fill=(255, 170, 30), edge=None)


def burger(pen: Pen) -> None:
    """Bun, lettuce, patty, cheese, bun."""
    pen.ellipse(0, -0.12, 0.95, 0.78, fill=BREAD, span=(180, 360))
    for x, y in ((-0.4, -0.5), (0.05, -0.65), (0.45, -0.48)):
        pen.ellipse(x, y, 0.07, 0.05, fill=(252, 240, 205), edge=None)
    pen.box(-1, -0.12, 1, 0.08, (96, 190, 62))
    pen.box(-0.94, 0.08, 0.94, 0.36, (94, 50, 32))
    pen.polygon([(-0.96, 0.34), (0.96, 0.34), (0.5, 0.58), (0.1, 0.38)], (252, 204, 58), edge=None)
    pen.polygon([(-0.92, 0.46), (0.92, 0.46), (0.74, 0.86), (-0.74, 0.86)], BREAD)


def carrot(pen: Pen) -> None:
    """A tapering orange root with a bush of leaves."""
    for x in (-0.42, -0.15, 0.15, 0.42):
        pen.line([(0, -0.4), (x, -1)], fill=(56, 160, 60), width=0.18)
    pen.polygon([(-0.42, -0.42), (0.42, -0.42), (0.06, 1), (-0.06, 1)], vary(pen.rng, (248, 134, 34)))
    for x0, x1, y in ((-0.3, 0.02, -0.15), (0.05, 0.26, 0.1), (-0.18, 0.06, 0.4)):
        pen.line([(x0, y), (x1, y)], fill=(198, 94, 22), width=0.08)


def donut(pen: Pen) -> None:
    """A glazed ring with sprinkles."""
    glaze = pick(pen.rng, ((246, 132, 182), (112, 64, 40)))
    pen.ellipse(0, 0, 0.96, fill=(214, 156, 84))
    pen.ellipse(0, 0, 0.82, fill=glaze, edge=None)
    pen.ellipse(0, 0, 0.32, fill=(96, 60, 40))
    for index in range(9):
        angle = 0.7 * index
        x, y = 0.56 * math.cos(angle), 0.56 * math.sin(angle)
        sprinkle = ((70, 140, 250), (252, 232, 70), (250, 250, 250))[index % 3]
        pen.line([(x, y), (x + 0.12, y + 0.1)], fill=sprinkle, width=0.1)


def watermelon(pen: Pen) -> None:
    """A half-moon slice: red flesh, pale and green rind, black seeds."""
    for rx, ry, fill in ((1, 1.15, (36, 124, 48)), (0.86, 0.98, (232, 240, 205)),
                         (0.76, 0.86, (234, 54, 68))):  # fmt: skip
        pen.ellipse(0, -0.45, rx, ry, fill=fill, edge=None, span=(0, 180))
    pen.arc(0, -0.45, 1, 1.15, (0, 180), width=0.06)
    for x, y in ((-0.42, -0.22), (0, -0.12), (0.42, -0.22), (-0.2, 0.16), (0.22, 0.16)):
        pen.ellipse(x, y, 0.08, 0.12, fill=INK, edge=None)
