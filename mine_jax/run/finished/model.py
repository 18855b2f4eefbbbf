"""Fitted encoders on new photos: what a run directory and a published folder have in common."""

from __future__ import annotations

import abc
import functools
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mine_jax import attribution, description, encoder, features
from mine_jax._progress import Progress, silent
from mine_jax.config import Config, PrecomputedConfig
from mine_jax.data.images import PhotoFiles, decode, list_photos
from mine_jax.errors import ConfigError, DataError, MissingInputError
from mine_jax.features import Backbone
from mine_jax.types import Attributions, Encoders, ImageTokens, Lens, Stimuli

Photo = str | Path | np.ndarray | Any


class FittedModel(abc.ABC):
    """Encoders of V voxels, the model that reads photos for them, and the lens that reads tokens as words.

    Attributes:
        directory: where it is.
        config: what it was fitted with.
    """

    def __init__(self, directory: Path, config: Config) -> None:
        """Keeps the place and the configuration."""
        self.directory, self.config = directory, config

    @functools.cached_property
    @abc.abstractmethod
    def encoders(self) -> Encoders:
        """Encoders of V voxels."""

    @functools.cached_property
    @abc.abstractmethod
    def lens(self) -> Lens | None:
        """What reads image-tokens as words; None where there is none."""

    @functools.cached_property
    @abc.abstractmethod
    def corpus(self) -> np.ndarray:
        """Mean share [C] of each word over the images of the fit."""

    @property
    @abc.abstractmethod
    def voxels(self) -> pd.DataFrame:
        """One row for each voxel: place, areas, accuracy, claim and its reason."""

    def backbone(self) -> Backbone:
        """Loads the model that reads photos, denoised and reduced as it was for the fit.

        Raises:
            ConfigError: if the tokens were computed elsewhere.
            MissingInputError: if the model is not there.
        """
        config, run = self.config.features, self.config.run
        if isinstance(config, PrecomputedConfig):
            raise ConfigError(
                f"{self.directory} was run on tokens computed elsewhere, so there is no model for photos; "
                "give `predict` the tokens of the photos, from the same model: ImageTokens.from_array(tokens)."
            )
        return features.load_backbone_like(config, self.directory / "features", precision=run.precision, mesh=run.mesh)

    def tokens_of(self, photos: Photo | Sequence[Photo], *, progress: Progress = silent) -> ImageTokens:
        """Turns photos into image-tokens, as the images of the fit were.

        Args:
            photos: paths, a folder or zip, PIL images, or uint8 arrays [height, width, 3]; one or several.
            progress: called with (done, N).

        Returns:
            Tokens [N, P, D], denoised and reduced like those of the fit; ids are file names without suffix, or numbers.

        Raises:
            ConfigError: if the fit read precomputed tokens, so that there is no model for photos.
            MissingInputError: if a photo or the model is not there.
            DataError: if something is no photo, or two have one name.
        """
        backbone, config = self.backbone(), self.config.features
        assert not isinstance(config, PrecomputedConfig)  # these have no backbone
        return features.extract(
            backbone,
            _stimuli(photos),
            layer=config.layer,
            dtype=config.dtype,
            batch_size=config.batch_size,
            progress=progress,
        )

    def predict(
        self,
        photos: Photo | Sequence[Photo] | ImageTokens,
        *,
        voxels: Iterable[int] | None = None,
        progress: Progress = silent,
    ) -> pd.DataFrame:
        """Predicts responses to photos that the subject may never have seen.

        Args:
            photos: as in `tokens_of`, or image-tokens [N, P, D].
            voxels: ids of the voxels wanted; None for all that were fitted.
            progress: called with (done, N) while photos are read.

        Returns:
            Responses, one row for each photo and one column for each voxel id, z-scored beta.

        Raises:
            DataError: if a voxel is not there.
            MineError: as `tokens_of`.
        """
        tokens = photos if isinstance(photos, ImageTokens) else self.tokens_of(photos, progress=progress)
        chosen = self._encoders_of(voxels)
        rows, columns = pd.Index(tokens.image_ids, name="image_id"), pd.Index(np.asarray(chosen.voxel_ids))
        return pd.DataFrame(encoder.predict(chosen, tokens), index=rows, columns=columns)

    def attribute(
        self, photos: Photo | Sequence[Photo] | ImageTokens, *, voxels: Iterable[int] | None = None
    ) -> Attributions:
        """Attributes predicted responses to the image-tokens of photos, by integrated gradients.

        Args:
            photos: as in `tokens_of`, or image-tokens [N, P, D].
            voxels: ids of the voxels wanted; None for all that were fitted.

        Returns:
            Scores [V, N, P], which add up to the prediction less that of the mean token.

        Raises:
            MineError: as `predict`.
        """
        tokens = photos if isinstance(photos, ImageTokens) else self.tokens_of(photos)
        return attribution.integrated_gradients(self._encoders_of(voxels), tokens)

    def explain(self, photo: Photo, *, voxel: int, n_words: int = 5) -> pd.DataFrame:
        """Says in words what of a photo drives a voxel.

        Args:
            photo: one photo, as in `tokens_of`.
            voxel: its id.
            n_words: most words.

        Returns:
            word, weight and n_tokens, best first: what the critical tokens read as, no claim about the voxel.

        Raises:
            MissingInputError: if there is no lens.
            MineError: as `tokens_of`.
        """
        if self.lens is None:
            raise MissingInputError(f"{self.directory} has no lens, so tokens cannot be read as words.")
        tokens = self.tokens_of(photo)
        found = self.attribute(tokens, voxels=[voxel])
        k = attribution.n_critical(self.config.attribution.k, tokens.tokens.shape[1])
        words = description.top_words(self.lens, tokens, m=self.config.description.m)
        described = description.describe(
            attribution.critical_tokens(found, k=k), words, corpus=self.corpus, n_words=n_words
        )
        ids = described.word_ids[0, 0]
        real = ids >= 0
        numbers = {"weight": described.weights[0, 0][real], "n_tokens": described.n_tokens[0, 0][real]}
        return pd.DataFrame({"word": described.words[ids[real]], **numbers})

    def _encoders_of(self, voxels: Iterable[int] | None) -> Encoders:
        encoders = self.encoders
        if voxels is None:
            return encoders.take(np.flatnonzero(np.asarray(encoders.status) == 0))
        wanted, known = np.asarray(list(voxels)), np.asarray(encoders.voxel_ids)
        unknown = wanted[~np.isin(wanted, known)]
        if len(unknown):
            raise DataError(f"{self.directory} has no voxel {unknown[0]}; its ids go from {known[0]} to {known[-1]}.")
        return encoders.take(np.searchsorted(known, wanted))


