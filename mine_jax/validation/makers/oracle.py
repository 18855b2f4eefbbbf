"""The phantom's exact editor: scenes drawn again with a thing added or taken away.

All pixels outside that thing stay equal, so what an edit does to a voxel is known without
any generative model. Words are the phantom's own: concepts, categories, colours, places and
attributes; whatever else is asked for is not applicable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mine_jax.phantom import scenes
from mine_jax.phantom.scenes import Scene, Thing
from mine_jax.phantom.sprites.concepts import COLORABLE
from mine_jax.validation.makers.protocols import Instruction, NotApplicableError

# Radius of an inserted thing in pixels of a 64-pixel scene, at strength 1.
_RADIUS = 15.0
_N_PLACES = 48
# An inserted thing that hides others would change the response for another reason.
_OVERLAP_COST = 4.0
_MAX_THINGS = 3


class OracleEditor:
    """Edits phantom images exactly, by their scenes."""

    def __init__(self, known: Mapping[str, Scene]) -> None:
        """Keeps the scene of every image id."""
        self.known = known

    def edit(
        self,
        images: Sequence[np.ndarray],
        instructions: Sequence[str],
        *,
        seeds: Sequence[int],
        masks: Sequence[np.ndarray] | None = None,
    ) -> list[np.ndarray]:
        """Returns the counterfactual images; the given pixels are not looked at.

        Args:
            images: N images uint8 [h, w, 3], only counted.
            instructions: N `Instruction`s.
            seeds: one per image; the same seed gives the same thing in the same place.
            masks: [h, w] bool where something may be inserted; None for anywhere.

        Raises:
            NotApplicableError: for words that the phantom cannot draw or find.
        """
        drawings = []
        for number, (instruction, seed) in enumerate(zip(instructions, seeds, strict=True)):
            if not isinstance(instruction, Instruction):
                raise NotApplicableError(f"the exact editor takes an `Instruction`, but got {instruction!r}.")
            drawings.append(
                scenes.render(self.scene(instruction, seed=seed, mask=None if masks is None else masks[number]))
            )
        return drawings

    def scene(self, instruction: Instruction, *, seed: int, mask: np.ndarray | None = None) -> Scene:
        """Returns the scene after an edit."""
        if instruction.image_id not in self.known:
            raise NotApplicableError(f"image {instruction.image_id!r} has no scene; is this the phantom's data?")
        before = self.known[instruction.image_id]
        if instruction.action == "noop":
            return before
        if instruction.action == "remove":
            return remove(before, instruction.words)
        return insert(before, instruction.words, seed=seed, mask=mask, strength=instruction.strength)


class OracleGenerator:
    """Draws the phantom's words in a scene of their own."""

    def generate(
        self, prompts: Sequence[str], *, seeds: Sequence[int], size: tuple[int, int] | None
    ) -> list[np.ndarray]:
        """Returns one drawing per prompt, uint8 [h, w, 3]; `size` as height and width, `seeds` one each."""
        side = side_of(size)
        return [scenes.render(self.scene(prompt, seed=s, side=side)) for prompt, s in zip(prompts, seeds, strict=True)]

    def scene(self, prompt: str, *, seed: int, side: int = 64) -> Scene:
        """Returns the scene of one prompt: every word of the phantom's vocabulary in it."""
        words = [word for word in prompt.replace(",", " ").split() if word in scenes.VOCABULARY]
        if not words:
            raise NotApplicableError(f"no word of {prompt!r} can be drawn.")
        rng = np.random.default_rng([seed, 1])
        meant = _meant(words, rng)
        drawn = scenes.sample_scene(rng, concepts=[*meant.concepts, *_carriers(meant, rng)][:3], size=side)
        return replace(drawn, things=_dressed(drawn.things, meant), place=meant.place)


def side_of(size: tuple[int, int] | None) -> int:
    """Returns the side of a drawing in pixels for a wanted height and width; scenes are square."""
    return 64 if size is None else min(size)


def insert(
    scene: Scene, words: Sequence[str], *, seed: int, mask: np.ndarray | None = None, strength: float = 1.0
) -> Scene:
    """Adds what the words name.

    Args:
        scene: the scene before.
        words: a place replaces the place; concepts, categories, colours and attributes become things.
        seed: decides tilt, variant and, among equally good ones, the position.
        mask: [size, size] bool, where things should stand; None for anywhere.
        strength: 0..1, scales the size of things.

    Returns:
        The scene after.

    Raises:
        NotApplicableError: if no word can be drawn, or the place is the same already.
    """
    known = [word for word in words if word in scenes.VOCABULARY]
    rng = np.random.default_rng([seed, 2])
    meant = _meant(known, rng)
    concepts = [*meant.concepts, *_carriers(meant, rng)][:_MAX_THINGS]
    if not concepts and meant.place is None:
        raise NotApplicableError(f"none of the words {list(words)} can be drawn.")
    after = scene if meant.place is None else replace(scene, place=meant.place)
    for concept in concepts:
        circle = _position(after, rng, mask, _RADIUS * max(strength, 0.1) ** 0.5 / np.sqrt(len(concepts)))
        drawn = scenes.sample_scene(rng, concepts=[concept], place=None, size=scene.size).things[0]
        dressed = _dressed((drawn,), meant)[0]
        after = scenes.insert_thing(after, replace(dressed, **circle._asdict()))
    if after == scene:
        raise NotApplicableError(f"the scene shows {list(words)} already.")
    return after


