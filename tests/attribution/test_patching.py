import dataclasses

import numpy as np
import pytest

from mine_jax import encoder
from mine_jax.attribution import (
    attribute_and_patch,
    critical_tokens,
    faithfulness_of_halves,
    find_critical_tokens,
    integrated_gradients,
    patch_tokens,
)
from mine_jax.attribution.patching import ORDERS, area_over_random, curve_points
from mine_jax.errors import ConfigError

KINDS = ("query_pool", "query_heads", "query_linear", "query_linear_pool", "ridge_mean", "ridge_grid")


@pytest.fixture(params=KINDS)
def patched(request, make):
    """Encoders, tokens, attributions and their patching; image 3 is the baseline itself."""
    encoders, tokens = make.encoders(request.param), make.tokens(4)
    tokens.tokens[3] = encoders.baseline
    attributions = integrated_gradients(encoders, tokens)
    return encoders, tokens, attributions, patch_tokens(encoders, tokens, attributions, k=5, n_random=2)


def repredict(encoders, tokens, from_image):
    """Predictions [V, I] with tokens [V, I, P] taken from the image where True, else from the baseline."""
    out = np.empty(from_image.shape[:2])
    for v in range(len(out)):
        states = np.where(from_image[v][..., None], tokens.tokens, encoders.baseline)
        changed = dataclasses.replace(tokens, tokens=states.astype(np.float32))
        out[v] = encoder.predict(encoders.take(np.array([v])), changed)[:, 0]
    return out


def test_matches_predictions_of_patched_tokens(patched):
    encoders, tokens, attributions, got = patched
    order = np.argsort(-attributions.scores, axis=-1, kind="stable")
    rank = np.argsort(order, axis=-1)
    scale = np.abs(attributions.predicted).max()
    for c, k in enumerate(got.k_values):
        for name, chosen in (("ig", rank < k), ("lowest", 15 - rank < k)):
            necessity, sufficiency = got.necessity[name][..., c], got.sufficiency[name][..., c]
            np.testing.assert_allclose(necessity, repredict(encoders, tokens, ~chosen), atol=5e-6 * scale)
            np.testing.assert_allclose(sufficiency, repredict(encoders, tokens, chosen), atol=5e-6 * scale)


def test_ends_of_the_curves(patched):
    _, _, attributions, got = patched
    assert got.k_values[0] == 0 and got.k_values[-1] == 16 and 5 in got.k_values
    for order in ORDERS:
        for curve, first, last in (
            (got.necessity, attributions.predicted, attributions.predicted_baseline),
            (got.sufficiency, attributions.predicted_baseline, attributions.predicted),
        ):
            np.testing.assert_allclose(curve[order][..., 0], first, atol=1e-4)
            np.testing.assert_allclose(curve[order][..., -1], last, atol=1e-4)


def random_shares(encoders, tokens, attributions, i):
    """Shares [V, I, P] that the first 1..P tokens of a random order restore."""
    rng = np.random.default_rng(0)
    rank = np.broadcast_to([rng.permutation(16) for _ in range(i + 1)][-1], attributions.scores.shape)
    change = attributions.predicted - attributions.predicted_baseline + 1e-30
    kept = [repredict(encoders, tokens, rank < k) for k in range(1, 17)]
    return np.stack([(one - attributions.predicted_baseline) / change for one in kept], -1)


def area(ours, random, k_values):
    """The definition in words, by loops: mean over k of what is restored, against the mean of random orders."""
    k = k_values[1:]
    weights = np.zeros(len(k))
    for left, right in zip(range(len(k) - 1), range(1, len(k)), strict=True):
        weights[[left, right]] += (k[right] - k[left]) / 2 / (k[-1] - k[0])
    restored = [(np.clip(one[..., k - 1], 0, 1) * weights).sum(-1) for one in (ours, *random)]
    chance = np.mean(restored[1:], 0)
    return (restored[0] - chance) / (1 - chance)


def test_area_of_curves_that_are_known():
    k_values = curve_points(64, 8)
    k = k_values / 64
    at_once = np.where(k > 0, 1.0, 0.0)
    random = np.stack([k, k])
    assert area_over_random(at_once, random, k_values) == pytest.approx(1)
    assert area_over_random(k, random, k_values) == pytest.approx(0, abs=1e-6)
    # overshooting to twice the response restores it no less
    assert area_over_random(2 * at_once, random, k_values) == pytest.approx(1)
    lowest = np.where(k < 1, 0.0, 1.0)
    assert area_over_random(lowest, random, k_values) < -0.5
    assert np.isnan(area_over_random(np.full(len(k), np.nan), random, k_values))


