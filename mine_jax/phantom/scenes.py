"""Procedural captioned scenes: a seed enters; an image, its masks and its caption leave.

A scene is a list of things (sprites of known concepts) before a place. Every thing is drawn
from its own seed onto its own layer, so adding or removing one leaves all pixels outside that
thing untouched: the exact counterfactual that real photographs never offer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw

from mine_jax.phantom.sprites import DRAW, DRAW_PLACE, concepts, pen, place

ATTRIBUTES = concepts.ATTRIBUTES
CATEGORIES = concepts.CATEGORIES
CATEGORY_OF = concepts.CATEGORY_OF
COLORS = concepts.COLORS
CONCEPTS = concepts.CONCEPTS
FUNCTION_WORDS = concepts.FUNCTION_WORDS
OBJECTS = concepts.OBJECTS
PLACES = concepts.PLACES
VOCABULARY = concepts.VOCABULARY

RANDOM_PLACE: Final = "random"

# Drawn this many times larger, then averaged: smooth edges without a vector library.
_SUPERSAMPLING: Final = 3
# Camera noise, standard deviation in 0..255 grey levels: flat areas are never exactly flat.
_NOISE: Final = 3.0
_PLACE_FRACTION: Final = 0.75
# Radius ranges in pixels of a 64-pixel scene, by number of things: all must fit side by side.
_RADII: Final = {1: (15.0, 25.0), 2: (12.0, 16.0), 3: (11.0, 13.5)}
_ON_PLACES: Final = frozenset(("beach", "mountain", "street"))
_NO_ARTICLE: Final = frozenset(("scissors", "letters", "numbers", "food", "snow"))


@dataclass(frozen=True)
class Thing:
    """One sprite in a scene.

    Attributes:
        concept: a name from `OBJECTS`.
        x: horizontal centre in image pixels from the left.
        y: vertical centre in image pixels from the top.
        radius: half the sprite's extent in image pixels.
        color: a name from `COLORS`, or None for the concept's own colours.
        attributes: names from `ATTRIBUTES`; only faces show them.
        flip: whether the sprite is mirrored left to right.
        rotation: clockwise tilt in radians.
        seed: decides skin, fur, letters and other small variations.
    """

    concept: str
    x: float
    y: float
    radius: float
    color: str | None = None
    attributes: tuple[str, ...] = ()
    flip: bool = False
    rotation: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for a name the phantom does not know."""
        _check_name("concept", self.concept, OBJECTS)
        if self.color is not None:
            _check_name("color", self.color, tuple(COLORS))
        for attribute in self.attributes:
            _check_name("attributes", attribute, ATTRIBUTES)


@dataclass(frozen=True)
class Scene:
    """Things before a place.

    Attributes:
        things: sprites from back to front.
        place: a name from `PLACES`, or None for a plain background.
        background_seed: decides the place's details and the camera noise.
        size: width and height of the image in pixels.
    """

    things: tuple[Thing, ...]
    place: str | None = None
    background_seed: int = 0
    size: int = 64

    def __post_init__(self) -> None:
        """Raises ValueError for a place the phantom does not know."""
        if self.place is not None:
            _check_name("place", self.place, PLACES)


def sample_scene(
    rng: np.random.Generator,
    *,
    n_things: tuple[int, int] = (1, 3),
    concepts: Sequence[str] | None = None,
    place: str | None = RANDOM_PLACE,
    size: int = 64,
) -> Scene:
    """Draws a random scene of things that do not hide one another.

    Args:
        rng: random state; the same state gives the same scene.
        n_things: smallest and largest number of things, at most 3; ignored with `concepts`.
        concepts: the concepts to show, in order. Default: distinct ones, uniformly.
        place: a name from `PLACES`, None for a plain background, or `RANDOM_PLACE`.
        size: width and height in pixels.

    Returns:
        Scene: each thing with random position, size, tilt, and colour where it takes one.

    Raises:
        ValueError: if a name is unknown or more than three things are asked for.
    """
    if concepts is None:
        count = int(rng.integers(n_things[0], n_things[1] + 1))
        concepts = [OBJECTS[i] for i in rng.choice(len(OBJECTS), count, replace=False)]
    if len(concepts) > max(_RADII):
        raise ValueError(
            f"a scene holds at most {max(_RADII)} things that a person can name at 64 pixels, "
            f"but {len(concepts)} were asked for"
        )
    circles = _sample_circles(rng, len(concepts), size)
    things = tuple(_sample_thing(rng, concept, circle) for concept, circle in zip(concepts, circles, strict=True))
    if place == RANDOM_PLACE:
        has_place = rng.random() < _PLACE_FRACTION
        place = PLACES[int(rng.integers(len(PLACES)))] if has_place else None
    return Scene(things, place, int(rng.integers(2**31)), size)


