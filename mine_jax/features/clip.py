"""A Hugging Face CLIP checkpoint -> image-tokens and a word lens, in flax.

The towers are in `_clip_model.py`, the checks of config.json in `_clip_config.py` and those
of the weights in `_weights.py`.

Source: Radford et al. 2021 (arXiv 2103.00020); layout of transformers `CLIPModel`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.errors import ConfigError, DataError, WeightsError
from mine_jax.features import _clip_config, _weights
from mine_jax.features._clip_config import ClipConfig
from mine_jax.features._clip_model import Clip
from mine_jax.features.backbone import resolve_layer
from mine_jax.features.lens import check_words, text_lens_vectors
from mine_jax.features.preprocess import ImageProcessor, read_processor, stack
from mine_jax.types import Array, Lens

TEMPLATES = ("a photo of a {}.",)
# Texts encoded at once; memory only.
TEXT_BATCH = 128
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
        model = Clip(self.config, self.precision)
        tokens = _encode(self.params, pixels, model=model, layers=numbers)
        return dict(zip(layers, tokens, strict=True))

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
        wrong = [template for template in templates if template.count("{}") != 1]
        if wrong or not templates:
            raise ConfigError(f"`templates` must each hold one {{}} for the word, but are {list(templates)!r}.")
        words = check_words(words)
        texts = [template.replace("{}", word) for word in words for template in templates]
        ids = self._tokenize(texts)
        vectors = []
        for start in range(0, len(ids), TEXT_BATCH):
            batch = ids[start : start + TEXT_BATCH]
            padded = np.concatenate([batch, np.repeat(batch[-1:], min(TEXT_BATCH, len(ids)) - len(batch), 0)])
            vectors.append(np.asarray(self.text_features(padded))[: len(batch)])
            progress(start + len(batch), len(ids))
        per_word = np.concatenate(vectors).reshape(len(words), len(templates), -1)
        norm = self.params["vision_model"]["post_layernorm"]
        return Lens(
            words=words,
            unembedding=text_lens_vectors(per_word),
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
        path = self.directory / "lens.json"
        if not path.is_file():
            return None, None
        values = _weights.read_model_json(path, max_bytes=_weights.MAX_INDEX_BYTES)
        words, templates = values.get("words"), values.get("templates")
        for name, value in (("words", words), ("templates", templates)):
            if value is not None and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
                raise WeightsError(f"{path}: `{name}` must be a list of strings.")
        return (
            None if words is None else check_words(words, source=str(path)),
            None if templates is None else tuple(templates),
        )

    def _tokenize(self, texts: Sequence[str]) -> np.ndarray:
        """Returns token ids [B, T] int32, padded with 0 after the end token."""
        from transformers import AutoTokenizer

        text = self.config.text
        assert text is not None
        tokenizer_config = self.directory / "tokenizer_config.json"
        if tokenizer_config.is_file():
            _weights.read_model_json(tokenizer_config)
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(
                str(self.directory), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"no usable tokenizer in {self.directory} ({error}). Copy its files too.") from error
        if not text.vocabulary / 2 <= len(tokenizer) <= text.vocabulary:
            raise WeightsError(
                f"the tokenizer in {self.directory} has {len(tokenizer)} tokens, but the text embedding has "
                f"{text.vocabulary} rows. Are its files missing, or of another checkpoint?"
            )
        rows = tokenizer(list(texts), add_special_tokens=True)["input_ids"]
        longest = max(len(row) for row in rows)
        if longest > text.positions:
            worst = max(range(len(rows)), key=lambda i: len(rows[i]))
            raise DataError(
                f"{texts[worst]!r} has {longest} tokens; the text tower takes {text.positions}. Shorten it."
            )
        ids = np.zeros((len(rows), longest), np.int32)
        for row, values in zip(ids, rows, strict=True):
            row[: len(values)] = values
        if text.end is not None and not (ids == text.end).any(1).all():
            raise WeightsError(
                f"the tokenizer in {self.directory} does not add the end token {text.end} of config.json."
            )
        return ids


def load(directory: str | Path, *, precision: str = "highest") -> ClipBackbone:
    """Loads a CLIP checkpoint directory: config.json and safetensors weights.

    Args:
        directory: the checkpoint; nothing is downloaded.
        precision: of matrix products on accelerators, as in `jax.default_matmul_precision`.

    Returns:
        The backbone; weights are float32 whatever their dtype on disk.

    Raises:
        MissingInputError: if the directory or config.json is not there.
        WeightsError: if the configuration or the weights cannot be trusted; see `_weights`.
    """
    directory = Path(directory)
    config = _clip_config.read_config(directory)
    image_processor = read_processor(_clip_config.processor_values(directory), image_size=config.image_size)
    model = Clip(config, precision)
    shapes = jax.eval_shape(functools.partial(model.init, method="everything"), jax.random.key(0))["params"]
    flat = flax.traverse_util.flatten_dict(shapes, sep="/")
    wanted = {path: (_checkpoint_key(path), leaf.shape) for path, leaf in flat.items()}
    tensors = _weights.load_tensors(
        directory,
        {key: _torch_shape(path, shape) for path, (key, shape) in wanted.items()},
        unused=UNUSED,
        rename=_clip_config.RENAME if config.text is None else None,
    )
    arrays = {path: jnp.asarray(_from_torch(path, tensors[key])) for path, (key, _) in wanted.items()}
    paths = [*_weights.weight_files(directory), directory / "config.json"]
    return ClipBackbone(
        name=directory.resolve().name,
        sha256=_weights.hash_files(directory, paths),
        config=config,
        params=flax.traverse_util.unflatten_dict(arrays, sep="/"),
        image_processor=image_processor,
        directory=directory,
        precision=precision,
    )


@functools.partial(jax.jit, static_argnames=("model", "layers"))
def _encode(params: dict[str, Any], pixels: Array, *, model: Clip, layers: tuple[int, ...]) -> tuple[jax.Array, ...]:
    states: Any = model.apply({"params": params}, pixels, n_blocks=max(layers), method="image_states")
    return tuple(states[layer][:, 1:] for layer in layers)


@functools.partial(jax.jit, static_argnames=("model", "method"))
def _apply(params: dict[str, Any], value: Array, *, model: Clip, method: str) -> Any:
    return model.apply({"params": params}, value, method=method)


def _checkpoint_key(path: str) -> str:
    key = re.sub(r"layers_(\d+)", r"layers.\1", path).replace("/", ".")
    return re.sub(r"\.(kernel|scale|embedding)$", ".weight", key)


def _torch_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in _to_torch_axes(path, len(shape)))


def _from_torch(path: str, tensor: np.ndarray) -> np.ndarray:
    return np.transpose(tensor, np.argsort(_to_torch_axes(path, tensor.ndim)))


def _to_torch_axes(path: str, n_axes: int) -> tuple[int, ...]:
    """Axes that turn a flax kernel [..., in, out] to torch's [out, in, ...]."""
    if not path.endswith("/kernel"):
        return tuple(range(n_axes))
    return (n_axes - 1, n_axes - 2, *range(n_axes - 2))
