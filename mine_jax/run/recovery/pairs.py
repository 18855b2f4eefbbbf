"""Single images: do the words of a pair name the planted thing, and do its critical tokens lie on it?

The control describes the same pairs from random image-tokens: choosing a voxel's images already selects
what is in them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from mine_jax import description, profile
from mine_jax.errors import MissingInputError
from mine_jax.phantom import scenes
from mine_jax.phantom.write_nsd import read_scenes
from mine_jax.run import files
from mine_jax.run.recovery.opened import Opened
from mine_jax.types import CriticalTokens, Descriptions, Profiles


class Control(NamedTuple):
    """The critical tokens of a run, and what random tokens of the same images say."""

    critical: CriticalTokens
    descriptions: Descriptions
    profiles: Profiles


def random_tokens(run: Opened) -> Control:
    """Describes the pairs of a run from random tokens, all weighted alike.

    Raises:
        MissingInputError: if nothing was attributed, or there is no lens.
    """
    critical, lens = files.load_critical(run.directory), files.load_lens(run.directory)
    if critical is None or lens is None:
        raise MissingInputError(f"{run.directory} has no attributed voxel or no lens.")
    tokens = files.load_tokens(run.directory)
    rng = np.random.default_rng(run.config.run.seed + 1)
    shuffled = rng.random((*critical.image_ids.shape, tokens.tokens.shape[1])).argsort(-1).astype(np.int32)
    chance = replace(critical, indices=shuffled[..., : critical.indices.shape[2]], scores=np.ones_like(critical.scores))
    words = description.top_words(lens, tokens, m=run.config.description.m)
    corpus, settings = files.corpus(run.directory), run.config.profile
    described = description.describe(chance, words, corpus=corpus, n_words=run.config.description.n_words)
    faithful = files.load_faithfulness(run.directory).faithfulness
    chosen = profile.most_faithful(faithful, quantile=settings.faithfulness_quantile, min_images=settings.min_images)
    profiles = profile.build(described, faithful, corpus=corpus, chosen=chosen, n_bootstrap=1)
    return Control(critical, described, profiles)


def pairs_table(run: Opened, voxels: pd.DataFrame, control: Control) -> pd.DataFrame:
    """Follows the pairs of counted voxels with one planted thing whose image shows it.

    Args:
        run: a run on a phantom.
        voxels: one row per voxel.
        control: of the same run.

    Returns:
        One row per pair: whether the first word is right, also from random tokens, the share of critical
        tokens on the thing, and the share of all tokens.
    """
    critical = control.critical
    shown = read_scenes(run.root)
    described = files.load_descriptions(run.directory)
    grid = files.load_tokens(run.directory).grid or (1, 1)
    concept = voxels[voxels["counted"] & (voxels["kind"] == "concept")].set_index("voxel_id")["concepts"].to_dict()
    inside: dict[tuple[int, str], np.ndarray] = {}
    rows = []
    for v, voxel_id in enumerate(critical.voxel_ids):
        word = concept.get(int(voxel_id))
        if word is None or word in scenes.PLACES:
            continue
        for i, image_id in enumerate(critical.image_ids[v]):
            scene = shown[int(image_id)]
            if word not in {thing.concept for thing in scene.things}:
                continue
            key = (int(image_id), word)
            if key not in inside:
                inside[key] = _token_cover(scene, word, grid)
            rows.append(
                {
                    "first": _first(described, v, i) == word,
                    "first_control": _first(control.descriptions, v, i) == word,
                    "inside": inside[key][critical.indices[v, i]].mean(),
                    "area": inside[key].mean(),
                }
            )
    return pd.DataFrame(rows, columns=["first", "first_control", "inside", "area"])


def _token_cover(scene: scenes.Scene, concept: str, grid: tuple[int, int]) -> np.ndarray:
    """Which tokens [P] overlap a thing of that concept."""
    masks = scenes.thing_masks(scene)
    mask = np.any([m for m, thing in zip(masks, scene.things, strict=True) if thing.concept == concept], axis=0)
    rows, columns = grid
    return mask.reshape(rows, scene.size // rows, columns, scene.size // columns).any((1, 3)).ravel()


def _first(described: Descriptions, v: int, i: int) -> str:
    position = described.word_ids[v, i, 0]
    return str(described.words[position]) if position >= 0 else ""
