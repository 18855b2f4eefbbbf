"""uint8 photos -> normalized pixels, as a checkpoint's PIL processor makes them.

Resize, center crop, rescale, normalize, in numpy and Pillow only: pixels do not depend
on whether torchvision is installed.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import PIL.Image

from mine_jax.errors import DataError, WeightsError

_log = logging.getLogger("mine_jax")

# Source: openai/CLIP, clip.py `_transform`.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
MIN_SIDE = 8
# Above it the center crop would keep less than 2 % of the picture.
MAX_ASPECT = 50
MAX_SIZE = 4096


@dataclass(frozen=True)
class ImageProcessor:
    """How a checkpoint wants its pixels.

    Attributes:
        square: color that first fills the image to a square, or None.
        resize: shortest edge (one number) or rows and columns; None for no resizing.
        resample: Pillow's number of the filter; 3 is bicubic.
        crop: rows and columns of the center crop, or None.
        rescale: factor on the pixel values, or None.
        mean: per channel, or None for no normalization.
        std: per channel.
    """

    square: tuple[int, int, int] | None = None
    resize: int | tuple[int, int] | None = 224
    resample: int = 3
    crop: tuple[int, int] | None = (224, 224)
    rescale: float | None = 1 / 255
    mean: tuple[float, float, float] | None = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns pixels [rows, columns, 3] float32 of one uint8 [h, w, 3] image.

        Raises:
            DataError: for another dtype or layout, a side below 8 pixels, or an aspect above 50.
        """
        _check_image(image)
        if self.square is not None:
            image = _fill_to_square(image, self.square)
        if self.resize is not None:
            rows, columns = self._resized(image.shape[0], image.shape[1])
            filter_ = PIL.Image.Resampling(self.resample)
            image = np.asarray(PIL.Image.fromarray(image).resize((columns, rows), resample=filter_))
        if self.crop is not None:
            image = _center_crop(image, *self.crop)
        pixels = image.astype(np.float32)
        if self.rescale is not None:
            pixels = (image.astype(np.float64) * self.rescale).astype(np.float32)
        if self.mean is not None:
            pixels = (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return pixels

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for a `meta.json`, with the name of the backend."""
        return {"backend": "pil", **asdict(self)}

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if not isinstance(self.resize, int):
            assert self.resize is not None
            return self.resize
        longest = int(self.resize * max(height, width) / min(height, width))
        return (longest, self.resize) if width <= height else (self.resize, longest)


def read_processor(values: dict[str, Any], *, image_size: int | tuple[int, int]) -> ImageProcessor:
    """Reads a `preprocessor_config.json`.

    Args:
        values: the content; {} gives CLIP's defaults at the model's image size.
        image_size: side of the square images that the model takes, or rows and columns.

    Returns:
        The processor.

    Raises:
        WeightsError: for a size, filter or factor that cannot be honored.
    """
    resize = crop = None
    rows, columns = (image_size, image_size) if isinstance(image_size, int) else image_size
    if values.get("do_resize", True):
        numbers = _size(values.get("size", rows))
        resize = numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
    if values.get("do_center_crop", True):
        numbers = _size(values.get("crop_size", rows))
        crop = (numbers[0], numbers[-1])
    resample = values.get("resample", 3)
    if resample not in range(6):
        raise WeightsError(f"preprocessor_config.json: `resample` must be Pillow's 0 to 5, but is {resample!r}.")
    rescale = values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else None
    mean = _triple(values, "image_mean", CLIP_MEAN) if values.get("do_normalize", True) else None
    std = _triple(values, "image_std", CLIP_STD)
    if rescale is not None and (isinstance(rescale, bool) or not isinstance(rescale, (int, float)) or not rescale > 0):
        raise WeightsError(f"preprocessor_config.json: `rescale_factor` must be positive, but is {rescale!r}.")
    if min(std) <= 0:
        raise WeightsError(f"preprocessor_config.json: `image_std` must be positive, but is {std}.")
    square = None
    # only this processor fills to a square before it resizes; others ignore the key
    if values.get("do_pad", False) and str(values.get("image_processor_type")).startswith("LlavaImageProcessor"):
        red, green, blue = _triple(values, "image_mean", CLIP_MEAN)
        square = (int(255 * red), int(255 * green), int(255 * blue))
    shape = crop if crop is not None else resize
    if shape != (rows, columns) and (shape, shape) != (rows, columns):
        raise WeightsError(
            f"preprocessor_config.json gives images of {shape} pixels, but the model takes {rows} x {columns}. "
            "Is it the preprocessor of another checkpoint?"
        )
    return ImageProcessor(square, resize, int(resample), crop, rescale, mean, std)


def read_resizing(values: dict[str, Any], *, shape: tuple[int, int]) -> ImageProcessor:
    """Reads a `preprocessor_config.json` but for its sizes: whole photos are resized to one shape, none is cropped.

    Args:
        values: the content.
        shape: rows and columns of pixels.

    Returns:
        The processor.

    Raises:
        WeightsError: if it does not resize, or for a filter or factor that cannot be honored.
    """
    sizes = {"size": {"height": shape[0], "width": shape[1]}, "do_center_crop": False}
    return read_processor({**values, **sizes}, image_size=shape)


def stack(processor: ImageProcessor, images: list[np.ndarray], *, shape: tuple[int, int]) -> np.ndarray:
    """Returns the pixels [B, rows, columns, 3] float32 of a list of images; `shape` has their rows and columns.

    Raises:
        DataError: naming the position of the first image that does not fit.
    """
    pixels = np.empty((len(images), *shape, 3), np.float32)
    for position, image in enumerate(images):
        try:
            result = processor(image)
        except DataError as error:
            raise DataError(f"image {position} of the batch: {error}") from error
        if result.shape != pixels.shape[1:]:
            raise DataError(
                f"image {position} of the batch becomes {result.shape[:2]} pixels, but the model takes "
                f"{shape[0]} x {shape[1]}: its preprocessor does not crop. Make the images square."
            )
        pixels[position] = result
    return pixels


@functools.cache
def say_if_stretched(shape: tuple[int, int], grid: tuple[int, int]) -> None:
    """Warns once of photos whose shape is not that of the grid, within a token."""
    stretch = (shape[1] / shape[0]) / (grid[1] / grid[0])
    if not 0.9 <= stretch <= 1.1:
        _log.warning(
            "photos of %d x %d pixels are stretched to %d x %d image-tokens, see `features.grid`",
            *shape,
            *grid,
        )


def _check_image(image: Any) -> None:
    shape = getattr(image, "shape", None)
    dtype = getattr(image, "dtype", None)
    if dtype != np.uint8 or shape is None or len(shape) != 3 or shape[2] != 3:
        raise DataError(
            f"an image must be uint8 [height, width, 3] in RGB order, but is {dtype} {shape}. "
            "Already normalized or channels-first pixels are not accepted."
        )
    if min(shape[:2]) < MIN_SIDE or max(shape[:2]) > MAX_ASPECT * min(shape[:2]):
        raise DataError(
            f"an image must have sides of at least {MIN_SIDE} pixels and an aspect of at most {MAX_ASPECT}, "
            f"but has {shape[0]} x {shape[1]}. Is it channels-first, or a strip?"
        )


def _fill_to_square(image: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Puts [h, w, 3] in the middle of a square of one color."""
    height, width = image.shape[:2]
    side = max(height, width)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = color
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


def _center_crop(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Crops [h, w, 3] around the center; pads with black where the image is smaller."""
    for axis, wanted in ((0, rows), (1, columns)):
        length = image.shape[axis]
        if length >= wanted:
            start = (length - wanted) // 2
            image = image[start : start + wanted] if axis == 0 else image[:, start : start + wanted]
        else:
            # as transformers: the crop starts at floor((length - wanted) / 2), the extra row goes before
            before = -((length - wanted) // 2)
            padding = [(0, 0)] * 3
            padding[axis] = (before, wanted - length - before)
            image = np.pad(image, padding)
    return image


def _size(value: Any) -> tuple[int, ...]:
    if isinstance(value, dict) and set(value) >= {"height", "width"}:
        numbers = (value["height"], value["width"])
    elif isinstance(value, dict) and set(value) == {"shortest_edge"}:
        numbers = (value["shortest_edge"],)
    else:
        numbers = (value,)
    if not all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= MAX_SIZE for n in numbers):
        raise WeightsError(
            "preprocessor_config.json: `size` and `crop_size` must be a number, a shortest_edge, or height and width "
            f"of at most {MAX_SIZE}, but one is {value!r}."
        )
    return numbers


def _triple(values: dict[str, Any], key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    value = values.get(key, default)
    numbers = value if isinstance(value, (list, tuple)) else [value] * 3
    if len(numbers) != 3 or not all(isinstance(n, (int, float)) and abs(n) < 1e6 for n in numbers):
        raise WeightsError(f"preprocessor_config.json: `{key}` must be three numbers, but is {value!r}.")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])
