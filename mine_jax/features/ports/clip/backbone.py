"""A Hugging Face CLIP checkpoint -> image-tokens and a word lens, in flax.

The towers are in `_clip_model.py`, the checks of config.json in `clip_config.py` and those
of the weights in `weights.py`.

Source: Radford et al. 2021 (arXiv 2103.00020); layout of transformers `CLIPModel`.
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
from mine_jax.features.ports.clip import config as clip_config
from mine_jax.features.ports.clip.config import ClipConfig
from mine_jax.features.ports.clip.model import Clip
from mine_jax.features.ports.config import processor_values
from mine_jax.features.ports.layers import is_block_product
from mine_jax.features.ports.params import load_params
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

# Buffers that older versions of transformers saved.
UNUSED = ("position_ids",)


@dataclass(frozen=True, eq=False, repr=False)
class ClipBackbone:
    """A loaded CLIP model; see `backbone.Backbone` for what each member means."""

    name: str
    sha256: str
    config: ClipConfig
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

        Layer 0 is the embeddings after their norm, l the output of block l, -1 the last.

        Raises:
            ConfigError: for a layer that the model does not have.
        """
        numbers = tuple(resolve_layer(layer, self.layers) for layer in layers)
        placed = sharding.split_batch(pixels, self.mesh)
        tokens = _encode(self.params, placed, model=Clip(self.config, self.precision), layers=numbers)
        return {layer: states[: len(pixels)] for layer, states in zip(layers, tokens, strict=True)}

    def image_features(self, pixels: Array) -> jax.Array:
        """Returns projected class tokens [B, J] float32, not normalized."""
        return _apply(self.params, pixels, model=Clip(self.config, self.precision), method="image_features")

    def text_features(self, ids: Array) -> jax.Array:
        """Returns projected text vectors [B, J] float32 of token ids [B, T] int32."""
        return _apply(self.params, ids, model=Clip(self.config, self.precision), method="text_features")

    def lens(
        self, words: Sequence[str] | np.ndarray, templates: Sequence[str] = TEMPLATES, *, progress: Progress = silent
    ) -> Lens:
        """Builds the lens of the last layer over a word list; its center is not set.

        Args:
            words: W different words.
            templates: prompts with one `{}`, averaged for each word.
            progress: called with (texts done, all texts).

        Returns:
            The lens: post_layernorm, visual projection, unit length, centered text vectors [W, J].

        Raises:
            ConfigError: if the checkpoint has no text tower or a template has no `{}`.
            DataError: for an unusable word list, or a prompt longer than the text tower takes.
            WeightsError: if the tokenizer does not fit the text embedding.
        """
        if self.config.text is None:
            raise ConfigError(f"{self.name} has no text tower, so it reads no words. Use a full CLIP checkpoint.")
        words = check_words(words)
        vectors = word_vectors(words, templates, tokenize=self._tokenize, encode=self.text_features, progress=progress)
        norm = self.params["vision_model"]["post_layernorm"]
        return Lens(
            words=words,
            unembedding=vectors,
            bias=np.zeros(len(words), np.float32),
            norm="layer",
            norm_scale=np.asarray(norm["scale"]),
            norm_bias=np.asarray(norm["bias"]),
            norm_epsilon=self.config.vision.epsilon,
            projection=np.asarray(self.params["visual_projection"]["kernel"]),
            normalize=True,
            scale=float(np.exp(np.asarray(self.params["logit_scale"]))),
        )

    def lens_defaults(self) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
        """Returns words and templates of `lens.json`; None where it has none."""
        return lens_defaults(self.directory)

    def _tokenize(self, texts: Sequence[str]) -> np.ndarray:
        """Returns token ids [B, T] int32, padded with 0 after the end token."""
        text = self.config.text
        assert text is not None
        tokenizer = load_tokenizer(self.directory)
        check_tokenizer(tokenizer, self.directory, text.vocabulary)
        ids = token_ids(tokenizer, texts, limit=text.positions)
        if text.end is not None and not (ids == text.end).any(1).all():
            raise WeightsError(
                f"the tokenizer in {self.directory} does not add the end token {text.end} of config.json."
            )
        return ids


def load(
    directory: str | Path, *, precision: str = "highest", mesh: Mesh | None = None, weights: str = "float32"
) -> ClipBackbone:
    """Loads a CLIP checkpoint directory: config.json and safetensors weights.

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
    config = clip_config.read_config(directory)
    image_processor = read_processor(processor_values(directory), image_size=config.image_size)
    params, _ = load_params(
        Clip(config, precision),
        directory,
        unused=UNUSED,
        rename=clip_config.RENAME if config.text is None else None,
        dtype=jnp.dtype(weights),
        keep_float32=keeps_float32,
        mesh=mesh,
    )
    return ClipBackbone(
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
def _encode(params: dict[str, Any], pixels: Array, *, model: Clip, layers: tuple[int, ...]) -> tuple[jax.Array, ...]:
    states: Any = model.apply({"params": params}, pixels, n_blocks=max(layers), method="image_states")
    return tuple(states[layer][:, 1:] for layer in layers)


@functools.partial(jax.jit, static_argnames=("model", "method"))
def _apply(params: dict[str, Any], value: Array, *, model: Clip, method: str) -> Any:
    return model.apply({"params": params}, value, method=method)
