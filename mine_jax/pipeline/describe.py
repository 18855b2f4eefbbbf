"""The whole chain on arrays: image-tokens, responses and a lens enter, the verdict on each voxel leaves.

What is computed is what the stages of a run compute, by the same functions, without a run directory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from mine_jax import data, description, encoder
from mine_jax._checks import check_type
from mine_jax._progress import Progress, part_of, shown
from mine_jax.config import Config, from_dict
from mine_jax.errors import ConfigError, DataError
from mine_jax.pipeline import attributing, claims, fits
from mine_jax.pipeline.verdicts import Verdicts
from mine_jax.types import Encoders, ImageTokens, Lens, Profiles, Responses, Split, Stimuli

_log = logging.getLogger("mine_jax")
# Sections of a configuration that speak of arrays.
SECTIONS = ("encoder", "attribution", "description", "profile", "run")
# The fit, those of both halves, attribution, description, profiles.
_N_PARTS = 6
_NO_PHOTOS = "words are not tested beyond low-level features (no photos)"
_LENS = "mine_jax.types.Lens(words, unembedding=..., bias=...) reads tokens of any model: its scores of words."
_NO_GRID = "encoders know no positions (no `grid`)"


def describe(
    X: Any,
    Y: Any,
    lens: Lens,
    *,
    test: float | Sequence[str] = 0.2,
    grid: tuple[int, int] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Progress | bool = True,
) -> Verdicts:
    """Says what may be claimed of each voxel, from arrays alone.

    Splits the images, fits encoders of voxels and decoys, scores them, attributes, reads critical tokens as words,
    builds profiles and tests every rung of the ladder on the test images: what `mine-jax run` does on the same
    arrays, without its tables of evidence, areas, edited images and report.

    Args:
        X: image-tokens [N, P, D] or vectors [N, F] (NumPy, jax, torch, memory-mapped), or `ImageTokens`.
        Y: responses [N, V], z-scored, row n to the image of row n of X; or `Responses`, joined by image id.
        lens: what reads tokens as words: `mine_jax.types.Lens(words, unembedding=W, bias=b)` for scores
            token @ W.T + b, or that of `mine_jax.features.load_features`.
        test: share of the images that are held out, or their ids.
        grid: rows and columns that the P tokens of an array lie on.
        settings: section -> keys and values as in a configuration file, of encoder, attribution, description,
            profile and run; {"attribution": {"k": 0.15}} where images have few tokens.
        progress: called with (done, total). True shows a bar on a terminal, False nothing.

    Returns:
        Claims, reasons, words and the numbers of every rung; it prints itself.

    Raises:
        ConfigError: for a setting that does not exist, does not fit, or speaks of no array.
        DataError: if the arrays do not fit each other.
    """
    check_type("lens", lens, Lens, remedy=_LENS)
    description.clean_vocabulary(lens.words)  # an error costs least before anything is fitted
    config = _configuration(settings)
    tokens, responses = _joined(X, Y, grid)
    assigned = data.assign_splits(
        responses,
        _stimuli(responses.image_ids, test),
        test="shared" if np.ndim(test) else test,  # ty: ignore[invalid-argument-type]
        val=config.data.val,
        seed=config.run.seed,
    )
    responses = data.with_noise_ceiling(responses, assigned == "test")
    aligned = data.align(responses, tokens)
    splits = {name: data.split_rows(aligned, assigned, names=name) for name in ("train", "val", "test")}
    left_out = (_NO_PHOTOS,) if tokens.grid is not None else (_NO_PHOTOS, _NO_GRID)
    _log.info("left out: %s", "; ".join(left_out))
    with shown("describe", progress) as report, jax.default_matmul_precision(config.run.precision):
        batches = fits.batches(config, splits)
        fitted = _fitted(config, batches, part_of(report, 0, _N_PARTS))
        voxels, decoys = _apart(fitted)
        parts = dict(zip(responses.image_ids.tolist(), assigned.tolist(), strict=True))
        parts_of_tokens = np.array([parts.get(image_id, "") for image_id in tokens.image_ids.tolist()], dtype=str)
        halves = _halves(config, batches, report)
        pairs = attributing.choose(config, tokens, parts_of_tokens, voxels, decoys, halves)
        judged: tuple[Profiles | None, Profiles | None] = (None, None)
        if pairs:
            given = _described(config, lens, pairs, parts_of_tokens, (voxels, decoys), report)
            judged = _judged(config, given, batches.whole, fitted.encoders, part_of(report, 5, _N_PARTS))
    return Verdicts(responses, voxels.scores, voxels.encoders, *judged, left_out)


def _configuration(settings: Mapping[str, Mapping[str, Any]] | None) -> Config:
    flat = [name for name, keys in (settings or {}).items() if not isinstance(keys, Mapping)]
    if flat:
        raise ConfigError(
            "`settings` is section -> keys and values, such as {'encoder': {'epochs': 5}}, but has "
            f"{', '.join(flat)} outside of any section."
        )
    values = {section: dict(keys) for section, keys in (settings or {}).items()}
    other = [section for section in values if section not in SECTIONS]
    if other:
        raise ConfigError(f"`settings` may have the sections {', '.join(SECTIONS)}, but has {', '.join(other)}.")
    return from_dict(values, source="`settings`")


def _joined(X: Any, Y: Any, grid: tuple[int, int] | None) -> tuple[ImageTokens, Responses]:
    """Gives arrays the image ids of what they come with."""
    if grid is not None and np.shape(grid) != (2,):
        raise DataError(f"`grid` must be (rows, columns), but is {grid!r}.")
    is_typed = isinstance(X, ImageTokens), isinstance(Y, Responses)
    if not all(is_typed):
        n_images, n_rows = (len(one.image_ids if typed else one) for one, typed in zip((X, Y), is_typed, strict=True))
        if n_images != n_rows:
            raise DataError(f"`X` has {n_images} images, but `Y` has {n_rows}: row n of both must be the same image.")
    tokens = X if is_typed[0] else ImageTokens.from_array(X, image_ids=Y.image_ids if is_typed[1] else None, grid=grid)
    if is_typed[0] and grid is not None:
        tokens = replace(tokens, grid=grid)
    return tokens, Y if is_typed[1] else Responses.from_array(Y, image_ids=tokens.image_ids)


def _stimuli(image_ids: np.ndarray, test: float | Sequence[str]) -> Stimuli:
    """The images without photos; those that are listed for testing count as shared."""
    listed = np.asarray(test if np.ndim(test) else [], dtype=str)
    unknown = listed[~np.isin(listed, image_ids)]
    if len(unknown):
        raise DataError(f"`test` names {len(unknown)} images without responses, first {unknown[0]}.")
    return Stimuli(image_ids, lambda ids: [], np.full(len(image_ids), ""), np.isin(image_ids, listed))


def _fitted(config: Config, batches: fits.Batches, progress: Progress) -> fits.Fitted:
    encoders = fits.fitted(config, config.encoder, batches.whole, progress, batches.moments)
    return fits.Fitted(encoders, fits.scored(config, encoders, batches.whole))


def _apart(fitted: fits.Fitted) -> tuple[fits.Fitted, fits.Fitted | None]:
    """Takes voxels and decoys apart."""
    is_decoy = encoder.is_decoy(fitted.scores.voxel_ids)
    return fitted.take(~is_decoy), fitted.take(is_decoy) if is_decoy.any() else None


def _halves(config: Config, batches: fits.Batches, progress: Progress) -> Iterator[tuple[Encoders, np.ndarray]]:
    """Fits the encoders of each half of the images when they are asked for, and names the images."""
    for i, (half, moments) in enumerate(zip(batches.halves, batches.half_moments, strict=True), start=1):
        seen = [half[name].responses.image_ids for name in ("train", "val")]
        yield fits.fitted(config, config.encoder, half, part_of(progress, i, _N_PARTS), moments), np.concatenate(seen)


def _described(
    config: Config,
    lens: Lens,
    pairs: list[attributing.Pairs],
    parts: np.ndarray,
    fitted: tuple[fits.Fitted, fits.Fitted | None],
    progress: Progress,
) -> claims.Described:
    """Attributes all pairs, and reads their critical tokens as words; `parts` [N] is the split of each image."""
    of_both, *of_halves = (
        attributing.attributed(config, one, part_of(part_of(progress, 3, _N_PARTS), i, len(pairs)))
        for i, one in enumerate(pairs)
    )
    words = description.top_words(
        lens,
        pairs[0].tokens,
        m=config.description.m,
        image_chunk=config.run.image_chunk,
        progress=part_of(progress, 4, _N_PARTS),
    )
    shares = description.corpus_shares(words, parts)

    def pair(found: attributing.Attributed) -> claims.Pair:
        described = description.describe(found.critical, words, corpus=shares.mean, n_words=config.description.n_words)
        return claims.Pair(described, found.faithfulness.faithfulness)

    (voxels, decoys), (n_voxels, n_both) = fitted, (pairs[0].n_voxels, len(pairs[0].image_ids))
    of_decoys = None
    if decoys is not None and n_voxels < n_both:
        of_decoys = pair(of_both.take(np.arange(n_voxels, n_both))), decoys.scores
    return claims.Described(
        voxels=(pair(of_both.take(np.arange(n_voxels))), voxels.scores),
        decoys=of_decoys,
        halves=[pair(found) for found in of_halves],
        shares=shares,
    )


def _judged(
    config: Config, given: claims.Described, splits: dict[str, Split], encoders: Encoders, progress: Progress
) -> tuple[Profiles, Profiles | None]:
    """Builds the profiles, and tests every rung of the ladder on the test images."""
    populations = claims.populations(config, given, progress)
    unseen = claims.held_out(config, populations, given, splits, encoders, None)
    return claims.judge(config, populations, given, unseen, progress)
