"""The encoder kinds: what every stage may ask of one, and the three there are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from mine_jax import sharding
from mine_jax._progress import Progress
from mine_jax.encoder.query import model as query
from mine_jax.encoder.ridge import model as ridge
from mine_jax.memory import Chunks, images_at_once, in_chunks, padded_chunks
from mine_jax.types import Architecture, Array, Encoders, ImageTokens

Arrays = Mapping[str, Array]


class ImageBlock(NamedTuple):
    """Predictions of some images: their positions [B], how many are real, predictions [B or more, V]."""

    index: np.ndarray
    n_valid: int
    predicted: np.ndarray


class EncoderKind(Protocol):
    """What defines a kind of encoder; `readout_one` of the `token_terms_one` of an image is its `predict_one`.

    Attributes:
        has_keys: whether keys and values are linear in the tokens.
        has_token_terms: whether what a token adds is known without differentiating.
    """

    has_keys: bool
    has_token_terms: bool

    def predict_one(
        self, shared: Arrays, voxel: Arrays, tokens: Array, mask: Array | None, architecture: Architecture
    ) -> Array:
        """Predicts one voxel's response to one image [P, D]."""
        ...

    def token_terms_one(
        self, shared: Arrays, voxel: Arrays, tokens: Array, cell_weights: Array | None, architecture: Architecture
    ) -> tuple[Array, Array]:
        """Returns key logits and value scalars of single tokens, both [H, P]; where `has_token_terms`."""
        ...

    def readout_one(
        self,
        shared: Arrays,
        logits: Array,
        scalars: Array,
        voxel: Arrays,
        cell_weights: Array | None,
        architecture: Architecture,
    ) -> Array:
        """Returns the prediction from token terms [H, P]; where `has_token_terms`."""
        ...

    def summaries(
        self, encoders: Encoders, tokens: ImageTokens, *, image_chunk: int | None, progress: Progress
    ) -> np.ndarray | None:
        """Returns image-level features [N, F] if they are all that the voxels read of an image, else None."""
        ...

    def read_out(self, encoders: Encoders, features: np.ndarray) -> np.ndarray:
        """Predicts [N, V] from the features of `summaries`, where there are any."""
        ...

    def by_images(
        self, encoders: Encoders, tokens: ImageTokens, *, chunks: Chunks, progress: Progress
    ) -> Iterator[ImageBlock]:
        """Predicts all voxels' responses to some images after the others; tokens are read once."""
        ...


class _OfTokens:
    """A kind whose voxels read the tokens themselves, not features of the whole image."""

    def summaries(
        self, encoders: Encoders, tokens: ImageTokens, *, image_chunk: int | None, progress: Progress
    ) -> np.ndarray | None:
        """Returns None: there are no features [N, F] that all voxels read."""
        del encoders, tokens, image_chunk, progress
        return None

    def read_out(self, encoders: Encoders, features: np.ndarray) -> np.ndarray:
        """Raises: there are no features [N, F]."""
        raise NotImplementedError("only encoders with image-level features can read them.")


class Query(_OfTokens):
    """Attention of each voxel over image-tokens: `encoder.query`."""

    has_keys = True
    has_token_terms = True
    predict_one = staticmethod(query.predict_one)
    token_terms_one = staticmethod(query.token_terms_one)
    readout_one = staticmethod(query.readout_one)

    def by_images(
        self, encoders: Encoders, tokens: ImageTokens, *, chunks: Chunks, progress: Progress
    ) -> Iterator[ImageBlock]:
        """Predicts all voxels' responses to some images after the others."""
        shared, per_voxel = (sharding.whole(arrays, chunks.mesh) for arrays in (encoders.shared, encoders.per_voxel))
        architecture = encoders.architecture

        def predict_images(rows: np.ndarray) -> Array:
            return query.predict_images(
                shared, per_voxel, tokens, rows, architecture, voxel_chunk=chunks.voxels, mesh=chunks.mesh
            )

        return _blocks(predict_images, len(tokens.image_ids), chunks, progress)


