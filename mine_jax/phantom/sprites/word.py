"""Written things: letters and numbers, a sign and an open book."""

from mine_jax.phantom.sprites.pen import INK, PAPER, Pen, contrast

# Letters and digits that stay distinct at ten pixels and never spell a word.
LETTERS = tuple("ABEHKMNRSTXZ")
DIGITS = tuple("23456789")


def sign(pen: Pen) -> None:
    """A coloured board with letters on a wooden post."""
    pen.line([(0, 0), (0, 1)], fill=(116, 82, 50), width=0.2)
    pen.box(-0.98, -0.85, 0.98, 0.25, pen.color)
    pen.text(0, -0.3, _draw_from(pen, LETTERS, 3), 0.85, contrast(pen.color))


def letters(pen: Pen) -> None:
    """Four letters on two rows of coloured tiles."""
    for row in (-0.5, 0.5):
        for column in (-0.5, 0.5):
            pen.box(column - 0.46, row - 0.46, column + 0.46, row + 0.46, pen.color)
            pen.text(column, row, _draw_from(pen, LETTERS, 1), 0.95, contrast(pen.color))


def numbers(pen: Pen) -> None:
    """Two large glowing digits on a dark display."""
    pen.box(-1, -0.72, 1, 0.72, (44, 54, 60))
    pen.box(-0.88, -0.6, 0.88, 0.6, (20, 26, 30), edge=None)
    pen.text(0, 0, _draw_from(pen, DIGITS, 2), 1.35, (120, 255, 150))


def book(pen: Pen) -> None:
    """An open book: two pages of lines in a coloured cover."""
    pen.polygon([(-1, -0.62), (0, -0.42), (1, -0.62), (1, 0.62), (0, 0.85), (-1, 0.62)], pen.color)
    for side in (-1, 1):
        pen.polygon([(side * 0.84, -0.66), (0, -0.46), (0, 0.6), (side * 0.84, 0.4)], PAPER)
        for index in range(4):
            y = -0.36 + 0.2 * index
            pen.line([(side * 0.7, y - 0.07), (side * 0.14, y + 0.06)], fill=INK, width=0.06)


def _draw_from(pen: Pen, symbols: tuple[str, ...], count: int) -> str:
    """Random symbols of the sprite's own random state."""
    return "".join(symbols[index] for index in pen.rng.integers(len(symbols), size=count))
