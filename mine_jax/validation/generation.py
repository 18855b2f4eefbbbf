"""Generation test (sufficiency): do the words alone make images that drive the voxel?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mine_jax.errors import ConfigError
from mine_jax.phantom.scenes import Scene
from mine_jax.types import ImageTokens
from mine_jax.validation.comparisons import Comparison, compare, correlate
from mine_jax.validation.evaluators import Evaluator
from mine_jax.validation.makers import oracle
from mine_jax.validation.makers.pictures import Item
from mine_jax.validation.makers.protocols import NotApplicableError
from mine_jax.validation.pairs import Pair, stable_seed
from mine_jax.validation.simulated import TRUTH, Truth

CONDITIONS = ("description", "random", "lowest")
COLUMNS = (
    *("voxel_id", "image_id", "condition", "seed", "prompt", "predicted", "original", "evaluator", "status"),
    *("evaluator_r2", "exchanged", "exchanged_original", "true_response", "true_original"),
    *("truncated_tokens", "refit", "image", "maker"),
)
PROMPT = "a photo of {words}"


@dataclass(frozen=True)
class Generation:
    """One image of the plan: the position of its pair, its condition, and the item to make (None without words)."""

    pair: int
    condition: str
    item: Item | None


class TrueResponse(NamedTuple):
    """Noise-free responses of a simulated voxel, in standard deviations; NaN where unknown.

    Attributes:
        image: to the generated image.
        original: to the image that was described.
    """

    image: float = float("nan")
    original: float = float("nan")


def plan_generation(
    pairs: Sequence[Pair],
    *,
    conditions: Sequence[str] = CONDITIONS,
    n_seeds: int = 2,
    template: str = PROMPT,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    name: str = "generation",
) -> list[Generation]:
    """Plans the images of the generation test.

    Args:
        pairs: with the words of all conditions.
        conditions: some of `CONDITIONS`.
        n_seeds: images per pair and condition; seeds are shared by the conditions of a pair.
        template: of the prompts, with `{words}`.
        size: height and width; None for the generator's own.
        seed: of all.
        name: first part of the files' names.

    Returns:
        One entry per image, in the order of the rows of generation.tsv.

    Raises:
        ConfigError: for an unknown condition.
    """
    unknown = [condition for condition in conditions if condition not in CONDITIONS]
    if unknown:
        raise ConfigError(f"`validation.conditions` must be some of {', '.join(CONDITIONS)}, but has {unknown}.")
    plan: list[Generation] = []
    for index, pair in enumerate(pairs):
        for number in range(n_seeds):
            noise_seed = stable_seed(seed, pair.voxel_id, pair.image_id, number, "generation")
            for condition in conditions:
                words = getattr(pair, condition)
                item = None
                if words:
                    text = template.format(words=", ".join(words))
                    item = Item(f"{name}-{len(plan):06d}.png", text, noise_seed, words=words, size=size)
                plan.append(Generation(index, condition, item))
    return plan


def generation_table(
    pairs: Sequence[Pair],
    plan: Sequence[Generation],
    records: dict[str, dict[str, Any]],
    evaluators: Sequence[Evaluator],
    tokens: ImageTokens,
    true_responses: Sequence[TrueResponse] | None = None,
    *,
    maker: str = "",
) -> pd.DataFrame:
    """Builds generation.tsv, the rows of one generator.

    Args:
        pairs: of the plan.
        plan: what was to be made.
        records: of the images that were made.
        evaluators: the describing encoders first; their voxels are those of `voxel_ids(pairs)`.
        tokens: image-tokens [N, P, D] of "original:<image id>" and of every usable picture by its file name.
        true_responses: of the simulated voxel, one per entry of the plan; None where unknown.
        maker: the generator's name.

    Returns:
        One row per image and evaluator; `predicted` is NaN unless the status is ok.
    """
    rows = []
    for evaluator in evaluators:
        predictions = Predictions(evaluator, tokens)
        for number, entry in enumerate(plan):
            pair = pairs[entry.pair]
            true_response = TrueResponse() if true_responses is None else true_responses[number]
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
                    "true_response": true_response.image,
                    "true_original": true_response.original,
                    "truncated_tokens": record.get("truncated_tokens", 0),
                    "refit": record.get("refit", False),
                    "image": f"images/{entry.item.file}" if record.get("sha256") and entry.item is not None else "",
                    "maker": maker,
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def simulate(plan: Sequence[Generation], pairs: Sequence[Pair], truth: Truth) -> list[TrueResponse]:
    """Computes what the simulated voxels do on exactly drawn prompts.

    Args:
        plan: of the exact generator.
        pairs: of the plan.
        truth: of the phantom.

    Returns:
        One entry per entry of the plan; NaN where nothing of the prompt can be drawn.
    """
    originals = [truth.scenes[pairs[entry.pair].image_id] for entry in plan]
    drawn = [None if entry.item is None else _drawn(entry.item) for entry in plan]
    shown = list(dict.fromkeys(scene for scene in (*originals, *drawn) if scene is not None))
    row = {scene: index for index, scene in enumerate(shown)}
    ids = voxel_ids(pairs)
    responses = truth.responses(shown, ids)
    simulated = []
    for entry, original, scene in zip(plan, originals, drawn, strict=True):
        column = int(np.searchsorted(ids, pairs[entry.pair].voxel_id))
        after = float("nan") if scene is None else float(responses[row[scene], column])
        simulated.append(TrueResponse(after, float(responses[row[original], column])))
    return simulated


def _drawn(item: Item) -> Scene | None:
    try:
        scene = oracle.OracleGenerator().scene(item.text, seed=item.seed, side=oracle.side_of(item.size))
    except NotApplicableError:
        return None
    return scene


def compare_generation(table: pd.DataFrame, **options: Any) -> list[tuple[dict[str, str], Comparison]]:
    """Compares the conditions of the generation test.

    Args:
        table: generation.tsv.
        **options: of `comparisons.compare`.

    Returns:
        Labels and comparison: description minus each control, for the described and for the exchanged
        voxels, and description minus the original image; the same for true responses where they are known.
        Pairs whose control has the prompt of the description are left out, and counted.
    """
    comparisons: list[tuple[dict[str, str], Comparison]] = []
    kinds = [(name, {"predicted": "described", "exchanged": "exchanged"}) for name in table["evaluator"].unique()]
    if table["true_response"].notna().any():
        kinds.append((TRUTH, {"true_response": "described"}))
    for evaluator, columns in kinds:
        is_true = evaluator == TRUTH
        usable = table[table["evaluator"] == (table["evaluator"].iloc[0] if is_true else evaluator)]
        usable = usable[usable["status"] == "ok"]
        by_pair = {"index": ["voxel_id", "image_id"], "columns": "condition"}
        prompts = usable.pivot_table(**by_pair, values="prompt", aggfunc="first")
        for column, voxels in columns.items():
            wide = usable.pivot_table(**by_pair, values=column)
            groups = wide.index.get_level_values("voxel_id").to_numpy()
            for control in ("random", "lowest"):
                if {"description", control} <= set(wide.columns):
                    difference = wide["description"] - wide[control]
                    is_same = (prompts["description"] == prompts[control]).reindex(wide.index)
                    compared = compare(difference.mask(is_same).to_numpy(), groups=groups, **options)
                    labels = {"test": "generation", "comparison": f"description minus {control}", "voxels": voxels}
                    comparison = compared._replace(n_same=int((is_same & difference.notna()).sum()))
                    comparisons.append(({**labels, "evaluator": evaluator}, comparison))
        described = usable[usable["condition"] == "description"].groupby(["voxel_id", "image_id"])
        new, old = ("true_response", "true_original") if is_true else ("predicted", "original")
        means = described[[new, old]].mean()
        labels = {"test": "generation", "comparison": "description minus original image", "voxels": "described"}
        difference = (means[new] - means[old]).to_numpy()
        groups = means.index.get_level_values("voxel_id").to_numpy()
        comparisons.append(({**labels, "evaluator": evaluator}, compare(difference, groups=groups, **options)))
        known = usable[usable["true_response"].notna()]
        if not is_true and len(known) > 2:
            labels = {"test": "generation", "comparison": "correlation of predicted and true response"}
            comparison = correlate(known["predicted"].to_numpy(), known["true_response"].to_numpy(), **options)
            comparisons.append(({**labels, "voxels": "described", "evaluator": evaluator}, comparison))
    return comparisons


class Predictions:
    """Predicted responses of an evaluator, by picture and voxel; NaN for what is not there."""

    def __init__(self, evaluator: Evaluator, tokens: ImageTokens) -> None:
        """Predicts all pictures at once."""
        tokens = tokens if evaluator.pictures is None else evaluator.pictures
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
