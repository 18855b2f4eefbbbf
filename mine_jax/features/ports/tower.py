"""A checkpoint with a vision and a text tower -> image-tokens and a word lens.

What the families have in common; each says in its own `backbone.py` what differs: its network, its
configuration, how it pools and what its lens does after the final norm.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mine_jax import sharding
from mine_jax._progress import Progress, silent
from mine_jax.features.backbone import resolve_layer
from mine_jax.features.lens import check_words
from mine_jax.features.ports import weights as checkpoint
from mine_jax.features.ports.config import Tower, Towers, processor_values
from mine_jax.features.ports.layers import is_block_product
from mine_jax.features.ports.params import load_params
from mine_jax.features.ports.text import TEMPLATES, check_tokenizer, lens_defaults, load_tokenizer, word_vectors
from mine_jax.features.ports.vision import TwoTowers
from mine_jax.features.preprocess import ImageProcessor, read_processor, stack
from mine_jax.types import Array, Lens

# Buffers that older versions of transformers saved.
UNUSED = ("position_ids",)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CheckpointBackbone(ABC):
    """A model read from a checkpoint directory; see `backbone.Backbone` for what each member means."""

    name: str
    sha256: str
    params: dict[str, Any]
    image_processor: ImageProcessor
    directory: Path
    precision: str = "highest"
    mesh: Mesh | None = None

    @classmethod
    @abstractmethod
    def blank(cls, directory: Path, *, precision: str = "highest") -> Self:
        """Makes a backbone of the sizes of a `config.json`, without parameters; it reads no words."""

    @staticmethod
    @abstractmethod
    def keeps_float32(path: str) -> bool:
        """Tells whether a parameter is float32 whatever `weights` is."""

    @property
    @abstractmethod
    def layers(self) -> int:
        """Number of blocks of which each gives image-tokens."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Width D of an image-token."""

    @property
    @abstractmethod
    def model(self) -> nn.Module:
        """The flax module, without parameters."""

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image-tokens."""

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of the pixels."""

    @property
    def processor(self) -> dict[str, Any]:
        """The preprocessing, as plain values."""
        return self.image_processor.to_dict()

    def preprocess(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns pixels [B, rows, columns, 3] float32 of uint8 [height, width, 3] images."""
        return stack(self.image_processor, list(images), shape=self.image_shape)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TwoTowerBackbone(CheckpointBackbone):
    """A loaded contrastive model.

    Attributes:
        network: the flax module.
        n_class: tokens before the patches, which are no image-tokens.
        states: method of the network that gives hidden states.
        bare_prefixes: prefix of keys in vision-only checkpoints -> that in full ones.
        processor_defaults: of the family's image processor, where they differ from CLIP's.
        unused: tensors that may be there and are not read, see `weights.Tensors`.
    """

    network: ClassVar[type[TwoTowers]]
    n_class: ClassVar[int] = 0
    states: str = "image_states"
    bare_prefixes: ClassVar[Mapping[str, str]] = {}
    processor_defaults: ClassVar[Mapping[str, Any]] = {}
    unused: ClassVar[tuple[str, ...]] = UNUSED

    config: Towers

    @staticmethod
    @abstractmethod
    def read_config(directory: Path, *, grid: tuple[int, int] | None = None) -> Towers:
        """Reads and checks `config.json`; `grid` is given where the model leaves it open."""

    @staticmethod
    def read_images(values: dict[str, Any], config: Any) -> ImageProcessor:
        """Returns the preprocessing, of the content of the processor's file."""
        return read_processor(values, image_size=config.image_size)

    @classmethod
    def prefixes(cls, config: Towers) -> Mapping[str, str]:
        """Returns prefix of keys in the checkpoint -> prefix in the network, where they differ."""
        return cls.bare_prefixes if config.text is None else {}

    @property
    def final_norm(self) -> tuple[Mapping[str, Array], float]:
        """Scale and bias [D] of the norm after the last block, and its small number."""
        return self.params["vision_model"]["post_layernorm"], self.config.vision.epsilon

    @abstractmethod
    def check_lens(self) -> None:
        """Refuses a checkpoint that reads no words, with a `ConfigError`."""

    @abstractmethod
    def lens_head(self, n_words: int) -> dict[str, Any]:
        """Returns what the family does after the final norm, and how it scales, as fields of a `Lens`."""

    @abstractmethod
    def text_ids(self, tokenizer: Any, texts: Sequence[str], tower: Tower) -> np.ndarray:
        """Returns token ids [B, T] int32, ended and filled as in training."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image-tokens."""
        return self.config.grid

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of the pixels."""
        return self.config.image_shape

    @property
    def layers(self) -> int:
        """Number of transformer blocks of the vision tower."""
        return self.config.vision.layers

    @property
    def width(self) -> int:
        """Width D of an image-token."""
        return self.config.vision.width

    @property
    def model(self) -> TwoTowers:
        """The flax module, without parameters."""
        return self.network(self.config, self.precision)

    def encode(self, pixels: Array, *, layers: Sequence[int] = (-1,)) -> dict[int, jax.Array]:
        """Returns layer -> image-tokens [B, P, D] float32.

        Layer 0 is the input of the first block, l the output of block l, -1 the last, before the
        final norm.

        Raises:
            ConfigError: for a layer that the model does not have.
        """
        numbers = tuple(resolve_layer(layer, self.layers) for layer in layers)
        placed = sharding.split_batch(pixels, self.mesh)
        tokens = encode_layers(
            self.params, placed, model=self.model, layers=numbers, n_class=self.n_class, method=self.states
        )
        return {layer: states[: len(pixels)] for layer, states in zip(layers, tokens, strict=True)}

    def image_features(self, pixels: Array) -> jax.Array:
        """Returns image vectors [B, J] float32 in the space of the words, not normalized."""
        return _apply(self.params, pixels, model=self.model, method="image_features")

    def text_features(self, ids: Array) -> jax.Array:
        """Returns text vectors [B, J] float32 of token ids [B, T] int32."""
        return _apply(self.params, ids, model=self.model, method="text_features")

    def word_features(self, ids: Array) -> jax.Array:
        """Returns text vectors [B, J] float32 as the lens of one image-token compares them with it."""
        return self.text_features(ids)

    def lens(
        self, words: Sequence[str] | np.ndarray, templates: Sequence[str] = TEMPLATES, *, progress: Progress = silent
    ) -> Lens:
        """Builds the lens of the last layer over a word list; its center is not set.

        Args:
            words: W different words.
            templates: prompts with one `{}`, averaged for each word.
            progress: called with (texts done, all texts).

        Returns:
            The lens: post_layernorm, what the family does with one token alone, unit length, centered
            text vectors [W, J].

        Raises:
            ConfigError: if the checkpoint reads no words, or a template has no `{}`.
            DataError: for an unusable word list, or a prompt longer than the text tower takes.
            WeightsError: if the tokenizer does not fit the text embedding.
        """
        self.check_lens()
        words = check_words(words)
        vectors = word_vectors(words, templates, tokenize=self._tokenize, encode=self.word_features, progress=progress)
        norm, epsilon = self.final_norm
        return Lens(
            words=words,
            unembedding=vectors,
            norm="layer",
            norm_scale=np.asarray(norm["scale"]),
            norm_bias=np.asarray(norm["bias"]),
            norm_epsilon=epsilon,
            normalize=True,
            **self.lens_head(len(words)),
        )

    def lens_defaults(self) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
        """Returns words and templates of `lens.json`; None where it has none."""
        return lens_defaults(self.directory)

    def _tokenize(self, texts: Sequence[str]) -> np.ndarray:
        tower = self.config.text
        assert tower is not None
        tokenizer = load_tokenizer(self.directory)
        check_tokenizer(tokenizer, self.directory, tower.vocabulary)
        return self.text_ids(tokenizer, texts, tower)

    @classmethod
    def blank(cls, directory: Path, *, precision: str = "highest") -> Self:
        """Makes a backbone of the sizes of a `config.json`, without parameters; it reads no words."""
        config = cls.read_config(directory)
        return cls(
            name="untrained",
            sha256="",
            config=config,
            params={},
            image_processor=cls.read_images(dict(cls.processor_defaults), config),
            directory=directory,
            precision=precision,
        )

    @staticmethod
    def keeps_float32(path: str) -> bool:
        """Tells whether a parameter is float32: all but the products of the vision blocks."""
        return path.startswith("text_model/") or not is_block_product(path)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        precision: str,
        mesh: Mesh | None,
        weights: str,
        grid: tuple[int, int] | None = None,
    ) -> Self:
        """Loads a checkpoint directory: config.json and safetensors weights.

        Args:
            directory: the checkpoint; nothing is downloaded.
            precision: of matrix products on accelerators, as in `jax.default_matmul_precision`.
            mesh: devices over which batches are split; None for the default device.
            weights: dtype of the products of the vision blocks, float32 or bfloat16; embeddings, norms
                and the text tower are float32 in any case.
            grid: rows and columns of image-tokens, where the model leaves them open.

        Returns:
            The backbone; its weights do not keep the dtype that they have on disk.

        Raises:
            MissingInputError: if the directory or config.json is not there.
            WeightsError: if the configuration or the weights cannot be trusted; see `ports.weights`.
        """
        directory = Path(directory)
        config = cls.read_config(directory, grid=grid)
        values = {**cls.processor_defaults, **processor_values(directory)}
        image_processor = cls.read_images(values, config)
        params, _ = load_params(
            cls.network(config, precision),
            directory,
            unused=cls.unused,
            rename=cls.prefixes(config),
            dtype=jnp.dtype(weights),
            keep_float32=cls.keeps_float32,
            mesh=mesh,
        )
        # stores of float32 models keep the hash that they had before there was a choice
        chosen = (*((weights,) if weights != "float32" else ()), *(() if grid is None else (str(grid),)))
        return cls(
            name=directory.resolve().name,
            sha256=checkpoint.model_hash(directory, *chosen),
            config=config,
            params=params,
            image_processor=image_processor,
            directory=directory,
            precision=precision,
            mesh=mesh,
        )


@functools.partial(jax.jit, static_argnames=("model", "layers", "n_class", "method"))
def encode_layers(
    params: dict[str, Any],
    pixels: Array,
    *,
    model: TwoTowers,
    layers: tuple[int, ...],
    n_class: int,
    method: str = "image_states",
) -> tuple[jax.Array, ...]:
    """Returns the image-tokens [B, P, D] of layers counted from 0; compiled once per shape."""
    states: Any = model.apply({"params": params}, pixels, n_blocks=max(layers), method=method)
    return tuple(states[layer][:, n_class:] for layer in layers)


@functools.partial(jax.jit, static_argnames=("model", "method"))
def _apply(params: dict[str, Any], value: Array, *, model: TwoTowers, method: str) -> Any:
    return model.apply({"params": params}, value, method=method)
