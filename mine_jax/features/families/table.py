"""What every family reads, and how large its usual models are, from their configurations alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mine_jax import memory
from mine_jax.config import ModelConfig
from mine_jax.features.families.registry import FAMILIES, TESTED_TRANSFORMERS, kind_of
from mine_jax.features.families.usual import USUAL
from mine_jax.features.ports.params import parameter_shapes
from mine_jax.features.ports.untrained import blank_backbone

# Parameters of a text tower or decoder, and of the first block of any tower.
_TEXT, _FIRST = ("text_model/", "language_model/"), re.compile(r"/(layers|blocks)_0/")
_LENSES = {
    "text": "a text lens: words in sentences, read by the text tower",
    "head": "the LM head: pieces of the language model's own vocabulary",
}


# What stands for a kind of which no usual model is named, where it is not the first of USUAL.
_EXAMPLES = {"clip": "openai/clip-vit-large-patch14"}


class UsualModel(NamedTuple):
    """A usual model: its id, whether the configuration names it, image-tokens P and their width D, bytes of weights."""

    model: str
    is_named: bool
    n_tokens: int
    width: int
    weights_bytes: int


def usual_model(config: ModelConfig) -> UsualModel:
    """Sizes of the usual model that a configuration names, or of one of its kind.

    Args:
        config: the section [features]; `model` need not be there. A hub id, or a folder of its name, names a model.

    Returns:
        Its sizes, with the grid, the reduction and the type of weights of the configuration.
    """
    of_kind = [name for name, values in USUAL.items() if kind_of(values["model_type"]) == config.kind]
    wanted = Path(config.model or "").name
    named = next((name for name in of_kind if Path(name).name == wanted), None)
    model = named or _EXAMPLES.get(config.kind, of_kind[0])
    sizes = _sizes(USUAL[model])
    rows, columns = getattr(config, "grid", None) or sizes["grid"]
    width = min(config.reduce or sizes["width"], sizes["width"])
    return UsualModel(model, named is not None, rows * columns, width, sizes[f"{config.weights}_bytes"])


def backbones() -> pd.DataFrame:
    """Computes the sizes of usual models; nothing of them is loaded.

    Returns:
        One row for each: kind, model (its id on the hub), layers, image-tokens per image and their grid, width D,
        parameters, and bytes of the weights in float32 and bfloat16 (the head of a language model, which only the
        lens reads, left out).
    """
    return pd.DataFrame(
        [{"kind": kind_of(values["model_type"]), "model": name, **_sizes(values)} for name, values in USUAL.items()]
    )


def lines() -> Iterator[str]:
    """Yields what `mine-jax backbones` prints: the table, then an example of each kind."""
    table = backbones()
    sizes = {
        "image-tokens": [f"{rows * columns} ({rows} x {columns})" for rows, columns in table["grid"]],
        "parameters": [f"{count / 1e6:,.0f} M" for count in table["parameters"]],
        "float32": table["float32_bytes"].map(memory.readable),
        "bfloat16": table["bfloat16_bytes"].map(memory.readable),
    }
    yield from table[["kind", "model", "layers", "width"]].assign(**sizes).to_string(index=False).splitlines()
    yield ""
    yield "Image-tokens are those of one image, width is their D; float32 and bfloat16 are the bytes of the weights, by"
    yield f"features.weights. Every port is tested against transformers {TESTED_TRANSFORMERS}. Examples of [features]:"
    for kind, family in FAMILIES.items():
        named = table.loc[table["kind"] == kind, "model"].iloc[0]
        yield ""
        yield f"# image-tokens and {_LENSES[family.lens]}"
        yield f'kind = "{kind}"'
        if "/" not in named:
            yield f'model = "{named}"  # a folder: mine_jax/features/ports/README.md says how to make it'
            continue
        yield f'model = "{named}"  # or a folder'
        cached = _cached(named)
        yield (
            f'revision = "{cached[0]}"  # in the local cache' if cached else 'revision = "<40 hex digits of a commit>"'
        )
        yield "allow_download = true"


def _sizes(values: Mapping[str, Any]) -> dict[str, Any]:
    backbone = blank_backbone(values)
    total, halved = _parameters(values)
    return {
        "layers": backbone.layers,
        "grid": backbone.grid,
        "width": backbone.width,
        "parameters": total,
        "float32_bytes": 4 * total,
        "bfloat16_bytes": 4 * total - 2 * halved,
    }


def _parameters(values: Mapping[str, Any]) -> tuple[int, int]:
    """Counts parameters, and those of them that can be bfloat16.

    The blocks of a tower are alike: two of each are traced, and the first stands for all others too.
    """
    depths, shallow = {}, dict(values)
    for name in {"vision_config", "text_config"} & set(values):
        key = "depth" if "depth" in values[name] else "num_hidden_layers"
        depths[name], shallow[name] = values[name][key], {**values[name], key: 2}
    backbone = blank_backbone(shallow)
    total = halved = 0
    for path, leaf in parameter_shapes(backbone.model).items():
        tower = "text_config" if path.startswith(_TEXT) else "vision_config"
        n = int(np.prod(leaf.shape)) * (depths[tower] - 1 if _FIRST.search(path) else 1)
        total, halved = total + n, halved + n * (not backbone.keeps_float32(path))
    return total, halved


def _cached(model: str) -> list[str]:
    """Returns the commits of a model that lie in the local cache."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE).expanduser() / repo_folder_name(repo_id=model, repo_type="model")
    return sorted(path.name for path in folder.glob("snapshots/*") if path.is_dir())
