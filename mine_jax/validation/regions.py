"""Where an edit may happen, and what happened there: masks, counterfactual scenes, pixel changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mine_jax.description import TokenWords
from mine_jax.phantom.scenes import Scene
from mine_jax.validation import pairs as controls
from mine_jax.validation.editing import Edit
from mine_jax.validation.inputs import Inputs
from mine_jax.validation.makers import pictures
from mine_jax.validation.makers.protocols import Instruction
from mine_jax.validation.pairs import Pair
from mine_jax.validation.simulated import Truth

# Share of the image where the voxel looks most, in which something is inserted.
_WHERE_SHARE = 0.3
# Tokens belong to a word if they show it half as clearly as the clearest one.
_TOKEN_SHARE = 0.5


@dataclass(frozen=True)
class Located:
    """A plan with its places.

    Attributes:
        edits: the plan.
        sources: image id -> PNG of the image before.
        masks: PNG for the editor, one per edit; "" for none.
        regions: [h, w] bool where each edit is meant to change pixels.
        scenes: exact result of each edit on a phantom; None where unknown.
    """

    edits: list[Edit]
    sources: dict[str, str]
    masks: list[str]
    regions: list[np.ndarray]
    scenes: list[Scene | None]


def locate(
    edits: list[Edit], pairs: Sequence[Pair], inputs: Inputs, words: TokenWords | None, work: Path, *, exact: bool
) -> Located:
    """Finds the place of each edit and writes images and masks for the editor.

    On a phantom the place is that of the exact edit. Elsewhere things are inserted where the
    voxel looks (mean attribution over its images), and removed where the lens reads their words.

    Args:
        edits: the plan.
        pairs: of the plan.
        inputs: of the stage.
        words: token words of the pairs' images.
        work: folder for PNGs.
        exact: whether the editor is the exact one, which wants to know where the voxel looks.

    Returns:
        The plan with its places.
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
        if after is not None and inputs.truth is not None:
            place = inputs.truth.region(edit.image_id, after)
        elif is_target or words is None or grid is None:
            place = looks
        else:
            place = _reads_at(words, edit, grid, shape)
        if edit.action == "noop" and inputs.truth is not None:
            after = inputs.truth.scenes[edit.image_id]
        places.append(place)
        scenes.append(after)
        masks.append(pictures.write_png(work / f"mask-{number:06d}.png", looks if exact else place))
    return Located(edits, sources, masks, places, scenes)


def true_shifts(plan: Located, pairs: Sequence[Pair], truth: Truth | None) -> list[float]:
    """Computes what the exact edit does to the simulated voxel.

    Args:
        plan: with the scenes.
        pairs: of the plan.
        truth: of the phantom; None elsewhere.

    Returns:
        One shift per edit, in standard deviations of the noise-free response; NaN where unknown.
    """
    if truth is None:
        return [float("nan")] * len(plan.edits)
    voxel_ids = np.unique([pair.voxel_id for pair in pairs])
    column = {int(voxel): index for index, voxel in enumerate(voxel_ids)}
    befores = [truth.scenes[edit.image_id] for edit in plan.edits]
    shown = list(dict.fromkeys(scene for scene in (*befores, *plan.scenes) if scene is not None))
    row = {scene: index for index, scene in enumerate(shown)}
    responses = truth.responses(shown, voxel_ids)
    shifts = [float("nan")] * len(plan.edits)
    for number, (edit, before, after) in enumerate(zip(plan.edits, befores, plan.scenes, strict=True)):
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


def heat_of(inputs: Inputs, pair: Pair) -> np.ndarray:
    """Returns the integrated gradients [P] of a pair."""
    column = int(np.flatnonzero(inputs.descriptions.image_ids[pair.row] == pair.image_id)[0])
    return np.asarray(inputs.heat[pair.row, column], np.float32)


def _looks_at(inputs: Inputs, pair: Pair, grid: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Where a voxel's attribution falls on average, [h, w] bool."""
    mean = np.maximum(np.asarray(inputs.heat[pair.row], np.float32), 0).mean(0)
    return controls.token_mask(mean, grid, shape, share=_WHERE_SHARE)


def _reads_at(words: TokenWords, edit: Edit, grid: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Where the lens reads any of an edit's words, [h, w] bool."""
    row = int(np.flatnonzero(words.image_ids == edit.image_id)[0])
    wanted = np.flatnonzero(np.isin(words.vocabulary.words, edit.words))
    shares = np.where(np.isin(words.word_ids[row], wanted), words.shares[row], 0).sum(1)
    share = float((shares >= _TOKEN_SHARE * shares.max()).mean()) if shares.max() > 0 else _WHERE_SHARE
    return controls.token_mask(shares, grid, shape, share=share)
