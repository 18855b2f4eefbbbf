import importlib
import json
import threading
import time

import numpy as np
import pytest

from mine_jax import artifacts
from mine_jax.config import ClipConfig
from mine_jax.errors import AlignmentError, CheckpointError, ConfigError, DataError, WeightsError
from mine_jax.features import (
    Backbone,
    center_lens,
    extract,
    extract_layers,
    extract_part,
    lens_scores,
    load_backbone,
    load_features,
    open_store,
    visual_words,
)
from mine_jax.features.extract import Extraction, fill_stores
from mine_jax.features.ports.clip.backbone import load
from mine_jax.features.ports.tower import encode_layers
from mine_jax.types import Stimuli


class FakeBackbone:
    """Tokens are the four quarters of an image's mean color; counts calls."""

    name, sha256, layers, grid, width, precision = "fake", "f" * 64, 3, (2, 2), 3, "highest"
    processor = {"kind": "fake"}  # noqa: RUF012

    def __init__(self, scale=1.0):
        self.scale = scale
        self.batches = []

    def preprocess(self, images):
        for image in images:
            if image.dtype != np.uint8:
                raise DataError("not uint8")
        return np.stack(images).astype(np.float32)

    def encode(self, pixels, *, layers=(-1,)):
        self.batches.append(pixels.shape)
        b, h, w, c = pixels.shape
        quarters = pixels.reshape(b, 2, h // 2, 2, w // 2, c).mean((2, 4)).reshape(b, 4, c)
        return {layer: quarters * self.scale + layer for layer in layers}

    def lens_defaults(self):
        return None, None

    def lens(self, words, templates, *, progress=None):
        raise NotImplementedError


def make_stimuli(n, *, seed=0, side=8, hashes=None):
    images = np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    ids = np.array([f"im{i}" for i in range(n)])
    lookup = dict(zip(ids.tolist(), images, strict=True))
    return Stimuli(
        image_ids=ids,
        read=lambda wanted: [lookup[i] for i in wanted],
        hashes=np.array([""] * n if hashes is None else hashes),
        shared=np.zeros(n, bool),
    )


def snapshot(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_fake_is_a_backbone(checkpoint):
    assert isinstance(FakeBackbone(), Backbone)
    assert isinstance(load(checkpoint), Backbone)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("n", [1, 7, 8, 19])
def test_every_image_once_in_order_and_equal_batches(n, stored, tmp_path):
    backbone, stimuli, calls = FakeBackbone(), make_stimuli(n), []
    directory = tmp_path if stored else None
    tokens = extract(
        backbone, stimuli, directory=directory, dtype="float32", batch_size=4, progress=lambda *s: calls.append(s)
    )
    images = np.stack(stimuli.read(stimuli.image_ids))
    expected = FakeBackbone().encode(images.astype(np.float32), layers=(3,))[3]
    np.testing.assert_array_equal(np.asarray(tokens.tokens), expected.astype(np.float32))
    assert tokens.image_ids.tolist() == stimuli.image_ids.tolist()
    assert (tokens.layer, tokens.grid, tokens.model) == (3, (2, 2), "fake:" + "f" * 12)
    assert len(set(backbone.batches)) == 1
    assert calls[-1] == (n, n)


def test_threads_read_at_once_and_order_is_kept():
    stimuli = make_stimuli(24)
    expected = extract(FakeBackbone(), stimuli, dtype="float32", batch_size=4).tokens
    both = threading.Barrier(2)

    def read(ids):
        # passes only if two threads are here at the same time; then the earlier batch comes last
        both.wait(timeout=60)
        time.sleep(0.05 if (int(ids[0][2:]) // 4) % 2 == 0 else 0)
        return stimuli.read(ids)

    together = Stimuli(stimuli.image_ids, read, stimuli.hashes, stimuli.shared)
    np.testing.assert_array_equal(extract(FakeBackbone(), together, dtype="float32", batch_size=4).tokens, expected)


def test_resumed_extraction_is_byte_identical(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("mine_jax.features.extract"), "SHARD_IMAGES", 8)
    stimuli = make_stimuli(30)
    extract(FakeBackbone(), stimuli, directory=tmp_path, batch_size=4)
    before = snapshot(tmp_path)
    assert len(before) == 5
    (tmp_path / "tokens-00002.npy").unlink()
    backbone = FakeBackbone()
    # another batch size must not move the borders of shards or batches
    extract(backbone, stimuli, directory=tmp_path, batch_size=16)
    assert backbone.batches == [(4, 8, 8, 3)] * 2
    assert snapshot(tmp_path) == before
    backbone = FakeBackbone()
    extract(backbone, stimuli, directory=tmp_path, batch_size=4)
    assert backbone.batches == []


def test_killed_extraction_goes_on(tmp_path, monkeypatch):
    """F-69: stopped between shards."""
    monkeypatch.setattr(importlib.import_module("mine_jax.features.extract"), "SHARD_IMAGES", 8)
    stimuli = make_stimuli(30)
    extract(FakeBackbone(), stimuli, directory=tmp_path / "whole", batch_size=4)

    def stop(done, total):
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(FakeBackbone(), stimuli, directory=tmp_path / "cut", batch_size=4, progress=stop)
    with pytest.raises(CheckpointError, match="lacks 2 of 4 shards"):
        open_store(tmp_path / "cut")
    backbone, calls = FakeBackbone(), []
    extract(backbone, stimuli, directory=tmp_path / "cut", batch_size=4, progress=lambda *s: calls.append(s))
    assert len(backbone.batches) == 4
    assert calls[0] == (16, 30)
    assert snapshot(tmp_path / "cut") == snapshot(tmp_path / "whole")


def test_parts_give_the_store_of_one_process(tmp_path, monkeypatch):
    """F-76: parts that are missing, repeated or damaged."""
    monkeypatch.setattr(importlib.import_module("mine_jax.features.extract"), "SHARD_IMAGES", 8)
    stimuli, shared = make_stimuli(30), tmp_path / "shared"
    extract(FakeBackbone(), stimuli, directory=tmp_path / "whole", batch_size=4)

    def part(i, n, progress=lambda done, total: None):
        backbone = FakeBackbone()
        is_whole = fill_stores(backbone, stimuli, Extraction({3: shared}, "float16", 4), progress, (i, n))
        return is_whole, len(backbone.batches)

    def stop(done, total):
        if done >= 12:
            raise KeyboardInterrupt

    # of 4 shards the second part has the second and the last, which is shorter
    calls = []
    with pytest.raises(KeyboardInterrupt):
        part(1, 2, stop)
    assert sorted(snapshot(shared)) == ["meta.json", "part-001-of-002.json", "tokens-00001.npy"]
    with pytest.raises(CheckpointError, match="lacks 4 of 4 shards"):
        open_store(shared)
    assert part(1, 2, lambda *step: calls.append(step)) == (False, 2)
    assert calls == [(8, 14), (12, 14), (14, 14)]
    # another number of processes goes on with what is there
    assert part(0, 3) == (False, 2)
    assert part(2, 3) == (True, 2)
    assert snapshot(shared) == snapshot(tmp_path / "whole")
    assert part(0, 2) == (True, 0)
    # one process finishes what parts began, and their damaged shards
    for path in shared.iterdir():
        path.unlink()
    assert part(0, 2) == (False, 4)
    (shared / "tokens-00002.npy").write_bytes(b"cut short")
    backbone = FakeBackbone()
    extract(backbone, stimuli, directory=shared, batch_size=4)
    assert len(backbone.batches) == 6
    assert snapshot(shared) == snapshot(tmp_path / "whole")
    other = FakeBackbone()
    other.sha256 = "e" * 64
    with pytest.raises(CheckpointError, match="model weights"):
        fill_stores(other, stimuli, Extraction({3: shared}, "float16", 4), stop, (0, 2))


def test_parts_that_cannot_be(checkpoint, tmp_path):
    config = ClipConfig(model=str(checkpoint))
    for part in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ConfigError, match="parts count from 0"):
            extract_part(config, make_stimuli(3), directory=tmp_path, part=part)


def test_several_layers_in_one_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("mine_jax.features.extract"), "SHARD_IMAGES", 8)
    stimuli, backbone = make_stimuli(30), FakeBackbone()
    tokens = extract_layers(backbone, stimuli, layers=(-1, 1, 3), directory=tmp_path / "both", batch_size=4)
    assert len(backbone.batches) == 8
    assert list(tokens) == [1, 3]
    for layer in (1, 3):
        extract(FakeBackbone(), stimuli, layer=layer, directory=tmp_path / f"{layer}", batch_size=4)
        assert snapshot(tmp_path / "both" / f"layer-0{layer}") == snapshot(tmp_path / f"{layer}")
    before = snapshot(tmp_path / "both" / "layer-03")
    (tmp_path / "both" / "layer-03" / "tokens-00001.npy").unlink()
    backbone = FakeBackbone()
    extract_layers(backbone, stimuli, layers=(1, 3), directory=tmp_path / "both", batch_size=4)
    assert len(backbone.batches) == 2
    assert snapshot(tmp_path / "both" / "layer-03") == before
    in_memory = extract_layers(FakeBackbone(), stimuli, layers=(1, 3), batch_size=4)
    np.testing.assert_array_equal(in_memory[3].tokens, np.asarray(tokens[3].tokens))
    # a store that began with other batches cannot join
    extract(FakeBackbone(), stimuli, layer=2, directory=tmp_path / "both" / "layer-02", batch_size=5)
    with pytest.raises(CheckpointError, match="written in other batches"):
        extract_layers(FakeBackbone(), stimuli, layers=(1, 2), directory=tmp_path / "both", batch_size=4)
    with pytest.raises(ConfigError, match="names no layer"):
        extract_layers(FakeBackbone(), stimuli, layers=())


def test_two_devices_give_the_tokens_of_one(checkpoint):
    stimuli = make_stimuli(11, side=40)
    config = ClipConfig(model=str(checkpoint))
    one, two = load_backbone(config, mesh={"data": 1}), load_backbone(config)
    assert one.mesh is None and two.mesh.shape == {"data": 2, "model": 1}
    pixels = one.preprocess(stimuli.read(stimuli.image_ids[:4]))
    assert len(two.encode(pixels)[-1].sharding.device_set) == 2
    # batches of 3 do not divide by 2: padded rows are cut off again
    expected, ours = (extract(model, stimuli, batch_size=3, dtype="float32").tokens for model in (one, two))
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


def test_store_of_other_images_model_or_layer(tmp_path):
    """F-47: a store of other inputs is refused."""
    extract(FakeBackbone(), make_stimuli(6, hashes=list("abcdef")), directory=tmp_path)
    with pytest.raises(CheckpointError, match=r"image ids \(6 there, 5 now\)"):
        extract(FakeBackbone(), make_stimuli(5), directory=tmp_path)
    with pytest.raises(CheckpointError, match="image contents"):
        extract(FakeBackbone(), make_stimuli(6, hashes=list("abcdeX")), directory=tmp_path)
    with pytest.raises(CheckpointError, match=r"layer \(3 there, 1 now\)"):
        extract(FakeBackbone(), make_stimuli(6), directory=tmp_path, layer=1)
    other = FakeBackbone()
    other.sha256 = "e" * 64
    with pytest.raises(CheckpointError, match="model weights"):
        extract(other, make_stimuli(6), directory=tmp_path)


def test_tokens_outside_half_precision(tmp_path):
    """F-24: tokens beyond float16."""
    with pytest.raises(DataError, match=r"image 'im0' has image-tokens outside the range of float16"):
        extract(FakeBackbone(scale=1e5), make_stimuli(3), directory=tmp_path)
    tokens = extract(FakeBackbone(scale=1e5), make_stimuli(3), directory=tmp_path / "b", dtype="bfloat16")
    assert tokens.tokens.dtype.name == "bfloat16"


def test_unusable_images_are_named():
    """F-42: float pixels."""
    stimuli = make_stimuli(6)
    with pytest.raises(ConfigError, match="layer"):
        extract(FakeBackbone(), stimuli, layer=9)
    with pytest.raises(DataError, match="no images"):
        extract(FakeBackbone(), make_stimuli(0))
    twice = make_stimuli(3)
    twice.image_ids[2] = "im0"
    with pytest.raises(AlignmentError, match=r"\['im0'\] occur more than once"):
        extract(FakeBackbone(), twice)

    def read(ids):
        images = stimuli.read(ids)
        return [image / 255.0 if name == "im4" else image for name, image in zip(ids, images, strict=True)]

    broken = Stimuli(stimuli.image_ids, read, stimuli.hashes, stimuli.shared)
    with pytest.raises(DataError, match="image 'im4' cannot be used: not uint8"):
        extract(FakeBackbone(), broken)
    short = Stimuli(stimuli.image_ids, lambda ids: stimuli.read(ids)[1:], stimuli.hashes, stimuli.shared, "zip")
    with pytest.raises(DataError, match="6 images were asked of zip, 5 came"):
        extract(FakeBackbone(), short)


def test_compiles_once(checkpoint):
    """F-67: a ragged last batch compiles nothing."""
    backbone = load(checkpoint)
    before = encode_layers._cache_size()
    # float32 precision of another name makes this a program that no other test compiled
    backbone = type(backbone)(**{**vars(backbone), "precision": "high"})
    tokens = extract(backbone, make_stimuli(23, side=40), batch_size=8)
    assert tokens.tokens.shape == (23, 16, 24)
    assert encode_layers._cache_size() - before == 1


def test_stage_with_clip(checkpoint, words, tmp_path):
    word_list = tmp_path / "words.txt"
    word_list.write_text("\n".join(words))
    config = ClipConfig(model=str(checkpoint), words=str(word_list), batch_size=4, layer=-2)
    stimuli = make_stimuli(9, side=40)
    tokens, lens = load_features(config, stimuli, directory=tmp_path / "features")
    assert tokens.layer == 1
    assert lens_scores(lens, tokens.tokens[:2]).shape == (2, 16, len(words))
    np.testing.assert_array_equal(lens.center, center_lens(lens, tokens).center)
    again = artifacts.load(tmp_path / "features" / "lens")
    np.testing.assert_array_equal(again.unembedding, lens.unembedding)
    np.testing.assert_array_equal(again.words, words)
    in_memory, same_lens = load_features(config, stimuli)
    np.testing.assert_array_equal(in_memory.tokens, np.asarray(open_store(tmp_path / "features").tokens))
    np.testing.assert_array_equal(same_lens.center, lens.center)


def test_stage_uses_the_words_of_the_checkpoint_or_the_shipped_ones(checkpoint, tmp_path, caplog):
    config = ClipConfig(model=str(checkpoint), batch_size=4)
    stimuli = make_stimuli(3, side=40)
    _, lens = load_features(config, stimuli, directory=tmp_path / "features")
    assert lens.words.tolist() == visual_words().tolist()
    (checkpoint / "lens.json").write_text(json.dumps({"words": ["cat", "dog"], "templates": ["{}"]}))
    _, lens = load_features(config, stimuli, directory=tmp_path / "features")
    assert lens.words.tolist() == ["cat", "dog"]
    assert (tmp_path / "features" / "lens" / "meta.json").is_file()
    (checkpoint / "lens.json").unlink()
    # without a tokenizer there are tokens, but no words, unless somebody asked for words
    for file in checkpoint.glob("tokenizer*"):
        file.unlink()
    _, lens = load_features(config, stimuli, directory=tmp_path / "features")
    assert lens is None and "no lens, so later stages find no words: the tokenizer" in caplog.text
    assert not (tmp_path / "features" / "lens").exists()
    (tmp_path / "words.txt").write_text("cat\ndog")
    with pytest.raises(WeightsError, match="Are its files missing"):
        load_features(config.model_copy(update={"words": str(tmp_path / "words.txt")}), stimuli)
    with pytest.raises(ConfigError, match="needs images"):
        load_features(config, None)
