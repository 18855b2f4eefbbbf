"""A Hugging Face SigLIP or SigLIP 2 checkpoint -> image-tokens and a word lens, in flax.

Image vectors of SigLIP come from a head in which a probe attends to all tokens. The lens asks
that head about one token alone: the attention over a single token is 1 whatever the probe, so
the head becomes an affine map of the normed token, followed by the head's own MLP. Averaged
over tokens by the attention weights, the affine parts add up to what the whole image gives.

Fixed-resolution checkpoints of SigLIP 2 have the same classes and load here; they differ in
tokenizer, image filter and sizes, which all come from their files.

Source: Zhai et al. 2023 (arXiv 2303.15343); Tschannen et al. 2025 (arXiv 2502.14786); layout of
transformers `SiglipModel`. The lens of single tokens is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mine_jax.errors import ConfigError, WeightsError
from mine_jax.features.ports.config import Tower
from mine_jax.features.ports.siglip import config as siglip_config
from mine_jax.features.ports.siglip.config import SiglipConfig
from mine_jax.features.ports.siglip.model import Siglip
from mine_jax.features.ports.text import token_ids
from mine_jax.features.ports.tower import TwoTowerBackbone

# Defaults of transformers' SiglipImageProcessor.
PROCESSOR = {"do_center_crop": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SiglipBackbone(TwoTowerBackbone):
    """A loaded SigLIP model; layer 0 is the embeddings."""

    network = Siglip
    bare_prefixes = siglip_config.RENAME
    processor_defaults = PROCESSOR

    config: SiglipConfig

    @staticmethod
    def read_config(directory: Path, *, grid: tuple[int, int] | None = None) -> SiglipConfig:
        """Reads and checks `config.json`; the grid is that of the tower."""
        del grid
        return siglip_config.read_config(directory)

    def check_lens(self) -> None:
        """Refuses a checkpoint without a text tower or a pooling head."""
        if self.config.text is None or not self.config.has_head:
            raise ConfigError(f"{self.name} has no text tower or no pooling head, so it reads no words.")

    def lens_head(self, n_words: int) -> dict[str, Any]:
        """Returns the pooling head for one token alone, and the calibration of the loss."""
        scale, bias = (float(np.asarray(self.params[name])[0]) for name in ("logit_scale", "logit_bias"))
        vision = jax.tree.map(np.asarray, self.params["vision_model"])
        head, width = vision["head"], self.width
        # one token gets all the attention: out_proj(value(x)) is an affine map, folded in float64
        value = head["attention"]["in_proj_weight"][2 * width :].astype(np.float64).T
        value_bias = head["attention"]["in_proj_bias"][2 * width :].astype(np.float64)
        out = head["attention"]["out_proj"]
        return {
            "bias": np.full(n_words, bias, np.float32),
            "scale": float(np.exp(scale)),
            "projection": (value @ out["kernel"]).astype(np.float32),
            "projection_bias": (value_bias @ out["kernel"] + out["bias"]).astype(np.float32),
            "mlp": {
                "norm_scale": head["layernorm"]["scale"],
                "norm_bias": head["layernorm"]["bias"],
                "fc1": head["mlp"]["fc1"]["kernel"],
                "fc1_bias": head["mlp"]["fc1"]["bias"],
                "fc2": head["mlp"]["fc2"]["kernel"],
                "fc2_bias": head["mlp"]["fc2"]["bias"],
            },
            "mlp_activation": self.config.vision.activation,
        }

    def text_ids(self, tokenizer: Any, texts: Sequence[str], tower: Tower) -> np.ndarray:
        """Returns token ids [B, T] int32, in lower case and filled to the full length as in training."""
        if tokenizer.pad_token_id is None:
            raise WeightsError(
                f"the tokenizer in {self.directory} has no padding token, but SigLIP reads padded texts. "
                "Copy tokenizer_config.json and special_tokens_map.json too."
            )
        pad = int(tokenizer.pad_token_id)
        # SigLIP's own tokenizer does so, that of SigLIP 2 at a fixed resolution does not
        texts = [text.lower() for text in texts]
        return token_ids(tokenizer, texts, limit=tower.positions, length=tower.positions, pad=pad)


def load(
    directory: str | Path, *, precision: str = "highest", mesh: Mesh | None = None, weights: str = "float32"
) -> SiglipBackbone:
    """Loads a SigLIP checkpoint directory, see `TwoTowerBackbone.load`."""
    return SiglipBackbone.load(directory, precision=precision, mesh=mesh, weights=weights)
