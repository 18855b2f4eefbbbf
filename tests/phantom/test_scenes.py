"""The phantom's scenes: deterministic, exactly editable, and captioned in known words."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mine_jax.phantom import scenes

N_SCENES = 40
WEIGHTS = Path(scenes.__file__).parent / "weights"


@pytest.fixture(scope="module")
def sampled() -> list[scenes.Scene]:
    """Forty random scenes of one to three things."""
    rng = np.random.default_rng(7)
    return [scenes.sample_scene(rng) for _ in range(N_SCENES)]


def _dilate(mask: np.ndarray, n_pixels: int) -> np.ndarray:
    """Grows a mask by a square of `n_pixels` on each side."""
    padded = np.pad(mask, n_pixels)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * n_pixels + 1,) * 2)
    return np.asarray(windows.any(axis=(-2, -1)))


def test_vocabulary_covers_eight_categories_and_fifty_concepts() -> None:
    assert len(scenes.CATEGORIES) >= 8
    assert len(scenes.CONCEPTS) >= 50
    assert set(scenes.CONCEPTS) == set(scenes.CATEGORY_OF)
    words = scenes.VOCABULARY + scenes.FUNCTION_WORDS
    assert len(set(words)) == len(words)


def test_same_seed_gives_same_pixels() -> None:
    first, second = (scenes.sample_scene(np.random.default_rng(3)) for _ in range(2))
    assert first == second
    image = scenes.render(first)
    assert image.shape == (64, 64, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, scenes.render(second))


@pytest.mark.parametrize("concept", scenes.OBJECTS)
def test_every_object_is_visible_and_inside_its_scene(concept: str) -> None:
    scene = scenes.sample_scene(np.random.default_rng(1), concepts=[concept], place=None)
    mask = scenes.thing_masks(scene)[0]
    # A sprite of radius 15 or more that fills less than this would be a bug, not a style.
    assert 100 < mask.sum() < 0.8 * mask.size


@pytest.mark.parametrize("place", scenes.PLACES)
def test_every_place_differs_from_the_others(place: str) -> None:
    image = scenes.render(scenes.Scene((), place, 5)).astype(float)
    others = [scenes.render(scenes.Scene((), name, 5)) for name in scenes.PLACES if name != place]
    assert min(np.abs(image - other).mean() for other in others) > 20


def test_removing_a_thing_changes_nothing_outside_it(sampled: list[scenes.Scene]) -> None:
    for scene in sampled:
        image = scenes.render(scene)
        for index, mask in enumerate(scenes.thing_masks(scene)):
            edited = scenes.render(scenes.remove_thing(scene, index))
            changed = (image != edited).any(axis=-1)
            assert changed.any()
            assert not (changed & ~_dilate(mask, 2)).any()


def test_inserting_a_thing_changes_nothing_outside_it(sampled: list[scenes.Scene]) -> None:
    for scene, donor in itertools.pairwise(sampled):
        thing = donor.things[0]
        inserted = scenes.insert_thing(scene, thing)
        mask = scenes.thing_masks(inserted)[-1]
        changed = (scenes.render(scene) != scenes.render(inserted)).any(axis=-1)
        assert changed.any()
        assert not (changed & ~_dilate(mask, 2)).any()
        assert scenes.remove_thing(inserted, len(scene.things)) == scene


def test_masks_lie_inside_boxes(sampled: list[scenes.Scene]) -> None:
    for scene in sampled:
        masks, boxes = scenes.thing_masks(scene), scenes.thing_boxes(scene)
        assert masks.shape == (len(scene.things), 64, 64)
        assert boxes.shape == (len(scene.things), 4)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
            assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
            assert mask[y0].any()
            assert mask[y1 - 1].any()
            assert mask[:, x0].any()
            assert mask[:, x1 - 1].any()


def test_hidden_thing_has_an_empty_mask_and_box() -> None:
    small = scenes.Thing("apple", 32, 32, 5)
    scene = scenes.Scene((small, scenes.Thing("donut", 32, 32, 5), scenes.Thing("bus", 32, 32, 28)))
    assert not scenes.thing_masks(scene)[0].any()
    assert scenes.thing_boxes(scene)[0].tolist() == [0, 0, 0, 0]


def test_scene_without_things() -> None:
    scene = scenes.Scene((), "forest", 2)
    assert scenes.thing_masks(scene).shape == (0, 64, 64)
    assert scenes.thing_boxes(scene).shape == (0, 4)
    assert scenes.caption(scene) == "a forest"
    assert scenes.caption(replace(scene, place=None), rng=np.random.default_rng(0)) == "a photo"


def test_roundtrip_through_json(sampled: list[scenes.Scene]) -> None:
    for scene in sampled:
        restored = scenes.from_dict(json.loads(json.dumps(scenes.to_dict(scene))))
        assert restored == scene
        assert hash(restored) == hash(scene)


def test_full_caption_names_everything_planted(sampled: list[scenes.Scene]) -> None:
    for scene in sampled:
        named = set(scenes.caption(scene).split())
        planted = {word for thing in scene.things for word in (thing.concept, *thing.attributes)}
        planted |= {thing.color for thing in scene.things if thing.color}
        planted |= {scene.place} if scene.place else set()
        assert planted <= named
        assert planted <= scenes.scene_words(scene)


def test_captions_use_only_known_words(sampled: list[scenes.Scene]) -> None:
    known = set(scenes.VOCABULARY + scenes.FUNCTION_WORDS)
    rng = np.random.default_rng(0)
    varied = [(scene, scenes.caption(scene, rng=rng)) for scene in sampled for _ in range(5)]
    assert len({text for _, text in varied}) > len(sampled)
    for scene, text in varied:
        assert set(text.split()) <= known
        # Left-out details are fine, false ones are not.
        assert set(text.split()) & set(scenes.VOCABULARY) <= scenes.scene_words(scene)


def test_tokenizer_knows_exactly_the_caption_words() -> None:
    tokenizer = json.loads((WEIGHTS / "clip" / "tokenizer.json").read_text(encoding="utf-8"))
    special = {"<pad>", "<bos>", "<unk>", "<eos>"}
    assert set(tokenizer["model"]["vocab"]) - special == set(scenes.VOCABULARY + scenes.FUNCTION_WORDS)


def test_longest_caption_fits_the_text_context() -> None:
    attributes = scenes.ATTRIBUTES
    faces = tuple(scenes.Thing("man", 32, 32, 10, None, attributes) for _ in range(3))
    n_words = len(scenes.caption(scenes.Scene(faces, "forest")).split())
    # The longest prefix is "a photo of"; 32 tokens hold <bos> and <eos> too.
    assert n_words + 3 <= 30


def test_articles_read_naturally() -> None:
    umbrella = scenes.Thing("umbrella", 32, 32, 15, "orange")
    scissors = scenes.Thing("scissors", 32, 32, 15)
    man = scenes.Thing("man", 32, 32, 15, None, ("smile", "glasses"))
    scene = scenes.Scene((umbrella, scissors, man), "beach")
    assert scenes.caption(scene) == ("an orange umbrella and scissors and a man with a smile and glasses on a beach")


@pytest.mark.parametrize("attribute", scenes.ATTRIBUTES)
def test_attributes_show_on_faces(attribute: str) -> None:
    face = scenes.Thing("woman", 32, 32, 20, seed=4)
    plain, marked = (scenes.render(scenes.Scene((thing,))) for thing in (face, replace(face, attributes=(attribute,))))
    assert (plain != marked).any()


def test_message_names_the_unknown_word() -> None:
    with pytest.raises(ValueError, match=r"`concept` must be one of .* but is 'dragon'"):
        scenes.Thing("dragon", 1, 1, 1)
    with pytest.raises(ValueError, match=r"`place` must be one of .* but is 'moon'"):
        scenes.Scene((), "moon")
    with pytest.raises(ValueError, match="at most 3 things"):
        scenes.sample_scene(np.random.default_rng(0), n_things=(4, 4))
    with pytest.raises(IndexError, match=r"`index` must be in 0\.\.0"):
        scenes.remove_thing(scenes.Scene((scenes.Thing("cat", 1, 1, 1),)), 1)
