"""Denoising of image-tokens: outliers, what a position adds to every image, and neighbours.

Three steps, each a setting of its own, in this order:

- "register": a token whose norm is an outlier among the tokens of training images holds no place
  of the image; it becomes the mean of its neighbours that are none.
- "position": the mean of a position over training images is taken off, the mean over all
  positions stays, so the lens reads tokens of the usual kind.
- "neighbors": a token becomes the weighted mean of itself and its neighbours on the grid.

Source: registers: Darcet et al. 2024 (arXiv 2309.16588); what positions add: Yang et al. 2024
(arXiv 2401.02957); neighbours: Hajimiri et al. 2025 (arXiv 2404.08181). Differs: means and a
threshold on the finished tokens, where these train registers, fit a field per image, or change attention.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mine_jax.config import DENOISING_STEPS
from mine_jax.errors import ConfigError
from mine_jax.features.backbone import Backbone, resolve_layer
from mine_jax.features.dense import kept
from mine_jax.features.dense.wrapped import WrappedBackbone, sampled
from mine_jax.features.extract import Extraction, batch_starts, encoded
from mine_jax.types import Array, Stimuli

FOLDER = "denoising"
# A norm so many robust standard deviations (1.4826 median absolute deviations) above the median is an outlier.
OUTLIER = 5.0
# Weights of a token and its eight neighbours; where the grid ends they are scaled to sum to one.
KERNEL = np.outer((1, 2, 1), (1, 2, 1)) / 16

Batches = Iterable[tuple[int, Mapping[int, np.ndarray]]]


class TokenStatistics(NamedTuple):
    """What denoising knows of the tokens of a layer.

    Attributes:
        threshold: norm above which a token is an outlier; None where no step asks for it.
        position: [P, D] float32, mean of each position minus the mean of all; likewise.
    """

    threshold: float | None
    position: np.ndarray | None


def denoise(
    tokens: Array, statistics: TokenStatistics, *, steps: Sequence[str] = (), grid: tuple[int, int]
) -> jax.Array:
    """Denoises the tokens of a batch of images.

    Args:
        tokens: [B, P, D], any float dtype; computed in float32.
        statistics: of training images.
        steps: any of "register", "position" and "neighbors"; done in this order.
        grid: rows and columns of tokens; P is their product.

    Returns:
        [B, P, D] float32.

    Raises:
        ConfigError: for a step that there is not.
    """
    unknown = sorted(set(steps) - set(DENOISING_STEPS))
    if unknown:
        raise ConfigError(f"`steps` must be among {', '.join(DENOISING_STEPS)}, but names {', '.join(unknown)}.")
    ordered = tuple(step for step in DENOISING_STEPS if step in steps)
    return _denoise(tokens, statistics.threshold, statistics.position, steps=ordered, grid=grid)


@dataclass(frozen=True, eq=False, repr=False)
class DenoisedBackbone(WrappedBackbone):
    """A backbone whose tokens are denoised; see `backbone.Backbone`.

    Attributes:
        backbone: the model itself.
        statistics: layer, counted from 0 -> what is known of its tokens.
        steps: what is done, see `denoise`.
    """

    statistics: Mapping[int, TokenStatistics]
    steps: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Hash of the model, the steps and all statistics."""
        digest = hashlib.sha256(f"{self.backbone.sha256} {' '.join(self.steps)}".encode())
        for layer in sorted(self.statistics):
            threshold, position = self.statistics[layer]
            digest.update(f"{layer} {threshold!r}".encode() + (b"" if position is None else position.tobytes()))
        return digest.hexdigest()

    def encode(self, pixels: Array, *, layers: Sequence[int] = (-1,)) -> dict[int, jax.Array]:
        """Returns layer -> denoised image-tokens [B, P, D] float32.

        Raises:
            ConfigError: for a layer without statistics.
        """
        numbers = {layer: resolve_layer(layer, self.layers) for layer in layers}
        missing = [layer for layer, number in numbers.items() if number not in self.statistics]
        if missing:
            raise ConfigError(f"layers {missing} cannot be denoised; layers that can: {sorted(self.statistics)}.")
        tokens = self.backbone.encode(pixels, layers=layers)
        return {
            layer: denoise(tokens[layer], self.statistics[number], steps=self.steps, grid=self.grid)
            for layer, number in numbers.items()
        }


def denoised_on_sample(
    backbone: Backbone,
    steps: Sequence[str],
    stimuli: Stimuli,
    extraction: Extraction,
    *,
    fitted_on: np.ndarray | None = None,
) -> DenoisedBackbone:
    """Denoises every layer of an extraction, fitted on evenly spaced images or read from the store.

    Args:
        backbone: the model.
        steps: see `denoise`.
        stimuli: all N images.
        extraction: which layers; the statistics go to the store of the first.
        fitted_on: [F] str ids of the images that may be used for the fit; None for all.

    Returns:
        The denoised model.

    Raises:
        CheckpointError: if the store holds statistics of another model, layer or other steps.
        MineError: as `extract`.
    """
    directory = extraction.places[extraction.layers[0]]
    ordered = tuple(step for step in DENOISING_STEPS if step in steps)
    sample = sampled(stimuli, fitted_on)
    identity = {
        "model_sha256": backbone.sha256,
        "layers": sorted(extraction.layers),
        "steps": list(ordered),
        "sample_sha256": kept.hash_of(sample.image_ids),
    }
    folder = None if directory is None else directory / FOLDER
    if folder is not None and kept.is_kept(folder):
        return DenoisedBackbone(backbone, *_read(folder, identity))
    starts, size = batch_starts(sample, extraction.batch_size)

    def batches() -> Batches:
        return encoded(backbone, sample, starts, size, extraction.layers, np.dtype(np.float32))

    statistics = fitted(batches, layers=extraction.layers, steps=ordered, grid=backbone.grid)
    if folder is not None:
        _write(folder, statistics, identity)
    return DenoisedBackbone(backbone, statistics, ordered)


