"""A checkpoint with a vision tower and a decoder -> image-tokens of the decoder and its own lens.

The image-tokens are hidden states of the language model at the positions of the image; the lens
is the model's final norm and head (logit lens), over its own vocabulary.

Layers are numbered like those of every backbone: 0 is the projected patches (the input of the
first block), l the output of block l, all before the final norm. The last entry of transformers'
`hidden_states` is already normed; ours is not, so one lens, which norms, fits every layer.

Attention is causal: image-tokens depend on the text before the image and never on what follows
it, so the prompt is cut after the image.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from mine_jax import sharding
from mine_jax._numbers import count
from mine_jax._progress import Progress, silent
from mine_jax.errors import ConfigError, DataError, WeightsError
from mine_jax.features.backbone import resolve_layer
from mine_jax.features.ports import head as lens_head
from mine_jax.features.ports import weights as checkpoint
from mine_jax.features.ports.config import processor_values
from mine_jax.features.ports.decoder.config import VisionLanguage
from mine_jax.features.ports.decoder.model import Block, rotary_angles
from mine_jax.features.ports.params import load_params
from mine_jax.features.ports.text import load_tokenizer
from mine_jax.features.ports.tower import CheckpointBackbone
from mine_jax.features.ports.weights import Tensors
from mine_jax.features.preprocess import ImageProcessor
from mine_jax.types import Array, Lens

# What stands for the image in `features.prompt`.
IMAGE = "<image>"
# Tokens of a short prompt before the image, for a model without a tokenizer.
BLANK_PROMPT = 5
HEAD, EMBEDDING = "lm_head.weight", "language_model.embed_tokens.weight"
# Kernels whose outputs, or inputs, are split over the `model` axis.
SPLIT_OUT = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
SPLIT_IN = ("o_proj", "down_proj")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DecoderBackbone(CheckpointBackbone):
    """A loaded vision-language model; see `backbone.Backbone` for what each member means.

    Attributes:
        rename: see `weights.Tensors`.
        image_text: what `<image>` of a prompt is in the tokenizer's own words.
        tensors: the checkpoint, from which the lens reads the head; None for an untrained model.
        prompt_ids: [T] int32, the prompt up to the end of the image.
    """

    rename: ClassVar[Mapping[str, str]]
    image_text: ClassVar[str] = IMAGE

    config: VisionLanguage
    tensors: Tensors | None
    prompt_ids: np.ndarray

    @classmethod
    @abstractmethod
    def read_config(cls, directory: Path, *, grid: tuple[int, int] | None = None) -> VisionLanguage:
        """Reads and checks `config.json`; `grid` is given where the model leaves it open."""

    @staticmethod
    @abstractmethod
    def network(config: Any, precision: str) -> nn.Module:
        """Returns the flax module, with methods `embed` and `everything`."""

    @staticmethod
    @abstractmethod
    def read_images(values: dict[str, Any], config: Any) -> ImageProcessor:
        """Returns the preprocessing, of the content of the processor's file."""

    @staticmethod
    @abstractmethod
    def unused(config: Any) -> tuple[str, ...]:
        """Names tensors that may be there and are not read, see `weights.Tensors`."""

    @property
    def model(self) -> nn.Module:
        """The flax module, without parameters."""
        return self.network(self.config, self.precision)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image-tokens."""
        return self.config.grid

    @property
    def layers(self) -> int:
        """Number of blocks of the decoder."""
        return self.config.decoder.layers

    @property
    def width(self) -> int:
        """Width D of an image-token."""
        return self.config.decoder.width

    def positions(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Returns rotary positions [1, 1, T], or [3, B, T] of time, row and column, of ids [B, T]."""
        del mask
        return np.arange(ids.shape[1])[None, None]

    def encode(self, pixels: Array, *, layers: Sequence[int] = (-1,)) -> dict[int, jax.Array]:
        """Returns layer -> image-tokens [B, P, D] float32, without a class token.

        Layer 0 is the projected patches, l the output of block l, -1 the last; none is normed.

        Raises:
            ConfigError: for a layer that the model does not have.
        """
        numbers = [resolve_layer(layer, self.layers) for layer in layers]
        ids = np.broadcast_to(self.prompt_ids, (pixels.shape[0], len(self.prompt_ids)))
        states = self.sequence_states(pixels, ids, layers=numbers)
        return {layer: self._on_grid(states[number]) for layer, number in zip(layers, numbers, strict=True)}

    def _on_grid(self, states: jax.Array) -> jax.Array:
        """Picks the image-tokens [B, P, D] of a prompt that ends with the image."""
        (rows, columns), step = self.grid, self.grid[1] + self.config.row_end
        lines = states[:, -rows * step :].reshape(len(states), rows, step, -1)
        return lines[:, :, :columns].reshape(len(states), rows * columns, -1)

    def sequence_states(
        self, pixels: Array, ids: np.ndarray, mask: np.ndarray | None = None, *, layers: Sequence[int]
    ) -> dict[int, jax.Array]:
        """Runs prompt and image through the decoder once.

        Args:
            pixels: [B, rows, columns, 3], or [B, 1, rows, columns, 3].
            ids: [B, T] int32, each row with one image: an unbroken run of image ids.
            mask: [B, T] bool, False for padding on either side; None for no padding.
            layers: 0 to the number of blocks.

        Returns:
            Layer -> hidden states [B, T, D] float32 before the final norm.

        Raises:
            DataError: if a row has no image, two images or another number of image ids.
        """
        pixels = _one_image(pixels)
        image_spans(ids, self.config)
        real = np.ones(ids.shape, bool) if mask is None else np.asarray(mask, bool)
        decoder = self.config.decoder
        angles = rotary_angles(decoder.rope, decoder.head_width, self.positions(ids, real))
        cos, sin = (part if len(part) == 1 else sharding.split_batch(part, self.mesh) for part in angles)
        batch = (pixels, np.asarray(ids, np.int32), real)
        pixels, placed, real = (sharding.split_batch(value, self.mesh) for value in batch)
        x = _embed(self.params, pixels, placed, model=self.model)
        states = {0: x} if 0 in layers else {}
        block = Block(decoder, self.precision)
        for number in range(1, max(layers) + 1):
            # one compiled block serves all layers
            x = _block(self.params["language_model"][f"layers_{number - 1}"], x, real, cos, sin, block=block)
            if number in layers:
                states[number] = x
        return {number: padded[: len(ids)] for number, padded in states.items()}

    def lens_defaults(self) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
        """Returns the vocabulary of the head [W] str, as raw pieces of the tokenizer."""
        return lens_head.vocabulary(
            load_tokenizer(self.directory), self.directory, self.config.decoder.vocabulary
        ), None

    def lens(
        self, words: Sequence[str] | np.ndarray, templates: Sequence[str] = (), *, progress: Progress = silent
    ) -> Lens:
        """Builds the logit lens: final norm and head; it is not centered.

        Args:
            words: W entries. The vocabulary of `lens_defaults` gives the head itself. Of other
                words each gets the mean of the head's rows of its pieces: exact for a word of one
                piece, an approximation for others.
            templates: not used; a head needs no prompts.
            progress: called with (rows done, all rows).

        Returns:
            The lens over W words, for every layer.

        Raises:
            ConfigError: if the model is untrained.
            DataError: for an unusable word list, or a word without pieces.
            WeightsError: if the tokenizer does not fit the head.
        """
        if self.tensors is None:
            raise ConfigError(f"{self.name} has no checkpoint, so it reads no words.")
        tokenizer = load_tokenizer(self.directory)
        head = self.tensors.read(EMBEDDING if self.config.decoder.tied else HEAD)
        self.tensors.check_finite()
        matrix = lens_head.rows_of_words(tokenizer, self.directory, np.asarray(words, dtype=str), head)
        progress(len(words), len(words))
        return Lens(
            words=np.asarray(words, dtype=str),
            unembedding=matrix,
            bias=np.zeros(len(words), np.float32),
            norm="rms",
            norm_scale=np.asarray(self.params["language_model"]["norm"]["scale"], np.float32),
            norm_epsilon=self.config.decoder.epsilon,
        )

    @classmethod
    def blank(cls, directory: Path, *, precision: str = "highest") -> Self:
        """Makes a backbone of the sizes of a `config.json`, without parameters; it reads no words."""
        config = cls.read_config(directory)
        ids = np.full(BLANK_PROMPT + config.n_placeholders, config.image_token, np.int32)
        ids[:BLANK_PROMPT] = 0
        return cls(
            name="untrained",
            sha256="",
            config=config,
            params={},
            tensors=None,
            image_processor=cls.read_images({}, config),
            directory=directory,
            prompt_ids=ids,
            precision=precision,
        )

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        precision: str,
        mesh: Mesh | None,
        prompt: str,
        weights: str,
        grid: tuple[int, int] | None = None,
    ) -> Self:
        """Loads a checkpoint directory.

        Args:
            directory: the checkpoint, a local folder.
            precision: of matrix products on accelerators, as in `jax.default_matmul_precision`.
            mesh: devices with axes `data` and `model`; weights of the decoder are split over `model` as
                they are read. None for the default device.
            prompt: text with one `<image>`; what follows it changes nothing.
            weights: float32 or bfloat16: dtype of the decoder, the projector and the products of the
                vision blocks. A 7B model takes 28 or 14 GB.
            grid: rows and columns of image-tokens, where the model leaves them open.

        Returns:
            The backbone. Norms and the embeddings of the vision tower are float32 in any case.

        Raises:
            ConfigError: if the prompt has not one `<image>`.
            MissingInputError: if the directory or config.json is not there.
            WeightsError: if the configuration, tokenizer or weights cannot be trusted; see `ports.weights`.
        """
        directory = Path(directory)
        config = cls.read_config(directory, grid=grid)
        prompt_ids = read_prompt(load_tokenizer(directory), directory, prompt, config, cls.image_text)
        image_processor = cls.read_images(processor_values(directory), config)
        decoder = config.decoder
        params, tensors = load_params(
            cls.network(config, precision),
            directory,
            unused=(*cls.unused(config), *(("lm_head.",) * decoder.tied)),
            rename=cls.rename,
            dtype=jnp.dtype(weights),
            keep_float32=cls.keeps_float32,
            mesh=mesh,
            split=functools.partial(_split, 1 if mesh is None else mesh.shape[sharding.MODEL]),
            extra={} if decoder.tied else {HEAD: (decoder.vocabulary, decoder.width)},
        )
        chosen = () if grid is None else (str(grid),)
        return cls(
            name=directory.resolve().name,
            sha256=checkpoint.model_hash(directory, weights, str(prompt_ids.tolist()), *chosen),
            config=config,
            params=params,
            tensors=tensors,
            image_processor=image_processor,
            directory=directory,
            prompt_ids=prompt_ids,
            precision=precision,
            mesh=mesh,
        )


