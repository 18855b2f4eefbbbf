"""Images of a plan: made once, statuses, retries, resume."""

import json

import numpy as np
import pytest

from mine_jax.validation import Instruction, Picture
from mine_jax.validation.makers import pictures
from mine_jax.validation.makers.pictures import Item, make_pictures
from mine_jax.validation.makers.protocols import NotApplicableError


def drawn(seed, size=(8, 8)):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


class Painter:
    """A generator that counts its calls and fails where it is told to."""

    def __init__(self, fails=(), tries=99):
        self.calls, self.fails, self.tries = [], set(fails), tries

    def generate(self, prompts, *, seeds, size):
        self.calls += list(seeds)
        for seed in seeds:
            if seed in self.fails and self.calls.count(seed) <= self.tries:
                raise RuntimeError(f"seed {seed} does not work")
        return [drawn(seed) for seed in seeds]


def plan(n, **options):
    return [Item(f"generation-{row:06d}.png", f"photo {row}", row, **options) for row in range(n)]


def make(items, model, folder, **options):
    return make_pictures(items, model, folder, name="generation", maker=options.pop("maker", "test"), **options)


def test_every_image_is_there_with_prompt_seed_and_hash(tmp_path):
    records = make(plan(5), Painter(), tmp_path)
    for row, item in enumerate(plan(5)):
        record = records[item.file]
        assert record["prompt"] == f"photo {row}" and record["seed"] == row and len(record["sha256"]) == 64
        np.testing.assert_array_equal(pictures.read_png(tmp_path / item.file), drawn(row))
    assert pictures.read_manifest(tmp_path, "generation") == records


def test_one_item_that_raises_loses_only_itself(tmp_path):
    """F-92: one failure of many."""
    painter = Painter(fails=[17])
    records = make(plan(40), painter, tmp_path, retries=2)
    statuses = [records[item.file]["status"] for item in plan(40)]
    assert statuses.count("ok") == 39 and statuses[17] == "failed"
    assert records["generation-000017.png"]["n_tries"] == 3
    assert not (tmp_path / "generation-000017.png").exists()


def test_a_retry_that_works_counts(tmp_path):
    painter = Painter(fails=[2], tries=2)
    record = make(plan(4), painter, tmp_path)["generation-000002.png"]
    assert record["status"] == "ok" and record["n_tries"] == 2


def test_resume_repeats_nothing(tmp_path):
    """F-92: resumed from the manifest."""

    def stop(done, total):
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(plan(10), Painter(), tmp_path, batch_size=2, progress=stop)
    painter = Painter()
    records = make(plan(10), painter, tmp_path, batch_size=2)
    assert sorted(painter.calls) == list(range(4, 10)) and len(records) == 10
    again = Painter()
    assert make(plan(10), again, tmp_path) == records and again.calls == []


def test_a_torn_manifest_line_and_a_damaged_file_are_made_again(tmp_path):
    make(plan(5), Painter(), tmp_path)
    manifest = tmp_path / "generation.jsonl"
    manifest.write_text(manifest.read_text()[:-30])
    (tmp_path / "generation-000001.png").write_bytes(b"not an image")
    painter = Painter()
    make(plan(5), painter, tmp_path)
    assert sorted(painter.calls) == [1, 4]


def test_another_maker_prompt_or_seed_makes_it_again(tmp_path):
    make(plan(3), Painter(), tmp_path)
    painter = Painter()
    make(plan(3), painter, tmp_path, maker="another")
    assert sorted(painter.calls) == [0, 1, 2]
    changed = [*plan(2), Item("generation-000002.png", "another", 2)]
    painter = Painter()
    make(changed, painter, tmp_path, maker="another")
    assert painter.calls == [2]


def test_failed_images_are_tried_again_and_stale_ones_deleted(tmp_path):
    make(plan(6), Painter(fails=[3]), tmp_path)
    painter = Painter()
    records = make(plan(4), painter, tmp_path)
    assert painter.calls == [3] and len(records) == 4
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [item.file for item in plan(4)]


def test_the_same_image_is_made_once(tmp_path):
    items = [Item("generation-000000.png", "cat", 1), Item("generation-000001.png", "cat", 1)]
    painter = Painter()
    records = make(items, painter, tmp_path)
    assert painter.calls == [1] and (tmp_path / items[1].file).exists()
    assert records[items[0].file]["sha256"] == records[items[1].file]["sha256"]
    again = Painter()
    make(items, again, tmp_path)
    assert again.calls == []


def test_a_copy_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def stopped(source, target):
        target.write_bytes(source.read_bytes()[:20])
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures.shutil, "copyfile", stopped)
    items = [Item("generation-000000.png", "cat", 1), Item("generation-000001.png", "cat", 1)]
    with pytest.raises(KeyboardInterrupt):
        make(items, Painter(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [items[0].file, "generation.jsonl"]


@pytest.mark.parametrize("count", [0, 2])
def test_a_wrong_number_of_images_is_no_image(tmp_path, count):
    """F-88: none, or two."""

    class Wrong:
        def generate(self, prompts, *, seeds, size):
            return [drawn(0)] * count

    assert make(plan(1), Wrong(), tmp_path)["generation-000000.png"]["status"] == "failed"


def test_statuses_of_a_model_are_kept(tmp_path, caplog):
    """F-88, F-91: black, flagged, too long a prompt."""

    class Odd:
        def generate(self, prompts, *, seeds, size):
            if 2 in seeds:
                raise NotApplicableError("no")
            answers = [np.zeros((8, 8, 3), np.uint8), Picture(drawn(1), "flagged", truncated_tokens=3)]
            return [answers[seed] for seed in seeds]

    caplog.set_level("INFO", "mine_jax")
    records = make(plan(3), Odd(), tmp_path, batch_size=3)
    assert [records[item.file]["status"] for item in plan(3)] == ["black", "flagged", "not_applicable"]
    assert records["generation-000001.png"]["truncated_tokens"] == 3
    assert records["generation-000002.png"]["n_tries"] == 1
    assert not caplog.records  # an edit that cannot be made is an answer, not a failure


def test_editors_get_images_masks_and_instructions(tmp_path):
    photo, mask = drawn(5, (9, 7)), np.arange(63).reshape(9, 7) > 30
    seen = {}

    class Inverter:
        def edit(self, images, instructions, *, seeds, masks=None):
            seen.update(image=images[0], text=instructions[0], mask=masks[0])
            return [np.where(masks[0][..., None], 255 - images[0], images[0])]

    item = Item(
        file="edits-000000.png",
        text="add cat",
        seed=1,
        action="insert",
        words=("cat",),
        image_id="3",
        strength=0.5,
        source=pictures.write_png(tmp_path / "source.png", photo),
        mask=pictures.write_png(tmp_path / "mask.png", mask),
    )
    records = make_pictures([item], Inverter(), tmp_path / "images", name="edits", maker="test")
    assert records[item.file]["status"] == "ok"
    np.testing.assert_array_equal(seen["image"], photo)
    np.testing.assert_array_equal(seen["mask"], mask)
    text = seen["text"]
    assert isinstance(text, Instruction) and (text.action, text.words, text.image_id, text.strength) == (
        *("insert", ("cat",), "3"),
        0.5,
    )


def test_items_survive_json(tmp_path):
    from dataclasses import asdict

    item = Item("a.png", "x", 1, words=("a", "b"), size=(4, 5))
    assert pictures.item_from_dict(json.loads(json.dumps(asdict(item)))) == item
