"""A Hugging Face CLIP checkpoint -> image-tokens and a word lens, in flax.

What is said here is what differs from other models of two towers, see `ports.tower`.

Source: Radford et al. 2021 (arXiv 2103.00020); layout of transformers `CLIPModel`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from mine_jax.errors import ConfigError, WeightsError
from mine_jax.features.ports.clip import config as clip_config
from mine_jax.features.ports.clip.config import ClipConfig
from mine_jax.features.ports.clip.model import Clip
from mine_jax.features.ports.config import Tower
from mine_jax.features.ports.text import token_ids
from mine_jax.features.ports.tower import TwoTowerBackbone


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ClipBackbone(TwoTowerBackbone):
    """A loaded CLIP model; layer 0 is the embeddings after their norm."""

    network = Clip
    n_class = 1
    bare_prefixes = clip_config.RENAME

    @staticmethod
    def read_config(directory: Path, *, grid: tuple[int, int] | None = None) -> ClipConfig:
        """Reads and checks `config.json`; the grid is that of the tower."""
        del grid
        return clip_config.read_config(directory)

    def check_lens(self) -> None:
        """Refuses a checkpoint without a text tower."""
        if self.config.text is None:
            raise ConfigError(f"{self.name} has no text tower, so it reads no words. Use a full CLIP checkpoint.")

    def lens_head(self, n_words: int) -> dict[str, Any]:
        """Returns the visual projection."""
        return {
            "bias": np.zeros(n_words, np.float32),
            "projection": np.asarray(self.params["visual_projection"]["kernel"]),
            "scale": float(np.exp(np.asarray(self.params["logit_scale"]))),
        }

    def text_ids(self, tokenizer: Any, texts: Sequence[str], tower: Tower) -> np.ndarray:
        """Returns token ids [B, T] int32, padded with 0 after the end token."""
        ids = token_ids(tokenizer, texts, limit=tower.positions)
        if tower.end is not None and not (ids == tower.end).any(1).all():
            raise WeightsError(
                f"the tokenizer in {self.directory} does not add the end token {tower.end} of config.json."
            )
        return ids


def load(
    directory: str | Path,
    *,
    precision: str = "highest",
    mesh: Mesh | None = None,
    weights: str = "float32",
    image_tokens: str = "states",
) -> ClipBackbone:
    """Loads a CLIP checkpoint directory, see `TwoTowerBackbone.load`.

    With `image_tokens` "values" an image-token is what the class token becomes in its block if it looks at that
    image-token alone. Captions teach the class token of the last block only, so a model of captions has words there;
    the class token brings along what it knows of the whole image.

    Source: Zhou et al. 2022 (MaskCLIP, arXiv 2112.01071). Differs: class token and MLP of the block are kept.
    """
    backbone = ClipBackbone.load(directory, precision=precision, mesh=mesh, weights=weights)
    if image_tokens == "states":
        return backbone
    return dataclasses.replace(
        backbone, states="value_states", sha256=hashlib.sha256(f"{backbone.sha256} values".encode()).hexdigest()
    )
