"""config.json of a Qwen2.5-VL checkpoint -> checked sizes of its tower and decoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mine_jax.errors import WeightsError
from mine_jax.features.ports import weights
from mine_jax.features.ports.config import activation, check_grid, integer, section
from mine_jax.features.ports.decoder.config import VisionLanguage, read_decoder, read_image_token

# Defaults and names of transformers' Qwen2_5_VLVisionConfig.
_VISION = {
    "depth": 32,
    "hidden_size": 3584,
    "hidden_act": "silu",
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "out_hidden_size": 3584,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_TEXT = "qwen2_5_vl_text"


@dataclass(frozen=True)
class QwenTower:
    """Sizes of the vision tower.

    Attributes:
        width: of its hidden states.
        hidden: width of the hidden layer of the MLP.
        layers: number of blocks.
        heads: attention heads.
        activation: name of the activation of the gate.
        patch_size: side of a patch in pixels.
        frames: a photo is shown as a film of so many equal frames.
        merge: patches along a side that become one image-token.
        window: image-tokens along a side of a window of attention.
        whole: blocks, from 0, in which every patch sees every other.
        theta: of the rotary positions.
    """

    width: int
    hidden: int
    layers: int
    heads: int
    activation: str
    patch_size: int
    frames: int
    merge: int
    window: int
    whole: tuple[int, ...]
    theta: float

    @property
    def token_size(self) -> int:
        """Side of an image-token in pixels."""
        return self.patch_size * self.merge


@dataclass(frozen=True, kw_only=True)
class QwenConfig(VisionLanguage):
    """Sizes of both parts.

    Attributes:
        vision: the vision tower.
        rows: of image-tokens.
        columns: of image-tokens.
    """

    vision: QwenTower
    rows: int
    columns: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image-tokens."""
        return (self.rows, self.columns)


def read_config(directory: Path, *, grid: tuple[int, int]) -> QwenConfig:
    """Reads and checks `config.json`.

    Args:
        directory: the checkpoint.
        grid: rows and columns of image-tokens.

    Raises:
        ConfigError: if the grid is out of bounds.
        MissingInputError: if config.json is not there.
        WeightsError: for another architecture, or a value that cannot be honored.
    """
    path = directory / "config.json"
    values = weights.read_model_json(path)
    if values.get("model_type") != "qwen2_5_vl":
        raise WeightsError(
            f"{path} describes a {values.get('model_type')!r} model, not Qwen2.5-VL. Choose the `features.kind` of "
            "that family."
        )
    check_grid(grid)
    if not values.get("text_config"):
        # checkpoints of transformers 4 have the keys of the decoder beside the others
        flat = {key: value for key, value in values.items() if key not in ("vision_config", "model_type")}
        values = {**values, "text_config": {**flat, "model_type": _TEXT}}
    decoder = read_decoder(path, values, default=_TEXT)
    vision = section(path, values, "vision_config", _VISION)
    if integer(path, {"hidden_size": vision["out_hidden_size"]}, "hidden_size") != decoder.width:
        raise WeightsError(
            f"{path}: the tower gives tokens of width {vision['out_hidden_size']} (`out_hidden_size`), but the decoder "
            f"takes {decoder.width}."
        )
    return QwenConfig(
        vision=_read_tower(path, vision),
        decoder=decoder,
        image_token=read_image_token(path, values, 151655),
        rows=grid[0],
        columns=grid[1],
    )


def _read_tower(path: Path, vision: dict[str, Any]) -> QwenTower:
    if vision["in_channels"] != 3:
        raise WeightsError(f"{path}: `in_channels` must be 3, but is {vision['in_channels']!r}.")
    named = {**vision, "num_hidden_layers": vision["depth"], "num_attention_heads": vision["num_heads"]}
    width, hidden, layers, heads, patch_size = (
        integer(path, named, key)
        for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size")
    )
    merge, frames, window = (
        integer(path, {"patch_size": vision[key]}, "patch_size")
        for key in ("spatial_merge_size", "temporal_patch_size", "window_size")
    )
    if width % heads or (width // heads) % 4 or window < merge * patch_size:
        raise WeightsError(
            f"{path}: `hidden_size` {width} must be `num_heads` {heads} times a multiple of 4, and `window_size` "
            f"{window} at least one image-token of {merge * patch_size} pixels."
        )
    whole = vision["fullatt_block_indexes"]
    if not isinstance(whole, list) or not all(isinstance(n, int) for n in whole):
        raise WeightsError(f"{path}: `fullatt_block_indexes` must be a list of numbers, but is {whole!r}.")
    theta = (vision.get("rope_parameters") or {}).get("rope_theta", 10000.0)
    return QwenTower(
        width=width,
        hidden=hidden,
        layers=layers,
        heads=heads,
        activation=activation(path, vision),
        patch_size=patch_size,
        frames=frames,
        merge=merge,
        window=window // merge // patch_size,
        whole=tuple(whole),
        theta=float(theta),
    )
