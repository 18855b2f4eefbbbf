"""Attribution, critical tokens and patching in one pass over the voxels.

Scores of all tokens exist for some voxels at a time; what stays is small: K tokens, a few
numbers and the curves of every pair.
"""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, Unpack

import numpy as np
from jax.sharding import Mesh

from mine_jax import encoder
from mine_jax._checks import takes
from mine_jax._progress import Progress, silent
from mine_jax.attribution.blocks import image_rows
from mine_jax.attribution.critical_tokens import critical_tokens, n_critical
from mine_jax.attribution.integrated_gradients import integrate
from mine_jax.attribution.patching import Patching, PatchSettings, patch
from mine_jax.attribution.path import OF_ARRAYS, Path, PathSettings, check_settings
from mine_jax.memory import scratch
from mine_jax.memory.chunks import Chunks, chunk_size
from mine_jax.types import Attributions, CriticalTokens, Encoders, Faithfulness, ImageTokens

_SPLITS = {"all": ("train", "val", "test"), "train": ("train", "val"), "test": ("test",)}
_T = TypeVar("_T", Attributions, CriticalTokens, Faithfulness)


class Settings(PathSettings, PatchSettings, total=False):
    """Keywords that become a `Path` and a `Patching`."""


# Scores held at once, 256 MiB of float32.
HELD_SCORES = 1 << 24


