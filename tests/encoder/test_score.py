from dataclasses import replace

import numpy as np
import pytest

from mine_jax import encoder
from mine_jax.errors import AlignmentError
from mine_jax.statistics import pearson, r2
from mine_jax.types import STATUSES


@pytest.fixture
def scored(make):
    encoders, tokens = make.encoders("query"), make.tokens(20)
    noise = np.random.default_rng(1).standard_normal((20, 5))
    measured = encoder.predict(encoders, tokens) + noise
    ceiling = np.array([0.5, np.nan, 0.0, 0.04, 0.9])
    return encoders, make.split(tokens, measured, voxel_ids=encoders.voxel_ids, ceiling=ceiling)


def test_score(scored):
    """F-27: no normalised score without a ceiling, or with one next to 0."""
    encoders, test = scored
    scores = encoder.score(encoders, test, n_train=77)
    predicted = encoder.predict(encoders, test.tokens)
    np.testing.assert_allclose(scores.r2, r2(test.responses.responses, predicted))
    np.testing.assert_allclose(scores.r, pearson(test.responses.responses, predicted))
    assert (scores.n_train, scores.n_test) == (77, 20) and (scores.status == "ok").all()
    np.testing.assert_array_equal(scores.voxel_ids, encoders.voxel_ids)
    # without a ceiling, or with one too small to divide by, there is no normalised score
    np.testing.assert_array_equal(np.isnan(scores.r2_normalized), [False, True, True, True, False])
    np.testing.assert_allclose(scores.r2_normalized[[0, 4]], scores.r2[[0, 4]] / [0.5, 0.9])
    best = scores.best(2)
    assert best.tolist() == np.argsort(-scores.r2)[:2].tolist()
    assert set(scores.best(5, min_noise_ceiling=0.2)) == {0, 4}


def test_responses_of_other_voxels_are_an_error(scored):
    encoders, test = scored
    some = np.array([1, 3])
    same = replace(test, responses=test.responses.take(some))
    np.testing.assert_allclose(
        encoder.score(encoders.take(some), same).r2, encoder.score(encoders, test).r2[some], rtol=1e-5
    )
    with pytest.raises(AlignmentError, match=r"encoders of 2 voxels, but responses of 5\. Take the same"):
        encoder.score(encoders.take(some), test)
    with pytest.raises(AlignmentError, match=r"number 0 is .* there and .* here"):
        encoder.score(encoders.take(np.array([4, 3, 2, 1, 0])), test)


def test_fewer_than_two_images(scored, make):
    """F-12: one test image."""
    encoders, test = scored
    one = make.split(test.tokens.take_images(np.arange(1)), test.responses.responses[:1], voxel_ids=encoders.voxel_ids)
    scores = encoder.score(encoders, one)
    assert (scores.status == "n_test<2").all() and np.isnan(scores.r2).all() and np.isnan(scores.r).all()
    assert len(scores.best(3)) == 0


def test_voxels_that_were_not_fitted(scored):
    encoders, test = scored
    status = np.array([STATUSES.index(name) for name in ("ok", "constant", "ok", "nonfinite", "diverged")], np.int8)
    test.responses.responses[:, 3] = np.nan
    scores = encoder.score(encoders.replace(status=status), test)
    assert scores.status.tolist() == ["ok", "constant", "ok", "nonfinite", "diverged"]
    np.testing.assert_array_equal(np.isnan(scores.r2), [False, True, False, True, True])
