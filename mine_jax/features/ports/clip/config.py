"""config.json of a CLIP checkpoint -> checked sizes; nothing is allocated before."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mine_jax.errors import WeightsError
from mine_jax.features.ports import weights
from mine_jax.features.ports.config import Tower, Towers, image_sizes, integer, read_text_tower, read_tower, section

# Defaults and names of transformers' CLIPTextConfig and CLIPVisionConfig.
_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
# Vision-only checkpoints of transformers 5 lack the prefix that others have.
RENAME = {name: f"vision_model.{name}" for name in ("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.")}
# An end token that configurations before transformers 4.31 name wrongly.
LEGACY_END = 2


@dataclass(frozen=True)
class ClipConfig(Towers):
    """Sizes of both towers; `projection` is 0 without a projection."""


def read_config(directory: Path) -> ClipConfig:
    """Reads and checks `config.json`.

    Raises:
        MissingInputError: if it is not there.
        WeightsError: for another architecture or a size out of bounds.
    """
    path = directory / "config.json"
    values = weights.read_model_json(path)
    kind = values.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise WeightsError(f"{path} describes a {kind!r} model, not CLIP. Choose the `features.kind` of that family.")
    whole = kind == "clip"
    vision = section(path, values, "vision_config", VISION) if whole else {**VISION, **values}
    text = section(path, values, "text_config", _TEXT) if whole else None
    has_projection = whole or "CLIPVisionModelWithProjection" in (values.get("architectures") or ())
    image_size, patch_size = image_sizes(path, vision)
    sizes = {"projection_dim": 512, **values}
    return ClipConfig(
        vision=read_tower(path, vision),
        text=None if text is None else _text_tower(path, text),
        image_size=image_size,
        patch_size=patch_size,
        projection=integer(path, sizes, "projection_dim") if has_projection else 0,
    )


def _text_tower(path: Path, values: dict[str, Any]) -> Tower:
    end = values["eos_token_id"]
    end = end[0] if isinstance(end, list) and len(end) == 1 else end
    if isinstance(end, bool) or not isinstance(end, int) or end < 0:
        raise WeightsError(f"{path}: `eos_token_id` must be one token id, but is {values['eos_token_id']!r}.")
    return dataclasses.replace(read_text_tower(path, values), end=None if end == LEGACY_END else end)
