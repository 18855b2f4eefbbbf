"""Pairs of scenes with and without one thing, and prompts for them.

The same pair teaches two edits: fill the box with the thing, or fill it with what lies behind.
Prompts and boxes are drawn anew for every example, so 20,000 pairs give many more examples.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from mine_jax.phantom import scenes

SIZE: Final = 64
# Side of the cells that boxes are aligned to: the CLIP's image-tokens, and half of them.
COARSE: Final = 8
FINE: Final = 4
# Shares of scenes with 1, 2 and 3 things: large things are what a small model can learn to draw.
_THING_SHARES: Final = (0.72, 0.22, 0.06)


@dataclass(frozen=True)
class Pairs:
    """Scenes with and without one thing.

    Attributes:
        scenes: the N full scenes.
        indices: which thing is missing, int [N].
        full: images of the full scenes, uint8 [N, SIZE, SIZE, 3].
        without: the same images without the thing, uint8 [N, SIZE, SIZE, 3].
        things: pixels of the thing, bool [N, SIZE, SIZE].
    """

    scenes: tuple[scenes.Scene, ...]
    indices: np.ndarray
    full: np.ndarray
    without: np.ndarray
    things: np.ndarray

    def thing(self, index: int) -> scenes.Thing:
        """Returns the thing that pair number `index` is about."""
        return self.scenes[index].things[self.indices[index]]


def render_pairs(n_pairs: int, *, seed: int) -> Pairs:
    """Samples and renders pairs.

    Args:
        n_pairs: number of pairs N.
        seed: seed of the scenes; another seed gives other scenes.

    Returns:
        Pairs: N pairs; the two images of a pair are equal outside `things`.
    """
    rng = np.random.default_rng(seed)
    full = np.empty((n_pairs, SIZE, SIZE, 3), np.uint8)
    without, things = np.empty_like(full), np.empty((n_pairs, SIZE, SIZE), bool)
    sampled, indices = [], np.empty(n_pairs, int)
    for number in range(n_pairs):
        count = 1 + int(rng.choice(len(_THING_SHARES), p=_THING_SHARES))
        scene = scenes.sample_scene(rng, n_things=(count, count), size=SIZE)
        index = int(rng.integers(count))
        full[number] = scenes.render(scene)
        without[number] = scenes.render(scenes.remove_thing(scene, index))
        things[number] = scenes.thing_masks(scene)[index]
        indices[number] = index
        sampled.append(scene)
    return Pairs(tuple(sampled), indices, full, without, things)


def sample_mask(thing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws a region to repaint around a thing: a box or the cells it touches.

    Args:
        thing: pixels of the thing, bool [SIZE, SIZE].
        rng: random state.

    Returns:
        np.ndarray: bool [SIZE, SIZE], made of whole cells, containing the thing.
    """
    kind = rng.random()
    if kind < 0.5:
        return box_mask(thing, cell=COARSE)
    if kind < 0.75:
        return box_mask(thing, cell=FINE, margin=int(rng.integers(0, 7)))
    cells = thing.reshape(SIZE // COARSE, COARSE, SIZE // COARSE, COARSE).any(axis=(1, 3))
    return np.kron(cells, np.ones((COARSE, COARSE), bool))


def box_mask(thing: np.ndarray, *, cell: int = COARSE, margin: int = 0) -> np.ndarray:
    """Returns the bounding box of a thing, widened to whole cells.

    Args:
        thing: pixels of the thing, bool [SIZE, SIZE].
        cell: side of the cells in pixels.
        margin: pixels added on every side before widening.

    Returns:
        np.ndarray: bool [SIZE, SIZE]; the whole image where nothing of the thing is visible.
    """
    rows, columns = np.flatnonzero(thing.any(1)), np.flatnonzero(thing.any(0))
    if not rows.size:
        return np.ones_like(thing)
    mask = np.zeros_like(thing)
    low = [max(0, (edge[0] - margin) // cell * cell) for edge in (rows, columns)]
    high = [min(SIZE, -(-(edge[-1] + 1 + margin) // cell) * cell) for edge in (rows, columns)]
    mask[low[0] : high[0], low[1] : high[1]] = True
    return mask


def scene_prompt(scene: scenes.Scene, rng: np.random.Generator) -> str:
    """Words a scene differently every time: a caption, or its words in a list."""
    if rng.random() < 0.75:
        return scenes.caption(scene, rng=rng)
    words = [word for thing in scene.things for word in _thing_words(thing, rng)]
    if scene.place is not None and rng.random() < 0.8:
        words.append(scene.place)
    return ", ".join(words) if words else scenes.caption(scene)


def insert_prompt(thing: scenes.Thing, rng: np.random.Generator) -> str:
    """Words the insertion of a thing: `add a red apple`, `a red apple` or `apple, red`."""
    if rng.random() < 0.2:
        words = ", ".join(_thing_words(thing, rng))
        return f"add {words}" if rng.random() < 0.5 else words
    phrase = scenes.caption(scenes.Scene((thing,)), rng=rng)
    phrase = phrase.removeprefix("a photo of ").removeprefix("a picture of ")
    return f"add {phrase}" if rng.random() < 0.6 else phrase


def remove_prompt(thing: scenes.Thing, rng: np.random.Generator) -> str:
    """Words the removal of a thing: `remove the apple`, or what shall be there instead."""
    kind = rng.random()
    if kind < 0.6:
        return f"remove the {thing.concept}"
    if kind < 0.75:
        return f"remove the {scenes.CATEGORY_OF[thing.concept]}"
    return "remove" if kind < 0.85 else "background"


def _thing_words(thing: scenes.Thing, rng: np.random.Generator) -> list[str]:
    """A thing as a list of words, colour and attributes in varying places."""
    words = [*([thing.color] if thing.color and rng.random() < 0.7 else []), *thing.attributes]
    words = [words[i] for i in rng.permutation(len(words))]
    words.insert(int(rng.integers(len(words) + 1)), thing.concept)
    return words
