"""Where an edit may happen, and what changed there."""

import numpy as np

from mine_jax.validation import regions


def test_token_mask_marks_the_best_cells():
    values = np.array([0.0, 5.0, 1.0, 4.0])
    mask = regions.token_mask(values, (2, 2), (6, 9), share=0.5)
    assert mask.shape == (6, 9) and mask[:3, 5:].all() and mask[3:, 5:].all() and not mask[:, :4].any()
    assert regions.token_mask(np.full(4, np.nan), (2, 2), (4, 4), share=0.01).sum() == 4


def test_change_is_taken_inside_and_outside():
    before, region = np.full((4, 4, 3), 100, np.uint8), np.zeros((4, 4), bool)
    region[:2] = True
    after = before.copy()
    after[:2] += 8
    assert regions.change(before, after, region) == (8, 0)
    assert np.isnan(regions.change(before, after[:3], region)).all()