def fitted(
    batches: Callable[[], Batches], *, layers: Sequence[int], steps: Sequence[str], grid: tuple[int, int]
) -> dict[int, TokenStatistics]:
    """Fits what denoising needs to know of some images.

    Args:
        batches: gives the images anew at each call: (first row, layer -> tokens [n, P, D]).
        layers: counted from 0.
        steps: see `denoise`; the positions are those of tokens without outliers where "register" is among them.
        grid: rows and columns of tokens.

    Returns:
        Layer -> statistics.
    """
    thresholds: dict[int, float | None] = dict.fromkeys(layers)
    positions: dict[int, np.ndarray | None] = dict.fromkeys(layers)
    if "register" in steps:
        norms: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
        for _, tokens in batches():
            for layer in layers:
                norms[layer].append(np.linalg.norm(np.asarray(tokens[layer], np.float32), axis=-1).ravel())
        thresholds = {layer: _threshold(np.concatenate(parts)) for layer, parts in norms.items()}
    if "position" in steps:
        first = tuple(step for step in steps if step == "register")
        totals, n_images = {layer: np.zeros(1) for layer in layers}, 0
        for _, tokens in batches():
            n_images += len(tokens[layers[0]])
            for layer in layers:
                clean = _denoise(tokens[layer], thresholds[layer], None, steps=first, grid=grid)
                totals[layer] = totals[layer] + np.asarray(clean, np.float64).sum(0)
        positions = {
            layer: np.asarray((total - total.mean(0)) / n_images, np.float32) for layer, total in totals.items()
        }
    return {layer: TokenStatistics(thresholds[layer], positions[layer]) for layer in layers}


def denoise_like(backbone: Backbone, directory: str | Path) -> Backbone:
    """Denoises a model as the tokens of a store were, or returns it as it is.

    Args:
        backbone: the model that made the store.
        directory: the store, `DIR/features` of a run.

    Returns:
        The model to encode further images with.

    Raises:
        CheckpointError: if the statistics are damaged or of another model.
    """
    folder = Path(directory) / FOLDER
    if not kept.is_kept(folder):
        return backbone
    return DenoisedBackbone(backbone, *_read(folder, {"model_sha256": backbone.sha256}))


def _threshold(norms: np.ndarray) -> float:
    """Norms [n] -> that above which a token is an outlier."""
    median = float(np.median(norms))
    spread = 1.4826 * float(np.median(np.abs(norms - median)))
    return median + OUTLIER * spread


@functools.partial(jax.jit, static_argnames=("steps", "grid"))
def _denoise(
    tokens: Array, threshold: Array | None, position: Array | None, *, steps: tuple[str, ...], grid: tuple[int, int]
) -> jax.Array:
    x = jnp.asarray(tokens).astype(jnp.float32)
    x = x.reshape(len(x), *grid, -1)
    if "register" in steps and threshold is not None:
        x = _without_outliers(x, threshold)
    if "position" in steps and position is not None:
        x = x - jnp.asarray(position).reshape(1, *x.shape[1:])
    if "neighbors" in steps:
        x = _window_sum(x, KERNEL) / _window_sum(jnp.ones_like(x[:1, :, :, :1]), KERNEL)
    return x.reshape(len(x), -1, x.shape[-1])


def _without_outliers(x: jax.Array, threshold: Array) -> jax.Array:
    """Replaces outliers of x [B, rows, columns, D] by the mean of their neighbours; one without any stays."""
    is_clean = jnp.linalg.norm(x, axis=-1, keepdims=True) <= threshold
    window = np.ones((3, 3))
    n_clean = _window_sum(is_clean.astype(x.dtype), window)
    mean = _window_sum(jnp.where(is_clean, x, 0), window) / jnp.maximum(n_clean, 1)
    return jnp.where(is_clean | (n_clean == 0), x, mean)


def _window_sum(x: jax.Array, weights: np.ndarray) -> jax.Array:
    """Sums x [B, rows, columns, D] over windows of 3 x 3 tokens, nothing beyond the edge."""
    rows, columns = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = (float(weights[i, j]) * padded[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3))
    return functools.reduce(jnp.add, shifted)


def _write(folder: Path, statistics: Mapping[int, TokenStatistics], identity: dict[str, Any]) -> None:
    arrays = {f"position-{layer:02d}": position for layer, (_, position) in statistics.items() if position is not None}
    thresholds = {str(layer): threshold for layer, (threshold, _) in statistics.items()}
    kept.write(folder, "Denoising", arrays, {**identity, "thresholds": thresholds})


def _read(folder: Path, identity: dict[str, Any]) -> tuple[dict[int, TokenStatistics], tuple[str, ...]]:
    arrays, meta = kept.read(folder, "Denoising", identity)
    statistics = {
        layer: TokenStatistics(meta["thresholds"][str(layer)], arrays.get(f"position-{layer:02d}"))
        for layer in meta["layers"]
    }
    return statistics, tuple(meta["steps"])
