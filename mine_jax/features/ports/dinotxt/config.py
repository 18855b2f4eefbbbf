"""config.json of a dino.txt checkpoint -> checked sizes.

The published model comes without such a file, so this one is ours: its keys are those of transformers where there are
any, and what is left out is as in the published model.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from mine_jax.errors import WeightsError
from mine_jax.features.ports import weights
from mine_jax.features.ports.config import (
    GridTowers,
    Tower,
    check_grid,
    image_sizes,
    integer,
    read_text_tower,
    read_tower,
    section,
)

# Of dinov2_vitl14_reg4_dinotxt_tet1280d20h24l.
EMBED_DIM = 2048
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_channels": 3,
    "image_size": 518,
    "patch_size": 14,
    "num_register_tokens": 4,
    "num_head_layers": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
}
TEXT = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 24,
    "num_attention_heads": 20,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}
# Of the head, whatever the tower has: the small number of torch's norms, and what the gated width is a multiple of.
HEAD_EPSILON, HEAD_ALIGN = 1e-5, 64


@dataclass(frozen=True, kw_only=True)
class DinoTxtConfig(GridTowers):
    """Sizes of both towers; text vectors have twice `projection` dimensions.

    Attributes:
        head: the blocks that the vision tower gets for text.
        registers: tokens between the class token and the patches.
    """

    head: Tower
    registers: int


def read_config(directory: Path, *, grid: tuple[int, int]) -> DinoTxtConfig:
    """Reads and checks `config.json`.

    Args:
        directory: the checkpoint.
        grid: rows and columns of patches.

    Raises:
        ConfigError: if the grid is out of bounds.
        MissingInputError: if config.json is not there.
        WeightsError: for another architecture or a size out of bounds.
    """
    path = directory / "config.json"
    values = weights.read_model_json(path)
    kind = values.get("model_type")
    if kind != "dinotxt":
        raise WeightsError(
            f"{path} describes a {kind!r} model, not dino.txt. Choose the `features.kind` of its family."
        )
    check_grid(grid)
    vision = section(path, values, "vision_config", VISION)
    tower = read_tower(path, vision)
    image_size, patch_size = image_sizes(path, vision)
    embed_dim = integer(path, {"embed_dim": EMBED_DIM, **values}, "embed_dim")
    if embed_dim % 2:
        raise WeightsError(f"{path}: `embed_dim` must be even, half for the class token, but is {embed_dim}.")
    gated = 4 * tower.width * 2 // 3
    return DinoTxtConfig(
        vision=tower,
        text=read_text_tower(path, section(path, values, "text_config", TEXT)),
        image_size=image_size,
        patch_size=patch_size,
        projection=embed_dim // 2,
        rows=grid[0],
        columns=grid[1],
        head=dataclasses.replace(
            tower,
            hidden=gated + -gated % HEAD_ALIGN,
            layers=integer(path, vision, "num_head_layers"),
            epsilon=HEAD_EPSILON,
        ),
        registers=integer(path, vision, "num_register_tokens"),
    )
