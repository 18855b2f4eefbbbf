"""Which words speak for which category; a configuration may bring its own lists."""

from __future__ import annotations

# Everyday English, singular; the category's own name always counts too. Ours.
_LISTS = {
    "face": (
        "face man woman person boy girl child baby kid people portrait smile smiling glasses eye nose mouth hair beard "
        "head clown grandfather grandmother lady guy human"
    ),
    "body": "body hand arm leg foot feet finger torso back shoulder dancer runner swimmer player athlete surfer skier",
    "place": (
        "place room kitchen bathroom bedroom street road beach mountain forest field city landscape park desert snow "
        "sky ocean river lake garden hallway building house tower castle church bridge skyline"
    ),
    "word": "word sign letter number book text label newspaper license writing menu poster page",
    "food": (
        "food pizza cake apple banana orange carrot broccoli sandwich burger donut fruit vegetable plate meal bread "
        "watermelon salad cheese meat dessert"
    ),
    "animal": "animal dog cat bird horse cow sheep elephant bear zebra giraffe fish snake turtle spider butterfly",
    "vehicle": "vehicle car bus train truck boat airplane plane bicycle bike motorcycle van ship",
    "tool": "tool hammer scissors knife fork spoon key umbrella cup clock chair ball ladder phone bottle racket",
}
CATEGORIES: dict[str, tuple[str, ...]] = {name: tuple(words.split()) for name, words in _LISTS.items()}
