"""The exact editor and generator, on a few scenes."""

import numpy as np
import pytest

from mine_jax.phantom import scenes
from mine_jax.validation import Instruction, OracleEditor, OracleGenerator
from mine_jax.validation.makers import oracle
from mine_jax.validation.makers.protocols import NotApplicableError


def instruct(action, *words, image_id="1", **options):
    return Instruction(f"{action} {words}", action=action, words=words, image_id=image_id, **options)


def test_insertion_changes_only_its_region(known):
    after = OracleEditor(known).scene(instruct("insert", "clown"), seed=3)
    region = oracle.changed_region(known["1"], after)
    before, drawn = scenes.render(known["1"]), scenes.render(after)
    assert "clown" in scenes.scene_words(after) and 0.02 < region.mean() < 0.5
    np.testing.assert_array_equal(before[~region], drawn[~region])
    assert (before[region] != drawn[region]).mean() > 0.5


def test_removal_takes_every_thing_that_is_named(known):
    for word in ("cat", "animal"):
        after = oracle.remove(known["0"], (word,))
        assert [thing.concept for thing in after.things] == ["pizza"]
    assert oracle.remove(known["0"], ("beach",)).place is None
    assert oracle.remove(known["0"], ("place",)).place is None
    assert not oracle.remove(known["0"], ("cat", "food")).things


def test_same_seed_gives_the_same_image_and_others_differ(known):
    editor, photo = OracleEditor(known), scenes.render(known["1"])
    drawn = [editor.edit([photo], [instruct("insert", "dog")], seeds=[seed])[0] for seed in (4, 4, 5)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


def test_noop_is_the_image_itself(known):
    drawn = OracleEditor(known).edit([None], [instruct("noop")], seeds=[0])[0]
    np.testing.assert_array_equal(drawn, scenes.render(known["1"]))


@pytest.mark.parametrize(
    "instruction",
    [
        instruct("insert", "democracy"),
        instruct("insert"),
        instruct("insert", "beach", image_id="0"),
        instruct("remove", "dog"),
        instruct("insert", "dog", image_id="77"),
    ],
)
def test_what_it_cannot_do_it_says(known, instruction):
    with pytest.raises(NotApplicableError):
        OracleEditor(known).scene(instruction, seed=0)


def test_plain_text_is_not_applicable(known):
    with pytest.raises(NotApplicableError, match="Instruction"):
        OracleEditor(known).edit([None], ["add cat"], seeds=[0])


def test_categories_colors_and_attributes_become_things(known):
    scene = known["1"]
    words = scenes.scene_words(oracle.insert(scene, ("face",), seed=1))
    assert "face" in words
    assert "purple" in scenes.scene_words(oracle.insert(scene, ("purple",), seed=1))
    assert {"purple", "apple"} <= scenes.scene_words(oracle.insert(scene, ("apple", "purple"), seed=1))
    assert {"glasses", "face"} <= scenes.scene_words(oracle.insert(scene, ("glasses",), seed=1))
    both = oracle.insert(scene, ("man", "face"), seed=1)
    assert [thing.concept for thing in both.things] == ["car", "man"]
    assert oracle.insert(scene, ("snow",), seed=1).place == "snow"


def test_a_mask_says_where_and_strength_how_much(known):
    left = np.zeros((64, 64), bool)
    left[:, :24] = True
    thing = oracle.insert(known["1"], ("dog",), seed=2, mask=left).things[-1]
    assert thing.x < 32
    small = oracle.insert(known["1"], ("dog",), seed=2, strength=0.25).things[-1]
    assert small.radius == pytest.approx(0.5 * oracle.insert(known["1"], ("dog",), seed=2).things[-1].radius)


def test_generator_draws_the_words_of_a_prompt():
    generator = OracleGenerator()
    scene = generator.scene("a photo of cat, red, beach", seed=1)
    assert {"cat", "red", "beach"} <= scenes.scene_words(scene)
    drawn = generator.generate(["cat", "dog"], seeds=[1, 2], size=(48, 48))
    assert [image.shape for image in drawn] == [(48, 48, 3)] * 2
    with pytest.raises(NotApplicableError):
        generator.scene("liberty", seed=0)
