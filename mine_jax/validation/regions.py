"""Where an edit may happen, and what happened there: masks, counterfactual scenes, pixel changes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mine_jax.description import TokenWords
from mine_jax.phantom.scenes import Scene
from mine_jax.validation.editing import Audit, Edit
from mine_jax.validation.inputs import Inputs
from mine_jax.validation.makers import pictures
from mine_jax.validation.makers.pictures import Item
from mine_jax.validation.makers.protocols import Instruction
from mine_jax.validation.pairs import Pair
from mine_jax.validation.simulated import Truth, words_hold

# Share of the image where the voxel looks most, in which something is inserted.
_WHERE_SHARE = 0.3
# Tokens belong to a word if they show it half as clearly as the clearest one.
_TOKEN_SHARE = 0.5
# The lens reads a word somewhere in the image if its share reaches this.
_SEEN = 0.2
# A word is gone if its presence falls below this share of what it was.
_GONE = 0.5


@dataclass(frozen=True)
class LocatedEdits:
    """Edits with their places.

    Attributes:
        edits: the plan, E edits.
        sources: image id -> PNG of the image before.
        masks: PNG for the editor, one per edit.
        regions: [h, w] bool where each edit is meant to change pixels.
        scenes: exact result of each edit on a phantom; None where unknown.
    """

    edits: list[Edit]
    sources: dict[str, str]
    masks: list[str]
    regions: list[np.ndarray]
    scenes: list[Scene | None]


def locate(
    edits: list[Edit],
    pairs: Sequence[Pair],
    inputs: Inputs,
    token_words: TokenWords,
    work: Path,
    *,
    exact: bool,
    true_masks: bool = False,
) -> LocatedEdits:
    """Finds the place of each edit and writes images and masks for the editor.

    Things are inserted where the voxel looks (mean attribution over its images), and removed where the lens
    reads their words: masks that any data have.

    Args:
        edits: the plan.
        pairs: of the plan.
        inputs: of the stage.
        token_words: of the pairs' images.
        work: folder for PNGs.
        exact: whether the editor is the exact one, which wants to know where the voxel looks.
        true_masks: whether the place is that of the exact edit, where a phantom knows it.

    Returns:
        The edits with their places.
    """
    image_ids = sorted({edit.image_id for edit in edits})
    photos = dict(zip(image_ids, inputs.stimuli.read(image_ids), strict=True))
    sources = {
        image_id: pictures.write_png(work / f"source-{n:05d}.png", photos[image_id])
        for n, image_id in enumerate(image_ids)
    }
    grid = inputs.tokens.grid
    places, scenes, masks = [], [], []
    for number, edit in enumerate(edits):
        shape = photos[edit.image_id].shape[:2]
        pair = pairs[edit.pair]
        looks = np.ones(shape, bool) if grid is None else _looks_at(inputs, pair, grid, shape)
        is_target = edit.image_id == pair.target_id
        meant = Instruction(
            str(edit.words),
            action="insert" if is_target else "remove",
            words=edit.words,
            image_id=edit.image_id,
            strength=edit.strength,
        )
        after = None if inputs.truth is None else inputs.truth.counterfactual(meant, seed=edit.seed, mask=looks)
        if true_masks and after is not None and inputs.truth is not None:
            place = inputs.truth.region(edit.image_id, after)
        elif is_target or grid is None:
            place = looks
        else:
            place = _reads_at(token_words, edit, grid, shape)
        if edit.action == "noop" and inputs.truth is not None:
            after = inputs.truth.scenes[edit.image_id]
        places.append(place)
        scenes.append(after)
        masks.append(pictures.write_png(work / f"mask-{number:06d}.png", looks if exact else place))
    return LocatedEdits(edits, sources, masks, places, scenes)


def true_shifts(located: LocatedEdits, pairs: Sequence[Pair], truth: Truth | None) -> list[float]:
    """Computes what the exact edit does to the simulated voxel.

    Args:
        located: edits with their scenes.
        pairs: of the plan.
        truth: of the phantom; None elsewhere.

    Returns:
        One shift per edit, in standard deviations of the noise-free response; NaN where unknown.
    """
    if truth is None:
        return [float("nan")] * len(located.edits)
    voxel_ids = np.unique([pair.voxel_id for pair in pairs])
    column = {int(voxel): index for index, voxel in enumerate(voxel_ids)}
    befores = [truth.scenes[edit.image_id] for edit in located.edits]
    shown = list(dict.fromkeys(scene for scene in (*befores, *located.scenes) if scene is not None))
    row = {scene: index for index, scene in enumerate(shown)}
    responses = truth.responses(shown, voxel_ids)
    shifts = [float("nan")] * len(located.edits)
    for number, (edit, before, after) in enumerate(zip(located.edits, befores, located.scenes, strict=True)):
        if after is not None:
            voxel = column[pairs[edit.pair].voxel_id]
            shifts[number] = float(responses[row[after], voxel] - responses[row[before], voxel])
    return shifts


def change(before: np.ndarray, after: np.ndarray, region: np.ndarray) -> tuple[float, float]:
    """Computes the mean absolute change inside and outside a region, grey levels 0..255.

    Args:
        before: uint8 [h, w, 3].
        after: uint8 [h, w, 3].
        region: [h, w] bool.
    """
    if before.shape != after.shape:
        return float("nan"), float("nan")
    difference = np.abs(before.astype(np.float32) - after).mean(2)
    inside, outside = difference[region], difference[~region]
    return (
        float(inside.mean()) if inside.size else float("nan"),
        float(outside.mean()) if outside.size else float("nan"),
    )


def token_mask(values: np.ndarray, grid: tuple[int, int], shape: tuple[int, int], *, share: float = 0.3) -> np.ndarray:
    """Turns the best token cells into a mask of pixels.

    Args:
        values: [P], one per token, row-major.
        grid: rows and columns of tokens.
        shape: height and width of the image.
        share: share of the cells that are marked.

    Returns:
        Mask [h, w] bool.
    """
    n = max(1, round(share * len(values)))
    cells = np.zeros(len(values), bool)
    cells[np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:n]] = True
    rows = np.arange(shape[0]) * grid[0] // shape[0]
    columns = np.arange(shape[1]) * grid[1] // shape[1]
    return cells.reshape(grid)[np.ix_(rows, columns)]


def audit(
    located: LocatedEdits,
    items: Sequence[Item | None],
    records: dict[str, dict[str, Any]],
    *,
    shifts: Sequence[float],
    presence: pd.DataFrame,
    photo: Callable[[str], np.ndarray],
    images: Path,
    exact: bool,
) -> list[Audit]:
    """Looks at what each edit did besides moving the response.

    Args:
        located: E edits with their places.
        items: what was to be made, one per edit.
        records: of the images that were made.
        shifts: true shift of each edit.
        presence: how clearly the lens reads words (columns) in pictures (index).
        photo: gives uint8 [h, w, 3] for an image id.
        images: folder of the made images.
        exact: whether the editor is the exact one, whose scenes are known.

    Returns:
        One audit per edit; empty where there is no image.
    """
    photo = functools.cache(photo)
    audits = []
    for edit, item, scene, region, shift in zip(
        located.edits, items, located.scenes, located.regions, shifts, strict=True
    ):
        if item is None or records[item.file]["status"] not in ("ok", "unchanged"):
            audits.append(Audit())
            continue
        is_changed = records[item.file]["status"] == "ok"
        before = _mean_presence(presence, f"original:{edit.image_id}", item.words)
        after = _mean_presence(presence, item.file, item.words) if is_changed else before
        if item.action == "noop":
            named = ""
        elif exact and scene is not None:
            named = str(words_hold(scene, item.words, action=item.action)).lower()
        else:
            appeared = after >= _SEEN and after > before
            named = str(appeared if item.action == "insert" else after < _GONE * before).lower()
        inside, outside = change(photo(edit.image_id), pictures.read_png(images / item.file), region)
        audits.append(Audit(shift, before, after, named, inside, outside))
    return audits


def heat_of(inputs: Inputs, pair: Pair) -> np.ndarray:
    """Returns the integrated gradients [P] of a pair."""
    column = int(np.flatnonzero(inputs.descriptions.image_ids[pair.row] == pair.image_id)[0])
    return np.asarray(inputs.heat[pair.row, column], np.float32)


def _looks_at(inputs: Inputs, pair: Pair, grid: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Where a voxel's attribution falls on average, [h, w] bool."""
    mean = np.maximum(np.asarray(inputs.heat[pair.row], np.float32), 0).mean(0)
    return token_mask(mean, grid, shape, share=_WHERE_SHARE)


def _reads_at(token_words: TokenWords, edit: Edit, grid: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Where the lens reads any of an edit's words, [h, w] bool."""
    row = int(np.flatnonzero(token_words.image_ids == edit.image_id)[0])
    wanted = np.flatnonzero(np.isin(token_words.vocabulary.words, edit.words))
    shares = np.where(np.isin(token_words.word_ids[row], wanted), token_words.shares[row], 0).sum(1)
    share = float((shares >= _TOKEN_SHARE * shares.max()).mean()) if shares.max() > 0 else _WHERE_SHARE
    return token_mask(shares, grid, shape, share=share)


def _mean_presence(presence: pd.DataFrame, picture: str, words: Sequence[str]) -> float:
    known = [word for word in words if word in presence.columns]
    return float(presence.loc[picture, known].mean()) if known else float("nan")
