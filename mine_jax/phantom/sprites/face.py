"""Faces: told apart by hair and beard; the attributes `smile` and `glasses` apply to all."""

from mine_jax.phantom.sprites.pen import INK, Color, Pen, pick, shade

SKINS: tuple[Color, ...] = ((250, 215, 180), (236, 188, 148), (200, 145, 105), (140, 94, 66))
HAIRS: tuple[Color, ...] = ((58, 38, 26), (116, 70, 32), (32, 30, 34))
LONG_HAIRS: tuple[Color, ...] = ((236, 196, 84), (170, 74, 30), (58, 38, 26))
WIGS: tuple[Color, ...] = ((230, 60, 40), (60, 180, 70), (245, 130, 30))
SNOWY: Color = (240, 240, 240)


def man(pen: Pen) -> None:
    """Short dark hair, ears, thick eyebrows and a moustache."""
    skin, hair = pick(pen.rng, SKINS), pick(pen.rng, HAIRS)
    for side in (-1, 1):
        pen.ellipse(side * 0.74, 0.05, 0.14, 0.2, fill=skin)
    pen.ellipse(0, 0.08, 0.72, 0.88, fill=skin)
    pen.polygon(
        [(-0.76, -0.1), (-0.72, -0.72), (0, -1), (0.72, -0.72), (0.76, -0.1), (0.56, -0.45),
         (-0.56, -0.45)],
        hair,
    )  # fmt: skip
    _features(pen, skin, eye_y=-0.1)
    for side in (-1, 1):
        pen.line([(side * 0.14, -0.3), (side * 0.48, -0.34)], fill=hair, width=0.1)
    pen.polygon([(0, 0.26), (0.38, 0.42), (0, 0.4), (-0.38, 0.42)], hair, edge=hair)


def woman(pen: Pen) -> None:
    """Long hair down both sides and a fringe."""
    skin, hair = pick(pen.rng, SKINS), pick(pen.rng, LONG_HAIRS)
    pen.ellipse(0, -0.15, 0.95, 0.85, fill=hair)
    pen.polygon([(-0.95, -0.15), (0.95, -0.15), (0.98, 1), (-0.98, 1)], hair)
    pen.ellipse(0, 0.1, 0.6, 0.76, fill=skin)
    pen.polygon([(-0.62, 0), (-0.5, -0.7), (0.5, -0.7), (0.62, 0), (0.1, -0.45)], hair, edge=None)
    _features(pen, skin, eye_y=-0.02, lips=(200, 30, 60))


def baby(pen: Pen) -> None:
    """A round face with big eyes and rosy cheeks in a light bonnet."""
    skin = pick(pen.rng, SKINS)
    bonnet = pick(pen.rng, ((190, 220, 250), (250, 205, 220), (245, 240, 190)))
    pen.ellipse(0, -0.02, 0.98, 0.96, fill=bonnet)
    pen.ellipse(0, 0.08, 0.76, 0.74, fill=skin)
    pen.arc(0, -0.5, 0.16, 0.16, (100, 380), width=0.08)
    for side in (-1, 1):
        pen.ellipse(side * 0.48, 0.34, 0.16, 0.12, fill=(240, 130, 130), edge=None)
    _features(pen, skin, eye_y=0.06, eye_size=0.17, mouth_y=0.5)


def clown(pen: Pen) -> None:
    """A white face with a red ball nose and two tufts of bright hair."""
    wig = pick(pen.rng, WIGS)
    for side in (-1, 1):
        pen.ellipse(side * 0.72, -0.28, 0.34, 0.44, fill=wig)
    pen.ellipse(0, 0.08, 0.7, 0.84, fill=(252, 244, 238))
    pen.polygon([(-0.3, -0.6), (0.3, -0.6), (0.05, -1.05)], shade(wig, 0.8))
    for side in (-1, 1):
        pen.polygon(
            [(side * 0.16, -0.08), (side * 0.3, -0.42), (side * 0.44, -0.08), (side * 0.3, 0.2)],
            (70, 110, 225),
            edge=None,
        )
    _features(pen, (252, 244, 238), eye_y=-0.1, lips=(220, 30, 40))
    pen.ellipse(0, 0.2, 0.22, fill=(222, 28, 40))


def grandfather(pen: Pen) -> None:
    """Bald, with white side hair and a full white beard."""
    skin = pick(pen.rng, SKINS)
    for side in (-1, 1):
        pen.ellipse(side * 0.72, -0.12, 0.2, 0.34, fill=SNOWY)
    pen.ellipse(0, -0.08, 0.7, 0.86, fill=skin)
    pen.polygon(
        [(-0.74, 0.1), (-0.42, 0.26), (0.42, 0.26), (0.74, 0.1), (0.66, 0.72), (0, 1.05),
         (-0.66, 0.72)],
        SNOWY,
    )  # fmt: skip
    for side in (-1, 1):
        pen.line([(side * 0.14, -0.34), (side * 0.46, -0.34)], fill=SNOWY, width=0.11)
    _features(pen, skin, eye_y=-0.14)


def _features(
    pen: Pen,
    skin: Color,
    *,
    eye_y: float,
    eye_size: float = 0.11,
    mouth_y: float = 0.52,
    lips: Color = (150, 44, 52),
) -> None:
    """Eyes, nose and mouth; a smile is a filled half-moon with teeth, glasses are dark rings."""
    for side in (-1, 1):
        pen.ellipse(side * 0.3, eye_y, eye_size * 1.5, eye_size * 1.3, fill=(250, 250, 250), edge=None)
        pen.ellipse(side * 0.3, eye_y, eye_size * 0.8, fill=INK, edge=None)
    pen.line([(0, eye_y + 0.12), (0.09, eye_y + 0.34), (-0.04, eye_y + 0.36)],
             fill=shade(skin, 0.65), width=0.07)  # fmt: skip
    if "smile" in pen.attributes:
        pen.ellipse(0, mouth_y - 0.06, 0.4, 0.3, fill=(170, 24, 40), edge=INK, span=(0, 180))
        pen.line([(-0.33, mouth_y + 0.01), (0.33, mouth_y + 0.01)], fill=(255, 255, 255),
                 width=0.13)  # fmt: skip
    else:
        pen.line([(-0.22, mouth_y + 0.03), (0.22, mouth_y + 0.03)], fill=lips, width=0.1)
    if "glasses" in pen.attributes:
        for side in (-1, 1):
            pen.arc(side * 0.33, eye_y, 0.27, 0.25, (0, 360), width=0.12)
            pen.line([(side * 0.6, eye_y), (side * 0.78, eye_y - 0.06)], width=0.1)
        pen.line([(-0.08, eye_y), (0.08, eye_y)], width=0.1)