def render(scene: Scene) -> np.ndarray:
    """Draws a scene.

    Returns:
        np.ndarray: RGB image, uint8 [size, size, 3].
    """
    extent = scene.size * _SUPERSAMPLING
    canvas = Image.new("RGB", (extent, extent))
    background_rng = np.random.default_rng(scene.background_seed)
    DRAW_PLACE[scene.place](place.Backdrop(ImageDraw.Draw(canvas), extent, background_rng))
    for layer in _layers(scene):
        canvas.paste(layer, mask=layer)
    pixels = np.asarray(canvas.reduce(_SUPERSAMPLING), np.float32)
    noise = background_rng.standard_normal(pixels.shape, np.float32)
    return np.clip(pixels + _NOISE * noise, 0, 255).astype(np.uint8)


def thing_masks(scene: Scene) -> np.ndarray:
    """Marks the pixels that each thing touches and no later thing fully hides.

    Returns:
        np.ndarray: bool [n_things, size, size]; removing a thing changes no pixel outside its
        mask.
    """
    size = scene.size
    owner = np.full((size * _SUPERSAMPLING,) * 2, -1)
    for index, layer in enumerate(_layers(scene)):
        owner[np.asarray(layer.getchannel("A")) > 0] = index
    blocks = owner.reshape(size, _SUPERSAMPLING, size, _SUPERSAMPLING)
    masks = [(blocks == index).any(axis=(1, 3)) for index in range(len(scene.things))]
    return np.stack(masks) if masks else np.zeros((0, size, size), bool)


