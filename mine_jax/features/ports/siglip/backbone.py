"""A Hugging Face SigLIP or SigLIP 2 checkpoint -> image-tokens and a word lens, in flax.

Image vectors of SigLIP come from a head in which a probe attends to all tokens. The lens asks
that head about one token alone: the attention over a single token is 1 whatever the probe, so
the head becomes an affine map of the normed token, followed by the head's own MLP. Averaged
over tokens by the attention weights, the affine parts add up to what the whole image gives.

Fixed-resolution checkpoints of SigLIP 2 have the same classes and load here; they differ in
tokenizer, image filter and sizes, which all come from their files.

Source: Zhai et al. 2023 (arXiv 2303.15343); Tschannen et al. 2025 (arXiv 2502.14786); layout of
transformers `SiglipModel`. The lens of single tokens is ours.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mine_jax import sharding
from mine_jax._progress import Progress, silent
from mine_jax.errors import ConfigError, WeightsError
from mine_jax.features.backbone import resolve_layer
from mine_jax.features.lens import check_words
from mine_jax.features.ports import weights as checkpoint
from mine_jax.features.ports.config import processor_values
from mine_jax.features.ports.layers import is_block_product
from mine_jax.features.ports.params import load_params
from mine_jax.features.ports.siglip import config as siglip_config
from mine_jax.features.ports.siglip.config import SiglipConfig
from mine_jax.features.ports.siglip.model import Siglip
from mine_jax.features.ports.text import (
    TEMPLATES,
    check_tokenizer,
    lens_defaults,
    load_tokenizer,
    token_ids,
    word_vectors,
)
from mine_jax.features.preprocess import ImageProcessor, read_processor, stack
from mine_jax.types import Array, Lens

UNUSED = ("position_ids",)
# Defaults of transformers' SiglipImageProcessor.
PROCESSOR = {"do_center_crop": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@dataclass(frozen=True, eq=False, repr=False)
class SiglipBackbone:
    """A loaded SigLIP model; see `backbone.Backbone` for what each member means."""

    name: str
    sha256: str
    config: SiglipConfig
    params: dict[str, Any]
    image_processor: ImageProcessor
    directory: Path
    precision: str = "highest"
    mesh: Mesh | None = None

    @property
    def layers(self) -> int:
        """Number of transformer blocks of the vision tower."""
        return self.config.vision.layers

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image-tokens."""
        return (self.config.side, self.config.side)

    @property
    def width(self) -> int:
        """Width D of an image-token."""
        return self.config.vision.width

    @property
    def processor(self) -> dict[str, Any]:
        """The preprocessing, as plain values."""
        return self.image_processor.to_dict()

    def preprocess(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns pixels [B, rows, columns, 3] float32 of uint8 [height, width, 3] images."""
        return stack(self.image_processor, list(images), image_size=self.config.image_size)

    def encode(self, pixels: Array, *, layers: Sequence[int] = (-1,)) -> dict[int, jax.Array]:
        """Returns layer -> image-tokens [B, P, D] float32.

        Layer 0 is the embeddings, l the output of block l, -1 the last, before the final norm.

        Raises:
            ConfigError: for a layer that the model does not have.
        """
        numbers = tuple(resolve_layer(layer, self.layers) for layer in layers)
        placed = sharding.split_batch(pixels, self.mesh)
        tokens = _encode(self.params, placed, model=self._model, layers=numbers)
        return {layer: states[: len(pixels)] for layer, states in zip(layers, tokens, strict=True)}

    def image_features(self, pixels: Array) -> jax.Array:
        """Returns pooled image vectors [B, J] float32, not normalized."""
        return _apply(self.params, pixels, model=self._model, method="image_features")

    def text_features(self, ids: Array) -> jax.Array:
        """Returns text vectors [B, J] float32 of padded token ids [B, T] int32."""
        return _apply(self.params, ids, model=self._model, method="text_features")

    def lens(
        self, words: Sequence[str] | np.ndarray, templates: Sequence[str] = TEMPLATES, *, progress: Progress = silent
    ) -> Lens:
        """Builds the lens of the last layer over a word list; its center is not set.

        Args:
            words: W different words.
            templates: prompts with one `{}`, averaged for each word.
            progress: called with (texts done, all texts).

        Returns:
            The lens: post_layernorm, the pooling head for one token, unit length, centered text
            vectors [W, J].

        Raises:
            ConfigError: if the checkpoint has no text tower or no head, or a template has no `{}`.
            DataError: for an unusable word list, or a prompt longer than the text tower takes.
            WeightsError: if the tokenizer does not fit the text embedding.
        """
        if self.config.text is None or not self.config.has_head:
            raise ConfigError(f"{self.name} has no text tower or no pooling head, so it reads no words.")
        words = check_words(words)
        vectors = word_vectors(words, templates, tokenize=self._tokenize, encode=self.text_features, progress=progress)
        scale, bias = (float(np.asarray(self.params[name])[0]) for name in ("logit_scale", "logit_bias"))
        return Lens(
            words=words,
            unembedding=vectors,
            bias=np.full(len(words), bias, np.float32),
            normalize=True,
            scale=float(np.exp(scale)),
            **self._token_head(),
        )

    def lens_defaults(self) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
        """Returns words and templates of `lens.json`; None where it has none."""
        return lens_defaults(self.directory)

    @property
    def _model(self) -> Siglip:
        return Siglip(self.config, self.precision)

    def _token_head(self) -> dict[str, Any]:
        """Returns the norm and the pooling head for one token alone, as fields of a lens."""
        vision = jax.tree.map(np.asarray, self.params["vision_model"])
        head, width = vision["head"], self.width
        # one token gets all the attention: out_proj(value(x)) is an affine map, folded in float64
        value = head["attention"]["in_proj_weight"][2 * width :].astype(np.float64).T
        value_bias = head["attention"]["in_proj_bias"][2 * width :].astype(np.float64)
        out = head["attention"]["out_proj"]
        return {
            "norm": "layer",
            "norm_scale": vision["post_layernorm"]["scale"],
            "norm_bias": vision["post_layernorm"]["bias"],
            "norm_epsilon": self.config.vision.epsilon,
            "projection": (value @ out["kernel"]).astype(np.float32),
            "projection_bias": (value_bias @ out["kernel"] + out["bias"]).astype(np.float32),
            "mlp": {
                "norm_scale": head["layernorm"]["scale"],
                "norm_bias": head["layernorm"]["bias"],
                "fc1": head["mlp"]["fc1"]["kernel"],
                "fc1_bias": head["mlp"]["fc1"]["bias"],
                "fc2": head["mlp"]["fc2"]["kernel"],
                "fc2_bias": head["mlp"]["fc2"]["bias"],
            },
            "mlp_activation": self.config.vision.activation,
        }

    def _tokenize(self, texts: Sequence[str]) -> np.ndarray:
        """Returns token ids [B, T] int32, filled to the full length as in training."""
        text = self.config.text
        assert text is not None
        tokenizer = load_tokenizer(self.directory)
        check_tokenizer(tokenizer, self.directory, text.vocabulary)
        if tokenizer.pad_token_id is None:
            raise WeightsError(
                f"the tokenizer in {self.directory} has no padding token, but SigLIP reads padded texts. "
                "Copy tokenizer_config.json and special_tokens_map.json too."
            )
        return token_ids(tokenizer, texts, limit=text.positions, length=text.positions, pad=int(tokenizer.pad_token_id))


def load(
    directory: str | Path, *, precision: str = "highest", mesh: Mesh | None = None, weights: str = "float32"
) -> SiglipBackbone:
    """Loads a SigLIP checkpoint directory: config.json and safetensors weights.

    Args:
        directory: the checkpoint; nothing is downloaded.
        precision: of matrix products on accelerators, as in `jax.default_matmul_precision`.
        mesh: devices over which batches are split; None for the default device.
        weights: dtype of the products of the vision blocks, float32 or bfloat16; embeddings, norms
            and the text tower are float32 in any case.

    Returns:
        The backbone; its weights do not keep the dtype that they have on disk.

    Raises:
        MissingInputError: if the directory or config.json is not there.
        WeightsError: if the configuration or the weights cannot be trusted; see `_weights`.
    """
    directory = Path(directory)
    config = siglip_config.read_config(directory)
    values = {**PROCESSOR, **processor_values(directory)}
    image_processor = read_processor(values, image_size=config.image_size)
    params, _ = load_params(
        Siglip(config, precision),
        directory,
        unused=UNUSED,
        rename=siglip_config.RENAME if config.text is None else None,
        dtype=jnp.dtype(weights),
        keep_float32=keeps_float32,
        mesh=mesh,
    )
    return SiglipBackbone(
        name=directory.resolve().name,
        # stores of float32 models keep the hash that they had before there was a choice
        sha256=checkpoint.model_hash(directory, *((weights,) if weights != "float32" else ())),
        config=config,
        params=params,
        image_processor=image_processor,
        directory=directory,
        precision=precision,
        mesh=mesh,
    )


def keeps_float32(path: str) -> bool:
    """Tells whether a parameter is float32 whatever `weights` is."""
    return not (path.startswith("vision_model/") and is_block_product(path))


@functools.partial(jax.jit, static_argnames=("model", "layers"))
def _encode(params: dict[str, Any], pixels: Array, *, model: Siglip, layers: tuple[int, ...]) -> tuple[jax.Array, ...]:
    states: Any = model.apply({"params": params}, pixels, n_blocks=max(layers), method="image_states")
    return tuple(states[layer] for layer in layers)


@functools.partial(jax.jit, static_argnames=("model", "method"))
def _apply(params: dict[str, Any], value: Array, *, model: Siglip, method: str) -> Any:
    return model.apply({"params": params}, value, method=method)
