"""PCA of image-tokens on the fly: a frozen model whose tokens have E dimensions instead of D.

The mean and the covariance of the tokens are summed over a sample of images in a first pass;
later passes keep (x - mean) @ basis. The projection is saved beside the tokens. The lens lifts a
reduced token back (mean + z @ basis^T) and reads that, so it sees what the basis kept; E decides
how close its words are to those of the full tokens.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.errors import ConfigError, DataError
from mine_jax.features.backbone import Backbone, resolve_layer
from mine_jax.features.dense import kept
from mine_jax.features.dense.wrapped import WrappedBackbone, sampled
from mine_jax.features.extract import Extraction, batch_starts, encoded
from mine_jax.features.lens import reduced_lens
from mine_jax.types import Array, Lens, Stimuli

FOLDER = "reduction"


@dataclass(frozen=True)
class Reduction:
    """A projection of tokens.

    Attributes:
        mean: [D] float32, subtracted first.
        basis: [D, E] float32, orthonormal columns, largest variance first.
        explained: share of the variance that the basis keeps.
    """

    mean: np.ndarray
    basis: np.ndarray
    explained: float


@dataclass(frozen=True, eq=False, repr=False)
class ReducedBackbone(WrappedBackbone):
    """A backbone whose tokens are reduced; see `backbone.Backbone`.

    Attributes:
        backbone: the model itself.
        reductions: layer, counted from 0 -> its projection.
        main: layer that the lens reads.
    """

    reductions: Mapping[int, Reduction]
    main: int

    @property
    def sha256(self) -> str:
        """Hash of the model and all projections."""
        digest = hashlib.sha256(self.backbone.sha256.encode())
        for layer in sorted(self.reductions):
            digest.update(str(layer).encode() + self.reductions[layer].mean.tobytes())
            digest.update(self.reductions[layer].basis.tobytes())
        return digest.hexdigest()

    @property
    def width(self) -> int:
        """Width E of a reduced image-token."""
        return self.reductions[self.main].basis.shape[1]

    def encode(self, pixels: Array, *, layers: Sequence[int] = (-1,)) -> dict[int, jax.Array]:
        """Returns layer -> reduced image-tokens [B, P, E] float32.

        Raises:
            ConfigError: for a layer without a projection.
        """
        numbers = {layer: resolve_layer(layer, self.layers) for layer in layers}
        missing = [layer for layer, number in numbers.items() if number not in self.reductions]
        if missing:
            raise ConfigError(f"layers {missing} have no reduction; layers that do: {sorted(self.reductions)}.")
        tokens = self.backbone.encode(pixels, layers=layers)
        reductions = {layer: self.reductions[number] for layer, number in numbers.items()}
        return {
            layer: _reduce(tokens[layer], r.mean, r.basis, precision=self.precision) for layer, r in reductions.items()
        }

    def lens(self, words: Sequence[str] | np.ndarray, templates: Sequence[str], *, progress: Progress = silent) -> Lens:
        """Builds the lens over W words, which lifts reduced tokens back first."""
        main = self.reductions[self.main]
        return reduced_lens(self.backbone.lens(words, templates, progress=progress), main.mean, main.basis)


def reduced_on_sample(
    backbone: Backbone,
    n_dimensions: int,
    stimuli: Stimuli,
    extraction: Extraction,
    progress: Progress,
    *,
    fitted_on: np.ndarray | None = None,
) -> ReducedBackbone:
    """Reduces every layer of an extraction, fitted on evenly spaced images or read from the store.

    Args:
        backbone: the model.
        n_dimensions: E.
        stimuli: all N images.
        extraction: its first layer is the one that the lens reads; the projections go to the store of that.
        progress: called with (batches done, batches done).
        fitted_on: [F] str ids of the images that may be used for the fit; None for all.

    Returns:
        The reduced model.

    Raises:
        MineError: as `reduced`.
    """
    sample = sampled(stimuli, fitted_on)
    main, *more = extraction.layers
    batches = encoded(
        backbone, sample, *batch_starts(sample, extraction.batch_size), extraction.layers, np.dtype(np.float32)
    )
    return reduced(
        backbone,
        n_dimensions,
        main=main,
        more=more,
        batches=batches,
        sample_ids=sample.image_ids,
        directory=extraction.places[main],
        progress=progress,
    )


def reduced(
    backbone: Backbone,
    n_dimensions: int,
    *,
    main: int,
    more: Sequence[int] = (),
    batches: Iterable[tuple[int, Mapping[int, np.ndarray]]],
    sample_ids: np.ndarray | None = None,
    directory: Path | None = None,
    progress: Progress = silent,
) -> ReducedBackbone:
    """Reduces a model by projections that it fits, or reads from a run.

    Args:
        backbone: the model.
        n_dimensions: E.
        main: layer that the lens reads, counted from 0.
        more: further layers.
        batches: (first row, layer -> tokens [n, P, D]) of the sample; not touched if read.
        sample_ids: ids of the images of the sample, by which projections on disk are told from others.
        directory: where the projections are kept, or found; None keeps them in memory.
        progress: called with (batches done, batches done).

    Returns:
        The reduced model.

    Raises:
        ConfigError: if E is larger than D.
        CheckpointError: if the folder holds projections of another model, layer, size or sample.
        DataError: if the sample has fewer tokens than E.
    """
    if n_dimensions > backbone.width:
        raise ConfigError(f"`features.reduce` must be at most the token width {backbone.width}, but is {n_dimensions}.")
    layers = (main, *more)
    identity = {
        "model_sha256": backbone.sha256,
        "layers": sorted(layers),
        "dimensions": n_dimensions,
        "sample_sha256": kept.hash_of([] if sample_ids is None else sample_ids),
    }
    folder = None if directory is None else directory / FOLDER
    if folder is not None and kept.is_kept(folder):
        return ReducedBackbone(backbone, _read(folder, identity), main)
    sums = {layer: _Moments(backbone.width) for layer in layers}
    for done, (_, tokens) in enumerate(batches, start=1):
        for layer, moments in sums.items():
            moments.add(tokens[layer].reshape(-1, backbone.width))
        progress(done, done)
    reductions = {layer: moments.reduction(n_dimensions) for layer, moments in sums.items()}
    if folder is not None:
        _write(folder, reductions, identity)
    return ReducedBackbone(backbone, reductions, main)


def reduce_like(backbone: Backbone, directory: str | Path, *, layer: int) -> Backbone:
    """Reduces a model as the tokens of a store were, or returns it as it is.

    Args:
        backbone: the model that made the store.
        directory: the store, `DIR/features` of a run.
        layer: the one that the lens reads; negative counts from the end.

    Returns:
        The model to encode further images with; its tokens are [B, P, E] where the store is reduced.

    Raises:
        CheckpointError: if the projections are damaged or of another model.
    """
    folder = Path(directory) / FOLDER
    if not kept.is_kept(folder):
        return backbone
    reductions = _read(folder, {"model_sha256": backbone.sha256})
    return ReducedBackbone(backbone, reductions, resolve_layer(layer, backbone.layers))


class _Moments:
    """Sums of tokens and their products around a first guess of the mean."""

    def __init__(self, width: int) -> None:
        self.shift: np.ndarray | None = None
        self.count, self.total, self.products = 0, np.zeros(width), np.zeros((width, width))

    def add(self, tokens: np.ndarray) -> None:
        """Adds tokens [n, D] float32."""
        if self.shift is None:
            self.shift = tokens.mean(0, dtype=np.float64).astype(np.float32)
        total, products = _products(tokens, self.shift)
        self.count += len(tokens)
        self.total += np.asarray(total, np.float64)
        self.products += np.asarray(products, np.float64)

    def reduction(self, n_dimensions: int) -> Reduction:
        """Returns the projection on the E directions of largest variance."""
        if self.shift is None or self.count <= n_dimensions:
            raise DataError(
                f"`features.reduce` {n_dimensions} needs more than {self.count} tokens in the sample. Use fewer "
                "dimensions or more images."
            )
        offset = self.total / self.count
        covariance = self.products / self.count - np.outer(offset, offset)
        values, vectors = np.linalg.eigh(covariance)
        basis = vectors[:, ::-1][:, :n_dimensions]
        # eigenvectors have no sign of their own
        basis = basis * np.sign(basis[np.abs(basis).argmax(0), np.arange(n_dimensions)])[None]
        kept, everything = values[::-1][:n_dimensions].sum(), values.sum()
        return Reduction(
            mean=(self.shift + offset).astype(np.float32),
            basis=np.ascontiguousarray(basis, np.float32),
            explained=float(kept / everything) if everything > 0 else 1.0,
        )


@jax.jit
def _products(tokens: Array, shift: Array) -> tuple[jax.Array, jax.Array]:
    centered = jnp.asarray(tokens) - jnp.asarray(shift)[None]
    return centered.sum(0), jnp.einsum("nd,ne->de", centered, centered, precision="highest")


@functools.partial(jax.jit, static_argnames=("precision",))
def _reduce(tokens: Array, mean: Array, basis: Array, *, precision: str) -> jax.Array:
    centered = jnp.asarray(tokens).astype(jnp.float32) - jnp.asarray(mean)[None, None]
    return jnp.einsum("bpd,de->bpe", centered, basis, precision=precision)


def _write(folder: Path, reductions: Mapping[int, Reduction], identity: dict[str, Any]) -> None:
    arrays = {
        f"{part}-{layer:02d}": getattr(reduction, part)
        for layer, reduction in reductions.items()
        for part in ("mean", "basis")
    }
    explained = {str(layer): reduction.explained for layer, reduction in reductions.items()}
    kept.write(folder, "Reduction", arrays, {**identity, "explained": explained})


def _read(folder: Path, identity: dict[str, Any]) -> dict[int, Reduction]:
    arrays, meta = kept.read(folder, "Reduction", identity)
    return {
        layer: Reduction(
            mean=arrays[f"mean-{layer:02d}"],
            basis=arrays[f"basis-{layer:02d}"],
            explained=float(meta["explained"][str(layer)]),
        )
        for layer in meta["layers"]
    }
