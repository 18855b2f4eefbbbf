"""config.json of a CLIP checkpoint -> checked sizes; nothing is allocated before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mine_jax.errors import WeightsError
from mine_jax.features import _weights

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
_VISION = {
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
# Largest values accepted; several times those of any published CLIP.
_LIMITS = {
    "vocab_size": 2_000_000,
    "hidden_size": 16_384,
    "intermediate_size": 131_072,
    "num_hidden_layers": 256,
    "num_attention_heads": 256,
    "max_position_embeddings": 65_536,
    "image_size": 4096,
    "patch_size": 4096,
    "projection_dim": 16_384,
}
# Vision-only checkpoints of transformers 5 lack the prefix that others have.
RENAME = {name: f"vision_model.{name}" for name in ("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.")}
_ACTIVATIONS = ("quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
# An end token that configurations before transformers 4.31 name wrongly.
LEGACY_END = 2


@dataclass(frozen=True)
class Tower:
    """Sizes of one transformer.

    Attributes:
        width: of the hidden states.
        hidden: width of the hidden layer of the MLP.
        layers: number of blocks.
        heads: attention heads.
        activation: name of the activation of the MLP.
        epsilon: of the layer norms.
        vocabulary: rows of the token embedding; 0 for vision.
        positions: longest text; 0 for vision.
        end: id of the end token; None for the legacy rule (highest id).
    """

    width: int
    hidden: int
    layers: int
    heads: int
    activation: str
    epsilon: float
    vocabulary: int = 0
    positions: int = 0
    end: int | None = None


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of both towers.

    Attributes:
        vision: the vision tower.
        text: the text tower, or None in a vision-only checkpoint.
        image_size: side of the square image in pixels.
        patch_size: side of a patch in pixels.
        projection: width J of the shared space; 0 without a projection.
    """

    vision: Tower
    text: Tower | None
    image_size: int
    patch_size: int
    projection: int

    @property
    def side(self) -> int:
        """Patches along a side."""
        return self.image_size // self.patch_size


def read_config(directory: Path) -> ClipConfig:
    """Reads and checks `config.json`.

    Raises:
        MissingInputError: if it is not there.
        WeightsError: for another architecture or a size out of bounds.
    """
    path = directory / "config.json"
    values = _weights.read_model_json(path)
    kind = values.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise WeightsError(f"{path} describes a {kind!r} model, not CLIP. Choose the `features.kind` of that family.")
    whole = kind == "clip"
    vision = _section(path, values, "vision_config", _VISION) if whole else {**_VISION, **values}
    text = _section(path, values, "text_config", _TEXT) if whole else None
    if vision["num_channels"] != 3:
        raise WeightsError(f"{path}: `num_channels` must be 3, but is {vision['num_channels']!r}.")
    has_projection = whole or "CLIPVisionModelWithProjection" in (values.get("architectures") or ())
    image_size, patch_size = (_integer(path, vision, key) for key in ("image_size", "patch_size"))
    if patch_size > image_size:
        raise WeightsError(f"{path}: `patch_size` {patch_size} is larger than `image_size` {image_size}.")
    sizes = {"projection_dim": 512, **values}
    return ClipConfig(
        vision=_tower(path, vision),
        text=None if text is None else _tower(path, text),
        image_size=image_size,
        patch_size=patch_size,
        projection=_integer(path, sizes, "projection_dim") if has_projection else 0,
    )


def processor_values(directory: Path) -> dict[str, Any]:
    """Returns the content of the image processor's file; {} if there is none."""
    path = directory / "preprocessor_config.json"
    if path.is_file():
        return _weights.read_model_json(path)
    path = directory / "processor_config.json"
    values = _weights.read_model_json(path).get("image_processor", {}) if path.is_file() else {}
    if not isinstance(values, dict):
        raise WeightsError(f"{path}: `image_processor` must be an object, but is {values!r}.")
    return values


def _section(path: Path, values: dict[str, Any], name: str, defaults: dict[str, Any]) -> dict[str, Any]:
    section, override = values.get(name) or {}, values.get(f"{name}_dict")
    if not isinstance(section, dict) or not isinstance(override, (dict, type(None))):
        raise WeightsError(f"{path}: `{name}` must be an object.")
    # as transformers: the older `*_dict`, completed by defaults, wins
    merged = {**defaults, **section}
    return merged if override is None else {**merged, **defaults, **override}


def _tower(path: Path, values: dict[str, Any]) -> Tower:
    width, hidden, layers, heads = (
        _integer(path, values, key)
        for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    )
    if width % heads:
        raise WeightsError(f"{path}: `hidden_size` {width} is not a multiple of `num_attention_heads` {heads}.")
    if values["hidden_act"] not in _ACTIVATIONS:
        raise WeightsError(f"{path}: `hidden_act` must be one of {_ACTIVATIONS}, but is {values['hidden_act']!r}.")
    epsilon = values["layer_norm_eps"]
    if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or not 0 <= epsilon <= 0.1:
        raise WeightsError(f"{path}: `layer_norm_eps` must be 0 to 0.1, but is {epsilon!r}.")
    text: dict[str, Any] = {}
    if "vocab_size" in values and "max_position_embeddings" in values:
        end = values["eos_token_id"]
        end = end[0] if isinstance(end, list) and len(end) == 1 else end
        vocabulary = _integer(path, values, "vocab_size")
        if isinstance(end, bool) or not isinstance(end, int) or end < 0:
            raise WeightsError(f"{path}: `eos_token_id` must be one token id, but is {values['eos_token_id']!r}.")
        text = {
            "vocabulary": vocabulary,
            "positions": _integer(path, values, "max_position_embeddings"),
            "end": None if end == LEGACY_END else end,
        }
    return Tower(width, hidden, layers, heads, values["hidden_act"], float(epsilon), **text)


def _integer(path: Path, values: dict[str, Any], key: str) -> int:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LIMITS[key]:
        raise WeightsError(f"{path}: `{key}` must be an integer from 1 to {_LIMITS[key]}, but is {value!r}.")
    return value
