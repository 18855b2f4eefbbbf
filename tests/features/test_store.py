import json

import ml_dtypes
import numpy as np
import pytest

from mine_jax import artifacts
from mine_jax.errors import CheckpointError, MissingInputError
from mine_jax.features import ShardedTokens, open_store
from mine_jax.features.store import TokenWriter

VALUES = np.random.default_rng(0).standard_normal((10, 4, 3)).astype(np.float32)


def identity(values=VALUES, **changes):
    return {
        "model": "tiny",
        "model_sha256": "ab",
        "layer": 2,
        "dtype": values.dtype.name,
        "precision": "highest",
        "grid": [2, 2],
        "shape": list(values.shape),
        "processor": {"crop": [2, 2]},
        "image_ids": [f"im{i}" for i in range(len(values))],
        "images_sha256": None,
        **changes,
    }


def write(directory, values=VALUES, **changes):
    writer = TokenWriter(directory, identity(values, **changes), shard_images=4, batch_size=2)
    for shard in list(writer.missing):
        writer.write(shard, values[4 * shard : 4 * shard + 4])
    return writer


@pytest.fixture
def sharded():
    return ShardedTokens([VALUES[:4], VALUES[4:8], VALUES[8:]])


@pytest.mark.parametrize(
    "key",
    [
        0,
        -1,
        np.int32(5),
        slice(None),
        slice(2, 9, 3),
        slice(None, None, -1),
        [3, 3, 9, 0],
        np.array([-1, 4]),
        np.array([[1, 2], [8, 7]]),
        np.array([], int),
        np.arange(10) % 3 == 0,
        (slice(3, 6), 1),
        (slice(3, 6), slice(1, 3), [0, 2]),
        ([1, 9], slice(None), 2),
        (2, 3),
        (2, slice(None), 1),
        (..., 0),
        (),
    ],
)
def test_indexes_like_numpy(key, sharded):
    out = sharded[key]
    expected = VALUES[key]
    np.testing.assert_array_equal(out, expected)
    assert out.shape == expected.shape
    assert out.dtype == expected.dtype


def test_looks_like_an_array(sharded):
    assert (sharded.shape, sharded.dtype, sharded.ndim, len(sharded)) == (VALUES.shape, VALUES.dtype, 3, 10)
    assert (sharded.nbytes, sharded.size) == (VALUES.nbytes, VALUES.size)
    np.testing.assert_array_equal(np.asarray(sharded), VALUES)
    assert np.asarray(sharded, np.float16).dtype == np.float16
    np.testing.assert_array_equal(np.stack(list(sharded)), VALUES)
    assert repr(sharded) == "ShardedTokens(float32[10, 4, 3], 3 parts)"


@pytest.mark.parametrize("key", [10, -11, [0, 10], np.ones(9, bool)])
def test_indices_out_of_range_raise(key, sharded):
    with pytest.raises(IndexError):
        sharded[key]


def test_picked_rows():
    rows = np.array([9, 0, 4])
    picked = ShardedTokens([VALUES[:4], VALUES[4:]], rows)
    np.testing.assert_array_equal(np.asarray(picked), VALUES[rows])
    np.testing.assert_array_equal(picked[[2, 0]], VALUES[[4, 9]])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_roundtrip(dtype, tmp_path):
    values = VALUES.astype(dtype)
    write(tmp_path, values)
    tokens = open_store(tmp_path)
    np.testing.assert_array_equal(np.asarray(tokens.tokens), values)
    assert tokens.tokens.dtype == dtype
    assert tokens.image_ids.tolist() == [f"im{i}" for i in range(10)]
    assert (tokens.grid, tokens.layer, tokens.model, tokens.mask) == ((2, 2), 2, "tiny", None)
    np.testing.assert_array_equal(tokens.take_images(np.array([7, 1])).tokens, values[[7, 1]])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["meta.json", *(f"tokens-0000{i}.npy" for i in range(3))]


def test_unfinished_store_is_refused_and_resumed(tmp_path):
    """F-76: a missing shard is no hole."""
    write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "tokens-00001.npy").unlink()
    with pytest.raises(CheckpointError, match=r"lacks 1 of 3 shards, first tokens-00001.npy"):
        open_store(tmp_path)
    assert TokenWriter(tmp_path, identity(), shard_images=99, batch_size=7).missing == [1]
    write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_damaged_shard_is_noticed_and_computed_again(tmp_path, caplog):
    """F-70: one flipped bit."""
    write(tmp_path)
    path = tmp_path / "tokens-00002.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokens-00002.npy differs from the sha256"):
        open_store(tmp_path)
    assert TokenWriter(tmp_path, identity(), shard_images=4, batch_size=2).missing == [2]
    assert "is computed again" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_ids": [f"im{i}" for i in (0, 2, 1, *range(3, 10))]}, r"image ids \(row 1: 'im1' there, 'im2' now\)"),
        ({"image_ids": ["a", "b"], "shape": [2, 4, 3]}, r"image ids \(10 there, 2 now\), shape"),
        ({"model_sha256": "cd"}, r"model weights \(ab there, cd now\)"),
        ({"layer": 1}, r"layer \(2 there, 1 now\)"),
        ({"dtype": "float16"}, "dtype"),
        ({"precision": "default"}, "precision"),
        ({"processor": {"crop": [3, 3]}}, "preprocessing"),
    ],
)
def test_store_of_another_extraction(changes, message, tmp_path):
    """F-47, F-73: other images, model, preprocessing or type."""
    write(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        TokenWriter(tmp_path, identity(**changes), shard_images=4, batch_size=2)


@pytest.mark.parametrize("now", ["34", None])
def test_other_or_unknown_image_contents_are_not_the_same(tmp_path, now):
    write(tmp_path, images_sha256="12")
    write(tmp_path, images_sha256="12")
    with pytest.raises(CheckpointError, match="image contents"):
        write(tmp_path, images_sha256=now)


def test_other_folders(tmp_path):
    with pytest.raises(MissingInputError):
        open_store(tmp_path)
    (tmp_path / "meta.json").write_text(json.dumps({"schema": 1, "type": "Lens"}))
    with pytest.raises(CheckpointError, match="is not a token store"):
        open_store(tmp_path)


def test_shape_in_meta_is_checked(tmp_path):
    write(tmp_path)
    meta = artifacts.read_json(tmp_path / "meta.json")
    artifacts.write_json(tmp_path / "meta.json", {**meta, "shape": [10, 2, 6]})
    with pytest.raises(CheckpointError, match=r"but meta\.json says"):
        open_store(tmp_path)
