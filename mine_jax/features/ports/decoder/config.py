"""The decoder's part of a config.json -> checked sizes of a Llama or Qwen2 language model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mine_jax.errors import WeightsError
from mine_jax.features.ports.config import activation, epsilon, integer, section

# Defaults and names of transformers' LlamaConfig and Qwen2Config.
_LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "mlp_bias": False,
}
_QWEN2 = {**_LLAMA, "vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768}
_QWEN2["num_key_value_heads"] = 32
# of Qwen2.5-VL, whose positions are three numbers
_QWEN2_VL = {
    **_QWEN2,
    "vocab_size": 152064,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "mrope_section": [16, 24, 24],
}
TEXT = {"llama": _LLAMA, "qwen2": _QWEN2, "qwen2_5_vl_text": _QWEN2_VL}


@dataclass(frozen=True)
class Rope:
    """Rotary positions: kind is "default", "linear" or "llama3".

    Attributes:
        sections: pairs of a head that time, row and column turn; () where a position is one number.
    """

    kind: str = "default"
    theta: float = 10000.0
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_positions: int = 8192
    sections: tuple[int, ...] = ()


@dataclass(frozen=True)
class Decoder:
    """Sizes of the language model.

    Attributes:
        width: D of the hidden states.
        hidden: width of the hidden layer of the MLP.
        layers: number of blocks.
        heads: query heads.
        key_heads: heads of keys and values; `heads` is a multiple.
        head_width: of one head.
        activation: name of the activation of the gate.
        epsilon: of the norms.
        vocabulary: rows of the token embedding and of the head.
        positions: longest sequence.
        qkv_bias: whether query, key and value projections have biases.
        out_bias: whether the output projection of the attention has one.
        mlp_bias: whether the projections of the MLP have biases.
        tied: whether the head is the token embedding.
        rope: rotary positions.
    """

    width: int
    hidden: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    activation: str
    epsilon: float
    vocabulary: int
    positions: int
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    tied: bool
    rope: Rope


@dataclass(frozen=True, kw_only=True)
class VisionLanguage:
    """Sizes of a model whose decoder sees an image in its prompt.

    Attributes:
        decoder: the language model.
        image_token: id that stands for one image-token in the prompt.
    """

    decoder: Decoder
    image_token: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image-tokens."""
        raise NotImplementedError

    @property
    def has_class(self) -> bool:
        """Whether a class token goes through the decoder before the grid."""
        return False

    @property
    def n_before(self) -> int:
        """Image ids before the grid."""
        return int(self.has_class)

    @property
    def row_end(self) -> int:
        """Image ids after each row of the grid, which are no image-tokens."""
        return 0

    @property
    def n_placeholders(self) -> int:
        """Image ids in a prompt: the grid, what comes before it and what ends its rows."""
        return self.n_before + self.grid[0] * (self.grid[1] + self.row_end)


def read_image_token(path: Path, values: dict[str, Any], default: int) -> int:
    """Returns the id that stands for one image-token.

    Raises:
        WeightsError: if it is no token id.
    """
    image_token = values.get("image_token_index", values.get("image_token_id", default))
    if isinstance(image_token, bool) or not isinstance(image_token, int) or image_token < 0:
        raise WeightsError(f"{path}: `image_token_index` must be a token id, but is {image_token!r}.")
    return image_token


