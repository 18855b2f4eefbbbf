import json

import numpy as np
import pytest

from mine_jax.errors import DataError, WeightsError
from mine_jax.features.ports.clip.backbone import load
from mine_jax.features.preprocess import ImageProcessor, read_processor


def photo(height, width, seed=0):
    """A smooth image with noise, so that filters and rounding matter."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 7), np.cos(columns / 5), np.sin((rows + columns) / 11)], -1)
    return np.clip(127 + 100 * waves + 30 * rng.standard_normal((height, width, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("values", "side"),
    [
        ({}, 224),
        ({"size": {"shortest_edge": 33}, "crop_size": {"height": 33, "width": 33}}, 33),
        ({"size": {"shortest_edge": 40}, "crop_size": 33, "resample": 2}, 33),
        # a crop larger than the resized image is padded
        ({"size": {"shortest_edge": 20}, "crop_size": {"height": 33, "width": 33}}, 33),
        ({"size": {"height": 24, "width": 24}, "do_center_crop": False, "image_mean": [0.5] * 3}, 24),
        ({"size": 24, "crop_size": 24, "do_normalize": False, "rescale_factor": 1 / 127}, 24),
    ],
)
@pytest.mark.parametrize("shape", [(224, 224), (425, 425), (31, 90), (97, 40), (10, 12)])
def test_matches_transformers(values, side, shape):
    """F-45: the pixels of Pillow, whatever else is installed."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    image = photo(*shape)
    expected = CLIPImageProcessorPil(**values)(image, return_tensors="np", input_data_format="channels_last")
    ours = read_processor(values, image_size=side)(image)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours.transpose(2, 0, 1), expected["pixel_values"][0])


def test_nested_processor_config(checkpoint):
    values = json.loads((checkpoint / "preprocessor_config.json").read_text())
    expected = load(checkpoint).processor
    (checkpoint / "preprocessor_config.json").unlink()
    (checkpoint / "processor_config.json").write_text(json.dumps({"image_processor": values}))
    assert load(checkpoint).processor == expected


@pytest.mark.parametrize("nested", [None, {}, {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.3] * 3}])
def test_a_nested_processor_comes_before_the_file_of_earlier_releases(checkpoint, nested):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    older = json.loads((checkpoint / "preprocessor_config.json").read_text())
    both = {"processor_class": "CLIPProcessor"} | ({} if nested is None else {"image_processor": older | nested})
    (checkpoint / "processor_config.json").write_text(json.dumps(both))
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(older | {"image_mean": [0.4] * 3}))
    expected = CLIPImageProcessorPil.from_pretrained(checkpoint)
    np.testing.assert_allclose(load(checkpoint).processor["mean"], expected.image_mean)
    np.testing.assert_allclose(load(checkpoint).processor["std"], expected.image_std)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (photo(32, 32) / 255.0, "must be uint8"),
        (photo(32, 32).transpose(2, 0, 1), "must be uint8 .* but is uint8"),
        (photo(32, 32)[..., 0], "must be uint8"),
        (np.zeros((32, 32, 4), np.uint8), "must be uint8"),
        (photo(1, 1), "at least 8 pixels"),
        (photo(8, 401), "aspect of at most 50"),
        ("photo.png", "must be uint8"),
    ],
)
def test_unusable_images(image, message, checkpoint):
    """F-42, F-43: floats, channels first, other channels, too small, too long."""
    with pytest.raises(DataError, match=f"image 1 of the batch: .*{message}"):
        load(checkpoint).preprocess([photo(32, 32), image])


def test_image_that_does_not_become_square():
    values = {"size": {"shortest_edge": 24}, "do_center_crop": False}
    processor = read_processor(values, image_size=24)
    assert processor(photo(24, 48)).shape == (24, 48, 3)
    from mine_jax.features.preprocess import stack

    with pytest.raises(DataError, match="its preprocessor does not crop"):
        stack(processor, [photo(24, 48)], shape=(24, 24))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop_size": 99}, r"images of \(99, 99\) pixels, but the model takes 32"),
        ({"size": {"longest_edge": 32}}, "shortest_edge"),
        ({"size": 10**9}, "at most 4096"),
        ({"resample": 9}, "`resample`"),
        ({"image_std": [0, 1, 1]}, "`image_std` must be positive"),
        ({"image_mean": "x"}, "`image_mean`"),
        ({"rescale_factor": 0}, "`rescale_factor`"),
    ],
)
def test_unusable_processor(values, message):
    with pytest.raises(WeightsError, match=message):
        read_processor(values, image_size=32)


def test_processor_is_plain_values():
    """F-45: the backend is recorded."""
    assert json.loads(json.dumps(ImageProcessor().to_dict()))["backend"] == "pil"
