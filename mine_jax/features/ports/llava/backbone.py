"""A Hugging Face LLaVA-1.5-style checkpoint -> image-tokens of the decoder and its own lens.

Source: Liu et al. 2023 (arXiv 2310.03744); layout of transformers `LlavaForConditionalGeneration`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jax.sharding import Mesh

from mine_jax.config import LlavaConfig as LlavaSettings
from mine_jax.features.ports.decoder.backbone import DecoderBackbone
from mine_jax.features.ports.layers import is_block_product
from mine_jax.features.ports.llava import config as llava_config
from mine_jax.features.ports.llava.config import LlavaConfig
from mine_jax.features.ports.llava.model import Llava
from mine_jax.features.ports.siglip.backbone import PROCESSOR as SIGLIP_PROCESSOR
from mine_jax.features.ports.siglip.config import SiglipConfig
from mine_jax.features.preprocess import ImageProcessor, read_processor

# Names of three generations of transformers; the first that fits is used.
RENAME = {
    "model.vision_tower.vision_model.": "vision_tower.",
    "model.vision_tower.": "vision_tower.",
    "vision_tower.vision_model.": "vision_tower.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "model.language_model.": "language_model.",
    "language_model.lm_head.": "lm_head.",
    "language_model.model.": "language_model.",
}
UNUSED = ("position_ids", "inv_freq", "vision_tower.post_layernorm.", "vision_tower.head.")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LlavaBackbone(DecoderBackbone):
    """A loaded LLaVA 1.5."""

    rename = RENAME
    network = Llava
    model_type: ClassVar[str] = "llava"

    config: LlavaConfig

    @classmethod
    def read_config(cls, directory: Path, *, grid: tuple[int, int] | None = None) -> LlavaConfig:
        """Reads and checks `config.json`; the grid is that of the tower."""
        del grid
        return llava_config.read_config(directory, model_type=cls.model_type)

    @staticmethod
    def read_images(values: dict[str, Any], config: LlavaConfig) -> ImageProcessor:
        """Returns the preprocessing, of the content of the processor's file."""
        kind = values.get("image_processor_type", "Siglip" if isinstance(config.vision, SiglipConfig) else "CLIP")
        values = {**SIGLIP_PROCESSOR, **values} if str(kind).startswith("Siglip") else values
        return read_processor(values, image_size=config.vision.image_size)

    @staticmethod
    def unused(config: LlavaConfig) -> tuple[str, ...]:
        """Names tensors that may be there and are not read: of the tower, what comes after the last state."""
        late = range(max(config.vision_layers), config.vision.vision.layers)
        return (*UNUSED, *(f"vision_tower.encoder.layers.{n}." for n in late))

    @staticmethod
    def keeps_float32(path: str) -> bool:
        """Tells whether a parameter is float32: norms, and of the tower all but the products of its blocks."""
        return path.endswith("/scale") or (path.startswith("vision_tower/") and not is_block_product(path))

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of the pixels."""
        return self.config.image_shape


def load(
    directory: str | Path,
    *,
    precision: str = "highest",
    mesh: Mesh | None = None,
    prompt: str = LlavaSettings.model_fields["prompt"].default,
    weights: str = "float32",
) -> LlavaBackbone:
    """Loads a LLaVA-1.5 checkpoint directory, see `DecoderBackbone.load`."""
    return LlavaBackbone.load(directory, precision=precision, mesh=mesh, prompt=prompt, weights=weights)
