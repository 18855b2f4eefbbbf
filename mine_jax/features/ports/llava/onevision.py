"""A Hugging Face LLaVA-OneVision checkpoint -> image-tokens of the decoder and its own lens.

It shows a photo to its decoder whole, in the tower's own resolution, and then once more in crops
("anyres"). Attention is causal and the whole photo comes first, so its tokens are what they are
without the crops. These tokens are read, and are exact; the crops, whose number changes with the
shape of the photo, are not.

Source: Li et al. 2024 (arXiv 2408.03326); layout of transformers `LlavaOnevisionForConditionalGeneration`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from mine_jax.config import LlavaOnevisionConfig as Settings
from mine_jax.features.ports.llava.backbone import LlavaBackbone
from mine_jax.features.ports.llava.config import LlavaConfig
from mine_jax.features.preprocess import ImageProcessor, read_processor


class LlavaOnevisionBackbone(LlavaBackbone):
    """A loaded LLaVA-OneVision."""

    model_type = "llava_onevision"

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
        """Names tensors that may be there and are not read: also what ends rows of crops."""
        return (*LlavaBackbone.unused(config), "image_newline")


def load(
    directory: str | Path,
    *,
    precision: str = "highest",
    mesh: Mesh | None = None,
    prompt: str = Settings.model_fields["prompt"].default,
    weights: str = "float32",
) -> LlavaOnevisionBackbone:
    """Loads a LLaVA-OneVision checkpoint directory, see `DecoderBackbone.load`."""
    return LlavaOnevisionBackbone.load(directory, precision=precision, mesh=mesh, prompt=prompt, weights=weights)
