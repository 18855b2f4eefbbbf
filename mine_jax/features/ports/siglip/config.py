"""config.json of a SigLIP or SigLIP 2 checkpoint -> checked sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mine_jax.errors import WeightsError
from mine_jax.features.ports import weights
from mine_jax.features.ports.config import Towers, image_sizes, integer, read_text_tower, read_tower, section

# Defaults and names of transformers' SiglipTextConfig and SiglipVisionConfig.
_TEXT = {
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 64,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vision_use_head": True,
}
# Vision-only checkpoints of transformers 5 lack the prefix that others have.
RENAME = {name: f"vision_model.{name}" for name in ("embeddings.", "encoder.", "post_layernorm.", "head.")}


@dataclass(frozen=True)
class SiglipConfig(Towers):
    """Sizes of both towers; `projection` is that of the vision tower in a checkpoint that works."""


def read_config(directory: Path) -> SiglipConfig:
    """Reads and checks `config.json`.

    Raises:
        MissingInputError: if it is not there.
        WeightsError: for another architecture or a size out of bounds.
    """
    path = directory / "config.json"
    values = weights.read_model_json(path)
    kind = values.get("model_type")
    if kind in ("siglip2", "siglip2_vision_model"):
        raise WeightsError(
            f"{path} describes a NaFlex variant of SigLIP 2, whose token grid changes with the image. "
            'Set `features.kind` to "siglip_naflex", or use a fixed-resolution checkpoint (its name ends in the image '
            "size, for instance patch16-256)."
        )
    if kind not in ("siglip", "siglip_vision_model"):
        raise WeightsError(f"{path} describes a {kind!r} model, not SigLIP. Choose the `features.kind` of that family.")
    vision, text = sections(path, values, is_whole=kind == "siglip")
    return make_config(path, vision, text)


def sections(path: Path, values: dict[str, Any], *, is_whole: bool) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Returns what a configuration says of the vision and the text tower; None for a vision-only checkpoint."""
    if not is_whole:
        return {**VISION, **values}, None
    return section(path, values, "vision_config", VISION), section(path, values, "text_config", _TEXT)


def make_config(path: Path, vision: dict[str, Any], text: dict[str, Any] | None) -> SiglipConfig:
    """Checks the sections of a configuration.

    Raises:
        WeightsError: for a size out of bounds, or towers that do not share a space.
    """
    tower = read_tower(path, vision)
    image_size, patch_size = image_sizes(path, vision)
    has_head = bool(vision["vision_use_head"])
    projection = tower.width
    if text is not None:
        if text.get("projection_size") is None:
            text = {**text, "projection_size": text["hidden_size"]}
        projection = integer(path, text, "projection_size")
        if has_head and projection != tower.width:
            raise WeightsError(
                f"{path}: text vectors have {projection} dimensions (`projection_size`), but image vectors "
                f"{tower.width} (`hidden_size` of the vision tower); they must share one space."
            )
    return SiglipConfig(
        vision=tower,
        text=None if text is None else read_text_tower(path, text),
        image_size=image_size,
        patch_size=patch_size,
        has_head=has_head,
        projection=projection,
    )
