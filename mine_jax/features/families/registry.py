"""`features.kind` -> the port that reads such checkpoints, and what it makes of them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

# The release whose classes the tests compare every port with.
TESTED_TRANSFORMERS = "5.23.0"


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
        module: module of the port, with `load`.
        backbone: class in it.
        model_types: `model_type` in config.json of the checkpoints that it reads.
        lens: "text" where words are read by a text tower in sentences, "head" where by the head of a language model.
        options: keys of `[features]` that `load` takes besides precision and mesh.
    """

    module: str
    backbone: str
    model_types: tuple[str, ...]
    lens: str
    options: tuple[str, ...] = ("weights",)

    @property
    def port(self) -> Any:
        """The module; loaded on first use."""
        return importlib.import_module(self.module)


def _port(name: str) -> str:
    return f"mine_jax.features.ports.{name}.backbone"


FAMILIES = {
    "clip": Family(_port("clip"), "ClipBackbone", ("clip", "clip_vision_model"), "text", ("image_tokens", "weights")),
    "dinotxt": Family(_port("dinotxt"), "DinoTxtBackbone", ("dinotxt",), "text", ("weights", "grid")),
    "llava": Family(_port("llava"), "LlavaBackbone", ("llava",), "head", ("prompt", "weights")),
    "llava_onevision": Family(
        "mine_jax.features.ports.llava.onevision",
        "LlavaOnevisionBackbone",
        ("llava_onevision",),
        "head",
        ("prompt", "weights", "grid"),
    ),
    "qwen2_5_vl": Family(_port("qwen_vl"), "QwenBackbone", ("qwen2_5_vl",), "head", ("prompt", "weights", "grid")),
    "siglip": Family(_port("siglip"), "SiglipBackbone", ("siglip", "siglip_vision_model"), "text"),
    "siglip_naflex": Family(
        _port("siglip_naflex"), "NaflexBackbone", ("siglip2", "siglip2_vision_model"), "text", ("weights", "grid")
    ),
}


def kind_of(model_type: str) -> str | None:
    """Returns the kind of features that reads checkpoints of a `model_type`; None where none does."""
    return next((kind for kind, family in FAMILIES.items() if model_type in family.model_types), None)