def _stimuli(photos: Photo | Sequence[Photo]) -> Stimuli:
    """Photos in any form as stimuli, read when they are wanted; ids are file names without suffix, or numbers."""
    listed = [photos] if isinstance(photos, str | Path | np.ndarray) or hasattr(photos, "convert") else list(photos)
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for i, photo in enumerate(listed):
        if not isinstance(photo, str | Path):
            found = {str(i): functools.partial(_rgb, photo)}
        elif (path := Path(photo)).is_dir() or path.suffix.lower() == ".zip":
            files = list_photos(path)
            found = {name: functools.partial(_read_one, files, name) for name in files.names}
        elif path.is_file():
            found = {unicodedata.normalize("NFC", path.stem): functools.partial(_decoded, path)}
        else:
            raise MissingInputError(f"no photo {path}.")
        if twice := readers.keys() & found:
            raise DataError(f"two photos are called {min(twice)!r}: give them other names, or one of them at a time.")
        readers |= found
    ids = np.array(list(readers), dtype=str)
    empty, none_shared = np.full(len(ids), ""), np.zeros(len(ids), bool)
    return Stimuli(ids, lambda wanted: [readers[name]() for name in wanted], empty, none_shared, "photos")


def _read_one(found: PhotoFiles, name: str) -> np.ndarray:
    return found.read([name])[0]


def _decoded(path: Path) -> np.ndarray:
    try:
        return decode(path.read_bytes())
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _rgb(photo: Any) -> np.ndarray:
    array = np.asarray(photo.convert("RGB") if hasattr(photo, "convert") else photo)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise DataError(f"a photo must be uint8 [height, width, 3], but is {array.dtype} {list(array.shape)}.")
    return array
