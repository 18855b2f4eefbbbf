"""Generation test (sufficiency): do the words alone make images that drive the voxel?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mine_jax.errors import ConfigError
from mine_jax.types import ImageTokens
from mine_jax.validation import controls
from mine_jax.validation.controls import Pair
from mine_jax.validation.evaluators import Evaluator
from mine_jax.validation.pictures import Item
from mine_jax.validation.statistics import Comparison, compare

CONDITIONS = ("description", "random", "lowest")
COLUMNS = (
    *("voxel_id", "image_id", "condition", "seed", "prompt", "predicted", "original", "evaluator", "status"),
    *("evaluator_r2", "exchanged", "exchanged_original", "truncated_tokens", "refit", "image"),
)
PROMPT = "a photo of {words}"


@dataclass(frozen=True)
class Generated:
    """One image of the plan: the position of its pair, its condition, and the item to make (None without words)."""

    pair: int
    condition: str
    item: Item | None


def plan_generation(
    pairs: Sequence[Pair],
    *,
    conditions: Sequence[str] = CONDITIONS,
    n_seeds: int = 2,
    template: str = PROMPT,
    size: tuple[int, int] | None = None,
    seed: int = 0,
) -> list[Generated]:
    """Plans the images of the generation test.

    Args:
        pairs: with the words of all conditions.
        conditions: some of `CONDITIONS`.
        n_seeds: images per pair and condition; seeds are shared by the conditions of a pair.
        template: of the prompts, with `{words}`.
        size: height and width; None for the generator's own.
        seed: of all.

    Returns:
        One entry per image, in the order of the rows of generation.tsv.

    Raises:
        ConfigError: for an unknown condition.
    """
    unknown = [condition for condition in conditions if condition not in CONDITIONS]
    if unknown:
        raise ConfigError(f"`validation.conditions` must be some of {', '.join(CONDITIONS)}, but has {unknown}.")
    planned: list[Generated] = []
    for index, pair in enumerate(pairs):
        for number in range(n_seeds):
            own = controls.stable_seed(seed, pair.voxel_id, pair.image_id, number, "generation")
            for condition in conditions:
                words = getattr(pair, condition)
                item = None
                if words:
                    text = template.format(words=", ".join(words))
                    item = Item(f"generation-{len(planned):06d}.png", text, own, words=words, size=size)
                planned.append(Generated(index, condition, item))
    return planned


def generation_table(
    pairs: Sequence[Pair],
    planned: Sequence[Generated],
    records: dict[str, dict[str, Any]],
    evaluators: Sequence[Evaluator],
    tokens: ImageTokens,
) -> pd.DataFrame:
    """Builds generation.tsv.

    Args:
        pairs: of the plan.
        planned: the plan.
        records: of the images that were made.
        evaluators: the describing encoders first; their voxels are those of `voxel_ids(pairs)`.
        tokens: image-tokens [N, P, D] of "original:<image id>" and of every usable picture by its file name.

    Returns:
        One row per image and evaluator; `predicted` is NaN unless the status is ok.
    """
    rows = []
    for evaluator in evaluators:
        predictions = Predictions(evaluator, tokens)
        for entry in planned:
            pair = pairs[entry.pair]
            record = {"status": "no_words"} if entry.item is None else records[entry.item.file]
            picture = entry.item.file if entry.item is not None and record["status"] == "ok" else None
            partner = pairs[pair.exchanged].voxel_id if pair.exchanged >= 0 else None
            rows.append(
                {
                    "voxel_id": pair.voxel_id,
                    "image_id": pair.image_id,
                    "condition": entry.condition,
                    "seed": record.get("seed", -1),
                    "prompt": record.get("prompt", ""),
                    "predicted": predictions(picture, pair.voxel_id),
                    "original": predictions(f"original:{pair.image_id}", pair.voxel_id),
                    "evaluator": evaluator.name,
                    "status": record["status"],
                    "evaluator_r2": predictions.r2(pair.voxel_id),
                    "exchanged": predictions(picture, partner),
                    "exchanged_original": predictions(f"original:{pair.image_id}", partner),
                    "truncated_tokens": record.get("truncated_tokens", 0),
                    "refit": record.get("refit", False),
                    "image": f"images/{entry.item.file}" if record.get("sha256") and entry.item is not None else "",
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def compare_generation(table: pd.DataFrame, **options: Any) -> list[tuple[dict[str, str], Comparison]]:
    """Compares the conditions of the generation test.

    Args:
        table: generation.tsv.
        **options: of `statistics.compare`.

    Returns:
        Labels and comparison: description minus each control, for the described and for the exchanged
        voxels, and description minus the original image.
    """
    found: list[tuple[dict[str, str], Comparison]] = []
    for evaluator in table["evaluator"].unique():
        usable = table[(table["evaluator"] == evaluator) & (table["status"] == "ok")]
        for column, voxels in (("predicted", "described"), ("exchanged", "exchanged")):
            wide = usable.pivot_table(index=["voxel_id", "image_id"], columns="condition", values=column)
            groups = wide.index.get_level_values("voxel_id").to_numpy()
            for control in ("random", "lowest"):
                if {"description", control} <= set(wide.columns):
                    difference = (wide["description"] - wide[control]).to_numpy()
                    labels = {"test": "generation", "comparison": f"description minus {control}", "voxels": voxels}
                    found.append(({**labels, "evaluator": evaluator}, compare(difference, groups=groups, **options)))
        described = usable[usable["condition"] == "description"].groupby(["voxel_id", "image_id"])
        means = described[["predicted", "original"]].mean()
        labels = {"test": "generation", "comparison": "description minus original image", "voxels": "described"}
        difference = (means["predicted"] - means["original"]).to_numpy()
        groups = means.index.get_level_values("voxel_id").to_numpy()
        found.append(({**labels, "evaluator": evaluator}, compare(difference, groups=groups, **options)))
    return found


class Predictions:
    """Predicted responses of an evaluator, by picture and voxel; NaN for what is not there."""

    def __init__(self, evaluator: Evaluator, tokens: ImageTokens) -> None:
        """Predicts all pictures at once."""
        self._values = evaluator.predict(tokens)
        self._r2 = evaluator.r2
        self._rows = {name: row for row, name in enumerate(tokens.image_ids.tolist())}
        self._columns = {int(voxel): column for column, voxel in enumerate(np.asarray(evaluator.encoders.voxel_ids))}

    def __call__(self, picture: str | None, voxel_id: int | None) -> float:
        """Returns one prediction, z-scored beta."""
        if picture not in self._rows or voxel_id is None:
            return float("nan")
        return float(self._values[self._rows[picture], self._columns[voxel_id]])

    def r2(self, voxel_id: int) -> float:
        """Returns the evaluator's own accuracy for a voxel."""
        return float(self._r2[self._columns[voxel_id]])


def voxel_ids(pairs: Sequence[Pair]) -> np.ndarray:
    """Returns the voxels of pairs, each once, ascending: [V] int64."""
    return np.unique(np.array([pair.voxel_id for pair in pairs], np.int64))
