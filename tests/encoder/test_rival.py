"""The low-level rival: it predicts what follows one group of statistics, and nothing of decoys or hidden things."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from mine_jax import encoder
from mine_jax.errors import AlignmentError
from mine_jax.statistics import r2
from mine_jax.types import ImageTokens

GROUPS = {"first": slice(0, 2), "second": slice(2, 6), "all": slice(None)}


@pytest.fixture
def data(make):
    """Statistics of 700 images, and splits whose voxels follow the first group, the second, both, nothing."""
    rng = np.random.default_rng(0)
    statistics = make.tokens(700, grid=(4, 4), width=6, seed=1)
    flat = statistics.tokens

    def signal(columns):
        part = flat[:, :, columns].reshape(700, -1)
        values = part @ rng.standard_normal(part.shape[1])
        return values / values.std()

    first, second = signal(slice(0, 2)), signal(slice(2, 6))
    responses = np.stack([first, second, (first + second) / np.sqrt(2), np.zeros(700)], 1)
    responses += 0.5 * rng.standard_normal(responses.shape)
    tokens = ImageTokens(np.zeros((700, 1, 1), np.float32), statistics.image_ids)
    rows = {"train": slice(0, 400), "val": slice(400, 450), "test": slice(450, 700)}
    whole = make.split(tokens, responses)
    splits = {}
    for name, chosen in rows.items():
        index = np.arange(700)[chosen]
        splits[name] = replace(
            whole, tokens=tokens.take_images(index), responses=whole.responses.take_images(index), name=name
        )
    shuffled = rng.permutation(700)
    return splits, statistics.take_images(shuffled)


def fit(splits, statistics):
    return encoder.fit_rival(splits, statistics, groups=GROUPS, key=jax.random.key(0))


def test_what_follows_the_statistics_is_predicted_and_nothing_else(data):
    splits, statistics = data
    rival = fit(splits, statistics)
    reached = r2(splits["test"].responses.responses, rival.predicted)
    # signal 1, noise 0.25: at most 0.8; 96 statistics and 450 images
    assert (reached[:3] > 0.7).all() and reached[3] < 0.02
    np.testing.assert_allclose(rival.r2_selection[:3], reached[:3], atol=0.08)


def test_the_group_that_a_voxel_follows_beats_all_statistics_together(data):
    splits, statistics = data
    rival = fit(splits, statistics)
    whole = encoder.fit_rival(splits, statistics, groups={"all": slice(None)}, key=jax.random.key(0))
    measured = splits["test"].responses.responses
    assert r2(measured, rival.predicted)[0] > r2(measured, whole.predicted)[0]
    np.testing.assert_allclose(rival.predicted[:, 2], whole.predicted[:, 2], atol=1e-6)


def test_decoys_are_not_predicted(data):
    splits, statistics = data
    batch = {name: encoder.add_decoys(split, 15) for name, split in splits.items()}
    rival = fit(batch, statistics)
    reached = r2(np.asarray(batch["test"].responses.responses), rival.predicted)
    assert np.median(reached[4:]) < 0.02 and reached[4:].max() < 0.1
    np.testing.assert_allclose(rival.predicted[:, :4], fit(splits, statistics).predicted, atol=1e-4)


def test_images_without_statistics_are_named(data):
    splits, statistics = data
    with pytest.raises(AlignmentError, match="1 images have no low-level statistics"):
        fit(splits, statistics.take_images(statistics.image_ids != "17"))


def test_pictures_that_all_have_the_same_statistics_predict_nothing(data):
    """One colour each, or all alike: no statistic varies, and the rival is the mean."""
    splits, statistics = data
    rival = fit(splits, replace(statistics, tokens=np.full_like(statistics.tokens, 0.3)))
    assert np.ptp(rival.predicted, 0).max() == 0 and np.isfinite(rival.predicted).all()
    # the variance of training and validation images together is not quite that of the training images
    assert (np.abs(rival.r2_selection) < 0.05).all()