class Ridge:
    """One linear readout per voxel of image-level features: `encoder.ridge`."""

    has_keys = False
    has_token_terms = True
    predict_one = staticmethod(ridge.predict_one)
    token_terms_one = staticmethod(ridge.token_terms_one)
    readout_one = staticmethod(ridge.readout_one)
    read_out = staticmethod(ridge.read_out)

    def summaries(
        self, encoders: Encoders, tokens: ImageTokens, *, image_chunk: int | None, progress: Progress
    ) -> np.ndarray | None:
        """Returns the mean token or the projected token grid of each image, [N, F]."""
        options = {"image_chunk": image_chunk, "progress": progress}
        return ridge.summaries(encoders.shared, tokens, encoders.architecture, **options)

    def by_images(
        self, encoders: Encoders, tokens: ImageTokens, *, chunks: Chunks, progress: Progress
    ) -> Iterator[ImageBlock]:
        """Predicts all voxels' responses to some images after the others."""
        options = {"image_chunk": chunks.images, "progress": progress}
        features = ridge.summaries(encoders.shared, tokens, encoders.architecture, **options)
        for index, n_valid in padded_chunks(len(features), chunks.images or images_at_once()):
            yield ImageBlock(index, n_valid, ridge.read_out(encoders, features[index]))


class Own(_OfTokens):
    """An encoder of yours, known by its function only: `Architecture.own`."""

    has_keys = False
    has_token_terms = False

    def __init__(self, function: Callable[..., Any]) -> None:
        """Takes the function of one voxel and one image."""
        self._function = function

    def predict_one(
        self, shared: Arrays, voxel: Arrays, tokens: Array, mask: Array | None, architecture: Architecture
    ) -> Array:
        """Predicts one voxel's response to one image [P, D]."""
        return self._function(shared, voxel, tokens, mask, architecture)

    def token_terms_one(
        self, shared: Arrays, voxel: Arrays, tokens: Array, cell_weights: Array | None, architecture: Architecture
    ) -> tuple[Array, Array]:
        """Raises: what a token [P, D] adds is not known."""
        raise NotImplementedError('encoders of kind "own" have no token terms.')

    def readout_one(
        self,
        shared: Arrays,
        logits: Array,
        scalars: Array,
        voxel: Arrays,
        cell_weights: Array | None,
        architecture: Architecture,
    ) -> Array:
        """Raises: there are no token terms [H, P] to read."""
        raise NotImplementedError('encoders of kind "own" have no token terms.')

    def by_images(
        self, encoders: Encoders, tokens: ImageTokens, *, chunks: Chunks, progress: Progress
    ) -> Iterator[ImageBlock]:
        """Predicts all voxels' responses to some images after the others."""

        def predict_images(rows: np.ndarray) -> Array:
            states = np.asarray(tokens.tokens[rows], dtype=np.float32)
            mask = None if tokens.mask is None else tokens.mask[rows]
            return _over_all(encoders.shared, encoders.per_voxel, states, mask, architecture=encoders.architecture)

        return _blocks(predict_images, len(tokens.image_ids), chunks, progress)


_FITTED_KINDS: dict[str, EncoderKind] = {"query": Query(), "ridge": Ridge()}


def model(architecture: Architecture) -> EncoderKind:
    """Returns what defines an encoder kind.

    Args:
        architecture: static description of the encoders.

    Returns:
        The kind; that of an encoder of yours has `predict_one` only.

    Raises:
        ValueError: for an unknown kind, or one of yours without its function.
    """
    if architecture.kind == "own" and architecture.own is not None:
        return Own(architecture.own)
    if architecture.kind not in _FITTED_KINDS:
        kinds = (*_FITTED_KINDS, "own")
        raise ValueError(f"`kind` must be one of {kinds}, the last with `own`, but is {architecture}.")
    return _FITTED_KINDS[architecture.kind]


def _blocks(
    predict_images: Callable[[np.ndarray], Array], n_images: int, chunks: Chunks, progress: Progress
) -> Iterator[ImageBlock]:
    at_once = (chunks.images or images_at_once()) * sharding.n_shards(chunks.mesh, *sharding.DEVICES)

    def predict_chunk(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return index, np.asarray(predict_images(index))

    for (index, predicted), n_valid, done in in_chunks(predict_chunk, n_images, at_once, setting="run.image_chunk"):
        yield ImageBlock(index, n_valid, predicted)
        progress(done, n_images)


@functools.partial(jax.jit, static_argnames=("architecture",))
def _over_all(
    shared: Arrays, per_voxel: Arrays, states: Array, mask: Array | None, *, architecture: Architecture
) -> Array:
    """Predicts [B, V] with a function of one voxel and one image."""
    over_voxels = jax.vmap(model(architecture).predict_one, in_axes=(None, 0, None, None, None))
    return jax.vmap(over_voxels, in_axes=(None, None, 0, None if mask is None else 0, None))(
        shared, per_voxel, states, mask, architecture
    )
