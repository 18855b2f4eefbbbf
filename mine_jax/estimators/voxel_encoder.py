"""All voxels' encoders as one estimator of scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted

from mine_jax import artifacts, attribution, description, encoder
from mine_jax._checks import check_type
from mine_jax._progress import Progress, shown
from mine_jax.config import EncoderConfig, QueryConfig, RidgeConfig, from_dict
from mine_jax.errors import ConfigError, DataError
from mine_jax.statistics import r2
from mine_jax.types import STATUSES, Attributions, Descriptions, ImageTokens, Lens, Responses, Split

_KINDS: dict[str, type[QueryConfig | RidgeConfig]] = {"query": QueryConfig, "ridge": RidgeConfig}
_OK = STATUSES.index("ok")


class VoxelEncoder(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Predicts responses of voxels from images, and says which parts of an image drive them.

    `score` is the mean R2 over voxels, `r2_of` has every voxel's.

    Args:
        kind: "query", which attends to the image-tokens, or "ridge", a linear map of their mean.
        grid: rows and columns that the image-tokens lie on; None where there is no grid.
        validation: share of the images that decide when a query encoder stops.
        random_state: a seed, or what scikit-learn takes.
        settings: other keys of the configuration's `encoder` section, such as {"epochs": 5, "members": 3}.
        verbose: shows how far fits, predictions and attributions are: a bar on a terminal, a line every 30 s
            elsewhere.

    Attributes:
        encoders_: the fitted encoders; functions of `mine_jax.encoder` and `mine_jax.attribution` take them.
        n_features_in_: D, or F of one vector per image.
    """

    def __init__(
        self,
        kind: Literal["query", "ridge"] = "query",
        *,
        grid: tuple[int, int] | None = None,
        validation: float = 0.15,
        random_state: Any = 0,
        settings: Mapping[str, Any] | None = None,
        verbose: bool | int = False,
    ) -> None:
        """Keeps the settings; `fit` checks them."""
        self.kind = kind
        self.grid = grid
        self.validation = validation
        self.random_state = random_state
        self.settings = settings
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Fits the encoders of all voxels at once.

        Args:
            X: image-tokens [N, P, D], or one vector per image [N, F]; NumPy, jax or torch, also memory-mapped.
            y: responses [N, V], or [N] of one voxel.

        Returns:
            This estimator.

        Raises:
            ConfigError: for a setting that does not exist or does not fit.
            DataError: if the arrays do not fit each other.
        """
        config = self._config()
        tokens = self._tokens(X, is_fit=True)
        responses = self._responses(y, len(tokens.image_ids))
        n_held = max(1, round(self.validation * len(responses)))
        if len(responses) < n_held + 2:
            raise DataError(f"need at least {n_held + 2} images, but got n_samples = {len(responses)}.")
        drawn = check_random_state(self.random_state)
        order = drawn.permutation(len(responses))
        held, rest = np.sort(order[:n_held]), np.sort(order[n_held:])
        all_responses = Responses.from_array(responses)
        training, validation = (
            Split(tokens.take_images(rows), all_responses.take_images(rows)) for rows in (rest, held)
        )
        key = int(drawn.randint(2**31 - 1))
        with self._shown("fit") as report:
            self.encoders_ = encoder.fit(training, key=key, validation=validation, config=config, progress=report)
        # of the voxels that could not be fitted
        self._mean = np.zeros(responses.shape[1])
        self._mean[~self.fitted_] = np.nan_to_num(responses[:, ~self.fitted_].mean(0, dtype=np.float64))
        return self

    @property
    def fitted_(self) -> np.ndarray:
        """[V] bool, False for a voxel that is constant, not finite or diverged; it is predicted by its mean."""
        check_is_fitted(self, "encoders_")
        return np.asarray(self.encoders_.status) == _OK

    @property
    def selection_r2_(self) -> np.ndarray:
        """[V] R2 on the images that chose the encoder; no test image has a part in it."""
        check_is_fitted(self, "encoders_")
        return np.asarray(self.encoders_.selection_r2)

    def predict(self, X: Any) -> np.ndarray:
        """Predicts the responses to images.

        Args:
            X: image-tokens [N, P, D], or vectors [N, F], as in `fit`.

        Returns:
            Responses [N, V] in the units of y; [N] where y was a vector.
        """
        tokens = self._tokens(X, is_fit=False)
        with self._shown("predict") as report:
            predicted = encoder.predict(self.encoders_, tokens, progress=report)
        predicted = np.where(self.fitted_, predicted, self._mean)
        return predicted[:, 0] if self._is_vector else predicted

    def r2_of(self, X: Any, y: Any) -> np.ndarray:
        """Computes the R2 of each voxel.

        Args:
            X: image-tokens [N, P, D] or vectors [N, F].
            y: measured responses [N, V] or [N].

        Returns:
            R2 [V] around the mean of y; 0 where y does not vary.

        Raises:
            DataError: if y has another shape than the predictions.
        """
        predicted = self.predict(X)
        measured = np.asarray(y, np.float64)
        if measured.shape != predicted.shape:
            raise DataError(f"`y` must have shape {predicted.shape} as predictions, but has shape {measured.shape}.")
        return r2(measured.reshape(len(measured), -1), predicted.reshape(len(measured), -1))

    def attribute(self, X: Any, *, voxels: Sequence[int] | None = None) -> Attributions:
        """Attributes predicted responses to image-tokens, by integrated gradients.

        Args:
            X: image-tokens [N, P, D].
            voxels: positions of the voxels wanted, or a mask [V]; None for all that were fitted.

        Returns:
            Scores [V, N, P], which add up to the prediction less that of the mean token.

        Raises:
            DataError: for a voxel that there is not, or none at all.
        """
        chosen, tokens = self.encoders_.take(self._positions(voxels)), self._tokens(X, is_fit=False)
        with self._shown("attribute") as report:
            return attribution.integrated_gradients(chosen, tokens, progress=report)

    def describe(
        self, X: Any, lens: Lens, *, voxels: Sequence[int] | None = None, k: int | float = 0.15
    ) -> Descriptions:
        """Reads the critical image-tokens of each voxel and image as words.

        Args:
            X: image-tokens [N, P, D].
            lens: what reads tokens as words.
            voxels: positions of the voxels wanted, or a mask [V]; None for all that were fitted.
            k: critical tokens of an image, or their share.

        Returns:
            Words for every voxel and image; `mine_jax.description.sentences` writes them out. They are not yet claims:
            `mine-jax run` tests those.
        """
        check_type("lens", lens, Lens, remedy="mine_jax.types.Lens(words, unembedding=..., bias=...) is one.")
        tokens = self._tokens(X, is_fit=False)
        critical = attribution.critical_tokens(self.attribute(X, voxels=voxels), k=k)
        words = description.top_words(lens, tokens)
        return description.describe(critical, words, corpus=words.in_corpus())

    def save(self, directory: str | Path) -> Path:
        """Writes the fitted estimator to a folder, without pickle.

        Args:
            directory: made if needed.

        Returns:
            The folder.
        """
        check_is_fitted(self, "encoders_")
        directory = artifacts.save(self.encoders_, directory)
        state = self.get_params() | {"mean": self._mean.tolist(), "is_vector": self._is_vector}
        state |= {"n_features": self.n_features_in_}
        if not isinstance(self.random_state, int | None):
            state["random_state"] = None  # a generator has no file form, and the fit is done
        artifacts.write_json(directory / "estimator.json", state)
        return directory

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Reads back what `save` wrote.

        Args:
            directory: of `save`.

        Returns:
            The fitted estimator.
        """
        state = artifacts.read_json(Path(directory) / "estimator.json")
        state["grid"] = None if state["grid"] is None else tuple(state["grid"])
        estimator = cls(**{name: state[name] for name in cls().get_params() if name in state})
        estimator.encoders_ = artifacts.load(directory)
        estimator._mean, estimator._is_vector = np.asarray(state["mean"]), state["is_vector"]
        estimator.n_features_in_ = state["n_features"]
        return estimator

    def _shown(self, name: str) -> AbstractContextManager[Progress]:
        """Gives the progress callback of one piece of work."""
        return shown(name, bool(self.verbose), elsewhere=True)

    def _config(self) -> EncoderConfig:
        if self.kind not in _KINDS:
            raise ConfigError(f'`kind` must be "query" or "ridge", but is {self.kind!r}.')
        if not 0 < self.validation < 1:
            raise ConfigError(f"`validation` must be a share between 0 and 1, but is {self.validation!r}.")
        values = {"kind": self.kind} | dict(self.settings or {})
        return from_dict({"encoder": values}, source="`settings`").encoder

    def _positions(self, voxels: Any) -> np.ndarray:
        """Returns the positions of voxels that are wanted by positions, a mask [V] or None."""
        n_voxels = len(self.fitted_)
        chosen = np.flatnonzero(self.fitted_) if voxels is None else np.asarray(voxels)
        if chosen.dtype == bool and chosen.shape == (n_voxels,):
            chosen = np.flatnonzero(chosen)
        is_number = chosen.size == 0 or np.issubdtype(chosen.dtype, np.integer)
        if chosen.ndim != 1 or not chosen.size or not is_number or chosen.min() < 0 or chosen.max() >= n_voxels:
            raise DataError(
                f"`voxels` must list positions from 0 to {n_voxels - 1}, or be a mask of {n_voxels}, but is {voxels!r}."
                if voxels is not None
                else "no voxel could be fitted: see `fitted_`."
            )
        return chosen

    def _tokens(self, values: Any, *, is_fit: bool) -> ImageTokens:
        values = values if hasattr(values, "ndim") else np.asarray(values)
        if values.ndim > 3:
            raise DataError(f"`X` must have shape [N, P, D], or [N, F], but has shape {tuple(values.shape)}.")
        if values.ndim != 3:
            values = check_array(values, dtype=np.float32, ensure_min_samples=2 if is_fit else 1)
        tokens = ImageTokens.from_array(values, grid=self.grid)
        width = tokens.tokens.shape[2]
        if is_fit:
            self.n_features_in_ = width
            return tokens
        check_is_fitted(self, "encoders_")
        if width != self.n_features_in_:
            raise DataError(
                f"X has {width} features, but VoxelEncoder is expecting {self.n_features_in_} features as input."
            )
        return tokens

    def _responses(self, values: Any, n_images: int) -> np.ndarray:
        if values is None:
            raise DataError("requires y to be passed, but the target y is None.")
        values = np.asarray(values)
        self._is_vector = values.ndim == 1
        if not np.issubdtype(values.dtype, np.floating):
            values = values.astype(np.float32)
        values = values[:, None] if self._is_vector else values
        if values.ndim != 2 or len(values) != n_images:
            raise DataError(f"`y` must have shape [N, V] with N = {n_images} images, but has shape {values.shape}.")
        return values