def read_prompt(
    tokenizer: Any, directory: Path, prompt: str, config: VisionLanguage, image_text: str = IMAGE
) -> np.ndarray:
    """Tokenizes a prompt, puts in the image ids and cuts what follows.

    Args:
        tokenizer: of transformers.
        directory: the checkpoint, for messages.
        prompt: text with one `<image>`.
        config: gives the image id and how many there must be.
        image_text: what `<image>` is in the tokenizer's own words.

    Returns:
        Ids [T] int32; the last ones are the image.

    Raises:
        ConfigError: if the prompt has not one `<image>`, or is too long.
        WeightsError: if the tokenizer does not make the image id of config.json of it.
    """
    if prompt.count(IMAGE) != 1:
        raise ConfigError(f"`features.prompt` must hold {IMAGE} once, but is {prompt!r}.")
    text = prompt.replace(IMAGE, image_text)
    ids = np.asarray(tokenizer(text, add_special_tokens=True)["input_ids"], np.int32)
    places = np.flatnonzero(ids == config.image_token)
    if len(places) != 1:
        raise WeightsError(
            f"the tokenizer in {directory} makes {count(len(places), 'image id')} {config.image_token} of {text!r}, "
            f"where there must be one. Is {image_text} an added token of it, with the `image_token_index` of "
            "config.json?"
        )
    image = np.full(config.n_placeholders, config.image_token, np.int32)
    ids = np.concatenate([ids[: places[0]], image])
    if len(ids) > config.decoder.positions:
        raise ConfigError(
            f"`features.prompt` and the image have {len(ids)} tokens, but the decoder takes {config.decoder.positions}."
        )
    return ids


