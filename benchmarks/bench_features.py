"""Image-tokens of frozen models with random weights, as a share of what the device can multiply.

The peak is measured in the same run: the largest rate of square products and of the two
products of the model's own MLP, in the dtype of the weights. The FLOP of a model are counted by
the formula below: matrix products only, attention over the full square. On a CPU the peer is
torch with the same weights on one thread; there only ratios are given. On an accelerator it is
the same model in float32, which says what bfloat16 weights change.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Case
from benchmarks.peaks import Product, Work, squares
from mine_jax.features.families.usual import USUAL
from mine_jax.features.ports.decoder.backbone import BLANK_PROMPT
from mine_jax.features.ports.untrained import untrained_backbone

HEADER = "equal work: image-tokens of the last layer of one batch, pixels on the device"
REFERENCE = "torch"
_TINY = {"model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2}
_TINY |= {"num_attention_heads": 4, "image_size": 64, "patch_size": 16}
_LLAMA_TINY = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2}
_LLAMA_TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64}
# name -> config.json, with the sizes of the published models
MODELS: dict[str, dict[str, Any]] = {
    "tiny": _TINY,
    "llava_tiny": {"model_type": "llava", "vision_config": _TINY, "text_config": _LLAMA_TINY, "image_token_index": 63},
    "vit_b32": USUAL["openai/clip-vit-base-patch32"]["vision_config"],
    "vit_l14_336": USUAL["openai/clip-vit-large-patch14-336"]["vision_config"],
    "llava_7b": USUAL["llava-hf/llava-1.5-7b-hf"],
}


def variants(case: Case) -> tuple[str, ...]:
    """Returns the models of a case."""
    return case.models


def inputs(case: Case, *, variant: str, seed: int = 0) -> dict[str, Any]:
    """Makes the model in the dtype of the device and a batch of pixels."""
    values, on_cpu = MODELS[variant], jax.default_backend() == "cpu"
    all_blocks = values.get("text_config", {}).get("num_hidden_layers")
    blocks = all_blocks and min(all_blocks, case.decoder_layers or (1 if on_cpu and all_blocks > 2 else all_blocks))
    if blocks:
        values = {**values, "text_config": {**values["text_config"], "num_hidden_layers": blocks}}
    weights = "float32" if on_cpu else "bfloat16"
    backbone = untrained_backbone(values, key=jax.random.key(seed), weights=weights)
    side = values.get("vision_config", values)["image_size"]
    pixels = jax.random.normal(jax.random.key(seed + 1), (case.feature_batch, side, side, 3))
    return {
        "backbone": backbone,
        "values": values,
        "pixels": pixels,
        "weights": weights,
        "model": variant if blocks in (None, all_blocks) else f"{variant}, {blocks} of {all_blocks} decoder layers",
    }


def implementations(case: Case, data: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Returns name -> call that gives the tokens [B, P, D]."""
    del case
    backbone, pixels = data["backbone"], data["pixels"]

    def encode(model: Any) -> dict[str, Any]:
        return {"tokens": model.encode(pixels)[-1]}

    calls: dict[str, Callable[[], Any]] = {}
    if data["weights"] != "float32":
        # the same numbers, so that the error is that of the products alone
        exact = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), backbone.params)
        calls["jax_float32"] = functools.partial(encode, _with_params(backbone, exact))
    elif data["values"]["model_type"] == "clip_vision_model" and importlib.util.find_spec("transformers"):
        if importlib.util.find_spec("torch"):
            calls["torch"] = _torch(data)
    calls["mine_jax"] = functools.partial(encode, backbone)
    return calls


