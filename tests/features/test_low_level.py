"""Low-level statistics: gratings have their frequency and orientation, windows their contrast at any size."""

import numpy as np
import PIL.Image
import pytest

from mine_jax.features import LOW_LEVEL_GROUPS, low_level, low_level_statistics
from mine_jax.types import Stimuli

N_WINDOWS = low_level.GRID[0] * low_level.GRID[1]


def statistics(*images):
    """Statistics [N, P, D] of uint8 images."""
    ids = np.arange(len(images)).astype(str)
    blank = np.full(len(images), "")
    stimuli = Stimuli(ids, lambda wanted: [images[int(i)] for i in wanted], blank, np.zeros(len(images), bool))
    made = low_level_statistics(stimuli)
    assert list(made.image_ids) == list(ids) and made.grid == low_level.GRID
    return made.tokens


def grating(cycles, angle, *, side=96, contrast=0.5):
    """Grey grating whose luminance changes along `angle` (0: from left to right)."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    wave = np.sin(2 * np.pi * cycles * (x * np.cos(angle) + y * np.sin(angle)))
    return np.repeat(np.rint(127.5 * (1 + contrast * wave)).astype(np.uint8)[..., None], 3, 2)


def noise(seed, *, side=96):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return np.asarray(PIL.Image.fromarray(small).resize((side, side), PIL.Image.Resampling.BICUBIC))


def test_a_grating_has_most_energy_at_its_frequency_and_orientation():
    cases = [(f, o) for f in range(4) for o in range(4)]
    images = [grating((3, 6, 12, 24)[f], o * np.pi / 4) for f, o in cases]
    energy = statistics(*images)[..., LOW_LEVEL_GROUPS["energy"]].mean(1)
    assert list(energy.argmax(1)) == [4 * f + o for f, o in cases]
    # the amplitude of the wave, as luminance from 0 to 1; three cycles are short of what the widest filters span
    np.testing.assert_allclose(energy.max(1)[4:], 0.25, rtol=0.1)


def test_a_flat_image_has_its_color_and_nothing_else():
    flat = np.broadcast_to(np.array([200, 100, 50], np.uint8), (80, 120, 3))
    found = statistics(flat)[0]
    red, green, blue = np.array([200, 100, 50]) / 255
    expected = [0.299 * red + 0.587 * green + 0.114 * blue, red - green, blue - (red + green) / 2]
    np.testing.assert_allclose(found[:, :3], np.broadcast_to(expected, (N_WINDOWS, 3)), atol=1e-4)
    np.testing.assert_allclose(np.delete(found, [0, 1, 2, 3, 6, 7], 1), 0, atol=2e-3)
    np.testing.assert_allclose(found[:, 6:8], np.abs(found[:, 1:3]), atol=1e-3)


@pytest.mark.parametrize("window", [0, 1, 2])
def test_contrast_is_the_weighted_deviation_in_a_gaussian_window(window):
    image = noise(1)
    found = statistics(image)[0][:, LOW_LEVEL_GROUPS["contrast"]][:, window]
    luminance = (image / 255.0) @ np.array([0.299, 0.587, 0.114])
    sigma, centre = (1 / 16, 1 / 10, 1 / 6)[window], (np.arange(8) + 0.5) / 8
    y, x = (np.mgrid[:96, :96] + 0.5) / 96
    for i in (0, 19, 63):
        weights = np.exp(-((y - centre[i // 8]) ** 2 + (x - centre[i % 8]) ** 2) / (2 * sigma**2))
        weights /= weights.sum()
        mean = (weights * luminance).sum()
        assert found[i] == pytest.approx(np.sqrt((weights * (luminance - mean) ** 2).sum()), abs=1e-4)


def test_statistics_are_local():
    left = np.full((96, 96, 3), 128, np.uint8)
    left[:, :32] = grating(12, 0)[:, :32]
    energy = statistics(left)[0][:, LOW_LEVEL_GROUPS["energy"]].sum(1).reshape(8, 8)
    assert energy[:, :2].min() > 20 * energy[:, 5:].max()


def test_larger_images_have_the_same_statistics():
    small, large = statistics(grating(6, np.pi / 4), grating(6, np.pi / 4, side=384))
    np.testing.assert_allclose(large, small, atol=0.02)


def test_images_keep_their_order_over_batches():
    images = [noise(seed) for seed in range(19)]
    together = statistics(*images)
    for i in (0, 15, 16, 18):
        np.testing.assert_allclose(together[i], statistics(images[i])[0], atol=1e-5)