def image_spans(ids: np.ndarray, config: VisionLanguage) -> np.ndarray:
    """Finds the image in each prompt and checks it against the configuration.

    Args:
        ids: [B, T] int32.
        config: gives the image id and how many there must be.

    Returns:
        First position [B] of the image-tokens of the grid.

    Raises:
        DataError: if a row has no image, two images, another number of ids, or ids outside the
            vocabulary.
    """
    is_image = np.asarray(ids) == config.image_token
    counts, first = is_image.sum(1), is_image.argmax(1)
    last = is_image.shape[1] - 1 - is_image[:, ::-1].argmax(1)
    for row, n_ids in enumerate(counts):
        if n_ids != config.n_placeholders or last[row] - first[row] + 1 != n_ids:
            rows, columns = config.grid
            raise DataError(
                f"prompt {row} has {n_ids} image ids in positions {first[row]} to {last[row]}, but one image is an "
                f"unbroken run of {config.n_placeholders}: {rows} x {columns} patches"
                f"{f', {config.n_before} before them' if config.n_before else ''}"
                f"{f', {config.row_end} after each row' if config.row_end else ''}. "
                "Is the prompt expanded for another image size?"
            )
    others = np.asarray(ids)[~is_image]
    if others.size and (others.min() < 0 or others.max() >= config.decoder.vocabulary):
        raise DataError(f"prompt ids must be 0 to {config.decoder.vocabulary - 1}, but one is {int(others.max())}.")
    return first + config.n_before


