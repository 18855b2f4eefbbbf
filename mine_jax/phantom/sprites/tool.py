"""Tools and things one handles; umbrella, cup, clock, ladder and key take a colour."""

import math

from mine_jax.phantom.sprites.pen import INK, PAPER, Pen, curve, shade

WOOD = (184, 122, 62)
STEEL = (172, 178, 188)


def hammer(pen: Pen) -> None:
    """A wooden handle under a dark steel head with a claw."""
    pen.line([(-0.02, -0.5), (-0.02, 1)], width=0.3)
    pen.line([(-0.02, -0.5), (-0.02, 0.97)], fill=WOOD, width=0.22)
    pen.polygon([(-0.5, -0.92), (0.3, -0.92), (0.98, -0.62), (0.3, -0.5), (-0.5, -0.5)],
                (100, 106, 118))  # fmt: skip
    pen.box(-0.78, -1, -0.48, -0.4, (100, 106, 118))


def scissors(pen: Pen) -> None:
    """Two crossed steel blades with red ring handles."""
    for side in (-1, 1):
        pen.polygon([(side * 0.38, 0.42), (side * 0.16, 0.36), (-side * 0.5, -1),
                     (-side * 0.3, -0.98)], STEEL)  # fmt: skip
        pen.arc(side * 0.44, 0.64, 0.28, 0.3, (0, 360), fill=(216, 44, 48), width=0.2)
    pen.ellipse(0, 0.06, 0.09, fill=INK)


def key(pen: Pen) -> None:
    """A ring bow, a straight shaft and two teeth."""
    pen.box(-0.2, -0.13, 1, 0.13, pen.color)
    pen.box(0.46, 0.1, 0.64, 0.52, pen.color)
    pen.box(0.8, 0.1, 0.98, 0.44, pen.color)
    ring = curve(-0.55, 0, 0.45, 0.45, (0, 360)) + curve(-0.55, 0, 0.2, 0.2, (360, 0))
    pen.polygon(ring, pen.color)


def umbrella(pen: Pen) -> None:
    """A scalloped canopy in two shades over a hooked stick."""
    pen.line([(0, -0.95), (0, 0.72)], fill=(92, 62, 40), width=0.11)
    pen.arc(0.16, 0.72, 0.16, 0.2, (0, 180), fill=(92, 62, 40), width=0.11)
    pen.ellipse(0, 0.05, 1, 0.92, fill=pen.color, span=(180, 360))
    pen.polygon([*curve(0, 0.05, 0.36, 0.92, (180, 360))], shade(pen.color, 0.72))


def cup(pen: Pen) -> None:
    """A mug with a handle, coffee and a curl of steam."""
    for x in (-0.3, 0.1):
        pen.line([(x, -0.62), (x + 0.1, -0.76), (x - 0.02, -0.88), (x + 0.08, -1)],
                 fill=(215, 215, 222), width=0.09)  # fmt: skip
    pen.arc(0.58, 0.2, 0.34, 0.3, (-95, 95), width=0.28)
    pen.arc(0.58, 0.2, 0.34, 0.3, (-95, 95), fill=pen.color, width=0.18)
    pen.polygon([(-0.72, -0.4), (0.6, -0.4), (0.5, 0.9), (-0.62, 0.9)], pen.color)
    pen.ellipse(-0.06, -0.4, 0.66, 0.17, fill=(94, 58, 36))


def clock(pen: Pen) -> None:
    """A round white dial in a coloured frame with two bells and two hands."""
    for side in (-1, 1):
        pen.ellipse(side * 0.55, -0.78, 0.28, 0.2, fill=shade(pen.color, 0.75))
        pen.line([(side * 0.5, 0.75), (side * 0.68, 1)], width=0.13)
    pen.ellipse(0, 0.05, 0.92, 0.9, fill=pen.color)
    pen.ellipse(0, 0.05, 0.64, 0.62, fill=PAPER)
    for quarter in range(4):
        x, y = math.cos(quarter * math.pi / 2), math.sin(quarter * math.pi / 2)
        pen.line([(0.48 * x, 0.05 + 0.48 * y), (0.6 * x, 0.05 + 0.6 * y)], width=0.09)
    for reach, width in ((0.5, 0.08), (0.34, 0.12)):
        angle = float(pen.rng.uniform(0, 2 * math.pi))
        pen.line([(0, 0.05), (reach * math.cos(angle), 0.05 + reach * math.sin(angle))],
                 width=width)  # fmt: skip


def ladder(pen: Pen) -> None:
    """Two coloured rails with five rungs."""
    for x in (-0.42, 0.42):
        pen.line([(x, -1), (x * 1.25, 1)], width=0.26)
    for index in range(5):
        y = -0.72 + 0.36 * index
        pen.line([(-0.46, y), (0.46, y)], width=0.2)
        pen.line([(-0.46, y), (0.46, y)], fill=pen.color, width=0.13)
    for x in (-0.42, 0.42):
        pen.line([(x, -0.98), (x * 1.25, 0.98)], fill=pen.color, width=0.18)


def saw(pen: Pen) -> None:
    """A steel blade with big teeth and a wooden grip."""
    n_teeth = 6
    width = 1.3 / n_teeth
    teeth = [
        (0.35 - width * (index + part), 0.3 - 0.045 * index + 0.24 * (part == 0.5))
        for index in range(n_teeth)
        for part in (0.0, 0.5)
    ]
    pen.polygon([(0.35, -0.4), *teeth, (-0.98, 0.04), (-0.98, -0.2)], (206, 212, 220))
    pen.polygon([(0.3, -0.52), (0.8, -0.6), (1, -0.1), (0.86, 0.5), (0.5, 0.56), (0.3, 0.4)], WOOD)
    pen.ellipse(0.62, 0, 0.15, 0.26, fill=(70, 46, 28))
