"""A Hugging Face NaFlex checkpoint of SigLIP 2 -> image-tokens and a word lens.

The model takes a photo on a grid of its own shape, with at most so many patches. The tokens of a run lie on
one grid, `features.grid`, to which all photos are resized; where that is the grid that the processor chooses
for a photo, the pixels are the processor's. Pooling, text tower and lens are those of SigLIP.

Source: Tschannen et al. 2025 (arXiv 2502.14786), section 2.4.2; layout of transformers `Siglip2Model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from mine_jax.config import SiglipNaflexConfig as Settings
from mine_jax.errors import WeightsError
from mine_jax.features.ports.siglip.backbone import PROCESSOR as SIGLIP_PROCESSOR
from mine_jax.features.ports.siglip.backbone import SiglipBackbone
from mine_jax.features.ports.siglip_naflex import config as naflex_config
from mine_jax.features.ports.siglip_naflex.config import NaflexConfig
from mine_jax.features.ports.siglip_naflex.model import Naflex
from mine_jax.features.preprocess import ImageProcessor, read_resizing, say_if_stretched

GRID: tuple[int, int] = Settings.model_fields["grid"].default
# Defaults of transformers' Siglip2ImageProcessor; 2 is bilinear.
PROCESSOR = {**SIGLIP_PROCESSOR, "resample": 2}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class NaflexBackbone(SiglipBackbone):
    """A loaded NaFlex model on one grid of image-tokens."""

    network = Naflex
    processor_defaults = PROCESSOR

    config: NaflexConfig

    @staticmethod
    def read_config(directory: Path, *, grid: tuple[int, int] | None = None) -> NaflexConfig:
        """Reads and checks `config.json`."""
        return naflex_config.read_config(directory, grid=grid or GRID)

    @staticmethod
    def read_images(values: dict[str, Any], config: NaflexConfig) -> ImageProcessor:
        """Returns the preprocessing for the grid.

        Raises:
            WeightsError: if the processor has patches of another size.
        """
        size = values.get("patch_size", config.patch_size)
        if size != config.patch_size:
            raise WeightsError(
                f"preprocessor_config.json makes patches of {size} pixels, but the tower takes {config.patch_size}. "
                "Is it of another checkpoint?"
            )
        return read_resizing(values, shape=config.image_shape)

    def preprocess(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns pixels [B, rows, columns, 3] float32 of uint8 [height, width, 3] images, all on one grid."""
        for shape in {image.shape[:2] for image in images}:
            say_if_stretched(shape, self.grid)
        return super().preprocess(images)


def load(
    directory: str | Path,
    *,
    precision: str = "highest",
    mesh: Mesh | None = None,
    weights: str = "float32",
    grid: tuple[int, int] = GRID,
) -> NaflexBackbone:
    """Loads a NaFlex checkpoint directory, see `TwoTowerBackbone.load`; `grid` has rows and columns of patches."""
    return NaflexBackbone.load(directory, precision=precision, mesh=mesh, weights=weights, grid=grid)
