import dataclasses

import numpy as np
import pytest

from mine_jax.attribution import attribute, attribute_and_patch, critical_tokens, integrated_gradients, patch_tokens


@pytest.mark.parametrize("in_files", [False, True])
def test_matches_the_three_steps(make, monkeypatch, tmp_path, in_files):
    """Voxels a few at a time, with images of their own: same numbers as all at once."""
    encoders, tokens = make.encoders("query_heads"), make.tokens(3)
    image_ids = tokens.image_ids[np.array([[2, 0], [1, 1], [2, 1], [0, 2], [0, 1]])]
    attributions = integrated_gradients(encoders, tokens, image_ids=image_ids, n_steps=8)
    critical = critical_tokens(attributions, k=4)
    faithful = patch_tokens(encoders, tokens, attributions, k=4, n_random=2)
    monkeypatch.setattr(attribute, "HELD_SCORES", 2 * 2 * 16)
    kept, done = np.zeros((5, 2, 16), np.float32), []
    got = attribute_and_patch(
        encoders,
        tokens,
        image_ids=image_ids,
        k=4,
        n_random=2,
        n_steps=8,
        folder=tmp_path if in_files else None,
        keep=lambda voxels, scores: kept.__setitem__(voxels, scores),
        progress=lambda *counts: done.append(counts),
    )
    large = (got[0].predicted, got[1].indices, got[1].image_ids, got[2].necessity["ig"])
    assert all(isinstance(array, np.memmap) is in_files for array in large) and not list(tmp_path.iterdir())
    scale = np.abs(attributions.scores).max()
    np.testing.assert_allclose(kept, attributions.scores, atol=2e-6 * scale)
    np.testing.assert_array_equal(got[1].indices, critical.indices)
    np.testing.assert_array_equal(got[1].image_ids, image_ids)
    np.testing.assert_array_equal(got[2].k_values, faithful.k_values)
    assert got[0].scores.shape == (5, 2, 0) and done[-1] == (10, 10)
    for name in ("predicted", "predicted_baseline", "completeness_gap"):
        np.testing.assert_allclose(getattr(got[0], name), getattr(attributions, name), atol=1e-5)
    for order in ("ig", "random", "lowest"):
        np.testing.assert_allclose(got[2].necessity[order], faithful.necessity[order], atol=1e-5)
    assert {field.name for field in dataclasses.fields(got[2])} == {f.name for f in dataclasses.fields(faithful)}
