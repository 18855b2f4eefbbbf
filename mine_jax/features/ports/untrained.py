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
from mine_jax.features.ports.clip import backbone as clip
from mine_jax.features.ports.clip import config as clip_config
from mine_jax.features.ports.clip.model import Clip
from mine_jax.features.ports.llava import backbone as llava
from mine_jax.features.ports.llava import config as llava_config
from mine_jax.features.ports.llava.model import Llava
from mine_jax.features.ports.params import random_params
from mine_jax.features.ports.siglip import backbone as siglip
from mine_jax.features.ports.siglip import config as siglip_config
from mine_jax.features.ports.siglip.model import Siglip
from mine_jax.features.preprocess import read_processor

# Tokens of a short prompt before the image of a language model.
PROMPT_TOKENS = 5
_FAMILIES: dict[str, tuple[Any, Any, Any]] = {
    "clip": (clip_config.read_config, Clip, clip),
    "clip_vision_model": (clip_config.read_config, Clip, clip),
    "siglip": (siglip_config.read_config, Siglip, siglip),
    "siglip_vision_model": (siglip_config.read_config, Siglip, siglip),
    "llava": (llava_config.read_config, Llava, llava),
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
    read_config, module, family = _FAMILIES[values["model_type"]]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(dict(values)), encoding="utf-8")
        config = read_config(Path(folder))
    model = module(config, precision)
    params = random_params(model, key=key, dtype=jnp.dtype(weights), keep_float32=family.keeps_float32)
    common: dict[str, Any] = {"name": "untrained", "sha256": "", "config": config, "params": params}
    common |= {"precision": precision, "directory": Path("untrained")}
    if family is llava:
        ids = np.full(PROMPT_TOKENS + config.n_placeholders, config.image_token, np.int32)
        ids[:PROMPT_TOKENS] = 0
        processor = read_processor({}, image_size=config.vision.image_size)
        return llava.LlavaBackbone(image_processor=processor, tensors=None, prompt_ids=ids, **common)
    if family is siglip:
        processor = read_processor(siglip.PROCESSOR, image_size=config.image_size)
        return siglip.SiglipBackbone(image_processor=processor, **common)
    return clip.ClipBackbone(image_processor=read_processor({}, image_size=config.image_size), **common)