def thing_boxes(scene: Scene) -> np.ndarray:
    """Bounds each thing's visible pixels.

    Returns:
        np.ndarray: int [n_things, 4] as x0, y0, x1, y1 in pixels, x1 and y1 exclusive; all
        zero where a thing is completely hidden.
    """
    boxes = np.zeros((len(scene.things), 4), int)
    for box, mask in zip(boxes, thing_masks(scene), strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if rows.size:
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def caption(scene: Scene, *, rng: np.random.Generator | None = None) -> str:
    """Describes a scene in words.

    Args:
        scene: what to describe.
        rng: with it, the order varies, some details are left out and now and then a category
            stands for its concept. Default: the full caption, things from back to front.

    Returns:
        str: lower-case words of `VOCABULARY` and `FUNCTION_WORDS`, separated by spaces.
    """
    things, shown_place = list(scene.things), scene.place
    prefix = ""
    if rng is not None:
        things = [things[i] for i in rng.permutation(len(things))]
        prefix = ("", "", "a photo of ", "a picture of ")[int(rng.integers(4))]
        if things and rng.random() < 0.15:
            shown_place = None
    text = " and ".join(_phrase(thing, rng) for thing in things)
    if shown_place is not None:
        where = _with_article(shown_place)
        preposition = "on" if shown_place in _ON_PLACES else "in"
        text = f"{text} {preposition} {where}" if text else where
    return prefix + text if text else "a photo"


def scene_words(scene: Scene) -> frozenset[str]:
    """Returns every word of `VOCABULARY` that is true of a scene, categories included."""
    words = {word for thing in scene.things for word in (thing.concept, *thing.attributes)}
    words |= {thing.color for thing in scene.things if thing.color is not None}
    if scene.place is not None:
        words.add(scene.place)
    return frozenset(words | {CATEGORY_OF[word] for word in words if word in CATEGORY_OF})


def insert_thing(scene: Scene, thing: Thing) -> Scene:
    """Returns the scene with one more thing in front; all other pixels stay equal."""
    return replace(scene, things=(*scene.things, thing))


def remove_thing(scene: Scene, index: int) -> Scene:
    """Returns the scene without thing number `index`; all other pixels stay equal.

    Raises:
        IndexError: if the scene has no such thing.
    """
    if not 0 <= index < len(scene.things):
        raise IndexError(f"`index` must be in 0..{len(scene.things) - 1}, but is {index}")
    return replace(scene, things=scene.things[:index] + scene.things[index + 1 :])


def to_dict(scene: Scene) -> dict[str, Any]:
    """Returns the scene as JSON types; `from_dict` restores it exactly."""
    fields = asdict(scene)
    fields["things"] = [{**thing, "attributes": list(thing["attributes"])} for thing in fields["things"]]
    return fields


def from_dict(fields: dict[str, Any]) -> Scene:
    """Restores a scene from `to_dict`'s JSON types."""
    restored: dict[str, Any] = {**fields, "things": tuple(_thing_from_dict(thing) for thing in fields["things"])}
    return Scene(**restored)


def _thing_from_dict(fields: dict[str, Any]) -> Thing:
    """JSON types -> one thing."""
    restored: dict[str, Any] = {**fields, "attributes": tuple(fields["attributes"])}
    return Thing(**restored)


def _check_name(field: str, name: str, known: tuple[str, ...]) -> None:
    """Raises ValueError if a name is not among the known ones."""
    if name not in known:
        raise ValueError(f"`{field}` must be one of {', '.join(known)}, but is {name!r}")


def _sample_circles(rng: np.random.Generator, count: int, size: int) -> list[tuple[float, float, float]]:
    """Places circles (x, y, radius) in pixels that fit into the scene without overlap."""
    shrink = size / 64
    while True:
        circles: list[tuple[float, float, float]] = []
        for _ in range(count):
            radius = float(rng.uniform(*_RADII[count])) * shrink
            x, y = (float(value) for value in rng.uniform(radius, size - radius, 2))
            if any(np.hypot(x - u, y - v) < 0.95 * (radius + r) for u, v, r in circles):
                break
            circles.append((x, y, radius))
        if len(circles) == count:
            return circles
        # Slightly smaller after each failed try, so the search always ends.
        shrink *= 0.997


def _sample_thing(rng: np.random.Generator, concept: str, circle: tuple[float, float, float]) -> Thing:
    """One thing in a given circle, with random colour, attributes, tilt and seed."""
    x, y, radius = circle
    color = tuple(COLORS)[int(rng.integers(len(COLORS)))]
    is_face = CATEGORY_OF.get(concept) == "face"
    return Thing(
        concept=concept,
        x=x,
        y=y,
        radius=radius,
        color=color if concept in concepts.COLORABLE else None,
        attributes=tuple(name for name in ATTRIBUTES if is_face and rng.random() < 0.45),
        flip=bool(rng.random() < 0.5) and concept not in concepts.UPRIGHT,
        rotation=float(np.clip(rng.normal(0, 0.1), -0.25, 0.25)),
        seed=int(rng.integers(2**31)),
    )


def _layers(scene: Scene) -> Iterator[Image.Image]:
    """Each thing alone on a transparent, supersampled RGBA layer."""
    extent = scene.size * _SUPERSAMPLING
    for thing in scene.things:
        layer = Image.new("RGBA", (extent, extent))
        draw = ImageDraw.Draw(layer)
        # Without smoothing of glyphs alpha is 0 or 255: masks are exact.
        draw.fontmode = "1"
        DRAW[thing.concept](
            pen.Pen(
                draw,
                center=(thing.x * _SUPERSAMPLING, thing.y * _SUPERSAMPLING),
                radius=thing.radius * _SUPERSAMPLING,
                rng=np.random.default_rng(thing.seed),
                color=None if thing.color is None else COLORS[thing.color],
                attributes=thing.attributes,
                flip=thing.flip,
                rotation=thing.rotation,
            )
        )
        yield layer


def _phrase(thing: Thing, rng: np.random.Generator | None) -> str:
    """One thing in words, such as `a man with glasses` or `an orange umbrella`."""
    noun, color, attributes = thing.concept, thing.color, thing.attributes
    if rng is not None:
        noun = CATEGORY_OF[noun] if rng.random() < 0.1 else noun
        color = None if rng.random() < 0.15 else color
        attributes = tuple(name for name in attributes if rng.random() > 0.15)
    words = _with_article(f"{color} {noun}" if color else noun)
    if attributes:
        words += " with " + " and ".join("a smile" if name == "smile" else name for name in attributes)
    return words


def _with_article(words: str) -> str:
    """Puts `a` or `an` before words that take one."""
    if words.split()[-1] in _NO_ARTICLE:
        return words
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
