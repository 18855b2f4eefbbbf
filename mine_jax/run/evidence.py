"""What stands beside the profiles: ledger of confounds, drivers, conjunctions and fields, from the files of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mine_jax import description, features, profile, statistics
from mine_jax.config import Config
from mine_jax.run import files
from mine_jax.types import Profiles

# Words of each profile that are tested.
N_WORDS = 5


def write_evidence(config: Config, directory: Path, profiles: Profiles) -> dict[str, Any]:
    """Tests the words and the place of every profile on measured responses, and writes profile/*.tsv.

    Args:
        config: of the run.
        directory: of the run, whose profiles are made.
        profiles: of V voxels.

    Returns:
        Numbers for the summary of the stage.
    """
    seen, held_out = _images(config, directory, profiles, ("train", "val")), _images(config, directory, profiles)
    tables = {
        "ledger": _ledger(config, directory, profiles, seen, held_out),
        "drivers": _drivers(config, directory, profiles, seen, held_out),
        "conjunctions": _conjunctions(config, profiles, held_out),
    }
    placed = _field(config, directory, profiles, held_out)
    tables |= {} if placed is None else {"field": placed}
    for name, table in tables.items():
        files.save_evidence(directory, name, table)
    return {
        "words_surviving": int((tables["ledger"]["survives"] == "true").sum()),
        "conjunctions": int((tables["conjunctions"]["q"] <= config.profile.max_q).sum()),
        **({} if placed is None else {"fields": int((placed["q"] <= config.profile.max_q).sum())}),
    }


def _images(config: Config, directory: Path, profiles: Profiles, names: tuple[str, ...] = ("test",)) -> profile.Images:
    """Reads words and measured responses of the images of some splits."""
    splits, shares = files.load_splits(config, directory), files.word_shares(directory)
    columns = np.searchsorted(splits["test"].responses.voxel_ids, profiles.voxel_ids)
    ids = np.concatenate([splits[name].responses.image_ids for name in names])
    measured = np.concatenate([np.asarray(splits[name].responses.responses[:, columns]) for name in names])
    return profile.Images(np.asarray(shares.images[_rows(shares.image_ids, ids)]), measured)


def _ledger(
    config: Config, directory: Path, profiles: Profiles, seen: profile.Images, held_out: profile.Images
) -> pd.DataFrame:
    confounds = {"number of things": _n_things(held_out.words)}
    low_level = files.load_low_level(directory)
    if low_level is not None:
        ids = files.load_splits(config, directory)["test"].responses.image_ids
        confounds |= features.image_statistics(low_level.take_images(_rows(low_level.image_ids, ids)))
    found = profile.ledger(
        profiles.word_ids[:, :N_WORDS],
        profiles.words,
        held_out.words,
        held_out.measured,
        confounds=confounds,
        seen_words=seen.words,
        n_permutations=config.profile.n_permutations,
        seed=config.run.seed,
    )
    return pd.DataFrame(
        {
            "voxel_id": profiles.voxel_ids[found.voxels],
            "word": profiles.words[found.words],
            "r": found.r,
            "confound": found.confounds,
            "r_given": found.r_given,
            "p": found.p,
            "q": found.q,
            "survives": np.where(found.q <= config.profile.max_q, "true", "false"),
        }
    )


def _drivers(
    config: Config, directory: Path, profiles: Profiles, seen: profile.Images, held_out: profile.Images
) -> pd.DataFrame:
    found = profile.drivers(
        profiles.distribution,
        files.corpus(directory),
        profiles.words,
        seen,
        held_out,
        n_permutations=config.profile.n_permutations,
        seed=config.run.seed,
    )
    numbers = {name: getattr(found, name) for name in ("r", "p", "q")}
    ids, words = profiles.voxel_ids[found.voxels], profiles.words[found.words]
    return pd.DataFrame({"voxel_id": ids, "kind": found.kinds, "word": words, **numbers})


def _conjunctions(config: Config, profiles: Profiles, held_out: profile.Images) -> pd.DataFrame:
    found = profile.conjunctions(
        profiles.word_ids[:, :N_WORDS],
        held_out.words,
        held_out.measured,
        n_permutations=config.profile.n_permutations,
        seed=config.run.seed,
    )
    words = {"word": profiles.words[found.first], "with": profiles.words[found.second]}
    numbers = {name: getattr(found, name) for name in ("r", "p", "q")}
    return pd.DataFrame({"voxel_id": profiles.voxel_ids[found.voxels], **words, **numbers})


def _field(config: Config, directory: Path, profiles: Profiles, held_out: profile.Images) -> pd.DataFrame | None:
    """Finds fields; None where tokens have no grid, or their scores were not kept."""
    tokens, lens = files.load_tokens(directory), files.load_lens(directory)
    heat = files.load_heat(directory, files.load_descriptions(directory).image_ids.shape)
    if heat is None or lens is None or tokens.grid is None:
        return None
    n_permutations, seed = config.profile.n_permutations, config.run.seed
    found = profile.field(heat, tokens.grid, n_permutations=n_permutations, seed=seed)
    ids = files.load_splits(config, directory)["test"].responses.image_ids
    token_words = description.top_words(
        lens,
        tokens,
        rows=_rows(tokens.image_ids, ids),
        m=config.description.m,
        image_chunk=config.run.image_chunk,
    )
    tested = profile.field_test(
        found.maps,
        profiles.distribution,
        files.corpus(directory),
        token_words,
        held_out.measured,
        n_permutations=n_permutations,
        seed=seed,
    )
    # both must hold: the maps agree on a place, and the place matters to measured responses
    p = np.maximum(found.p, tested.p)
    place = {name: getattr(found, name) for name in ("x", "y", "size")}
    q = statistics.false_discovery_rate(p)
    return pd.DataFrame({"voxel_id": profiles.voxel_ids, **place, "r": tested.r, "p": p, "q": q})


def _n_things(image_words: np.ndarray) -> np.ndarray:
    """How many words an image shows, as if all had equal shares [T]: exponential of their entropy."""
    shares = image_words / np.maximum(image_words.sum(1, keepdims=True), 1e-12)
    return np.exp(-(shares * np.log(np.maximum(shares, 1e-12))).sum(1))


def _rows(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Positions of ids among known ones."""
    order = np.argsort(known)
    return order[np.searchsorted(known, wanted, sorter=order)]
