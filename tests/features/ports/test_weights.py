import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from mine_jax import artifacts
from mine_jax.errors import MissingInputError, WeightsError
from mine_jax.features.ports.clip.backbone import load

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"
KEY = "vision_model.encoder.layers.1.self_attn.q_proj.weight"


def shard(checkpoint, tensors, name=None):
    """Splits the weights in two files with an index; `name` renames the second in the index."""
    keys = sorted(tensors)
    files = {"a.safetensors": keys[::2], "b.safetensors": keys[1::2]}
    for file, part in files.items():
        safetensors.numpy.save_file({key: tensors[key] for key in part}, checkpoint / file)
    names = {"a.safetensors": "a.safetensors", "b.safetensors": name or "b.safetensors"}
    index = {"weight_map": {key: names[file] for file, part in files.items() for key in part}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    (checkpoint / "model.safetensors").unlink()


def test_all_missing_and_unexpected_tensors_are_listed(tensors, rewrite):
    """F-48: missing and unexpected tensors."""
    del tensors[KEY], tensors["visual_projection.weight"]
    tensors["head.weight"] = np.zeros((2, 2), np.float32)
    with pytest.raises(WeightsError, match=r"2 missing: .*q_proj.weight, visual_projection.weight; 1 unexpected: head"):
        load(rewrite(tensors))


def test_known_buffers_are_ignored(tensors, rewrite):
    """F-48: unused tensors that are known."""
    tensors["text_model.embeddings.position_ids"] = np.arange(16)[None]
    tensors["vision_model.embeddings.position_ids"] = np.arange(17)[None]
    load(rewrite(tensors))


def test_wrong_shape(tensors, rewrite):
    """F-49: another shape."""
    tensors[KEY] = np.zeros((24, 25), np.float32)
    with pytest.raises(WeightsError, match=r"q_proj.weight has shape \(24, 25\), expected \(24, 24\)"):
        load(rewrite(tensors))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonfinite_weight(value, tensors, rewrite):
    """F-50: NaN and infinity."""
    tensors[KEY][3, 4] = value
    with pytest.raises(WeightsError, match=f"NaN or infinity in 1 tensor: {KEY}"):
        load(rewrite(tensors))


def test_float64_beyond_float32_is_nonfinite(tensors, rewrite):
    tensors[KEY] = np.full((24, 24), 1e300)
    with pytest.raises(WeightsError, match="NaN or infinity"):
        load(rewrite(tensors))


def test_all_zero_weight_is_reported(tensors, rewrite, caplog):
    """F-50: a tensor of zeros."""
    tensors[KEY][:] = 0
    load(rewrite(tensors))
    assert f"{KEY} in" in caplog.text and "all zero" in caplog.text


def test_quantized_weight(tensors, rewrite):
    """F-53: quantised weights."""
    tensors[KEY] = tensors[KEY].astype(np.int8)
    with pytest.raises(WeightsError, match=r"q_proj.weight is I8 \(quantized"):
        load(rewrite(tensors))


def test_listed_sha256_is_verified(checkpoint, tensors, rewrite):
    """F-51: weights that differ from their listed hash."""
    digest = artifacts.sha256(checkpoint / "model.safetensors")
    (checkpoint / "weights.sha256").write_text(f"{digest}  model.safetensors\n")
    first = load(checkpoint).sha256
    tensors[KEY][0, 0] += 1e-3
    rewrite(tensors)
    with pytest.raises(WeightsError, match=r"model.safetensors differs from weights.sha256"):
        load(checkpoint)
    (checkpoint / "weights.sha256").unlink()
    assert load(checkpoint).sha256 != first


def test_truncated_file(checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="cannot be read"):
        load(checkpoint)


def test_shards_give_the_same_model(checkpoint, tensors):
    """F-54: a shard is missing."""
    pixels = np.random.default_rng(0).standard_normal((1, 32, 32, 3)).astype(np.float32)
    expected = load(checkpoint).encode(pixels)[-1]
    shard(checkpoint, tensors)
    np.testing.assert_array_equal(load(checkpoint).encode(pixels)[-1], expected)
    (checkpoint / "b.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"lacks 1 weight file: b.safetensors"):
        load(checkpoint)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/outside.safetensors", "sub/b.safetensors", "b.bin"])
def test_shard_index_cannot_leave_the_directory(name, checkpoint, tensors):
    """F-54: an index that points elsewhere."""
    shard(checkpoint, tensors, name)
    shutil.copy(checkpoint / "b.safetensors", checkpoint.parent / "outside.safetensors")
    with pytest.raises(WeightsError, match=r"shards must be \.safetensors files in the checkpoint directory"):
        load(checkpoint)


def test_link_out_of_the_directory(checkpoint):
    """F-54: a link that leads elsewhere."""
    path = checkpoint / "model.safetensors"
    path.replace(checkpoint.parent / "outside.safetensors")
    path.symlink_to("../outside.safetensors")
    with pytest.raises(WeightsError, match="leads outside the checkpoint directory"):
        load(checkpoint)


def test_cache_layout_of_the_hub_is_accepted(checkpoint, tmp_path):
    snapshot = tmp_path / "models--x" / "snapshots" / "0123"
    blobs = tmp_path / "models--x" / "blobs"
    snapshot.parent.mkdir(parents=True)
    blobs.mkdir()
    shutil.copytree(checkpoint, snapshot)
    for path in list(snapshot.iterdir()):
        path.replace(blobs / path.name)
        path.symlink_to(f"../../blobs/{path.name}")
    assert load(snapshot).layers == 2


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_git_lfs_pointer(name, checkpoint):
    """F-54: pointers in the place of files."""
    (checkpoint / name).write_text(POINTER)
    with pytest.raises(WeightsError, match=f"{name} is a git-LFS pointer.*git lfs pull"):
        load(checkpoint)


def test_pickled_weights_are_refused(checkpoint):
    """F-55: pickles alone."""
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"Only pytorch_model.bin found: convert to safetensors"):
        load(checkpoint)


def test_missing_directory_and_config(checkpoint, tmp_path):
    with pytest.raises(MissingInputError, match=r"config\.json"):
        load(tmp_path / "nowhere")
    (checkpoint / "config.json").unlink()
    with pytest.raises(MissingInputError, match=r"no config\.json in"):
        load(checkpoint)


VISION = {"hidden_size": 24, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"auto_map": {"AutoModel": "evil.py"}}, "auto_map"),
        ({"_attn_implementation_internal": "someone/kernel"}, "_attn_implementation_internal"),
        ({"quantization_config": {"bits": 4}}, "quantized models are not run"),
        ({"model_type": "siglip"}, "describes a 'siglip' model"),
        ({"projection_dim": -1}, "`projection_dim` must be an integer from 1"),
        ({"vision_config": {**VISION, "num_hidden_layers": 10**9}}, "`num_hidden_layers` .* but is 1000000000"),
        ({"vision_config": {**VISION, "hidden_size": True}}, "`hidden_size`"),
        ({"vision_config": {**VISION, "hidden_size": "24"}}, "`hidden_size`"),
        ({"vision_config": {**VISION, "hidden_size": 25}}, "25 is not a multiple of `num_attention_heads` 3"),
        ({"vision_config": {**VISION, "patch_size": 64}}, "`patch_size` 64 is larger"),
        ({"vision_config": {**VISION, "num_channels": 4}}, "`num_channels` must be 3"),
        ({"vision_config": {**VISION, "hidden_act": "__import__('os')"}}, "`hidden_act` must be one of"),
        ({"vision_config": {**VISION, "layer_norm_eps": -1.0}}, "`layer_norm_eps`"),
        ({"vision_config": [1]}, "`vision_config` must be an object"),
        ({"text_config": {"eos_token_id": [1, 2]}}, "`eos_token_id` must be one token id"),
    ],
)
def test_hostile_config(config, message, rewrite):
    """F-56: sizes, code and types that no model has."""
    with pytest.raises(WeightsError, match=message):
        load(rewrite(**config))


@pytest.mark.parametrize("content", [b"\xff\xfe{", b"[1]", b"{", b"[" * 100_000, b" " * (2 << 20)])
def test_config_that_is_not_json(content, checkpoint):
    """F-56: no JSON, too deep, too large."""
    (checkpoint / "config.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"config\.json"):
        load(checkpoint)
