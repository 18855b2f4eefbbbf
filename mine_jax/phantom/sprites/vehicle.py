"""Vehicles: all take a colour; each has its own outline and undercarriage."""

from mine_jax.phantom.sprites.pen import INK, Pen, shade

GLASS = (190, 226, 248)
RUBBER = (40, 40, 46)
METAL = (180, 182, 190)


def car(pen: Pen) -> None:
    """A low body with a round cabin, two wheels and a headlight."""
    pen.polygon([(-0.66, -0.02), (-0.42, -0.52), (0.32, -0.52), (0.62, -0.02)], pen.color)
    pen.polygon([(-0.5, -0.06), (-0.34, -0.4), (-0.05, -0.4), (-0.05, -0.06)], GLASS)
    pen.polygon([(0.06, -0.06), (0.06, -0.4), (0.26, -0.4), (0.46, -0.06)], GLASS)
    pen.polygon([(-0.98, -0.02), (0.86, -0.02), (1, 0.16), (1, 0.44), (-1, 0.44)], pen.color)
    pen.ellipse(0.9, 0.18, 0.09, fill=(255, 240, 140))
    for x in (-0.54, 0.54):
        _wheel(pen, x, 0.44, 0.27)


def bus(pen: Pen) -> None:
    """A tall box with a row of windows and a door."""
    pen.box(-1, -0.72, 1, 0.58, pen.color)
    for index in range(4):
        pen.box(-0.88 + 0.44 * index, -0.54, -0.54 + 0.44 * index, -0.08, GLASS)
    pen.box(0.62, -0.54, 0.9, 0.5, GLASS)
    pen.line([(-0.97, 0.2), (0.56, 0.2)], fill=shade(pen.color, 0.55), width=0.1)
    for x in (-0.55, 0.35):
        _wheel(pen, x, 0.6, 0.23)


def boat(pen: Pen) -> None:
    """A coloured hull under a mast with two pale sails."""
    pen.line([(0, -1), (0, 0.3)], fill=(92, 62, 40), width=0.1)
    pen.polygon([(0.1, -0.92), (0.1, 0.14), (0.82, 0.14)], (252, 250, 240))
    pen.polygon([(-0.1, -0.74), (-0.1, 0.14), (-0.62, 0.14)], (252, 250, 240))
    pen.polygon([(-1, 0.28), (1, 0.28), (0.64, 0.9), (-0.7, 0.9)], pen.color)


def plane(pen: Pen) -> None:
    """An airliner from the side with swept wings and a tall tail."""
    pen.polygon([(-0.62, -0.1), (-1.02, -0.72), (-0.72, -0.72), (-0.34, -0.14)], pen.color)
    pen.polygon([(0.2, -0.12), (-0.3, -0.72), (-0.02, -0.72), (0.5, -0.14)], shade(pen.color, 0.75))
    pen.ellipse(0, 0, 1.0, 0.27, fill=pen.color)
    pen.polygon([(0.3, 0.06), (-0.5, 0.85), (-0.16, 0.85), (0.62, 0.08)], shade(pen.color, 0.75))
    for index in range(4):
        pen.ellipse(-0.42 + 0.26 * index, -0.08, 0.08, fill=GLASS, edge=None)
    pen.ellipse(0.78, -0.07, 0.13, 0.08, fill=GLASS, edge=None)


def bicycle(pen: Pen) -> None:
    """Two spoked wheels joined by a thick coloured frame, saddle and handlebar."""
    for x in (-0.57, 0.57):
        pen.arc(x, 0.38, 0.4, 0.4, (0, 360), width=0.12)
        pen.ellipse(x, 0.38, 0.08, fill=METAL)
    frame = [(-0.57, 0.38), (-0.24, -0.3), (0.42, -0.3), (0.0, 0.38), (-0.57, 0.38)]
    pen.line(frame, fill=pen.color, width=0.17)
    pen.line([(0.0, 0.38), (-0.3, -0.46)], fill=pen.color, width=0.17)
    pen.line([(0.57, 0.38), (0.36, -0.6)], fill=pen.color, width=0.17)
    pen.line([(0.24, -0.66), (0.66, -0.7)], width=0.14)
    pen.line([(-0.52, -0.5), (-0.1, -0.5)], width=0.18)


def train(pen: Pen) -> None:
    """A steam engine: boiler, cab, chimney with smoke, three wheels on a rail."""
    for x, y, size in ((-0.7, -0.86, 0.16), (-0.42, -0.95, 0.2), (-0.1, -0.92, 0.16)):
        pen.ellipse(x, y, size, fill=(222, 222, 226), edge=(150, 150, 156))
    pen.box(-0.78, -0.68, -0.52, -0.2, INK)
    pen.box(-0.95, -0.3, 0.35, 0.45, pen.color)
    pen.box(0.15, -0.7, 0.92, 0.45, pen.color)
    pen.box(0.06, -0.84, 1, -0.68, INK)
    pen.box(0.34, -0.54, 0.76, -0.12, GLASS)
    pen.polygon([(-0.92, 0.36), (-1.08, 0.86), (-0.72, 0.86)], METAL)
    for x in (-0.45, 0.05, 0.58):
        _wheel(pen, x, 0.6, 0.25)
    pen.line([(-1, 0.94), (1, 0.94)], fill=(110, 84, 60), width=0.12)


def rocket(pen: Pen) -> None:
    """An upright rocket with a pointed nose, one porthole, fins and a flame."""
    pen.polygon([(-0.2, 0.6), (-0.12, 0.88), (0, 1.08), (0.12, 0.88), (0.2, 0.6)], (255, 150, 20))
    for side in (-1, 1):
        pen.polygon([(side * 0.3, 0.1), (side * 0.74, 0.72), (side * 0.24, 0.6)],
                    shade(pen.color, 0.7))  # fmt: skip
    pen.polygon([(0, -1.05), (0.28, -0.6), (0.36, 0), (0.26, 0.64), (-0.26, 0.64), (-0.36, 0),
                 (-0.28, -0.6)], pen.color)  # fmt: skip
    pen.polygon([(0, -1.05), (0.25, -0.62), (-0.25, -0.62)], shade(pen.color, 0.7))
    pen.ellipse(0, -0.2, 0.2, fill=METAL)
    pen.ellipse(0, -0.2, 0.12, fill=GLASS, edge=None)


def _wheel(pen: Pen, x: float, y: float, radius: float) -> None:
    """A tyre with a bright hub."""
    pen.ellipse(x, y, radius, fill=RUBBER)
    pen.ellipse(x, y, radius * 0.45, fill=METAL, edge=None)
