"""Removal by a smooth fill."""

import numpy as np
import pytest

from mine_jax.validation import FillEditor, Instruction
from mine_jax.validation.makers.fill import fill
from mine_jax.validation.makers.protocols import NotApplicableError


def gradient(height=40, width=36):
    rows, columns = np.indices((height, width))
    return np.stack([rows * 4, columns * 5, rows + columns], 2).astype(np.uint8)


def box(shape, top=12, left=10, side=9):
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_a_smooth_image_comes_back():
    image = gradient()
    mask = box(image.shape[:2])
    damaged = np.where(mask[..., None], 255, image).astype(np.uint8)
    restored = fill(damaged, mask)
    assert np.abs(restored[mask].astype(int) - image[mask]).mean() < 6
    far = ~box(image.shape[:2], 9, 7, 15)
    np.testing.assert_array_equal(restored[far], image[far])


def test_one_pixel_and_the_whole_image():
    image = gradient(5, 7)
    assert fill(image, np.zeros((5, 7), bool)).tolist() == image.tolist()
    assert np.ptp(fill(image, np.ones((5, 7), bool)).reshape(-1, 3), axis=0).max() == 0


def test_editor_removes_only():
    image, mask = gradient(), box((40, 36))
    remove = Instruction("remove the cat", action="remove", words=("cat",))
    noop = Instruction("keep", action="noop")
    edited = FillEditor().edit([image, image], [remove, noop], seeds=[0, 0], masks=[mask, mask])
    assert (edited[0][mask] != image[mask]).any() and (edited[1] == image).all()
    with pytest.raises(NotApplicableError, match="insert"):
        FillEditor().edit([image], [Instruction("add cat")], seeds=[0], masks=[mask])
    with pytest.raises(NotApplicableError, match="mask"):
        FillEditor().edit([image], [remove], seeds=[0])