def compare(result: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Returns the norm of the difference relative to that of the reference."""
    expected = np.asarray(reference["tokens"], np.float64)
    return {"max_abs_err": float(np.linalg.norm(np.asarray(result["tokens"]) - expected) / np.linalg.norm(expected))}


def work(case: Case, data: dict[str, Any]) -> dict[str, Work]:
    """Counts what every implementation must do: `model_flop`, and weights and pixels read once."""
    n_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(data["backbone"].params)) + data["pixels"].nbytes
    return dict.fromkeys(
        ("torch", "mine_jax", "jax_float32"), Work(case.feature_batch * model_flop(data["values"]), n_bytes)
    )


def products(case: Case, data: dict[str, Any]) -> tuple[Product, ...]:
    """Returns square products and the two of the MLP that does most of the work."""
    vision = data["values"].get("vision_config", data["values"])
    sizes = data["values"].get("text_config", vision)
    rows = case.feature_batch * (vision["image_size"] // vision["patch_size"]) ** 2
    width, hidden = sizes["hidden_size"], sizes["intermediate_size"]
    up, down = Product(rows, width, hidden, data["weights"]), Product(rows, hidden, width, data["weights"])
    return (*squares(case, dtype=data["weights"]), up, down)


def finish(rows: list[dict[str, Any]], data: dict[str, Any]) -> list[dict[str, Any]]:
    """Adds the model, and rates on accelerators."""
    n_images, backbone = data["pixels"].shape[0], data["backbone"]
    for row in rows:
        row |= {"model": data["model"], "weights": data["weights"], "flop_per_image": model_flop(data["values"])}
        if jax.default_backend() != "cpu":
            row["images_per_s"] = n_images / row["seconds"]
            row["tokens_per_s"] = row["images_per_s"] * backbone.grid[0] * backbone.grid[1]
    return rows


def model_flop(values: dict[str, Any]) -> float:
    """Counts the FLOP of the matrix products for one image, two per multiplication and addition.

    Per block of a tower: 2 T (4 D^2 + 2 D F) for the six matrices and 4 T^2 D for scores and mixing;
    of a decoder with gated MLP: 2 T (2 D Q + 2 D K + 3 D F) and 4 T^2 Q, the whole square, with
    T tokens, width D, hidden width F, query width Q and key width K.
    """
    vision = values.get("vision_config", values)
    width, hidden = vision["hidden_size"], vision["intermediate_size"]
    n_patches = (vision["image_size"] // vision["patch_size"]) ** 2
    n_tokens = n_patches + 1
    # LLaVA reads the tower before its last block
    blocks = vision["num_hidden_layers"] - (values is not vision)
    block = 2 * n_tokens * (4 * width**2 + 2 * width * hidden) + 4 * n_tokens**2 * width
    total = 2 * n_patches * 3 * vision["patch_size"] ** 2 * width + blocks * block
    if values is vision:
        return float(total)
    text = values["text_config"]
    d, f, n_tokens = text["hidden_size"], text["intermediate_size"], n_patches + BLANK_PROMPT
    keys = d * text["num_key_value_heads"] // text["num_attention_heads"]
    total += 2 * n_patches * (width * d + d**2)
    block = 2 * n_tokens * (2 * d**2 + 2 * d * keys + 3 * d * f) + 4 * n_tokens**2 * d
    return float(total + text["num_hidden_layers"] * block)


def _with_params(backbone: Any, params: Any) -> Any:
    return type(backbone)(**{**vars(backbone), "params": params})


def _torch(data: dict[str, Any]) -> Callable[[], Any]:
    """Runs the same weights in transformers' class on one thread."""
    import torch
    import transformers

    torch.set_num_threads(1)
    sizes = {key: value for key, value in data["values"].items() if key != "model_type"}
    model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**sizes)).eval()
    weights = {
        _torch_name(jax.tree_util.keystr(path, simple=True, separator="/")): torch.tensor(_torch_axes(np.asarray(leaf)))
        if path[-1].key == "kernel"
        else torch.tensor(np.asarray(leaf))
        for path, leaf in jax.tree_util.tree_flatten_with_path(data["backbone"].params)[0]
    }
    model.load_state_dict(weights)
    pixels = torch.tensor(np.asarray(data["pixels"]).transpose(0, 3, 1, 2).copy())

    def encode() -> dict[str, Any]:
        with torch.inference_mode():
            return {"tokens": model(pixels).last_hidden_state[:, 1:].numpy()}

    return encode


def _torch_name(path: str) -> str:
    name = re.sub(r"layers_(\d+)", r"layers.\1", path.removeprefix("vision_model/")).replace("/", ".")
    return re.sub(r"\.(kernel|scale|embedding)$", ".weight", name)


def _torch_axes(kernel: np.ndarray) -> np.ndarray:
    """Turns [..., in, out] to torch's [out, in, ...]."""
    n = kernel.ndim
    return kernel.transpose(n - 1, n - 2, *range(n - 2)).copy()
