"""A Hugging Face LLaVA-OneVision checkpoint -> image-tokens of the decoder and its own lens.

It shows a photo to its decoder whole, in the tower's own resolution, and then once more in crops
("anyres"), whose rows of patches are joined and end with a newline. Attention is causal and the
whole photo comes first, so its tokens are what they are without the crops, and are read alone
unless a grid is asked for.

With a grid the image-tokens are the patches of the crops, which come after the whole photo. The
model chooses rows and columns of crops by the photo's shape and fills what is left with black; a
run has one grid, and photos are resized to it. Where that is the model's choice for a photo of
the grid's shape, pixels and tokens are those of transformers: 2 x 2 crops for square photos of 385 to
768 pixels, such as those of NSD.

Source: Li et al. 2024 (arXiv 2408.03326); layout of transformers `LlavaOnevisionForConditionalGeneration`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from mine_jax.config import LlavaOnevisionConfig as Settings
from mine_jax.features.ports.llava import config as llava_config
from mine_jax.features.ports.llava.backbone import RENAME as LLAVA_RENAME
from mine_jax.features.ports.llava.backbone import LlavaBackbone
from mine_jax.features.ports.llava.config import LlavaConfig
from mine_jax.features.preprocess import ImageProcessor, read_processor, say_if_stretched, stack

RENAME = {**LLAVA_RENAME, "model.image_newline": "image_newline"}


class LlavaOnevisionBackbone(LlavaBackbone):
    """A loaded LLaVA-OneVision."""

    model_type = "llava_onevision"
    rename = RENAME

    @classmethod
    def read_config(cls, directory: Path, *, grid: tuple[int, int] | None = None) -> LlavaConfig:
        """Reads and checks `config.json`; the grid is that of the crops."""
        return llava_config.read_config(directory, model_type=cls.model_type, grid=grid)

    def preprocess(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns pixels [B, rows, columns, 3] float32 of uint8 [height, width, 3] images, crops below the whole."""
        crops, side = self.config.crops, self.config.vision.image_size
        whole = stack(self.image_processor, list(images), shape=(side, side))
        if crops is None:
            return whole
        for shape in {image.shape[:2] for image in images}:
            say_if_stretched(shape, self.grid)
        rows, columns = crops
        shape = (rows * side, columns * side)
        large = stack(replace(self.image_processor, resize=shape, crop=None), list(images), shape=shape)
        views = large.reshape(-1, rows, side, columns, side, 3).swapaxes(2, 3)
        return np.concatenate([whole, views.reshape(len(images), -1, side, 3)], 1)

    @staticmethod
    def read_images(values: dict[str, Any], config: LlavaConfig) -> ImageProcessor:
        """Returns the preprocessing of the whole photo."""
        size = config.vision.image_size
        # crops have this size too: it is the tower's
        return read_processor(
            {"do_center_crop": False, "size": {"height": size, "width": size}, **values}, image_size=size
        )

    @staticmethod
    def unused(config: LlavaConfig) -> tuple[str, ...]:
        """Names tensors that may be there and are not read: without crops, also what ends their rows."""
        return (*LlavaBackbone.unused(config), *(("image_newline",) * (config.crops is None)))


def load(
    directory: str | Path,
    *,
    precision: str = "highest",
    mesh: Mesh | None = None,
    prompt: str = Settings.model_fields["prompt"].default,
    weights: str = "float32",
    grid: tuple[int, int] | None = None,
) -> LlavaOnevisionBackbone:
    """Loads a LLaVA-OneVision checkpoint directory, see `DecoderBackbone.load`.

    Without `grid` the image-tokens are those of the whole photo; with it, those of all its crops.
    """
    return LlavaOnevisionBackbone.load(
        directory, precision=precision, mesh=mesh, prompt=prompt, weights=weights, grid=grid
    )
