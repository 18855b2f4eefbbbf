"""A config.json -> a model of those sizes, without weights or with random ones that are made on the device.

To know size, speed and memory of a model before its checkpoint is there. Its tokens mean nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mine_jax.features.families.registry import FAMILIES, kind_of
from mine_jax.features.ports.params import random_params
from mine_jax.features.ports.tower import CheckpointBackbone


def blank_backbone(values: Mapping[str, Any], *, precision: str = "highest") -> CheckpointBackbone:
    """Makes a model of the sizes of a configuration, without weights: only its sizes can be asked for.

    Args:
        values: the content of a `config.json` of a family of `FAMILIES`.
        precision: of matrix products on accelerators, as in `jax.default_matmul_precision`.

    Raises:
        KeyError: for another `model_type`.
        WeightsError: for sizes that a checkpoint may not have either.
    """
    kind = kind_of(values["model_type"])
    if kind is None:
        raise KeyError(values["model_type"])
    family = FAMILIES[kind]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(dict(values)), encoding="utf-8")
        return getattr(family.port, family.backbone).blank(Path(folder), precision=precision)


def untrained_backbone(
    values: Mapping[str, Any], *, key: jax.Array, weights: str = "float32", precision: str = "highest"
) -> CheckpointBackbone:
    """Makes a model of the sizes of a configuration, with random weights.

    Args:
        values: the content of a `config.json` of a family of `FAMILIES`.
        key: draws the weights, normal with standard deviation 0.02; norms are at 1 and 0.
        weights: float32 or bfloat16, as in `[features]`; no second copy is ever made.
        precision: of matrix products on accelerators, as in `jax.default_matmul_precision`.

    Returns:
        The backbone, on the default device; it reads no words.

    Raises:
        KeyError: for another `model_type`.
        WeightsError: for sizes that a checkpoint may not have either.
    """
    blank = blank_backbone(values, precision=precision)
    params = random_params(blank.model, key=key, dtype=jnp.dtype(weights), keep_float32=blank.keeps_float32)
    return replace(blank, params=params)
