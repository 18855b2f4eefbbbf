"""config.json of a LLaVA-1.5 or LLaVA-OneVision checkpoint -> checked sizes of its three parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mine_jax.errors import WeightsError
from mine_jax.features.ports import weights
from mine_jax.features.ports.clip import config as clip_config
from mine_jax.features.ports.clip.config import ClipConfig
from mine_jax.features.ports.config import activation, image_sizes, read_tower, section
from mine_jax.features.ports.decoder.config import VisionLanguage, read_decoder, read_image_token
from mine_jax.features.ports.siglip import config as siglip_config
from mine_jax.features.ports.siglip.config import SiglipConfig

# transformers completes a bare vision section with these, not with CLIP's own defaults
_CLIP = {
    **clip_config.VISION,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
# `model_type` -> what transformers has in the place of what a file leaves out
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llava": {
        "vision_config": {"model_type": "clip_vision_model"},
        "text_config": {"model_type": "llama"},
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    },
    "llava_onevision": {
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 26,
            "num_attention_heads": 16,
            "image_size": 384,
            "patch_size": 14,
        },
        "text_config": {"model_type": "qwen2"},
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    },
}
_NAMES = {"llava": "LLaVA 1.5", "llava_onevision": "LLaVA-OneVision"}
_IMAGE_TOKENS = {"llava": 32000, "llava_onevision": 151646}


@dataclass(frozen=True, kw_only=True)
class LlavaConfig(VisionLanguage):
    """Sizes of all parts.

    Attributes:
        vision: the vision tower; a `SiglipConfig` has no class token.
        vision_layers: hidden states of the tower that are concatenated, counted from 0.
        drops_class: whether the first state (the class token) is dropped before the projector.
        projector_activation: of the projector's MLP.
        projector_bias: whether the projector has biases.
    """

    vision: ClipConfig | SiglipConfig
    vision_layers: tuple[int, ...]
    drops_class: bool
    projector_activation: str
    projector_bias: bool

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches, each of which is an image-token."""
        return (self.vision.side, self.vision.side)

    @property
    def has_class(self) -> bool:
        """Whether a class token goes through the decoder before the patches."""
        return isinstance(self.vision, ClipConfig) and not self.drops_class


def read_config(directory: Path, *, model_type: str) -> LlavaConfig:
    """Reads and checks `config.json`.

    Args:
        directory: the checkpoint.
        model_type: that it must have, "llava" or "llava_onevision".

    Raises:
        MissingInputError: if it is not there.
        WeightsError: for another architecture, or a value that cannot be honored.
    """
    path = directory / "config.json"
    values = weights.read_model_json(path)
    if values.get("model_type") != model_type:
        raise WeightsError(
            f"{path} describes a {values.get('model_type')!r} model, not {_NAMES[model_type]}. Use a checkpoint that "
            "is converted for transformers' class of that name, or choose the `features.kind` of its family."
        )
    defaults = _DEFAULTS[model_type]
    values = {**defaults, **{key: value for key, value in values.items() if value is not None}}
    vision = _read_vision(path, values)
    strategy = values["vision_feature_select_strategy"]
    if strategy not in ("default", "full"):
        raise WeightsError(f"{path}: `vision_feature_select_strategy` must be default or full, but is {strategy!r}.")
    if strategy == "default" and isinstance(vision, SiglipConfig):
        raise WeightsError(
            f'{path}: `vision_feature_select_strategy` "default" drops the first image-token, but a SigLIP tower has '
            'no class token: the rest would be no grid. Should it be "full"?'
        )
    if model_type == "llava_onevision" and strategy == "full" and isinstance(vision, ClipConfig):
        raise WeightsError(
            f'{path}: `vision_feature_select_strategy` "full" keeps the class token of a CLIP tower, but '
            'LLaVA-OneVision packs grids. Should it be "default"?'
        )
    return LlavaConfig(
        vision=vision,
        vision_layers=_vision_layers(path, values["vision_feature_layer"], vision.vision.layers),
        drops_class=strategy == "default",
        projector_activation=activation(path, {"projector_hidden_act": "gelu", **values}, "projector_hidden_act"),
        projector_bias=bool(values.get("multimodal_projector_bias", True)),
        decoder=read_decoder(path, values, default=defaults["text_config"]["model_type"]),
        image_token=read_image_token(path, values, _IMAGE_TOKENS[model_type]),
    )


def _read_vision(path: Path, values: dict[str, Any]) -> ClipConfig | SiglipConfig:
    content = values["vision_config"] or {}
    kind = content.get("model_type", "clip_vision_model") if isinstance(content, dict) else None
    if kind == "siglip_vision_model":
        vision = {**section(path, values, "vision_config", siglip_config.VISION), "vision_use_head": False}
        return siglip_config.make_config(path, vision, None)
    if kind != "clip_vision_model":
        raise WeightsError(f"{path}: the vision tower must be CLIP or SigLIP, but is {kind!r}.")
    vision = section(path, values, "vision_config", _CLIP)
    image_size, patch_size = image_sizes(path, vision)
    return ClipConfig(read_tower(path, vision), None, image_size, patch_size, 0)


def _vision_layers(path: Path, value: Any, n_layers: int) -> tuple[int, ...]:
    layers = value if isinstance(value, list) else [value]
    if not layers or not all(isinstance(n, int) and -n_layers - 1 <= n <= n_layers for n in layers):
        raise WeightsError(
            f"{path}: `vision_feature_layer` must name layers {-n_layers - 1} to {n_layers}, but is {value!r}."
        )
    return tuple(n if n >= 0 else n_layers + 1 + n for n in layers)
