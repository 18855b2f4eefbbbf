"""Names the phantom knows: categories, concepts, colours, attributes.

Every word here is one word of the phantom's captions and of its lens, so nothing is spelled
twice and no name serves two roles.
"""

CATEGORIES: dict[str, tuple[str, ...]] = {
    "face": ("man", "woman", "baby", "clown", "grandfather"),
    "body": ("hand", "foot", "arm", "dancer", "swimmer"),
    "place": ("beach", "forest", "city", "mountain", "room", "desert", "snow", "street"),
    "building": ("house", "church", "castle", "lighthouse", "windmill"),
    "word": ("sign", "letters", "numbers", "book"),
    "food": ("pizza", "apple", "banana", "cake", "burger", "carrot", "donut", "watermelon"),
    "animal": ("cat", "dog", "bird", "fish", "snake", "butterfly", "turtle", "spider"),
    "vehicle": ("car", "bus", "boat", "plane", "bicycle", "train", "rocket"),
    "tool": ("hammer", "scissors", "key", "umbrella", "cup", "clock", "ladder", "saw"),
}
CATEGORY_OF: dict[str, str] = {concept: category for category, concepts in CATEGORIES.items() for concept in concepts}
PLACES: tuple[str, ...] = CATEGORIES["place"]
OBJECTS: tuple[str, ...] = tuple(concept for concept, category in CATEGORY_OF.items() if category != "place")
CONCEPTS: tuple[str, ...] = OBJECTS + PLACES

# Chosen to stay apart after antialiasing, sensor noise and float16: no brown, no grey.
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 36, 40),
    "blue": (40, 84, 222),
    "green": (38, 158, 58),
    "yellow": (250, 214, 40),
    "purple": (140, 58, 190),
    "orange": (250, 130, 20),
    "pink": (250, 140, 190),
    "white": (246, 246, 246),
    "black": (34, 34, 40),
}
ATTRIBUTES: tuple[str, ...] = ("smile", "glasses")

# Concepts drawn in a named colour; all others keep the colours that make them recognisable.
COLORABLE: frozenset[str] = frozenset(
    "dancer swimmer sign book letters house windmill apple cake bird fish butterfly car bus boat"
    " plane bicycle train rocket umbrella cup clock ladder key".split()
)
# Drawn without mirroring or much tilt: a mirrored letter is another shape.
UPRIGHT: frozenset[str] = frozenset(("sign", "letters", "numbers", "book"))

VOCABULARY: tuple[str, ...] = CONCEPTS + tuple(CATEGORIES) + ATTRIBUTES + tuple(COLORS)
# Glue of the captions and of the lens's templates; never ranked by the lens.
FUNCTION_WORDS: tuple[str, ...] = ("a", "an", "and", "with", "in", "on", "of", "photo", "picture")
