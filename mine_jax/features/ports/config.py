"""Checked values of a checkpoint's config.json, shared by all families."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mine_jax.errors import ConfigError, WeightsError
from mine_jax.features.ports import weights
from mine_jax.features.ports.layers import ACTIVATIONS

# Largest values accepted; several times those of any published model of these families.
LIMITS = {
    "vocab_size": 2_000_000,
    "hidden_size": 16_384,
    "intermediate_size": 131_072,
    "num_hidden_layers": 256,
    "num_attention_heads": 256,
    "num_key_value_heads": 256,
    "head_dim": 1024,
    "max_position_embeddings": 2_000_000,
    "image_size": 4096,
    "patch_size": 4096,
    "num_register_tokens": 256,
    "num_head_layers": 256,
    "embed_dim": 32_768,
    "projection_dim": 16_384,
    "projection_size": 16_384,
}
# Image-tokens along a side of a photo, of models that leave it open.
MAX_GRID = 256


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
class Towers:
    """Sizes of a model with a vision and a text tower.

    Attributes:
        vision: the vision tower.
        text: the text tower, or None in a vision-only checkpoint.
        image_size: side of the square image in pixels.
        patch_size: side of a patch in pixels.
        projection: width J of the shared space.
        has_head: whether the vision tower has an attention-pooling head.
    """

    vision: Tower
    text: Tower | None
    image_size: int
    patch_size: int
    projection: int
    has_head: bool = False

    @property
    def side(self) -> int:
        """Patches along a side."""
        return self.image_size // self.patch_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in the images of the run."""
        return (self.side, self.side)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of pixels in the images of the run."""
        return (self.image_size, self.image_size)


@dataclass(frozen=True)
class GridTowers(Towers):
    """Sizes of a model that takes images on any grid; `image_size` is that whose patches its table of positions has.

    Attributes:
        rows: of patches in the images of the run.
        columns: of patches in them.
    """

    rows: int = 0
    columns: int = 0

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in the images of the run."""
        return (self.rows, self.columns)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of pixels in the images of the run."""
        return (self.rows * self.patch_size, self.columns * self.patch_size)


def read_tower(path: Path, values: dict[str, Any]) -> Tower:
    """Returns the sizes of a transformer without vocabulary.

    Raises:
        WeightsError: for a size out of bounds or an unknown activation.
    """
    width, hidden, layers, heads = (
        integer(path, values, key)
        for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    )
    if width % heads:
        raise WeightsError(f"{path}: `hidden_size` {width} is not a multiple of `num_attention_heads` {heads}.")
    return Tower(width, hidden, layers, heads, activation(path, values), epsilon(path, values, "layer_norm_eps"))


def read_text_tower(path: Path, values: dict[str, Any]) -> Tower:
    """Returns the sizes of a transformer with vocabulary and positions.

    Raises:
        WeightsError: as `read_tower`.
    """
    return dataclasses.replace(
        read_tower(path, values),
        vocabulary=integer(path, values, "vocab_size"),
        positions=integer(path, values, "max_position_embeddings"),
    )


def section(path: Path, values: dict[str, Any], name: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """Returns a section completed by defaults; the older `*_dict` form wins.

    Raises:
        WeightsError: if it is not an object.
    """
    content, override = values.get(name) or {}, values.get(f"{name}_dict")
    if not isinstance(content, dict) or not isinstance(override, (dict, type(None))):
        raise WeightsError(f"{path}: `{name}` must be an object.")
    merged = {**defaults, **content}
    return merged if override is None else {**merged, **defaults, **override}


def integer(path: Path, values: dict[str, Any], key: str) -> int:
    """Returns a size within `LIMITS`.

    Raises:
        WeightsError: for anything else.
    """
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LIMITS[key]:
        raise WeightsError(f"{path}: `{key}` must be an integer from 1 to {LIMITS[key]}, but is {value!r}.")
    return value


def epsilon(path: Path, values: dict[str, Any], key: str) -> float:
    """Returns the small number of a norm.

    Raises:
        WeightsError: if it is not 0 to 0.1.
    """
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 0.1:
        raise WeightsError(f"{path}: `{key}` must be 0 to 0.1, but is {value!r}.")
    return float(value)


def activation(path: Path, values: dict[str, Any], key: str = "hidden_act") -> str:
    """Returns the name of a known activation.

    Raises:
        WeightsError: for another one.
    """
    value = values.get(key)
    if value not in ACTIVATIONS:
        raise WeightsError(f"{path}: `{key}` must be one of {tuple(ACTIVATIONS)}, but is {value!r}.")
    return value


def image_sizes(path: Path, vision: dict[str, Any]) -> tuple[int, int]:
    """Returns the sides of the image and of a patch, in pixels.

    Raises:
        WeightsError: if they are out of bounds, or images have not three channels.
    """
    if vision["num_channels"] != 3:
        raise WeightsError(f"{path}: `num_channels` must be 3, but is {vision['num_channels']!r}.")
    image_size, patch_size = (integer(path, vision, key) for key in ("image_size", "patch_size"))
    if patch_size > image_size:
        raise WeightsError(f"{path}: `patch_size` {patch_size} is larger than `image_size` {image_size}.")
    return image_size, patch_size


def check_grid(grid: tuple[int, int]) -> None:
    """Refuses a grid of image-tokens that no photo has.

    Raises:
        ConfigError: if a side is not 1 to `MAX_GRID`.
    """
    if not all(1 <= side <= MAX_GRID for side in grid):
        raise ConfigError(f"`features.grid` must be two numbers from 1 to {MAX_GRID}, but is {list(grid)}.")


def processor_values(directory: Path) -> dict[str, Any]:
    """Returns what the image processor's file holds; {} if there is none. The nested one is newer, and comes first."""
    path = directory / "processor_config.json"
    values = weights.read_model_json(path).get("image_processor") if path.is_file() else None
    if values is None:
        path = directory / "preprocessor_config.json"
        return weights.read_model_json(path) if path.is_file() else {}
    if not isinstance(values, dict):
        raise WeightsError(f"{path}: `image_processor` must be an object, but is {values!r}.")
    return values
