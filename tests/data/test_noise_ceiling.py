from dataclasses import replace

import numpy as np
import pytest

from mine_jax.data import noise_ceiling as nc
from mine_jax.errors import DataError
from mine_jax.types import Responses


def test_matches_loop_over_images():
    rng = np.random.default_rng(0)
    image_index = rng.permutation(np.repeat(np.arange(40), rng.integers(1, 5, 40)))
    trials = rng.standard_normal((len(image_index), 6)) * 0.7
    counts = np.bincount(image_index)
    chosen = [i for i in range(40) if counts[i] >= 2]
    noise = np.mean([trials[image_index == i].var(0, ddof=1) for i in chosen], 0)
    expected = np.sqrt(np.maximum(0, 1 - noise)) / np.sqrt(noise)
    np.testing.assert_allclose(nc.ncsnr(trials, image_index), expected, rtol=1e-12)


def test_recovers_a_planted_ceiling():
    rng = np.random.default_rng(1)
    planted = np.array([0.2, 0.5, 0.8])
    noise_variance = 3 * (1 - planted) / planted
    image_index = np.tile(np.arange(4000), 3)
    trials = rng.standard_normal((4000, 3))[image_index] + np.sqrt(noise_variance) * rng.standard_normal((12000, 3))
    trials = (trials - trials.mean(0)) / trials.std(0)
    np.testing.assert_allclose(nc.noise_ceiling(nc.ncsnr(trials, image_index), 3), planted, atol=0.04)


def test_closed_form_of_mixed_repeats():
    """F-10: the actual number of repeats of each image."""
    ratio = np.array([0.0, 0.4, 1.3])
    repeats = np.array([3] * 5 + [2] * 3 + [1] * 2)
    mean_inverse = (5 / 3 + 3 / 2 + 2 / 1) / 10
    np.testing.assert_allclose(nc.noise_ceiling(ratio, repeats), ratio**2 / (ratio**2 + mean_inverse))
    np.testing.assert_allclose(nc.noise_ceiling(ratio, 3), ratio**2 / (ratio**2 + 1 / 3))


def test_extremes():
    assert np.isnan(nc.ncsnr(np.ones((3, 2)), np.arange(3))).all()
    np.testing.assert_array_equal(nc.noise_ceiling(np.array([np.nan, np.inf, 0.0]), 3), [np.nan, 1.0, 0.0])
    with pytest.raises(DataError, match="not be negative"):
        nc.noise_ceiling(np.array([0.1, -0.2]), 3)
    with pytest.raises(DataError, match="numbers >= 1"):
        nc.noise_ceiling(np.array([0.1]), np.array([3, 0]))


def test_ceiling_of_the_test_rows():
    """F-10: the repeats of the test images."""
    ratio = np.array([0.5])
    responses = Responses(
        responses=np.zeros((3, 1), np.float32),
        image_ids=np.array(["a", "b", "c"]),
        n_repeats=np.array([3, 1, 2]),
        voxel_ids=np.arange(1),
        status=np.array(["ok"]),
        ncsnr=ratio,
        noise_ceiling=np.array([np.nan]),
        rois=np.array([""]),
    )
    found = nc.with_noise_ceiling(responses, np.array([1, 2]))
    np.testing.assert_allclose(found.noise_ceiling, 0.25 / (0.25 + 0.75))
    given = replace(responses, ncsnr=np.array([np.nan]), noise_ceiling=np.array([0.3]))
    assert nc.with_noise_ceiling(given, np.array([1, 2])).noise_ceiling == [0.3]


def things_like(rng, *, n_sessions=12, n_train=720, n_test=100, snr=(0.3, 0.6, 1.0)):
    """Trials z-scored within session, their images, and the signal [N, V]; each test image once in every session."""
    n = n_train + n_test
    signal = rng.standard_normal((n, len(snr)))
    train = rng.permutation(n_train).reshape(n_sessions, -1)
    images = [np.concatenate([part, np.arange(n_train, n)]) for part in train]
    parts = []
    for session in images:
        values = 3 * rng.standard_normal() + signal[session] + rng.standard_normal((len(session), len(snr))) / snr
        parts.append((values - values.mean(0)) / values.std(0))
    return np.concatenate(parts), np.concatenate(images), signal


def test_a_perfect_model_reaches_the_ceiling_of_rows_with_other_repeats():
    reached = []
    for seed in range(10):
        trials, index, signal = things_like(np.random.default_rng(seed))
        ratio, test = nc.ncsnr(trials, index), np.arange(720, 820)
        ceiling = nc.noise_ceiling(ratio, np.bincount(index)[test])
        measured = np.stack([trials[index == i].mean(0) for i in test])
        # what a perfect model knows: the signal, up to the scale of z-scores
        predicted = signal[test] * (signal[test] * measured).sum(0) / (signal[test] ** 2).sum(0)
        predicted = predicted + (measured - predicted).mean(0)
        residual, total = ((measured - predicted) ** 2).sum(0), ((measured - measured.mean(0)) ** 2).sum(0)
        reached.append((1 - residual / total) / ceiling)
    np.testing.assert_allclose(np.mean(reached, 0), 1, atol=0.04)
