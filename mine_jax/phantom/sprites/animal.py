"""Animals: two heads (cat, dog) and six whole bodies of different outline."""

import math

from mine_jax.phantom.sprites.pen import INK, PAPER, Pen, pick, shade, vary


def cat(pen: Pen) -> None:
    """A grey or ginger head with pointed ears, slit eyes and whiskers."""
    fur = pick(pen.rng, ((242, 150, 56), (120, 122, 130)))
    for side in (-1, 1):
        pen.polygon([(side * 0.88, -1), (side * 0.18, -0.55), (side * 0.8, -0.05)], fur)
        pen.polygon([(side * 0.76, -0.8), (side * 0.42, -0.55), (side * 0.72, -0.3)],
                    (245, 160, 170), edge=None)  # fmt: skip
    pen.ellipse(0, 0.12, 0.88, 0.74, fill=fur)
    for x in (-0.18, 0, 0.18):
        pen.line([(x, -0.6), (x * 0.8, -0.34)], fill=shade(fur, 0.55), width=0.08)
    for side in (-1, 1):
        pen.ellipse(side * 0.38, 0.0, 0.2, 0.2, fill=(200, 236, 70))
        pen.ellipse(side * 0.38, 0.0, 0.06, 0.19, fill=INK, edge=None)
        for y in (0.34, 0.5):
            pen.line([(side * 0.25, 0.42), (side * 1.05, y)], fill=PAPER, width=0.05)
    pen.polygon([(-0.13, 0.28), (0.13, 0.28), (0, 0.44)], (236, 120, 134))


def dog(pen: Pen) -> None:
    """A brown head with hanging ears, a pale muzzle and the tongue out."""
    fur = pick(pen.rng, ((172, 114, 62), (206, 156, 96)))
    pen.ellipse(0, -0.1, 0.68, 0.74, fill=fur)
    for side in (-1, 1):
        pen.polygon([(side * 0.4, -0.82), (side * 0.85, -0.7), (side * 1.0, 0.2),
                     (side * 0.78, 0.55), (side * 0.56, 0.1)], shade(fur, 0.5))  # fmt: skip
        pen.ellipse(side * 0.26, -0.25, 0.13, fill=INK, edge=None)
    pen.polygon([(-0.16, 0.55), (0.16, 0.55), (0.18, 0.92), (0, 1.04), (-0.18, 0.92)],
                (240, 80, 104))  # fmt: skip
    pen.ellipse(0, 0.32, 0.46, 0.36, fill=(248, 234, 214))
    pen.ellipse(0, 0.16, 0.22, 0.15, fill=INK)


def bird(pen: Pen) -> None:
    """A perched bird from the side: wing, tail, orange beak and legs."""
    for x in (-0.08, 0.16):
        pen.line([(x, 0.5), (x, 0.98), (x + 0.16, 0.98)], fill=(226, 124, 24), width=0.09)
    pen.polygon([(-0.5, 0.05), (-1.05, -0.2), (-1, 0.3), (-0.45, 0.4)], shade(pen.color, 0.7))
    pen.ellipse(0, 0.15, 0.66, 0.48, fill=pen.color)
    pen.polygon([(0.76, -0.52), (1.1, -0.34), (0.74, -0.22)], (250, 160, 20))
    pen.ellipse(0.46, -0.38, 0.36, fill=pen.color)
    pen.ellipse(-0.14, 0.12, 0.38, 0.24, fill=shade(pen.color, 0.65))
    pen.ellipse(0.54, -0.46, 0.11, fill=PAPER, edge=None)
    pen.ellipse(0.56, -0.46, 0.06, fill=INK, edge=None)


