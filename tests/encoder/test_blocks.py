"""Predictions block by block are those of all at once."""

import dataclasses

import numpy as np
import pytest

from mine_jax import encoder, sharding
from mine_jax.encoder import blocks


@pytest.fixture(params=["query", "ridge_mean"])
def case(request, make):
    encoders, tokens = make.encoders(request.param, n_voxels=7), make.tokens(11)
    # equal images have equal predictions, in blocks of their own
    states = tokens.tokens[[0, 1, 2, 3, 4, 0, 6, 7, 1, 9, 0]]
    tokens = dataclasses.replace(tokens, tokens=states)
    return encoders, tokens, encoder.predict(encoders, tokens)


@pytest.mark.parametrize("block_bytes", [1, 4 * 11 * 3, 1 << 26])
def test_blocks_of_voxels_change_nothing(case, block_bytes, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    encoders, tokens, expected = case
    done, got = [], np.full_like(expected, np.nan)
    for voxels, predicted in blocks.predict_blocks(encoders, tokens, progress=lambda *counts: done.append(counts)):
        got[:, voxels] = predicted
    np.testing.assert_allclose(got, expected, atol=1e-6 * np.abs(expected).max())
    assert done[-1][0] == done[-1][1] and done == sorted(done)


@pytest.mark.parametrize(
    ("n", "options"),
    [
        (1, {}),
        (4, {"image_chunk": 3}),
        (4, {"mesh": True}),
        (11, {"voxel_chunk": 2}),
        (50, {"image_chunk": 3}),
        (50, {"mesh": True}),
    ],
    ids=str,
)
def test_top_images_are_those_of_a_stable_sort(case, n, options, monkeypatch):
    monkeypatch.setattr(blocks, "VOXELS_RANKED", 3)
    encoders, tokens, predicted = case
    options = options | {"mesh": sharding.mesh()} if "mesh" in options else options
    allowed = np.arange(11) != 4
    for given, use in ((None, np.ones(11, bool)), (allowed, allowed)):
        expected = np.argsort(-np.where(use[:, None], predicted, -np.inf), axis=0, kind="stable")[: min(n, use.sum())]
        got = encoder.top_images(encoders, tokens, n=n, allowed=given, **options)
        np.testing.assert_array_equal(got, expected.T)


def test_predictions_that_are_no_numbers_come_last(case):
    encoders, tokens, _ = case
    tokens.tokens[3] = np.nan
    allowed = np.isin(np.arange(11), [3, 4, 6])
    got = encoder.top_images(encoders, tokens, n=3, allowed=allowed)
    assert (got[:, 2] == 3).all() and (np.sort(got, 1) == [3, 4, 6]).all()
