"""The figure of a study: both files, one panel less where there is one size."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mine_jax import report


def voxels(sizes):
    rng = np.random.default_rng(0)
    parts = []
    for model in ("phantom", "phantom-captions"):
        for seed in range(2):
            for size in sizes:
                kind = rng.choice(["concept", "place", "noise", "lowlevel"], 80)
                q = {f"q_{rung}": rng.uniform(size=80) for rung in ("predicted", "reliable", "words")}
                point = {"model": model, "seed": seed, "n_images": size, "n_test": size // 5}
                ceiling = rng.uniform(0.05, 0.7, 80)
                parts.append(
                    pd.DataFrame({**point, **q, "kind": kind, "true_ceiling": ceiling, "explained": ceiling > 0.4})
                )
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize(("sizes", "panels"), [((1000,), 2), ((500, 1000), 3)])
def test_the_figure_has_a_panel_for_each_question(tmp_path, sizes, panels):
    path = report.write_study_figure(tmp_path, voxels(sizes))
    with Image.open(path) as image:
        width, height = image.size
    assert width / height == pytest.approx(panels, rel=0.01)
    assert "<svg" in (tmp_path / "study.svg").read_text(encoding="utf-8")
