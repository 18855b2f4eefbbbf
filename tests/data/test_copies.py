"""F-08: test photos that are copies of others, in any of the ways in which photos are handed on."""

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageOps

from mine_jax import data, run
from mine_jax.config import from_dict
from mine_jax.data import copies
from mine_jax.data.copies import find, thumbnails, windows
from mine_jax.phantom import scenes
from mine_jax.run import graph
from mine_jax.types import Stimuli

N = 60


@pytest.fixture(scope="module")
def photos():
    """Scenes that have nothing in common but their style."""
    rng = np.random.default_rng(5)
    return [Image.fromarray(scenes.render(scenes.sample_scene(rng, n_things=(2, 3), size=96))) for _ in range(N)]


def small(photo):
    array = np.asarray(photo.convert("RGB"))
    name = np.array(["x"])
    read = thumbnails.Thumbnails(Stimuli(name, lambda ids: [array for _ in ids], name, np.zeros(1, bool)))
    read.read(["x"])
    return read.kept["x"]


def saved_again(photo, quality=90):
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def crop(photo, *, left, top, width, height):
    w, h = photo.size
    return photo.crop((int(left * w), int(top * h), int((left + width) * w), int((top + height) * h)))


WAYS = {
    "the same bytes": lambda photo: photo,
    "compressed again": lambda photo: saved_again(photo, 30),
    "smaller": lambda photo: saved_again(photo.resize((64, 64)), 80),
    "larger": lambda photo: photo.resize((200, 150)),
    "mirrored": lambda photo: saved_again(ImageOps.mirror(photo)),
    "a crop": lambda photo: saved_again(crop(photo, left=0.05, top=0.1, width=0.83, height=0.83)),
    "a mirrored crop": lambda photo: saved_again(ImageOps.mirror(crop(photo, left=0.2, top=0, width=0.75, height=0.8))),
}


@pytest.fixture(scope="module")
def found(photos):
    """Pairs among 60 photos, of which some are there again in another way, once as test and once as training photo."""
    kept = {f"p{i}": small(photo) for i, photo in enumerate(photos)}
    split = {name: ("test" if i % 4 == 0 else "train") for i, name in enumerate(kept)}
    pairs = {}
    for number, (way, change) in enumerate(WAYS.items()):
        for i, is_test in ((4 * number, False), (4 * number + 1, True)):
            name = f"{way} {'test' if is_test else 'train'}"
            kept[name], split[name] = small(change(photos[i])), "test" if is_test else "train"
            pairs[name] = (f"p{i}", name) if is_test else (name, f"p{i}")
    return set(data.find_copies(kept, split)), pairs


@pytest.mark.parametrize("way", WAYS)
def test_copies_are_found(found, way):
    """F-08: whichever of both is the test photo."""
    pairs, expected = found
    assert {expected[f"{way} test"], expected[f"{way} train"]} <= pairs


def test_nothing_else_is_found(found):
    """F-08: of 15 test photos and 45 others of one style, none is taken for a copy."""
    pairs, expected = found
    assert pairs <= set(expected.values())


def test_copies_within_the_training_photos_are_none(photos):
    kept = {"a": small(photos[0]), "b": small(photos[0]), "c": small(photos[1])}
    assert data.find_copies(kept, {"a": "train", "b": "train", "c": "test"}) == []


def test_photos_without_contrast_are_copies_only_if_equal():
    grey, other = (np.full((64, 64, 3), level, np.uint8) for level in (90, 91))
    kept, split = {"a": grey, "b": other, "c": grey}, {"a": "train", "b": "test", "c": "test"}
    assert data.find_copies(kept, split) == [("a", "c")]


def test_few_photos_become_numbers_at_once():
    """Of 2,000 photos the numbers of all would be 98 MB, and those of their mirror images as many."""
    photos = np.random.default_rng(0).integers(0, 256, (2000, 64, 64, 3), np.uint8)
    photos[7] = photos[1900, :, ::-1]
    kept = {f"p{i}": photo for i, photo in enumerate(photos)}
    split = {name: "test" if i < 10 else "train" for i, name in enumerate(kept)}
    tracemalloc.start()
    pairs = data.find_copies(kept, split)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pairs == [("p1900", "p7")]
    assert peak < photos.nbytes * 4


def test_blocks_change_no_description(photos):
    """The same cells as of all photos at once."""
    some = [small(photo) for photo in photos] * 5
    mirrored = np.stack(some)[:, :, ::-1]
    expected = windows.described(mirrored, whole_only=True)[:, 0]
    np.testing.assert_allclose(find._wholes(some, mirrored=True), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("n_tests", "n_others", "said"),
    [
        (4000, 5000, ""),
        (4000, 5001, "searched for copies of whole photos, not for crops: more than 20000000 pairs"),
        (1, 19_999, ""),
        (1, 20_000, "not searched for copies of photos: more than 20000"),
    ],
)
def test_what_is_skipped_is_said(n_tests, n_others, said):
    split = {str(i): "test" if i < n_tests else "train" for i in range(n_tests + n_others)}
    assert data.not_searched({**split, "without responses": ""}) == said


def test_too_many_photos_are_not_searched(photos, monkeypatch):
    kept = {"a": small(photos[0]), "b": small(photos[0]), "c": small(photos[1])}
    split = {"a": "train", "b": "test", "c": "train"}
    assert data.find_copies(kept, split) == [("a", "b")]
    monkeypatch.setattr(find, "MOST_PHOTOS", 2)
    assert data.find_copies(kept, split) == []


def folder_of(photos, tmp_path):
    """Settings of a folder of 20 photos, the last of which is the first one mirrored."""
    (tmp_path / "photos").mkdir()
    ids = [f"p{i:02d}" for i in range(20)]
    for name, photo in zip(ids, [*photos[:19], ImageOps.mirror(photos[0])], strict=True):
        photo.save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    (tmp_path / "test.txt").write_text("\n".join(ids[15:]))
    np.save(tmp_path / "responses.npy", np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32))
    np.save(tmp_path / "tokens.npy", np.random.default_rng(1).standard_normal((20, 4, 3)).astype(np.float32))
    values = {
        "data": {"responses": "responses.npy", "image_ids": "ids.txt", "images": "photos", "test": "test.txt"},
        "features": {"kind": "precomputed", "tokens": "tokens.npy", "token_image_ids": "ids.txt"},
    }
    return from_dict(values, base=tmp_path)


def test_a_run_warns(photos, tmp_path):
    """F-08: `run` says it at the stage that reads the photos."""
    settings = folder_of(photos, tmp_path)
    record = run.execute(settings, tmp_path / "run", graph.STEPS, until="features")
    assert "1 test photos look like" in record["stages"]["features"]["summary"]["warning"]
    assert "look at p00 = p19" in record["stages"]["features"]["summary"]["warning"]


def test_run_and_check_skip_many_photos_and_say_so(photos, tmp_path, monkeypatch):
    for module in (find, copies, data):
        monkeypatch.setattr(module, "MOST_PHOTOS", 19)
    settings, said = folder_of(photos, tmp_path), "not searched for copies of photos: more than 19"
    record = run.execute(settings, tmp_path / "run", graph.STEPS, until="features")
    assert record["stages"]["features"]["summary"]["warning"] == said
    assert data.check(settings.data)[-1] == said
