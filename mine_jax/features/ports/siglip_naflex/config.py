"""config.json of a NaFlex checkpoint of SigLIP 2 -> checked sizes."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from mine_jax.errors import WeightsError
from mine_jax.features.ports import weights
from mine_jax.features.ports.config import GridTowers, check_grid, integer
from mine_jax.features.ports.siglip import config as siglip_config
from mine_jax.features.ports.siglip.config import SiglipConfig

# Default of transformers' Siglip2VisionConfig: patches of the table of positions.
N_PATCHES = 256


@dataclass(frozen=True)
class NaflexConfig(GridTowers, SiglipConfig):
    """Sizes of both towers, and the grid of the run."""


def read_config(directory: Path, *, grid: tuple[int, int]) -> NaflexConfig:
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
    if kind not in ("siglip2", "siglip2_vision_model"):
        raise WeightsError(
            f"{path} describes a {kind!r} model, not a NaFlex variant of SigLIP 2. Choose the `features.kind` of its "
            'family: "siglip" for variants of a fixed resolution.'
        )
    check_grid(grid)
    vision, text = siglip_config.sections(path, values, is_whole=kind == "siglip2")
    n_patches = integer(path, {"image_size": vision.get("num_patches", N_PATCHES)}, "image_size")
    side = math.isqrt(n_patches)
    if side**2 != n_patches:
        raise WeightsError(f"{path}: `num_patches` must be a square number, but is {n_patches}.")
    patch_size = integer(path, vision, "patch_size")
    sizes = siglip_config.make_config(path, {**vision, "image_size": side * patch_size}, text)
    fields = {field.name: getattr(sizes, field.name) for field in dataclasses.fields(sizes)}
    return NaflexConfig(**fields, rows=grid[0], columns=grid[1])
