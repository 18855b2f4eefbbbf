"""Scenes rendered for training: images, tokenised captions and a target word mix per image-token.

The targets make a token speak: a token inside an object should rank that object's concept first
and then its colour, category and attributes; a token of the background should rank the place.
"""

from dataclasses import dataclass

import numpy as np

from mine_jax.phantom import scenes

# Share of a thing's target given to each kind of word. Colour weighs much because voxels with a
# planted colour preference must be readable from single tokens.
CONCEPT_SHARE = 0.5
COLOR_SHARE = 0.25
CATEGORY_SHARE = 0.15
ATTRIBUTE_SHARE = 0.1
# A token that an object covers by a third should still name the object before the place.
THING_GAIN = 2.0
# Tokens in the corners of a thing's box see little of it, yet belong to its neighbourhood.
BOX_GAIN = 0.15
# Plain background has no word: a light pull towards a flat lens instead of an arbitrary one.
PLAIN_WEIGHT = 0.1


@dataclass(frozen=True)
class Corpus:
    """Rendered scenes and what their tokens should say.

    Attributes:
        scenes: the N scenes.
        images: RGB, uint8 [N, size, size, 3].
        targets: word distribution per image-token, float16 [N, P, W], over `VOCABULARY`.
        weights: weight of each image-token in the word loss, float16 [N, P], 0..1.
        owners: index of the thing an image-token lies in by its box, int8 [N, P], -1 for none.
        covers: fraction of the image-token covered by its owner, float16 [N, P].
    """

    scenes: tuple[scenes.Scene, ...]
    images: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    owners: np.ndarray
    covers: np.ndarray


def render_corpus(n_scenes: int, *, seed: int, patch: int = 8, size: int = 64, with_targets: bool = True) -> Corpus:
    """Samples and renders scenes.

    Args:
        n_scenes: number of scenes N.
        seed: seed of the scenes; another seed gives other scenes.
        patch: width of a square image-token in pixels.
        size: width of the images in pixels.
        with_targets: whether to say what the tokens show, which takes longer than the images do.

    Returns:
        Corpus: N scenes with P = (size / patch)^2 image-tokens each; without targets, scenes and images alone.
    """
    rng = np.random.default_rng(seed)
    sampled = tuple(
        scenes.sample_scene(rng, n_things=(0 if rng.random() < 0.02 else 1, 3), size=size) for _ in range(n_scenes)
    )
    n_tokens, n_words = (size // patch) ** 2, len(scenes.VOCABULARY)
    n_judged = n_scenes if with_targets else 0
    corpus = Corpus(
        scenes=sampled,
        images=np.empty((n_scenes, size, size, 3), np.uint8),
        targets=np.empty((n_judged, n_tokens, n_words), np.float16),
        weights=np.empty((n_judged, n_tokens), np.float16),
        owners=np.empty((n_judged, n_tokens), np.int8),
        covers=np.empty((n_judged, n_tokens), np.float16),
    )
    for index, scene in enumerate(sampled):
        corpus.images[index] = scenes.render(scene)
        if not with_targets:
            continue
        covers, inside = _coverage(scene, patch)
        corpus.targets[index], corpus.weights[index] = _targets(scene, covers, inside)
        corpus.owners[index], corpus.covers[index] = _owners(covers, inside)
    return corpus


def _coverage(scene: scenes.Scene, patch: int) -> tuple[np.ndarray, np.ndarray]:
    """Covered fraction [P, n_things] of each token, and whether its centre is in each box."""
    masks = scenes.thing_masks(scene)
    grid = scene.size // patch
    blocks = masks.reshape(len(masks), grid, patch, grid, patch)
    covers = blocks.mean(axis=(2, 4)).reshape(len(masks), grid * grid).T
    centers = (np.arange(grid) + 0.5) * patch
    x, y = np.tile(centers, grid)[:, None], np.repeat(centers, grid)[:, None]
    x0, y0, x1, y1 = scenes.thing_boxes(scene).T
    return covers, (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


def _owners(covers: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The thing each token lies in, -1 for none, and its covered fraction, both [P]."""
    if not covers.shape[1]:
        return np.full(len(covers), -1), np.zeros(len(covers))
    # Where boxes overlap, the thing that covers more of the token owns it.
    owner = np.where(inside, covers + 1e-6, 0).argmax(axis=1)
    cover = np.take_along_axis(covers, owner[:, None], axis=1)[:, 0]
    is_owned = inside.any(axis=1)
    return np.where(is_owned, owner, -1), np.where(is_owned, cover, 0.0)


def _targets(scene: scenes.Scene, covers: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Word distribution [P, W] and weight [P] of each token."""
    n_words = len(scenes.VOCABULARY)
    background = np.clip(1 - covers.sum(axis=1), 0, 1)
    shares = THING_GAIN * covers + BOX_GAIN * inside
    targets = (
        shares @ np.stack([*(_thing_words(thing) for thing in scene.things), np.zeros(n_words)])[: len(scene.things)]
    )
    if scene.place is None:
        weights = np.clip(covers.sum(axis=1), PLAIN_WEIGHT, 1)
        targets += 1e-3 / n_words
    else:
        weights = np.ones(len(covers))
        targets += background[:, None] * _word_mix({scene.place: 0.85, "place": 0.15})
    return targets / targets.sum(axis=1, keepdims=True), weights


def _thing_words(thing: scenes.Thing) -> np.ndarray:
    """Word distribution [W] of one thing."""
    mix = {
        thing.concept: CONCEPT_SHARE,
        scenes.CATEGORY_OF[thing.concept]: CATEGORY_SHARE,
        **{attribute: ATTRIBUTE_SHARE for attribute in thing.attributes},
    }
    if thing.color is not None:
        mix[thing.color] = COLOR_SHARE
    return _word_mix(mix)


def _word_mix(mix: dict[str, float]) -> np.ndarray:
    """Words with their shares -> normalised distribution [W] over the vocabulary."""
    distribution = np.zeros(len(scenes.VOCABULARY))
    for word, share in mix.items():
        distribution[scenes.VOCABULARY.index(word)] = share
    return distribution / distribution.sum()