def fish(pen: Pen) -> None:
    """An oval body with a forked tail, fins, stripes and a round eye."""
    pen.polygon([(-0.4, 0), (-1, -0.6), (-0.82, 0), (-1, 0.6)], shade(pen.color, 0.75))
    pen.polygon([(-0.2, -0.35), (0.1, -0.85), (0.5, -0.3)], shade(pen.color, 0.75))
    pen.polygon([(-0.05, 0.4), (-0.1, 0.8), (0.3, 0.42)], shade(pen.color, 0.75))
    pen.ellipse(0.2, 0, 0.8, 0.5, fill=pen.color)
    for x in (-0.2, 0.1):
        pen.arc(x, 0, 0.16, 0.38, (-80, 80), fill=shade(pen.color, 0.6), width=0.1)
    pen.ellipse(0.64, -0.12, 0.15, fill=PAPER)
    pen.ellipse(0.67, -0.12, 0.07, fill=INK, edge=None)


def snake(pen: Pen) -> None:
    """A thick green wave with yellow bands, raised head and forked tongue."""
    skin = vary(pen.rng, (70, 168, 60))
    body = [(-0.98 + 0.105 * step, 0.25 + 0.36 * math.sin(0.85 * step)) for step in range(16)]
    body += [(0.74, -0.2), (0.74, -0.5)]
    pen.line(body, fill=INK, width=0.38)
    pen.line(body, fill=skin, width=0.28)
    for step in (1, 4, 7, 10, 13):
        x, y = body[step]
        pen.ellipse(x, y, 0.1, fill=(244, 226, 70), edge=None)
    pen.line([(0.85, -0.62), (1.02, -0.6), (1.12, -0.7)], fill=(224, 36, 44), width=0.08)
    pen.ellipse(0.7, -0.62, 0.28, 0.22, fill=skin)
    pen.ellipse(0.76, -0.68, 0.07, fill=INK, edge=None)


def butterfly(pen: Pen) -> None:
    """Four wings with pale spots around a thin dark body with feelers."""
    for side in (-1, 1):
        pen.ellipse(side * 0.42, 0.44, 0.38, 0.4, fill=shade(pen.color, 0.7))
        pen.ellipse(side * 0.52, -0.34, 0.48, 0.48, fill=pen.color)
        pen.ellipse(side * 0.6, -0.38, 0.18, fill=(252, 246, 205), edge=None)
        pen.line([(0, -0.5), (side * 0.24, -1)], width=0.07)
    pen.ellipse(0, 0.05, 0.11, 0.65, fill=INK)


def turtle(pen: Pen) -> None:
    """A domed brown shell with plates; green head and legs."""
    skin = vary(pen.rng, (120, 186, 84))
    pen.ellipse(0.84, 0.12, 0.27, 0.24, fill=skin)
    for x in (-0.5, 0.42):
        pen.ellipse(x, 0.62, 0.22, 0.25, fill=skin)
    pen.polygon([(-0.75, 0.4), (-1.05, 0.5), (-0.7, 0.58)], skin)
    pen.ellipse(-0.05, 0.48, 0.82, 1.05, fill=(110, 84, 44), span=(180, 360))
    for x, y in ((-0.45, 0.2), (-0.05, 0.14), (0.35, 0.2), (-0.05, -0.28)):
        pen.ellipse(x, y, 0.17, 0.17, fill=(190, 156, 84), edge=(70, 50, 26))
    pen.box(-0.92, 0.4, 0.82, 0.54, (190, 156, 84))
    pen.ellipse(0.92, 0.06, 0.06, fill=INK, edge=None)


def spider(pen: Pen) -> None:
    """A black two-part body on eight bent legs with red eyes."""
    for side in (-1, 1):
        for knee_y, foot_y in ((-0.75, -0.95), (-0.35, -0.2), (0.05, 0.45), (0.45, 0.98)):
            pen.line([(0, 0), (side * 0.6, knee_y), (side * 0.98, foot_y)], width=0.1)
    pen.ellipse(0, 0.28, 0.46, 0.5, fill=(52, 46, 58))
    pen.ellipse(0, -0.32, 0.3, fill=(52, 46, 58))
    pen.polygon([(-0.14, 0.1), (0.14, 0.1), (-0.14, 0.5), (0.14, 0.5)], (220, 40, 44), edge=None)
    for side in (-1, 1):
        pen.ellipse(side * 0.11, -0.4, 0.08, fill=(240, 50, 50), edge=None)
