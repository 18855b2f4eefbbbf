"""What a frozen image model must offer, and how one is loaded.

`ports/README.md` says how to add a family.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from mine_jax import sharding
from mine_jax._progress import Progress, silent
from mine_jax.config import EMBEDDED_MODELS, FeaturesConfig, ModelConfig, PrecomputedConfig, hub_id
from mine_jax.errors import ConfigError, MineError, MissingInputError
from mine_jax.features import hub
from mine_jax.features.families.registry import FAMILIES, kind_of
from mine_jax.types import Array, Lens

FETCH = (
    "`hf download openai/clip-vit-large-patch14 --local-dir clip` brings one into the folder clip; with "
    "`features.revision` and `features.allow_download` a run fetches it"
)


@runtime_checkable
class Backbone(Protocol):
    """A frozen model that turns images into image-tokens that a lens can read.

    Layers are numbered 0 (embeddings, the input of the first block) to `layers` (output of
    the last block, before any final norm); -1 is the last, -2 the one before.
    """

    @property
    def name(self) -> str:
        """Name for people."""
        ...

    @property
    def sha256(self) -> str:
        """Hash of everything that decides the tokens: weights and configuration."""
        ...

    @property
    def layers(self) -> int:
        """Number of blocks."""
        ...

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image-tokens; P is their product."""
        ...

    @property
    def width(self) -> int:
        """Width D of an image-token."""
        ...

    @property
    def precision(self) -> str:
        """Precision of matrix products, as in `jax.default_matmul_precision`."""
        ...

    @property
    def processor(self) -> dict[str, Any]:
        """How pixels are prepared, as plain values."""
        ...

    def preprocess(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns pixels [B, rows, columns, 3] float32 of uint8 [h, w, 3] images."""
        ...

    def encode(self, pixels: Array, *, layers: Sequence[int] = (-1,)) -> dict[int, jax.Array]:
        """Returns layer -> image-tokens [B, P, D], without class tokens."""
        ...

    def lens_defaults(self) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
        """Returns the checkpoint's own words and templates; None where it has none."""
        ...

    def lens(self, words: Sequence[str] | np.ndarray, templates: Sequence[str], *, progress: Progress = silent) -> Lens:
        """Builds the lens over W words; `center` is None."""
        ...


def load_backbone(
    config: FeaturesConfig, *, precision: str = "highest", mesh: Mapping[str, int] | None = None
) -> Backbone:
    """Loads the model that a configuration names.

    Args:
        config: `kind` picks the family, `model` is a checkpoint directory, a name in `config.EMBEDDED_MODELS`, or
            with `revision` an id of the Hugging Face hub.
        precision: of matrix products on accelerators, as in `jax.default_matmul_precision`.
        mesh: `run.mesh`. `model` devices share one copy of the weights (1), `data` copies each
            encode a part of every batch (as many as there are devices).

    Returns:
        The backbone.

    Raises:
        ConfigError: if the kind has no model, `model` is not given, or devices are too few.
        MissingInputError: if the directory is not there, or the model neither in the hub's cache nor to be fetched.
        WeightsError: if the checkpoint cannot be trusted.
    """
    if isinstance(config, PrecomputedConfig):
        raise ConfigError(
            f"`features.kind` {config.kind!r} has no model to load. Kinds that do: {', '.join(FAMILIES)}."
        )
    check_folder(config)
    family = FAMILIES[config.kind]
    options = {key: getattr(config, key) for key in family.options}
    backbone = family.port.load(_folder(config), precision=precision, mesh=sharding.model_mesh(mesh or {}), **options)
    of_hub = hub_id(config)
    return backbone if of_hub is None else replace(backbone, name=f"{of_hub}@{str(config.revision)[:8]}")


def planned_tokens(config: ModelConfig) -> tuple[int, int] | None:
    """Says how many image-tokens a model will give, from its `config.json` alone.

    Args:
        config: the section [features].

    Returns:
        Image-tokens P of an image and their width D; None where the folder cannot be read, or is not there yet.
    """
    family = FAMILIES[config.kind]
    try:
        check_folder(config)
        # a model of the hub may be in its cache already; nothing is fetched here
        backbone = getattr(family.port, family.backbone).blank(hub.hub_folder(config) or _folder(config))
    except MineError:
        return None  # said where it is loaded
    rows, columns = getattr(config, "grid", None) or backbone.grid
    return rows * columns, min(config.reduce or backbone.width, backbone.width)


def check_folder(config: ModelConfig) -> None:
    """Raises if the folder of a checkpoint is not there.

    Opens nothing, and asks nothing of the hub.

    Args:
        config: the section [features].

    Raises:
        ConfigError: if no model is given.
        MissingInputError: if its directory is not there.
    """
    if config.model is None:
        raise ConfigError(
            '`features.model` must be a checkpoint directory, or "phantom" for the embedded one. Only a model of the '
            f"hub is fetched; {FETCH}."
        )
    if config.model in EMBEDDED_MODELS or hub_id(config) is not None or Path(config.model).is_dir():
        return
    raise MissingInputError(
        f"no checkpoint directory at {config.model}. For a model OWNER/NAME of the Hugging Face hub set "
        "`features.revision` to the 40 hex digits of a commit of it."
    )


def _folder(config: ModelConfig) -> Path:
    """Returns the folder of the checkpoint; one of the hub is fetched where that is allowed."""
    assert config.model is not None
    if config.model in EMBEDDED_MODELS:
        folder = config.kind + EMBEDDED_MODELS[config.model]
        return Path(str(importlib.resources.files("mine_jax") / "phantom" / "weights" / folder))
    if hub_id(config) is not None:
        return hub.fetched(config)
    return Path(config.model)


def family_of(directory: str | Path) -> str | None:
    """Returns the kind of features that reads a folder, by its config.json.

    Args:
        directory: any file or folder.

    Returns:
        The kind; None where it holds no checkpoint of a family of `FAMILIES`.
    """
    try:
        model_type = str(json.loads((Path(directory) / "config.json").read_bytes()).get("model_type"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return kind_of(model_type)


def resolve_layer(layer: int, n_layers: int) -> int:
    """Returns a layer as 0 (embeddings) to n_layers; negative counts from the end.

    Raises:
        ConfigError: if there is no such layer.
    """
    if not -n_layers - 1 <= layer <= n_layers:
        raise ConfigError(f"`features.layer` must be {-n_layers - 1} to {n_layers} (0 = embeddings), but is {layer}.")
    return layer if layer >= 0 else n_layers + 1 + layer