def test_orders_that_say_nothing_have_no_area():
    """Random "attributions" of tokens that add up: about 0 over many pairs, whatever K is."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((4000, 64)) + 0.5
    values /= values.sum(1, keepdims=True)
    for k in (2, 8, 50):
        k_values = curve_points(64, k)

        def restored(order, k_values=k_values):
            sums = np.cumsum(np.take_along_axis(values, order, 1), 1)
            return np.concatenate([np.zeros((len(values), 1)), sums], 1)[:, k_values]

        orders = [rng.permuted(np.tile(np.arange(64), (len(values), 1)), axis=1) for _ in range(6)]
        random = np.stack([restored(order) for order in orders[1:]], 1)
        noise = area_over_random(restored(orders[0]), random, k_values)
        assert abs(noise.mean()) < 0.02 and (noise > 0.5).mean() < 0.02


@pytest.mark.parametrize(("k", "expected"), [(5, 5), (0.1, 2), (0.5, 8), (0.01, 1)])
def test_k_is_a_number_or_a_share(make, k, expected):
    encoders, tokens = make.encoders("query"), make.tokens(2)
    attributions = integrated_gradients(encoders, tokens)
    assert critical_tokens(attributions, k=k).indices.shape[-1] == expected
    assert expected in patch_tokens(encoders, tokens, attributions, k=k, n_random=1).k_values


@pytest.mark.parametrize("k", [16, 50, 0.99])
def test_k_must_leave_a_token_out(make, k):
    encoders, tokens = make.encoders("query"), make.tokens(2)
    attributions = integrated_gradients(encoders, tokens)
    for what in (
        lambda: patch_tokens(encoders, tokens, attributions, k=k),
        lambda: attribute_and_patch(encoders, tokens, k=k),
        lambda: find_critical_tokens(encoders, tokens, k=k),
        lambda: critical_tokens(attributions, k=k),
    ):
        with pytest.raises(ConfigError, match=r"critical tokens, but an image has 16 image-tokens"):
            what()


def test_faithfulness_and_adaptive_k(patched):
    encoders, tokens, attributions, got = patched
    rank = np.argsort(np.argsort(-attributions.scores, axis=-1, kind="stable"), axis=-1)
    change = attributions.predicted - attributions.predicted_baseline
    shares = np.stack(
        [
            (repredict(encoders, tokens, rank < k) - attributions.predicted_baseline) / (change + 1e-30)
            for k in range(1, 17)
        ],
        -1,
    )
    known = np.arange(4) < 3
    assert np.isnan(got.faithfulness[:, ~known]).all() and (got.k_adaptive[:, ~known] == -1).all()
    # a pair whose response hardly moves has no faithfulness
    spread = np.ptp(np.concatenate([attributions.predicted, attributions.predicted_baseline], 1), axis=1)
    clear = np.abs(change) > 0.021 * spread[:, None]
    clear[:, ~known] = False
    expected = area(shares, [random_shares(encoders, tokens, attributions, i) for i in range(2)], got.k_values)
    np.testing.assert_allclose(got.faithfulness[clear], expected[clear], rtol=2e-3, atol=2e-4)
    for share, k in zip(shares[clear], got.k_adaptive[clear], strict=True):
        assert share[k - 1] >= 0.9 - 1e-4 and (share[: k - 1] < 0.9 + 1e-4).all()


def test_critical_tokens_are_the_first_of_the_curve(patched):
    encoders, tokens, attributions, got = patched
    critical = critical_tokens(attributions, k=5)
    chosen = np.zeros(attributions.scores.shape, bool)
    np.put_along_axis(chosen, critical.indices, True, -1)
    at_k = np.flatnonzero(got.k_values == 5)[0]
    expected = repredict(encoders, tokens, chosen)
    np.testing.assert_allclose(got.sufficiency["ig"][..., at_k], expected, atol=5e-6 * np.abs(expected).max())


def test_masked_tokens_do_not_matter(make):
    encoders, tokens = make.encoders("query_heads"), make.tokens(3, masked=True)
    attributions = integrated_gradients(encoders, tokens)
    got = patch_tokens(encoders, tokens, attributions, k=5)
    for curve in (*got.necessity.values(), *got.sufficiency.values()):
        assert np.isfinite(curve).all()
    np.testing.assert_allclose(got.necessity["random"][..., -1], attributions.predicted_baseline, atol=1e-4)


@pytest.mark.parametrize(("voxel_chunk", "image_chunk"), [(1, 1), (2, 3)])
def test_chunking_changes_nothing(make, voxel_chunk, image_chunk):
    encoders, tokens = make.encoders("query"), make.tokens(4)
    rows = np.array([[3, 1], [0, 2], [1, 0], [2, 2], [0, 3]])
    attributions = integrated_gradients(encoders, tokens, image_ids=tokens.image_ids[rows])
    expected = patch_tokens(encoders, tokens, attributions, k=3)
    got = patch_tokens(encoders, tokens, attributions, k=3, voxel_chunk=voxel_chunk, image_chunk=image_chunk)
    np.testing.assert_allclose(got.faithfulness, expected.faithfulness, atol=1e-4)
    for order in ORDERS:
        np.testing.assert_allclose(got.necessity[order], expected.necessity[order], atol=1e-5)
        np.testing.assert_allclose(got.sufficiency[order], expected.sufficiency[order], atol=1e-5)


def test_random_orders_follow_the_seed(make):
    encoders, tokens = make.encoders("query"), make.tokens(2)
    attributions = integrated_gradients(encoders, tokens)
    a, b, c = (patch_tokens(encoders, tokens, attributions, k=3, n_random=1, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.sufficiency["random"], b.sufficiency["random"])
    assert (a.sufficiency["random"] != c.sufficiency["random"]).any()
    np.testing.assert_array_equal(a.sufficiency["ig"], c.sufficiency["ig"])


@pytest.mark.parametrize(("n_tokens", "k"), [(1, 1), (3, 2), (196, 50), (16, 16)])
def test_curve_points(n_tokens, k):
    points = curve_points(n_tokens, k)
    assert points[0] == 0 and points[-1] == n_tokens and k in points and 1 in points
    assert (np.diff(points) > 0).all()


@pytest.mark.parametrize("gain", [1.0, 100.0])
def test_sums_match_predictions_when_attention_is_sharp(make, gain):
    """With logits hundreds apart, exponentials under one bound would be 0 / 0; softmax per point is taken."""
    encoders, tokens = make.encoders("query"), make.tokens(2)
    encoders = encoders.replace(per_voxel=encoders.per_voxel | {"query": gain * encoders.per_voxel["query"]})
    attributions = integrated_gradients(encoders, tokens, n_steps=4, max_steps=4)
    got = patch_tokens(encoders, tokens, attributions, k=5, n_random=1)
    rank = np.argsort(np.argsort(-attributions.scores, axis=-1, kind="stable"), axis=-1)
    scale = np.abs(attributions.predicted).max()
    for c, k in enumerate(got.k_values):
        for order, chosen in (("ig", rank < k), ("lowest", 15 - rank < k)):
            expected = repredict(encoders, tokens, ~chosen)
            # logits of several hundreds round to 3e-5, and so do exponentials of their differences
            np.testing.assert_allclose(got.necessity[order][..., c], expected, atol=5e-6 * gain * scale)


@pytest.mark.parametrize("gain", [1.0, 100.0])
def test_equal_scores_are_patched_in_the_order_of_the_tokens(make, gain):
    """By sums and by one softmax per point alike; NaN comes last."""
    encoders, tokens = make.encoders("query_heads"), make.tokens(3)
    encoders = encoders.replace(per_voxel=encoders.per_voxel | {"query": gain * encoders.per_voxel["query"]})
    attributions = integrated_gradients(encoders, tokens, n_steps=4, max_steps=4)
    scores = np.round(np.random.default_rng(0).random(attributions.scores.shape) * 2).astype(np.float32)
    scores[..., 3] = np.nan
    got = patch_tokens(encoders, tokens, dataclasses.replace(attributions, scores=scores), k=5, n_random=1)
    places = np.array([np.lexsort((np.arange(16), -np.nan_to_num(row, nan=-1))) for row in scores.reshape(-1, 16)])
    rank = np.argsort(places, axis=1).reshape(scores.shape)
    scale = np.abs(attributions.predicted).max()
    for c, k in enumerate(got.k_values):
        expected = repredict(encoders, tokens, rank < k)
        np.testing.assert_allclose(got.sufficiency["ig"][..., c], expected, atol=5e-6 * gain * scale)


def test_halves_that_share_nothing_are_not_faithful(make):
    """The same encoders as two halves reach their own faithfulness; unrelated ones reach none."""
    encoders, tokens = make.encoders("query", n_voxels=60), make.tokens(60)
    ids = tokens.image_ids[encoder.top_images(encoders, tokens, n=8)]
    same = faithfulness_of_halves((encoders, encoders), tokens, image_ids=ids, k=4)
    own = attribute_and_patch(encoders, tokens, image_ids=ids, k=4)[2].faithfulness
    np.testing.assert_allclose(same, np.nanmedian(own, axis=1), atol=1e-5)
    rng = np.random.default_rng(1)
    query, readout = (rng.standard_normal(encoders.per_voxel[name].shape) for name in ("query", "readout"))
    other = encoders.replace(
        per_voxel=encoders.per_voxel | {"query": np.float32(query), "readout": np.float32(readout)}
    )
    crossed = faithfulness_of_halves((encoders, other), tokens, image_ids=ids, k=4)
    assert np.median(same) > 0.5 and abs(np.median(crossed)) < 0.15
    np.testing.assert_allclose(
        faithfulness_of_halves((encoders, other), tokens, image_ids=ids, k=4, voxel_chunk=13), crossed, atol=1e-4
    )