def read_decoder(path: Path, values: dict[str, Any], *, default: str) -> Decoder:
    """Returns the sizes of the language model in `text_config`.

    Args:
        path: for messages.
        values: the whole configuration.
        default: `model_type` of a section that names none.

    Raises:
        WeightsError: for another architecture, or a value that cannot be honored.
    """
    content = values.get("text_config") or {}
    kind = content.get("model_type", default) if isinstance(content, dict) else None
    if kind not in TEXT:
        raise WeightsError(f"{path}: the language model must be one of {tuple(TEXT)}, but is {kind!r}.")
    text = section(path, values, "text_config", TEXT[kind])
    width, hidden, layers, heads, vocabulary, positions = (
        integer(path, text, key)
        for key in (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "vocab_size",
            "max_position_embeddings",
        )
    )
    sizes = {key: value for key, value in text.items() if value is not None}
    key_heads = integer(path, {"num_key_value_heads": heads, **sizes}, "num_key_value_heads")
    head_width = integer(path, {"head_dim": width // heads, **sizes}, "head_dim")
    if heads % key_heads or head_width % 2:
        raise WeightsError(
            f"{path}: {heads} attention heads must be a multiple of {key_heads} key-value heads, of even width, "
            f"but one head has width {head_width}."
        )
    sliding = text.get("layer_types") or []
    if (kind != "llama" and text.get("use_sliding_window")) or "sliding_attention" in sliding:
        raise WeightsError(f"{path}: sliding-window attention is not supported.")
    biased = kind != "llama" or bool(text["attention_bias"])
    return Decoder(
        width=width,
        hidden=hidden,
        layers=layers,
        heads=heads,
        key_heads=key_heads,
        head_width=head_width,
        activation=activation(path, text),
        epsilon=epsilon(path, text, "rms_norm_eps"),
        vocabulary=vocabulary,
        positions=positions,
        qkv_bias=biased,
        out_bias=biased and kind == "llama",
        mlp_bias=kind == "llama" and bool(text["mlp_bias"]),
        tied=bool(values.get("tie_word_embeddings", False) or text.get("tie_word_embeddings", False)),
        rope=_with_sections(path, text, head_width, _read_rope(path, text, positions)),
    )


def _read_rope(path: Path, text: dict[str, Any], positions: int) -> Rope:
    """Reads `rope_parameters`, or the older `rope_theta` with `rope_scaling`."""
    scaling, parameters = text.get("rope_scaling") or {}, text.get("rope_parameters") or {}
    if not isinstance(scaling, dict) or not isinstance(parameters, dict):
        raise WeightsError(f"{path}: `rope_parameters` and `rope_scaling` must be objects.")
    values = {"rope_theta": text.get("rope_theta", 10000.0), **scaling, **parameters}
    kind = values.get("rope_type", values.get("type", "default"))
    # so called where positions are three numbers, which sections say as well
    kind = "default" if kind == "mrope" else kind
    if kind not in ("default", "linear", "llama3") or values.get("partial_rotary_factor", 1) != 1:
        raise WeightsError(
            f"{path}: rotary positions must be default, linear or llama3 over whole heads, but are {values!r}."
        )
    if kind == "default":
        return Rope(theta=_positive(path, values, "rope_theta"))
    theta, factor = _positive(path, values, "rope_theta"), _positive(path, values, "factor")
    if kind == "linear":
        return Rope(kind, theta, factor)
    older = {"original_max_position_embeddings": positions, **values}
    return Rope(
        kind=kind,
        theta=theta,
        factor=factor,
        low_frequency_factor=_positive(path, values, "low_freq_factor"),
        high_frequency_factor=_positive(path, values, "high_freq_factor"),
        original_positions=int(_positive(path, older, "original_max_position_embeddings")),
    )


def _with_sections(path: Path, text: dict[str, Any], head_width: int, rope: Rope) -> Rope:
    """Adds which part of a head time, row and column turn, where positions are three numbers."""
    given = [text.get(name) or {} for name in ("rope_parameters", "rope_scaling")]
    sections = next((part["mrope_section"] for part in [*given, text] if "mrope_section" in part), None)
    if sections is None:
        return rope
    if (
        len(sections) != 3
        or not all(isinstance(n, int) and n >= 0 for n in sections)
        or 2 * sum(sections) != head_width
    ):
        raise WeightsError(
            f"{path}: `mrope_section` must be three numbers that add up to half the width {head_width} of a head, but "
            f"is {sections!r}."
        )
    return dataclasses.replace(rope, sections=tuple(sections))


def _positive(path: Path, values: dict[str, Any], key: str) -> float:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
        raise WeightsError(f"{path}: `{key}` of the rotary positions must be a positive number, but is {value!r}.")
    return float(value)
