import jax
import numpy as np
import pytest

from mine_jax.attribution import critical_tokens, find_critical_tokens, integrated_gradients, warning_of_many
from mine_jax.errors import ConfigError
from mine_jax.types import Attributions


def attributions(scores):
    scores = np.asarray(scores, np.float32)
    zeros = np.zeros(scores.shape[:2], np.float32)
    ids = np.tile(np.arange(scores.shape[1]).astype(str), (scores.shape[0], 1))
    return Attributions(np.arange(scores.shape[0]) + 7, ids, scores, zeros, zeros, zeros)


def test_largest_first():
    rng = np.random.default_rng(0)
    given = attributions(rng.standard_normal((3, 4, 20)))
    got = critical_tokens(given, k=5)
    assert got.indices.shape == (3, 4, 5) and got.indices.dtype == np.int32
    for v in range(3):
        for i in range(4):
            expected = sorted(range(20), key=lambda p: -given.scores[v, i, p])[:5]
            assert got.indices[v, i].tolist() == expected
    np.testing.assert_array_equal(got.scores, np.take_along_axis(given.scores, got.indices, -1))
    np.testing.assert_array_equal(got.voxel_ids, [7, 8, 9])


def test_ties_go_to_the_lowest_position():
    """F-62: ties."""
    got = critical_tokens(attributions([[[1, 2, 2, 1, 2]]]), k=4)
    assert got.indices[0, 0].tolist() == [1, 2, 4, 0]


def test_nan_comes_last():
    """F-62: NaN."""
    got = critical_tokens(attributions([[[np.nan, -5, np.nan, -np.inf, 3]]]), k=4)
    assert got.indices[0, 0].tolist() == [4, 1, 3, 0]
    assert np.isnan(got.scores[0, 0, 3:]).all()


@pytest.mark.parametrize(
    ("k", "n_tokens", "text"),
    [
        (50, 64, "50 of 64 image-tokens are critical"),
        (0.75, 8, "6 of 8"),
        (32, 64, ""),
        (0.1, 64, ""),
        (50, 576, ""),
        (64, 64, ""),
    ],
)
def test_where_most_tokens_are_critical_a_smaller_number_is_proposed(k, n_tokens, text):
    warning = warning_of_many(k, n_tokens)
    assert text in warning and bool(warning) is bool(text)
    assert f"set attribution.k to about {n_tokens // 8}" in warning or not text


@pytest.mark.parametrize("k", [5, 6, 50])
def test_all_tokens_are_an_error(k):
    """F-62: more tokens than there are."""
    with pytest.raises(ConfigError, match=f"{k} critical tokens, but an image has 5 image-tokens"):
        critical_tokens(attributions([[[1, 2, 3, 4, 5]]]), k=k)


@pytest.mark.parametrize("kind", ["query_heads", "query_pool", "ridge_mean"])
def test_found_without_all_scores(make, kind):
    """Same indices as from all scores, with padding tokens (all scores 0) and equal tokens among them."""
    encoders, tokens = make.encoders(kind), make.tokens(3, masked=True)
    tokens.tokens[1, 2:6] = tokens.tokens[1, 2]
    tokens.mask[1, 2:6] = True
    if "position" in encoders.per_voxel:
        encoders.per_voxel["position"][:] = 0  # so that equal tokens have equal scores
    options = {"n_steps": 4, "max_steps": 8, "tolerance": 1e-4, "image_chunk": 2}
    attributions = integrated_gradients(encoders, tokens, **options)
    expected = critical_tokens(attributions, k=12)
    got, rest = find_critical_tokens(encoders, tokens, k=12, **options)
    np.testing.assert_array_equal(got.indices, expected.indices)
    np.testing.assert_array_equal(got.scores, expected.scores)
    np.testing.assert_array_equal(got.image_ids, attributions.image_ids)
    for name in ("predicted", "predicted_baseline", "completeness_gap"):
        np.testing.assert_array_equal(getattr(rest, name), getattr(attributions, name))
    assert rest.scores.shape == (5, 3, 0) and got.indices.dtype == np.int32


def test_only_kept_scores_leave_the_device(make, monkeypatch):
    """No array with all P scores of a pair reaches the host."""
    from mine_jax.attribution import blocks

    fetched, fetch = [], blocks.fetched
    monkeypatch.setattr(blocks, "fetched", lambda computed: fetched.append(computed) or fetch(computed))
    find_critical_tokens(make.encoders("query"), make.tokens(3), k=2, n_steps=4, max_steps=4)
    assert fetched and all(value.shape[2:] in ((), (2,)) for computed in fetched for value in jax.tree.leaves(computed))
