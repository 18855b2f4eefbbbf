"""Responses judged and standardised block by block, against NumPy on all of them."""

import numpy as np
import pytest

from mine_jax.encoder import targets
from mine_jax.encoder.targets import Targets, survey
from mine_jax.memory.rows import ChosenRows

N, V = 150, 30
TRAIN, VAL = np.flatnonzero(np.arange(N) % 4 != 1), np.flatnonzero(np.arange(N) % 4 == 1)


@pytest.fixture
def responses(tmp_path):
    """Responses in a file; their means are far from zero, so that sums in float32 would be off."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "responses.npy", (1000 + 5 * rng.standard_normal((N, V))).astype(np.float32))
    return np.load(tmp_path / "responses.npy", mmap_mode="r+")


@pytest.mark.parametrize("masked", [False, True])
def test_survey_matches_float64_numpy(responses, monkeypatch, masked):
    monkeypatch.setattr(targets, "COLUMNS", 7)
    responses[5, 2], responses[1, 3], responses[9, 4] = np.nan, np.inf, -np.inf
    responses[: N * 2 // 3, 5], responses[:, 6] = np.nan, 7
    got = survey(ChosenRows(responses, TRAIN), ChosenRows(responses, VAL), masked=masked)
    there = np.where(np.isfinite(responses), responses, np.nan).astype(np.float64)
    usable = np.isfinite(there).sum(0) > N / 2 if masked else np.isfinite(there).all(0)
    np.testing.assert_array_equal(got.is_complete, usable)
    assert usable.sum() == (29 if masked else 26)
    np.testing.assert_allclose(got.mean[usable], np.nanmean(there[TRAIN][:, usable], 0), rtol=1e-13)
    np.testing.assert_allclose(got.spread[usable], np.nanstd(there[TRAIN][:, usable], 0), rtol=1e-11, atol=0)
    assert got.spread[6] == 0


def test_survey_of_a_voxel_does_not_depend_on_others(responses):
    every = survey(responses[TRAIN], responses[VAL], masked=False)
    some = survey(responses[TRAIN][:, 3:5], responses[VAL][:, 3:5], masked=False)
    np.testing.assert_array_equal(np.stack(every)[:, 3:5], np.stack(some))


def made(responses, columns, **options):
    sources = (ChosenRows(responses, TRAIN), ChosenRows(responses, VAL))
    mean, spread = responses[:, columns].mean(0), responses[:, columns].std(0)
    values = responses[np.concatenate([TRAIN, VAL])][:, columns]
    return Targets(sources, columns, voxel_ids=columns * 3, mean=mean, spread=spread), (values - mean) / spread


@pytest.mark.parametrize("columns", [np.arange(V), np.arange(4, 20), np.array([0, 1, 3, 4, 5, 9]), np.array([2, 29])])
def test_slices_are_standardised(responses, columns):
    """Rows of both splits in one slice; columns that are next to each other, or apart."""
    read, expected = made(responses, columns)
    assert read.shape == expected.shape == (N, len(columns))
    for rows in (slice(None), slice(0, 10), slice(100, 130), slice(140, 200)):
        for voxels in (slice(None), slice(1, 2), slice(0, 2)):
            np.testing.assert_array_equal(read[rows, voxels], expected[rows, voxels], strict=True)


@pytest.mark.parametrize("read_bytes", [0, 4 * N * 9, 1 << 28])
def test_columns_are_the_same_however_much_is_read_ahead(responses, read_bytes):
    columns = np.delete(np.arange(V), [3, 11])
    read, expected = made(responses, columns)
    read.read_bytes = read_bytes
    # in halves after the second, as when the memory is exhausted; the last repeats
    for voxels in (
        np.arange(6),
        np.arange(6, 12),
        np.arange(6, 9),
        np.arange(9, 12),
        np.minimum(np.arange(24, 30), 27),
    ):
        train, val = read.columns(voxels)
        np.testing.assert_array_equal(np.concatenate([train, val]), expected[:, voxels], strict=True)
        assert len(train) == len(TRAIN)
    # shares of processes: the last repeats, also where a column between is left out
    for voxels in ([1, 2, 26, 26], [2, 3, 3], [5, 5]):
        some = read.take(np.array(voxels))
        np.testing.assert_array_equal(some[:, :], expected[:, voxels])
        assert some.voxel_ids.tolist() == (columns[voxels] * 3).tolist()
