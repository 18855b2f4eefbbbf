import dataclasses

import ml_dtypes
import numpy as np
import pytest

from mine_jax import data
from mine_jax.data import splits
from mine_jax.errors import AlignmentError, ConfigError, DataError
from mine_jax.types import ImageTokens, Responses, Stimuli


def make_responses(n=40, v=3):
    rng = np.random.default_rng(0)
    nan = np.full(v, np.nan)
    return Responses(
        responses=rng.standard_normal((n, v)).astype(np.float32),
        image_ids=np.array([f"im{i}" for i in range(n)]),
        n_repeats=np.ones(n, int),
        voxel_ids=np.arange(v),
        status=np.full(v, "ok"),
        ncsnr=nan,
        noise_ceiling=nan,
        rois=np.full(v, ""),
    )


def make_stimuli(responses, images=None, shared=None):
    n = len(responses.image_ids)
    images = np.random.default_rng(1).integers(0, 256, (n, 16, 16, 3), np.uint8) if images is None else images
    row_of = {image_id: row for row, image_id in enumerate(responses.image_ids)}
    shared = np.arange(n) % 4 == 0 if shared is None else shared
    return Stimuli(responses.image_ids, lambda ids: [images[row_of[i]] for i in ids], np.full(n, ""), shared)


def make_tokens(responses):
    n = len(responses.image_ids)
    tokens = np.arange(n * 8, dtype=np.float32).reshape(n, 2, 4)
    return ImageTokens(tokens, responses.image_ids, mask=np.arange(n * 2).reshape(n, 2) % 3 > 0)


@pytest.fixture
def responses():
    return make_responses()


def test_shares(responses):
    found = data.assign_splits(responses, make_stimuli(responses), test=0.25, val=0.2, seed=3)
    assert [(found == name).sum() for name in ("test", "val", "train")] == [10, 6, 24]


def test_row_order_changes_nothing(responses):
    found = data.assign_splits(responses, make_stimuli(responses), test=0.25, val=0.2, seed=3)
    order = np.random.default_rng(5).permutation(40)
    shuffled = responses.take_images(order)
    again = data.assign_splits(shuffled, make_stimuli(shuffled), test=0.25, val=0.2, seed=3)
    np.testing.assert_array_equal(again, found[order])
    other = data.assign_splits(responses, make_stimuli(responses), test=0.25, val=0.2, seed=4)
    assert (other != found).any()


def test_shared_images_are_the_test(responses):
    found = data.assign_splits(responses, make_stimuli(responses), test="shared", val=0.1, seed=0)
    np.testing.assert_array_equal(found == "test", np.arange(40) % 4 == 0)
    with pytest.raises(DataError, match="Give a share"):
        data.assign_splits(
            responses, make_stimuli(responses, shared=np.zeros(40, bool)), test="shared", val=0.1, seed=0
        )


def test_ids_from_a_file(responses, tmp_path):
    (tmp_path / "test.txt").write_text("im3\nim30\nim3\n")
    found = data.assign_splits(responses, make_stimuli(responses), test=str(tmp_path / "test.txt"), val=0.1, seed=0)
    assert np.flatnonzero(found == "test").tolist() == [3, 30]
    (tmp_path / "test.txt").write_text("im3\nim77\n")
    with pytest.raises(AlignmentError, match="1 test images without responses, first im77"):
        data.assign_splits(responses, make_stimuli(responses), test=str(tmp_path / "test.txt"), val=0.1, seed=0)


def test_empty_splits_are_errors(responses):
    """F-12: splits without images."""
    for share in (0, 0.99):
        with pytest.raises(DataError, match="at least 2 for training"):
            data.assign_splits(responses, make_stimuli(responses), test=share, val=0.1, seed=0)
    with pytest.raises(ConfigError, match="`val`"):
        data.assign_splits(responses, make_stimuli(responses), test=0.5, val=1.5, seed=0)
    assert (data.assign_splits(responses, make_stimuli(responses), test=0.01, val=0.0, seed=0) == "test").sum() == 1


def test_align_joins_by_id(responses):
    """F-03: tokens in another order."""
    tokens = make_tokens(responses)
    split = data.align(responses, tokens)
    assert split.tokens.tokens is tokens.tokens
    order = np.random.default_rng(2).permutation(40)
    shuffled = data.align(responses, tokens.take_images(order))
    np.testing.assert_array_equal(shuffled.tokens.tokens, tokens.tokens)
    np.testing.assert_array_equal(shuffled.tokens.mask, tokens.mask)
    np.testing.assert_array_equal(shuffled.tokens.image_ids, responses.image_ids)


def test_align_half_precision(responses):
    tokens = make_tokens(responses)
    half = dataclasses.replace(tokens, tokens=tokens.tokens.astype(ml_dtypes.bfloat16)).take_images(
        np.arange(39, -1, -1)
    )
    assert data.align(responses, half).tokens.tokens.dtype == ml_dtypes.bfloat16


def test_missing_tokens(responses, caplog):
    """F-05: an error that lists the first five, or dropped and counted."""
    tokens = make_tokens(responses).take_images(np.arange(7, 40))
    with pytest.raises(AlignmentError, match=r"7 of 40 images .* first im0, im1, im2, im3, im4"):
        data.align(responses, tokens)
    split = data.align(responses, tokens, on_missing="drop")
    np.testing.assert_array_equal(split.responses.responses, responses.responses[7:])
    assert "7 images without tokens are left out" in caplog.text
    with pytest.raises(AlignmentError, match="40 of 40"):
        data.align(
            responses,
            dataclasses.replace(make_tokens(responses), image_ids=np.arange(40).astype(str)),
            on_missing="drop",
        )


def test_extra_tokens_are_left_out(responses):
    """F-05: images without responses."""
    split = data.align(responses.take_images(np.arange(10)), make_tokens(responses))
    assert split.tokens.tokens.shape[0] == 10


def test_repeated_token_ids(responses):
    """F-06: equal duplicates are one image, others an error."""
    tokens = make_tokens(responses).take_images(np.append(np.arange(40), 5))
    np.testing.assert_array_equal(data.align(responses, tokens).tokens.tokens, make_tokens(responses).tokens)
    tokens.tokens[40] += 1
    with pytest.raises(AlignmentError, match="im5 has different tokens in rows 5 and 40"):
        data.align(responses, tokens)
    with pytest.raises(AlignmentError, match="41 image ids are given"):
        data.align(responses, dataclasses.replace(tokens, tokens=tokens.tokens[:40]))


def test_split_rows(responses):
    split = data.align(responses, make_tokens(responses))
    assigned = data.assign_splits(responses, make_stimuli(responses), test=0.25, val=0.2, seed=3)
    part = data.split_rows(split, assigned, names=("train", "val"))
    np.testing.assert_array_equal(part.responses.image_ids, responses.image_ids[assigned != "test"])
    np.testing.assert_array_equal(part.tokens.image_ids, part.responses.image_ids)
    assert part.name == "train+val"
    with pytest.raises(AlignmentError, match="Assign splits after `align`"):
        data.split_rows(split, assigned[1:], names="test")


@pytest.mark.parametrize(
    ("n_images", "n_test", "text"),
    [(2000, 100, "only 100 test images"), (400, 120, "only 400 images"), (501, 120, ""), (2000, 101, "")],
)
def test_few_images_or_test_images_are_warned_of(n_images, n_test, text):
    warning = splits.warning_of_few(np.repeat(["test", "train"], [n_test, n_images - n_test]))
    assert text in warning and bool(warning) is bool(text)
