"""A Hugging Face Qwen2.5-VL checkpoint -> image-tokens of the decoder and its own lens.

The model takes photos of any size: its processor rounds each to a grid of image-tokens, 28 pixels a side.
The tokens of a run lie on one grid, `features.grid`, to which all photos are resized; where that is the grid
that the processor chooses for a photo, the pixels are the processor's. Another grid is another bucket, and
compiled once.

Rotary positions of the decoder are three: time, row and column. All text has the same three; an image-token
has the time of the image's start, and row and column counted from there.

Source: Bai et al. 2025 (arXiv 2502.13923); layout of transformers `Qwen2_5_VLForConditionalGeneration`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from mine_jax.config import QwenVlConfig as Settings
from mine_jax.errors import ConfigError, WeightsError
from mine_jax.features.ports.decoder.backbone import DecoderBackbone
from mine_jax.features.ports.layers import is_block_product
from mine_jax.features.ports.qwen_vl import config as qwen_config
from mine_jax.features.ports.qwen_vl.config import QwenConfig
from mine_jax.features.ports.qwen_vl.model import Qwen
from mine_jax.features.preprocess import ImageProcessor, read_resizing, say_if_stretched

GRID: tuple[int, int] = Settings.model_fields["grid"].default
# Names of three generations of transformers; the first that fits is used.
RENAME = {
    "model.visual.": "visual.",
    "model.language_model.": "language_model.",
    "language_model.model.": "language_model.",
    "model.": "language_model.",
}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class QwenBackbone(DecoderBackbone):
    """A loaded Qwen2.5-VL on one grid of image-tokens."""

    rename = RENAME
    image_text = "<|vision_start|><|image_pad|><|vision_end|>"
    network = Qwen

    config: QwenConfig

    @classmethod
    def read_config(cls, directory: Path, *, grid: tuple[int, int] | None = None) -> QwenConfig:
        """Reads and checks `config.json`."""
        return qwen_config.read_config(directory, grid=grid or GRID)

    @staticmethod
    def read_images(values: dict[str, Any], config: QwenConfig) -> ImageProcessor:
        """Returns the preprocessing for the grid.

        Raises:
            ConfigError: if the grid has fewer or more pixels than the processor makes.
            WeightsError: if the processor has patches of another size.
        """
        tower = config.vision
        sizes = (values.get("patch_size", tower.patch_size), values.get("merge_size", tower.merge))
        if sizes != (tower.patch_size, tower.merge):
            raise WeightsError(
                f"preprocessor_config.json makes patches of {sizes[0]} pixels, {sizes[1]} to an image-token's side, "
                f"but the tower takes {tower.patch_size} and {tower.merge}. Is it of another checkpoint?"
            )
        least, most = pixel_range(values)
        shape = (config.rows * tower.token_size, config.columns * tower.token_size)
        if values and not least <= shape[0] * shape[1] <= most:
            raise ConfigError(
                f"`features.grid` {list(config.grid)} asks for {shape[0]} x {shape[1]} pixels, but the processor of "
                f"this checkpoint makes {least} to {most} of them: {least / tower.token_size**2:.0f} to "
                f"{most / tower.token_size**2:.0f} image-tokens."
            )
        return read_resizing(values, shape=shape)

    @staticmethod
    def unused(config: QwenConfig) -> tuple[str, ...]:
        """Names tensors that may be there and are not read."""
        del config
        return ("inv_freq",)

    @staticmethod
    def keeps_float32(path: str) -> bool:
        """Tells whether a parameter is float32: norms, and what makes patches of pixels."""
        in_tower = path.startswith("visual/") and not path.startswith("visual/merger/")
        return path.endswith("/scale") or (in_tower and not is_block_product(path))

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of the pixels."""
        size = self.config.vision.token_size
        return (self.config.rows * size, self.config.columns * size)

    def preprocess(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns pixels [B, rows, columns, 3] float32 of uint8 [height, width, 3] images, all on one grid."""
        for shape in {image.shape[:2] for image in images}:
            say_if_stretched(shape, self.config.grid)
        return super().preprocess(images)

    def positions(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Returns rotary positions [3, B, T] of time, row and column, of ids [B, T]; 0 for padding."""
        rows, columns = self.config.grid
        places = np.indices((rows, columns)).reshape(2, -1)
        positions = np.zeros((3, *ids.shape), np.int32)
        for row, (values, real) in enumerate(zip(ids, mask, strict=True)):
            n_real, start = int(real.sum()), int((values[real] == self.config.image_token).argmax())
            after = start + rows * columns
            own = np.broadcast_to(np.arange(n_real), (3, n_real)).copy()
            own[:, start:after] = start + np.concatenate([np.zeros((1, rows * columns), int), places])
            own[:, after:] += max(rows, columns) - rows * columns
            positions[:, row, real] = own
        return positions


def load(
    directory: str | Path,
    *,
    precision: str = "highest",
    mesh: Mesh | None = None,
    prompt: str = Settings.model_fields["prompt"].default,
    weights: str = "float32",
    grid: tuple[int, int] = GRID,
) -> QwenBackbone:
    """Loads a Qwen2.5-VL checkpoint directory, see `DecoderBackbone.load`; `grid` has rows and columns of tokens."""
    return QwenBackbone.load(directory, precision=precision, mesh=mesh, prompt=prompt, weights=weights, grid=grid)


def pixel_range(values: dict[str, Any]) -> tuple[int, int]:
    """Returns the fewest and the most pixels that a processor makes of a photo, of the content of its file."""
    size = values.get("size") or {}
    least = values.get("min_pixels") or size.get("shortest_edge") or 56 * 56
    most = values.get("max_pixels") or size.get("longest_edge") or 28 * 28 * 1280
    return int(least), int(most)
