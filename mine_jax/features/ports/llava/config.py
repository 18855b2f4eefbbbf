"""config.json of a LLaVA-1.5 or LLaVA-OneVision checkpoint -> checked sizes of its three parts."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mine_jax.errors import ConfigError, WeightsError
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
# Rows, and columns, of crops where a file does not list them.
MOST_CROPS = range(1, 7)
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
        crops: rows and columns of crops, in which the photo is seen after it was seen whole; None for no crops.
    """

    vision: ClipConfig | SiglipConfig
    vision_layers: tuple[int, ...]
    drops_class: bool
    projector_activation: str
    projector_bias: bool
    crops: tuple[int, int] | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches, each of which is an image-token: of the whole photo, or of all crops."""
        rows, columns = self.crops or (1, 1)
        return (rows * self.vision.side, columns * self.vision.side)

    @property
    def n_before(self) -> int:
        """Image ids before the grid: a class token, or the patches of the whole photo before its crops."""
        return self.vision.side**2 if self.crops else int(self.has_class)

    @property
    def row_end(self) -> int:
        """Image ids after each row of the grid: a row of crops ends with a newline."""
        return int(self.crops is not None)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of pixels: the photo, and below it its crops one under another."""
        rows, columns = self.crops or (0, 0)
        return ((1 + rows * columns) * self.vision.image_size, self.vision.image_size)

    @property
    def has_class(self) -> bool:
        """Whether a class token goes through the decoder before the patches."""
        return isinstance(self.vision, ClipConfig) and not self.drops_class


def read_config(directory: Path, *, model_type: str, grid: tuple[int, int] | None = None) -> LlavaConfig:
    """Reads and checks `config.json`.

    Args:
        directory: the checkpoint.
        model_type: that it must have, "llava" or "llava_onevision".
        grid: rows and columns of patches of all crops; None for those of the whole photo.

    Raises:
        ConfigError: if the model makes no such grid of crops.
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
        crops=None if grid is None else _crops(path, values, vision, grid),
    )


def _crops(
    path: Path, values: dict[str, Any], vision: ClipConfig | SiglipConfig, grid: tuple[int, int]
) -> tuple[int, int]:
    """Returns rows and columns of the crops whose patches make a grid."""
    size, side = vision.image_size, vision.side
    rows, columns = grid[0] // side, grid[1] // side
    sizes = values.get("image_grid_pinpoints") or [[size * i, size * j] for i in MOST_CROPS for j in MOST_CROPS]
    is_listed = isinstance(sizes, list) and [rows * size, columns * size] in sizes
    if not is_listed or (rows * side, columns * side) != grid:
        raise ConfigError(
            f"`features.grid` must be rows and columns of crops times {side}, of a size that `image_grid_pinpoints` in "
            f"{path} lists in pixels ({size} to a crop), but is {list(grid)}."
        )
    kind = str(values.get("vision_aspect_ratio", "anyres_max_9"))
    most = re.fullmatch(r"anyres_max_([1-9][0-9]*)", kind)
    if most is None:
        raise WeightsError(f"{path}: `vision_aspect_ratio` must be anyres_max_ and a number, but is {kind!r}.")
    # the bound of the model, above which it shrinks the grid
    if math.sqrt(rows * columns / int(most[1])) > 1.1:
        raise ConfigError(
            f"`features.grid` {list(grid)} has {rows * columns} crops, but the model shrinks more than {most[1]}."
        )
    return rows, columns


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
