"""A dino.txt checkpoint -> image-tokens and a word lens, in flax.

dino.txt is DINOv2 with registers, frozen, and what was trained on captions: blocks on top of it and a text tower. A
text vector has two halves. The first was trained against the class token, the second against the mean of the patches,
so a patch is compared with the second: the lens is the original's own map of a patch to words.

Layers count on from the blocks of DINOv2 to those of the head, before which its states are normed. Words are read in
the last layer; the layers of DINOv2 alone end before the head.

Weights are published as pickles, which no port reads: `ports/README.md` says how to convert them once.

Source: Jose et al. 2024 (arXiv 2412.16334); Oquab et al. 2023 (arXiv 2304.07193); Darcet et al. 2023 (arXiv
2309.16588); layout of facebookresearch/dinov2, `hub/dinotxt.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mine_jax.config import DinoTxtConfig as Settings
from mine_jax.errors import WeightsError
from mine_jax.features.ports.config import Tower, Towers
from mine_jax.features.ports.dinotxt import config as dinotxt_config
from mine_jax.features.ports.dinotxt.config import DinoTxtConfig
from mine_jax.features.ports.dinotxt.model import DinoTxt
from mine_jax.features.ports.text import token_ids
from mine_jax.features.ports.tower import TwoTowerBackbone
from mine_jax.features.preprocess import ImageProcessor, read_resizing, say_if_stretched
from mine_jax.types import Array

GRID: tuple[int, int] = Settings.model_fields["grid"].default
# Of ImageNet, as in the original's `make_classification_eval_transform`.
PROCESSOR = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
# The original wraps DINOv2 before it builds on it.
RENAME = {"visual_model.backbone.model.": "visual_model.backbone."}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DinoTxtBackbone(TwoTowerBackbone):
    """A loaded dino.txt; layer 0 is the embeddings of DINOv2, the last one that of its head."""

    network = DinoTxt
    processor_defaults = PROCESSOR
    # what stands for hidden patches while DINOv2 is trained
    unused = ("mask_token",)

    config: DinoTxtConfig

    @staticmethod
    def read_config(directory: Path, *, grid: tuple[int, int] | None = None) -> DinoTxtConfig:
        """Reads and checks `config.json`."""
        return dinotxt_config.read_config(directory, grid=grid or GRID)

    @staticmethod
    def read_images(values: dict[str, Any], config: Any) -> ImageProcessor:
        """Returns the preprocessing for the grid: the whole photo is resized to it."""
        return read_resizing(values, shape=config.image_shape)

    @classmethod
    def prefixes(cls, config: Towers) -> Mapping[str, str]:
        """Returns the prefix of DINOv2 with and without the original's wrapper."""
        del config
        return RENAME

    @property
    def layers(self) -> int:
        """Number of blocks of DINOv2 and of its head."""
        return self.config.vision.layers + self.config.head.layers

    @property
    def final_norm(self) -> tuple[Mapping[str, Array], float]:
        """Scale and bias [D] of the norm after the head, and its small number."""
        return self.params["visual_model"]["head"]["ln_final"], self.config.head.epsilon

    def preprocess(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns pixels [B, rows, columns, 3] float32 of uint8 [height, width, 3] images, all on one grid."""
        for shape in {image.shape[:2] for image in images}:
            say_if_stretched(shape, self.grid)
        return super().preprocess(images)

    def word_features(self, ids: Array) -> jax.Array:
        """Returns the half [B, J] float32 of text vectors that was trained against patches."""
        return self.text_features(ids)[:, self.config.projection :]

    def check_lens(self) -> None:
        """Refuses nothing: every checkpoint has a text tower."""

    def lens_head(self, n_words: int) -> dict[str, Any]:
        """Returns the projection, where there is one."""
        projection = self.params["visual_model"]["head"].get("linear_projection")
        return {
            "bias": np.zeros(n_words, np.float32),
            "projection": None if projection is None else np.asarray(projection["kernel"]),
            "scale": float(np.exp(np.asarray(self.params["logit_scale"])[0])),
        }

    def text_ids(self, tokenizer: Any, texts: Sequence[str], tower: Tower) -> np.ndarray:
        """Returns token ids [B, T] int32, padded with 0 after the end token."""
        ids = token_ids(tokenizer, texts, limit=tower.positions)
        end = tokenizer.eos_token_id
        if end is None or not (ids.max(1) == end).all():
            raise WeightsError(
                f"the tokenizer in {self.directory} does not end texts with its highest id, at which dino.txt reads "
                "them. Copy the files of CLIP's tokenizer."
            )
        return ids


def load(
    directory: str | Path,
    *,
    precision: str = "highest",
    mesh: Mesh | None = None,
    weights: str = "float32",
    grid: tuple[int, int] = GRID,
) -> DinoTxtBackbone:
    """Loads a converted dino.txt checkpoint, see `TwoTowerBackbone.load`; `grid` has rows and columns of patches."""
    return DinoTxtBackbone.load(directory, precision=precision, mesh=mesh, weights=weights, grid=grid)
