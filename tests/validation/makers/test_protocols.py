"""What counts as a usable image."""

import numpy as np
import pytest
from PIL import Image

from mine_jax.validation.makers.protocols import Instruction, Picture, check_picture

PHOTO = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
FLOATS = PHOTO / 255.0


@pytest.mark.parametrize(
    "answer",
    [PHOTO, FLOATS, FLOATS.astype(np.float32), np.moveaxis(PHOTO, 2, 0), Image.fromarray(PHOTO), Picture(PHOTO)],
    ids=["uint8", "float64", "float32", "channels first", "pil", "picture"],
)
def test_every_form_becomes_the_same_pixels(answer):
    """F-88: channels first, floats."""
    picture = check_picture(answer)
    assert picture.status == "ok" and not picture.refit
    np.testing.assert_array_equal(picture.pixels, PHOTO)


def test_alpha_is_dropped():
    answer = np.concatenate([PHOTO, np.full((20, 24, 1), 255, np.uint8)], 2)
    np.testing.assert_array_equal(check_picture(answer).pixels, PHOTO)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (None, "failed"),
        ("no image", "failed"),
        (np.zeros((4, 4)), "failed"),
        (np.zeros((0, 4, 3)), "failed"),
        (np.zeros((5, 5, 7)), "failed"),
        (np.zeros((20, 24, 3), np.uint8), "black"),
        (np.full((20, 24, 3), 77, np.uint8), "black"),
        (np.where(FLOATS > 0.9, np.nan, FLOATS), "nonfinite"),
        (np.where(FLOATS > 0.9, np.inf, FLOATS), "nonfinite"),
        (Picture(PHOTO, "flagged"), "flagged"),
        (Picture(None), "failed"),
    ],
)
def test_bad_images_are_named(answer, status):
    """F-88: nothing, black, NaN, flagged."""
    assert check_picture(answer).status == status


def test_a_torch_tensor_counts():
    torch = pytest.importorskip("torch")
    answer = torch.from_numpy(np.moveaxis(FLOATS, 2, 0).copy())
    np.testing.assert_array_equal(check_picture(answer).pixels, PHOTO)


def test_small_difference_in_size_is_fitted_and_recorded():
    """F-88: another size."""
    picture = check_picture(PHOTO[:16, :], size=(20, 24))
    assert picture.status == "ok" and picture.refit and picture.pixels.shape == (20, 24, 3)


def test_large_difference_in_size_is_not():
    assert check_picture(PHOTO, size=(64, 64)).status == "wrong_size"
    assert check_picture(PHOTO, before=np.zeros((64, 64, 3), np.uint8)).status == "wrong_size"


def test_unchanged_edit_is_named_unless_it_may_stay():
    """F-89: the same image."""
    assert check_picture(PHOTO, before=PHOTO).status == "unchanged"
    assert check_picture(PHOTO, before=PHOTO, may_stay=True).status == "ok"
    changed = PHOTO.copy()
    changed[:4, :4] = 255 - changed[:4, :4]
    assert check_picture(changed, before=PHOTO).status == "ok"


def test_instruction_is_a_string_with_parts():
    instruction = Instruction("add cat", words=["cat"], image_id="7", strength=0.5)
    assert instruction == "add cat" and instruction.words == ("cat",) and instruction.strength == 0.5
