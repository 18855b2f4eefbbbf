"""What rests on the claims of a run: confounds, fields, drivers and conjunctions of its profiles."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from mine_jax import description, features, profile
from mine_jax._progress import Progress, silent
from mine_jax.config import Config
from mine_jax.description import CorpusShares
from mine_jax.memory import SparseRows, take_columns
from mine_jax.run import files
from mine_jax.statistics import false_discovery_rate
from mine_jax.types import Profiles, Responses

_MAX_Q = 0.05


class _Images(NamedTuple):
    """Images of a split: ids [N], shares of words [N, C], measured responses of the profiled voxels [N, V]."""

    image_ids: np.ndarray
    words: SparseRows
    measured: np.ndarray


def evidence_tables(
    config: Config, directory: Path, profiles: Profiles, *, progress: Progress = silent
) -> dict[str, pd.DataFrame]:
    """Computes the tables of evidence.

    Args:
        config: of the run.
        directory: of the run.
        profiles: of V voxels.
        progress: called with (done, total) voxels of each table.

    Returns:
        Name of the table in profile/ -> its rows; no "field" where tokens have no grid.
    """
    splits, shares, words = (
        files.load_splits(config, directory),
        files.word_shares(directory),
        profiles.words.astype(str),
    )
    training, test = (
        _images(splits[name].responses, shares, profiles.voxel_ids, directory / "profile") for name in ("train", "test")
    )
    found = profile.ledger(
        profiles.word_ids,
        words,
        test.words,
        test.measured,
        confounds=_confounds(directory, test),
        company=training.words,
        progress=progress,
    )
    ids = profiles.voxel_ids
    ledger = pd.DataFrame({"voxel_id": ids[found.voxel], "word": words[found.word], **_columns(found, 2)})
    chooses, tests = (profile.Seen(images.words, images.measured) for images in (training, test))
    listed = profile.drivers(words, chooses, tests, progress=progress)
    drivers = pd.DataFrame({"voxel_id": ids[listed.voxel], "role": listed.role, "word": words[listed.word]})
    joint = profile.conjunctions(profiles.word_ids, chooses, tests, progress=progress)
    pairs = {"first": words[joint.first], "second": words[joint.second]}
    results = {
        "ledger": ledger.assign(survives=ledger["q"] <= _MAX_Q),
        "drivers": drivers.assign(**_columns(listed, 3)),
        "conjunctions": pd.DataFrame({"voxel_id": ids[joint.voxel], **pairs, **_columns(joint, 3)}),
    }
    field = _field(config, directory, profiles, test, progress)
    return results if field is None else {**results, "field": field}


def _columns(rows: tuple, start: int) -> dict[str, np.ndarray]:
    """Fields of a NamedTuple from one on, as columns."""
    return dict(zip(type(rows)._fields[start:], rows[start:], strict=True))  # ty: ignore[missing-attribute]


def _images(responses: Responses, shares: CorpusShares, voxel_ids: np.ndarray, folder: Path) -> _Images:
    """Opens the words of some images, and copies the responses of some voxels to them to a file without a name."""
    words = shares.images.take(shares.rows_of(responses.image_ids))
    columns = np.searchsorted(responses.voxel_ids, voxel_ids)
    return _Images(np.asarray(responses.image_ids), words, take_columns(responses.responses, columns, folder=folder))


def _confounds(directory: Path, test: _Images) -> dict[str, np.ndarray]:
    """Numbers of each test image by name, [T] or [T, k]; pixels only where the run could read photos."""
    confounds = {"number of things": np.exp(profile.word_entropy(test.words))}
    statistics = files.load_low_level(directory)
    if statistics is None:
        return confounds
    rows = _rows(np.asarray(statistics.image_ids), test.image_ids)
    of_pixels = features.image_statistics(statistics.take_images(rows))
    return {**of_pixels, **confounds}


def _field(
    config: Config, directory: Path, profiles: Profiles, test: _Images, progress: Progress
) -> pd.DataFrame | None:
    critical, tokens, lens = files.load_critical(directory), files.load_tokens(directory), files.load_lens(directory)
    if critical is None or lens is None or tokens.grid is None:
        return None
    usable = ~np.isin(critical.image_ids, test.image_ids)
    field = profile.fields(critical, grid=tokens.grid, usable=usable, seed=config.run.seed)
    token_words = description.top_words(
        lens,
        tokens,
        rows=_rows(np.asarray(tokens.image_ids), test.image_ids),
        m=config.description.m,
        image_chunk=config.run.image_chunk,
    )
    tested = profile.field_test(
        field.maps, profiles.distribution, files.corpus(directory), token_words, test.measured, progress=progress
    )
    # both must hold: the field is narrow, and what lies in it matters to measured responses
    p = np.maximum(field.p, tested)
    place = {name: getattr(field, name) for name in ("x", "y", "size")}
    return pd.DataFrame({"voxel_id": critical.voxel_ids, **place, "p": p, "q": false_discovery_rate(p)})


def _rows(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    order = np.argsort(known)
    return order[np.searchsorted(known, wanted, sorter=order)]
