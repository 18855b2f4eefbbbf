"""Voxels are picked area by area, best first."""

import pandas as pd

from mine_jax.report import reading


def test_spread_over_areas():
    voxels = pd.DataFrame(
        {"voxel_id": range(6), "rois": ["B", "B", "B", "A", "A;B", ""], "r2": [0.9, 0.8, 0.7, 0.1, 0.95, 0.2]}
    )
    picked = reading.spread_over_areas(voxels, limit=4)
    assert picked[["voxel_id", "area"]].values.tolist() == [[4, "A"], [0, "B"], [5, "no area"], [3, "A"]]
    assert len(reading.spread_over_areas(voxels, limit=99)) == 6
    assert len(reading.spread_over_areas(voxels, limit=99, per_area=1)) == 3


def test_true_in_any_spelling():
    assert (
        reading.is_true(pd.Series([True, "true", "True", 1, "no", None, float("nan"), "", 0])).tolist()
        == [True] * 4 + [False] * 5
    )