@takes(OF_ARRAYS, encoders=Encoders, tokens=ImageTokens)
def attribute_and_patch(
    encoders: Encoders,
    tokens: ImageTokens,
    *,
    image_ids: np.ndarray | None = None,
    keep: Callable[[slice, np.ndarray], None] | None = None,
    folder: pathlib.Path | None = None,
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
    **settings: Unpack[Settings],
) -> tuple[Attributions, CriticalTokens, Faithfulness]:
    """Attributes pairs, finds critical tokens and patches them, slab by slab.

    Args:
        encoders: V fitted encoders.
        tokens: image-tokens [N, P, D].
        image_ids: [V, I] images of each voxel; None for all images.
        keep: called with a slice of voxels and their scores [v, I, P], for who wants to write them.
        folder: where the results lie, in files without a name; None holds them in memory.
        voxel_chunk: voxels held at once. Memory only, never the result.
        image_chunk: images held at once. Memory only, never the result.
        mesh: devices, as for `integrated_gradients`. Never the result.
        progress: called with (done, total) voxels.
        **settings: `baseline`, `n_steps`, `max_steps`, `tolerance`, `method`, `quadrature` and `reduce`, as for
            `integrated_gradients`; `k`, critical tokens kept (or their share), `sufficiency`, `n_random` and
            `seed`, as for `patch_tokens`.

    Returns:
        Attributions without scores ([V, I, 0]), critical tokens [V, I, K] and faithfulness [V, I].

    Raises:
        ConfigError: if `k` leaves no token out.
        DataError: if the tokens have another width than the encoders, or an image has none.
        TypeError: for an unknown keyword.
        ValueError: as for `integrated_gradients` and `patch_tokens`.

    Source: MINE, K = 50 and activation patching.
    """
    check_settings(settings, Path, Patching)
    path, patching = Path(**_fields(settings, Path)), Patching(**_fields(settings, Patching))
    chunks = Chunks(voxel_chunk, image_chunk, mesh)
    n_voxels, n_tokens = len(encoders.voxel_ids), tokens.tokens.shape[1]
    n_critical(patching.k, n_tokens)  # an error costs least before anything is computed
    n_images = len(tokens.image_ids) if image_ids is None else np.shape(image_ids)[1]
    size = chunk_size(n_voxels, max(1, HELD_SCORES // max(1, n_images * n_tokens)))
    whole = _Whole(n_voxels, folder)
    for start in range(0, n_voxels, size):
        voxels = slice(start, min(start + size, n_voxels))
        slab = encoders.take(np.arange(voxels.start, voxels.stop))
        rows = image_rows(tokens, None if image_ids is None else image_ids[voxels], len(slab.voxel_ids))
        done = _shifted(progress, 2 * start, 2 * n_voxels)
        integrals = integrate(slab, tokens, rows, path, chunks, progress=done)
        attributions = integrals.attributions(slab.voxel_ids, tokens.image_ids[rows])
        done = _shifted(progress, start + voxels.stop, 2 * n_voxels)
        faithfulness = patch(slab, tokens, rows, attributions, path.baseline, patching, chunks, progress=done)
        critical = critical_tokens(attributions, k=patching.k)
        if keep is not None:
            keep(voxels, attributions.scores)
        no_scores = np.zeros((*attributions.scores.shape[:2], 0), np.float32)
        whole.put(voxels, (dataclasses.replace(attributions, scores=no_scores), critical, faithfulness))
    attributed, critical_tokens_of_all, patched = whole.results
    return attributed, critical_tokens_of_all, patched


def faithfulness_of_halves(
    halves: tuple[Encoders, Encoders],
    tokens: ImageTokens,
    *,
    image_ids: np.ndarray,
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
    **settings: Unpack[Settings],
) -> np.ndarray:
    """Measures whether the image-tokens that drive one refit drive another one.

    Faithfulness in the attributed encoder says that attribution is right about the encoder, which it is of an
    encoder of noise, too. Here the attributions of each half order the tokens that are patched in the other.

    Args:
        halves: encoders of the same V voxels, fitted to disjoint images.
        tokens: image-tokens [N, P, D].
        image_ids: [V, I] images of each voxel.
        voxel_chunk: voxels held at once. Memory only, never the result.
        image_chunk: images held at once. Memory only, never the result.
        mesh: devices, as for `integrated_gradients`. Never the result.
        progress: called with (done, total) voxels.
        **settings: as for `attribute_and_patch`.

    Returns:
        [V] median over images and both directions; about 0 where the halves share nothing, NaN where unknown.
    """
    check_settings(settings, Path, Patching)
    path, patching = Path(**_fields(settings, Path)), Patching(**_fields(settings, Patching))
    chunks, n_tokens = Chunks(voxel_chunk, image_chunk, mesh), tokens.tokens.shape[1]
    n_critical(patching.k, n_tokens)
    n_voxels, n_images = image_ids.shape
    size = chunk_size(n_voxels, max(1, HELD_SCORES // max(1, n_images * n_tokens)))
    out = np.full(n_voxels, np.nan)
    for start in range(0, n_voxels, size):
        voxels = np.arange(start, min(start + size, n_voxels))
        rows = image_rows(tokens, image_ids[voxels], len(voxels))
        both = []
        for explained, patched in (halves, halves[::-1]):
            integrals = integrate(explained.take(voxels), tokens, rows, path, chunks)
            attributions = integrals.attributions(explained.voxel_ids[voxels], tokens.image_ids[rows])
            slab = patched.take(voxels)
            found = patch(slab, tokens, rows, attributions, path.baseline, patching, chunks, progress=silent)
            both.append(found.faithfulness)
        pairs = np.concatenate(both, 1)
        known = np.isfinite(pairs).any(1)
        out[voxels[known]] = np.nanmedian(pairs[known], axis=1)
        progress(start + len(voxels), n_voxels)
    return out


def _fields(settings: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """Returns the settings that are fields of a dataclass."""
    return {name: settings[name] for name in inspect.signature(kind).parameters if name in settings}


def _shifted(progress: Progress, offset: int, total: int) -> Progress:
    return lambda done, _: progress(offset + done, total)


class _Whole:
    """Dataclasses of arrays of all voxels, filled slab after slab; `k_values` has no voxel axis."""

    def __init__(self, n_voxels: int, folder: pathlib.Path | None) -> None:
        self.n_voxels, self.folder = n_voxels, folder
        self.results: tuple[Any, ...] = ()

    def put(self, voxels: slice, parts: Sequence[Any]) -> None:
        """Puts what was found of some voxels in its place."""
        if self.folder is None and voxels == slice(0, self.n_voxels):
            self.results = tuple(parts)
            return
        if not self.results:
            self.results = tuple(_with_arrays(part, self._room) for part in parts)
        for result, part in zip(self.results, parts, strict=True):
            for whole, some in zip(_arrays(result), _arrays(part), strict=True):
                whole[voxels] = some

    def _room(self, part: np.ndarray) -> np.ndarray:
        shape = (self.n_voxels, *part.shape[1:])
        # files cannot be empty
        is_held = self.folder is None or 0 in shape
        return np.empty(shape, part.dtype) if is_held else scratch(shape, part.dtype, self.folder)


def _arrays(value: Any) -> list[np.ndarray]:
    """Lists the arrays [V, ...] of a dataclass, also those in its dictionaries."""
    items = [getattr(value, field.name) for field in dataclasses.fields(value) if field.name != "k_values"]
    return [array for item in items for array in (item.values() if isinstance(item, dict) else [item])]


def _with_arrays(value: _T, change: Callable[[np.ndarray], np.ndarray]) -> _T:
    """Replaces the arrays of a dataclass that `_arrays` lists."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if isinstance(item, dict):
            changed[field.name] = {name: change(array) for name, array in item.items()}
        elif field.name != "k_values":
            changed[field.name] = change(item)
    return dataclasses.replace(value, **changed)


def choose_images(
    encoders: Encoders,
    tokens: ImageTokens,
    *,
    splits: np.ndarray,
    split: str,
    images: str,
    n: int,
    seed: int = 0,
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Chooses images of each voxel: those it responds to most, or random ones.

    Args:
        encoders: V fitted encoders.
        tokens: image-tokens [N, P, D].
        splits: [N] str, the split of each image; images of no split are never chosen.
        split: "all", "train" (with the validation images) or "test".
        images: "top" for the highest predictions, "random" for the same random ones of all voxels.
        n: images per voxel, I; no more than there are.
        seed: of the random ones.
        voxel_chunk: voxels held at once. Memory only, never the result.
        image_chunk: images held at once. Memory only, never the result.
        mesh: devices, as for `encoder.predict`.

    Returns:
        Positions [V, I] in the tokens.
    """
    allowed = np.isin(splits, _SPLITS[split])
    n = min(n, int(allowed.sum()))
    if images == "random":
        shuffled = np.random.default_rng(seed).permutation(np.flatnonzero(allowed))[:n]
        return np.broadcast_to(shuffled, (len(encoders.voxel_ids), n))
    return encoder.top_images(
        encoders,
        tokens,
        n=n,
        allowed=allowed,
        voxel_chunk=voxel_chunk,
        image_chunk=image_chunk,
        mesh=mesh,
    )