def _one_image(pixels: Array) -> Array:
    if pixels.ndim == 5 and pixels.shape[1] == 1:
        return pixels[:, 0]
    if pixels.ndim != 4:
        raise DataError(
            f"`pixels` must be [B, rows, columns, 3] or [B, 1, rows, columns, 3], but has shape {pixels.shape}. "
            "Several crops per image belong to other models (LLaVA-NeXT)."
        )
    return pixels


def _split(n: int, path: str, shape: tuple[int, ...]) -> PartitionSpec:
    """Divides the large matrices of the decoder over the n devices of `model`; the rest is copied."""
    parts = path.split("/")
    spec: tuple[str | None, ...] = ()
    if parts[0] == "language_model" and n > 1:
        owner, leaf = parts[-2], parts[-1]
        if leaf == "embedding" or (owner in SPLIT_OUT and leaf == "kernel"):
            spec = (None, sharding.MODEL)
        elif owner in SPLIT_OUT and leaf == "bias":
            spec = (sharding.MODEL,)
        elif owner in SPLIT_IN and leaf == "kernel":
            spec = (sharding.MODEL, None)
    if any(axis is not None and size % n for axis, size in zip(spec, shape, strict=False)):
        spec = ()
    return PartitionSpec(*spec)


@functools.partial(jax.jit, static_argnames=("model",))
def _embed(params: dict[str, Any], pixels: Array, ids: Array, *, model: nn.Module) -> Any:
    return model.apply({"params": params}, pixels, ids, method="embed")


@functools.partial(jax.jit, static_argnames=("block",))
def _block(params: dict[str, Any], x: Array, mask: Array, cos: Array, sin: Array, *, block: Block) -> Any:
    return block.apply({"params": params}, x, mask, cos, sin)
