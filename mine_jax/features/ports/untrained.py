"""A config.json -> a model of those sizes with random weights, made on the device.

To measure speed and memory of a model before its checkpoint is there. Its tokens mean nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mine_jax.features.backbone import Backbone
from mine_jax.features.ports import tower
from mine_jax.features.ports.clip.backbone import ClipBackbone
from mine_jax.features.ports.llava import backbone as llava
from mine_jax.features.ports.llava import config as llava_config
from mine_jax.features.ports.llava.config import LlavaConfig
from mine_jax.features.ports.llava.model import Llava
from mine_jax.features.ports.params import random_params
from mine_jax.features.ports.siglip.backbone import SiglipBackbone
from mine_jax.features.ports.tower import TwoTowerBackbone
from mine_jax.features.preprocess import read_processor

# Tokens of a short prompt before the image of a language model.
PROMPT_TOKENS = 5
_TOWERS: dict[str, type[TwoTowerBackbone]] = {
    "clip": ClipBackbone,
    "clip_vision_model": ClipBackbone,
    "siglip": SiglipBackbone,
    "siglip_vision_model": SiglipBackbone,
}


def untrained_backbone(
    values: Mapping[str, Any], *, key: jax.Array, weights: str = "float32", precision: str = "highest"
) -> Backbone:
    """Makes a model of the sizes of a configuration, with random weights.

    Args:
        values: the content of a `config.json` with `model_type` CLIP, SigLIP or LLaVA.
        key: draws the weights, normal with standard deviation 0.02; norms are at 1 and 0.
        weights: float32 or bfloat16, as in `[features]`; no second copy is ever made.
        precision: of matrix products on accelerators, as in `jax.default_matmul_precision`.

    Returns:
        The backbone, on the default device; it reads no words.

    Raises:
        KeyError: for another `model_type`.
        WeightsError: for sizes that a checkpoint may not have either.
    """
    settings: dict[str, Any] = {
        "name": "untrained",
        "sha256": "",
        "directory": Path("untrained"),
        "precision": precision,
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(dict(values)), encoding="utf-8")
        if values["model_type"] == "llava":
            return _llava(llava_config.read_config(Path(folder)), key, weights, settings)
        kind = _TOWERS[values["model_type"]]
        config = kind.read_config(Path(folder))
    network = kind.network(config, precision)
    params = random_params(network, key=key, dtype=jnp.dtype(weights), keep_float32=tower.keeps_float32)
    processor = read_processor(dict(kind.processor_defaults), image_size=config.image_size)
    return kind(config=config, params=params, image_processor=processor, **settings)


def _llava(config: LlavaConfig, key: jax.Array, weights: str, settings: dict[str, Any]) -> Backbone:
    network = Llava(config, settings["precision"])
    params = random_params(network, key=key, dtype=jnp.dtype(weights), keep_float32=llava.keeps_float32)
    ids = np.full(PROMPT_TOKENS + config.n_placeholders, config.image_token, np.int32)
    ids[:PROMPT_TOKENS] = 0
    processor = read_processor({}, image_size=config.vision.image_size)
    return llava.LlavaBackbone(
        config=config, params=params, image_processor=processor, tensors=None, prompt_ids=ids, **settings
    )