def remove(scene: Scene, words: Sequence[str]) -> Scene:
    """Takes away every thing, place and attribute that the words name.

    Raises:
        NotApplicableError: if the scene shows none of them.
    """
    wanted = set(words)
    things = []
    for thing in scene.things:
        if wanted & {thing.concept, scenes.CATEGORY_OF[thing.concept], thing.color}:
            continue
        things.append(replace(thing, attributes=tuple(a for a in thing.attributes if a not in wanted)))
    place = None if scene.place in wanted or ("place" in wanted and scene.place) else scene.place
    after = replace(scene, things=tuple(things), place=place)
    if after == scene:
        raise NotApplicableError(f"the scene shows none of {list(words)}.")
    return after


def changed_region(before: Scene, after: Scene) -> np.ndarray:
    """Marks what an edit touches: the added or missing things; everything else where the place changes.

    Returns:
        np.ndarray: bool [size, size].
    """
    region = np.zeros((before.size, before.size), bool)
    shown = [scenes.thing_masks(scene) for scene in (before, after)]
    for scene, other, masks in ((before, after, shown[0]), (after, before, shown[1])):
        for thing, mask in zip(scene.things, masks, strict=True):
            if thing not in other.things:
                region |= mask
    if before.place != after.place:
        region |= ~shown[0].any(0) | ~shown[1].any(0)
    return region


class _Meant(NamedTuple):
    """What words name, by kind."""

    place: str | None
    concepts: list[str]
    colors: list[str]
    attributes: list[str]


class _Circle(NamedTuple):
    """Where a thing goes, pixels."""

    x: float
    y: float
    radius: float


def _meant(words: Sequence[str], rng: np.random.Generator) -> _Meant:
    """Sorts words by kind; a category stands for one of its concepts unless one is named."""
    place = next((word for word in words if word in scenes.PLACES), None)
    concepts = [word for word in words if word in scenes.OBJECTS]
    for word in words:
        members = scenes.CATEGORIES.get(word)
        if members is None or any(concept in members for concept in (*concepts, place)):
            continue
        chosen = str(members[int(rng.integers(len(members)))])
        if word == "place":
            place = chosen
        else:
            concepts.append(chosen)
    colors = [word for word in words if word in scenes.COLORS]
    return _Meant(place, concepts, colors, [word for word in words if word in scenes.ATTRIBUTES])


def _carriers(meant: _Meant, rng: np.random.Generator) -> list[str]:
    """Concepts that can show colours and attributes which none of the named ones can."""
    faces = scenes.CATEGORIES["face"]
    carriers = []
    if meant.colors and not COLORABLE.intersection(meant.concepts):
        carriers.append(sorted(COLORABLE)[int(rng.integers(len(COLORABLE)))])
    if meant.attributes and not set(faces).intersection(meant.concepts):
        carriers.append(str(faces[int(rng.integers(len(faces)))]))
    return carriers


def _dressed(things: Sequence[Thing], meant: _Meant) -> tuple[Thing, ...]:
    """Gives colours and attributes to the things that can have them."""
    dressed = []
    for thing in things:
        color = meant.colors[0] if meant.colors and thing.concept in COLORABLE else thing.color
        is_face = scenes.CATEGORY_OF[thing.concept] == "face"
        worn = tuple(meant.attributes) if meant.attributes and is_face else thing.attributes
        dressed.append(replace(thing, color=color, attributes=worn))
    return tuple(dressed)


def _position(scene: Scene, rng: np.random.Generator, mask: np.ndarray | None, radius: float) -> _Circle:
    """Chooses a circle that hides little and covers much of the mask."""
    radius = radius * scene.size / 64
    occupied = scenes.thing_masks(scene).any(0)
    wanted = np.ones_like(occupied) if mask is None else mask
    rows, columns = np.indices(occupied.shape) + 0.5
    best, best_score = (scene.size / 2, scene.size / 2), -np.inf
    for _ in range(_N_PLACES):
        x, y = (float(value) for value in rng.uniform(radius, scene.size - radius, 2))
        inside = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
        score = (wanted & inside).sum() - _OVERLAP_COST * (occupied & inside).sum()
        if score > best_score:
            best, best_score = (x, y), score
    return _Circle(*best, radius)
