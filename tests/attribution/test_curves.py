import dataclasses

import numpy as np

from mine_jax.attribution import extent, left_without, mean_curves, median_faithfulness, relative_curves
from mine_jax.types import Attributions, Faithfulness


def patched():
    """Two voxels with two images, and one whose response does not change; curves fall from h(x) to h(x')."""
    after, before = np.array([[3.0, 5.0], [2.0, 2.0], [1.0, 1.0]]), np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    zeros, ids = np.zeros((3, 2), np.float32), np.array([["a", "b"]] * 3)
    attributions = Attributions(np.arange(3), ids, np.zeros((3, 2, 0), np.float32), after, before, zeros)
    shares = np.array([1.0, 0.25, 0.0])
    down = before[..., None] + (after - before)[..., None] * shares
    up = before[..., None] + (after - before)[..., None] * (1 - shares)
    faithful = np.array([[0.5, 0.7], [np.nan, 0.2], [np.nan, np.nan]], np.float32)
    necessity, sufficiency = ({order: x for order in ("ig", "random", "lowest")} for x in (down, up))
    k_values = np.array([0, 4, 16], np.int32)
    return attributions, Faithfulness(
        faithfulness=faithful,
        k_adaptive=np.ones((3, 2), np.int32),
        k_values=k_values,
        necessity=necessity,
        sufficiency=sufficiency,
    )


def test_curves_are_shares_of_the_change():
    curves = relative_curves(*patched())
    assert list(curves)[:2] == [("necessity", "ig"), ("necessity", "random")]
    np.testing.assert_allclose(curves["necessity", "ig"][:2], [[1, 0.25, 0]] * 2)
    np.testing.assert_allclose(curves["sufficiency", "lowest"][:2], [[0, 0.75, 1]] * 2)
    assert not np.isfinite(curves["necessity", "ig"][2]).any()


def test_means_leave_out_voxels_without_a_change():
    means = mean_curves(*patched(), seed=1)
    assert [(mean.kind, mean.order) for mean in means] == list(relative_curves(*patched()))
    for mean in means:
        assert mean.n_voxels == 2
        assert (mean.low <= mean.mean + 1e-12).all() and (mean.mean <= mean.high + 1e-12).all()
    np.testing.assert_allclose(means[0].mean, [1, 0.25, 0])


def test_numbers_of_a_voxel():
    attributions, faithfulness = patched()
    left = left_without(attributions, faithfulness, k=4)
    assert set(left) == {"ig", "random", "lowest"}
    np.testing.assert_allclose(left["ig"][:2], 0.25)
    np.testing.assert_allclose(median_faithfulness(faithfulness), [0.6, 0.2, np.nan], atol=1e-6)


def test_extent_is_that_of_the_median_image():
    _, faithfulness = patched()
    k = np.array([[1, 1], [-1, 4], [-1, -1]], np.int32) * faithfulness.k_values[-1] // 4
    k[k < 0] = -1
    made = dataclasses.replace(faithfulness, k_adaptive=k)
    assert extent(made).tolist() == ["localised", "distributed", ""]
