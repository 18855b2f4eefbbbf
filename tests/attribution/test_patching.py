import dataclasses

import numpy as np
import pytest

from mine_jax import encoder
from mine_jax.attribution import critical_tokens, integrated_gradients, patch_tokens
from mine_jax.attribution.patching import ORDERS, curve_points

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
    np.testing.assert_allclose(got.faithfulness[clear], shares[..., 4][clear], rtol=1e-3, atol=1e-4)
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
