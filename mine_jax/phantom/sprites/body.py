"""Bodies and limbs: three bare limbs and two coloured figures, one upright and one lying."""

from mine_jax.phantom.sprites.face import HAIRS, SKINS
from mine_jax.phantom.sprites.pen import Pen, pick, shade


def hand(pen: Pen) -> None:
    """An open palm with five spread fingers."""
    skin = pick(pen.rng, SKINS)
    fingers = (((-0.3, 0.2), (-0.62, -0.62)), ((-0.1, 0.1), (-0.22, -0.92)),
               ((0.12, 0.1), (0.18, -0.95)), ((0.3, 0.2), (0.55, -0.72)),
               ((0.25, 0.6), (0.9, 0.05)))  # fmt: skip
    outline = shade(skin, 0.45)
    for base, tip in fingers:
        pen.line([base, tip], fill=outline, width=0.27)
        pen.ellipse(*tip, 0.125, fill=outline, edge=None)
    pen.ellipse(0, 0.45, 0.48, 0.5, fill=skin, edge=outline)
    for base, tip in fingers:
        pen.line([base, tip], fill=skin, width=0.19)
        pen.ellipse(*tip, 0.09, fill=skin, edge=None)


def foot(pen: Pen) -> None:
    """A bare foot from the side: ankle, heel, long sole and a row of toes."""
    skin = pick(pen.rng, SKINS)
    pen.polygon(
        [(-0.78, -0.98), (-0.22, -0.98), (-0.16, -0.1), (0.6, 0.32), (0.72, 0.7), (-0.75, 0.7),
         (-0.9, 0.45), (-0.72, 0.05)],
        skin,
        edge=shade(skin, 0.45),
    )  # fmt: skip
    for index, size in enumerate((0.2, 0.15, 0.13, 0.11)):
        pen.ellipse(0.8 - 0.2 * index, 0.62 + 0.02 * index, size, size * 1.05, fill=skin,
                    edge=shade(skin, 0.45))  # fmt: skip


def arm(pen: Pen) -> None:
    """A flexed arm: biceps, forearm straight up and a fist."""
    skin = pick(pen.rng, SKINS)
    edge = shade(skin, 0.45)
    pen.polygon([(-1, 0.3), (-0.6, 0.22), (-0.2, -0.05), (0.2, 0.18), (0.3, -0.5), (0.72, -0.5),
                 (0.86, 0.6), (0.7, 0.82), (-0.4, 0.85), (-1, 0.9)], skin, edge=edge)  # fmt: skip
    pen.ellipse(0.5, -0.62, 0.36, 0.34, fill=skin, edge=edge)
    for x in (0.36, 0.52, 0.68):
        pen.line([(x, -0.86), (x, -0.62)], fill=edge, width=0.06)
    pen.arc(-0.15, 0.35, 0.4, 0.3, (200, 320), fill=edge, width=0.07)


def dancer(pen: Pen) -> None:
    """A standing figure in a wide skirt with both arms raised to a ring."""
    skin, hair = pick(pen.rng, SKINS), pick(pen.rng, HAIRS)
    for x in (-0.14, 0.14):
        pen.line([(x, 0.3), (x * 0.8, 0.98)], fill=skin, width=0.15)
    for side in (-1, 1):
        pen.line([(side * 0.1, -0.3), (side * 0.52, -0.55), (side * 0.14, -1.0)], fill=skin,
                 width=0.13)  # fmt: skip
    pen.polygon([(-0.18, -0.36), (0.18, -0.36), (0.16, 0), (0.9, 0.42), (0.5, 0.56), (0, 0.5),
                 (-0.5, 0.56), (-0.9, 0.42), (-0.16, 0)], pen.color)  # fmt: skip
    pen.ellipse(0, -0.58, 0.2, 0.23, fill=skin)
    pen.ellipse(0, -0.68, 0.2, 0.15, fill=hair, edge=None)


def swimmer(pen: Pen) -> None:
    """A capped head and one raised arm above a band of water, body in a suit."""
    skin = pick(pen.rng, SKINS)
    pen.polygon([(-0.98, 0.32), (-0.2, -0.1), (0.4, -0.02), (0.3, 0.4), (-0.98, 0.5)], pen.color)
    pen.line([(0.1, 0.05), (0.3, -0.7), (0.92, -0.42)], fill=skin, width=0.22)
    pen.ellipse(0.48, 0.0, 0.28, fill=skin)
    pen.ellipse(0.48, -0.04, 0.3, 0.27, fill=pen.color, span=(170, 370))
    water = (60, 160, 240)
    for index in range(4):
        pen.ellipse(-0.75 + 0.5 * index, 0.52, 0.28, 0.26, fill=water, edge=None)
    pen.box(-1, 0.48, 1, 0.92, water, edge=None)
    for index in range(4):
        pen.arc(-0.75 + 0.5 * index, 0.56, 0.24, 0.18, (200, 340), fill=(235, 248, 255),
                width=0.08)  # fmt: skip
