"""Draw functions by concept: `DRAW` for things, `DRAW_PLACE` for whole-scene backgrounds."""

from collections.abc import Callable

from mine_jax.phantom.sprites import (
    animal,
    body,
    building,
    concepts,
    face,
    food,
    pen,
    place,
    tool,
    vehicle,
    word,
)

_MODULES = {
    "face": face,
    "body": body,
    "building": building,
    "word": word,
    "food": food,
    "animal": animal,
    "vehicle": vehicle,
    "tool": tool,
}

DRAW: dict[str, Callable[[pen.Pen], None]] = {
    concept: getattr(_MODULES[concepts.CATEGORY_OF[concept]], concept) for concept in concepts.OBJECTS
}
DRAW_PLACE: dict[str | None, Callable[[place.Backdrop], None]] = {
    None: place.plain,
    **{name: getattr(place, name) for name in concepts.PLACES},
}
