"""Edit test (causality): does the response rise with the words put in, and fall with them gone?

The effect of an edit is its shift minus that of a no-op edit of the same image with the same
seed, so what the editor does to any image does not count. Another voxel's words are the
control for "any new thing would do"; hard distractors are that for "any thing of this kind would do".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mine_jax.types import ImageTokens
from mine_jax.validation.comparisons import Comparison, compare, correlate
from mine_jax.validation.evaluators import Evaluator
from mine_jax.validation.generation import Predictions
from mine_jax.validation.makers.pictures import Item
from mine_jax.validation.pairs import Pair, stable_seed
from mine_jax.validation.simulated import TRUTH

COLUMNS = (
    *("voxel_id", "image_id", "source", "action", "words", "seed", "before", "after", "shift", "evaluator", "status"),
    *("pair_image_id", "strength", "evaluator_r2", "exchanged_shift", "true_shift"),
    *(
        "presence_before",
        "presence_after",
        "named",
        "change_inside",
        "change_outside",
        "prompt",
        "refit",
        "image",
        "maker",
    ),
)
# Where the words of an edit "other" are from -> how its comparison is called; all but the first are hard distractors.
OTHERS = {
    "profile": "other voxel's words",
    "area": "words of the same area",
    "near": "words of nearly the same meaning",
    "cooccurring": "co-occurring words",
}
HARD = tuple(OTHERS)[1:]
# What an instruction-editing model is told. A no-op of an image that lacks the words, and of one that shows them.
TEMPLATES = {
    "insert": "add {words}",
    "remove": "remove the {words}",
    "noop_without": "keep the image as it is",
    "noop_with": "keep the image as it is",
}
# What an inpainting model shall paint under the mask; its no-op paints what is there already.
INPAINT_TEMPLATES = {
    "insert": "a photo of {words}",
    "remove": "background",
    "noop_without": "background",
    "noop_with": "a photo of {words}",
}


@dataclass(frozen=True)
class Edit:
    """One edit of the plan.

    Attributes:
        pair: position of its pair.
        source: where the words are from: "description" or "profile"; "none" for a no-op; one of `OTHERS` for an
            "other"; "bystanders" for the removal of other things that the image shows.
        action: "insert", "remove", "noop" or "other" (another voxel's words inserted).
        image_id: the image that is edited.
        words: those inserted or removed.
        seed: of the editor's noise; shared by the edits of a pair.
        strength: 0..1, dose.
    """

    pair: int
    source: str
    action: str
    image_id: str
    words: tuple[str, ...]
    seed: int
    strength: float = 1.0


@dataclass(frozen=True)
class Audit:
    """What an edit did to its image, besides the response.

    Attributes:
        true_shift: what the exact edit does to the simulated voxel, standard deviations; NaN if unknown.
        presence_before: how clearly the lens reads the words, 0..1.
        presence_after: the same after the edit.
        named: "true" or "false", whether the words appeared or vanished; "" where nobody can tell.
        change_inside: mean absolute change under the mask, grey levels 0..255.
        change_outside: the same outside of it.
    """

    true_shift: float = np.nan
    presence_before: float = np.nan
    presence_after: float = np.nan
    named: str = ""
    change_inside: float = np.nan
    change_outside: float = np.nan


class _Difference(NamedTuple):
    """An effect of the pairs: its name, where the words are from, and its value for each pair."""

    comparison: str
    source: str
    values: np.ndarray


def plan_edits(
    pairs: Sequence[Pair],
    *,
    n_seeds: int = 1,
    strengths: Sequence[float] = (),
    with_distractors: bool = True,
    seed: int = 0,
) -> list[Edit]:
    """Plans the edits of every pair.

    Args:
        pairs: what to test.
        n_seeds: edits of each kind per pair.
        strengths: doses of the insertion besides the full one.
        with_distractors: whether hard distractors are edited, too.
        seed: of all.

    Returns:
        The edits, in the order of the rows of edits.tsv.
    """
    plan = []
    for index, pair in enumerate(pairs):
        for number in range(n_seeds):
            noise_seed = stable_seed(seed, pair.voxel_id, pair.image_id, number, "edit")
            if pair.target_id:
                plan.append(Edit(index, "description", "insert", pair.target_id, pair.description, noise_seed))
                plan.append(Edit(index, "profile", "insert", pair.target_id, pair.profile, noise_seed))
                plan += [
                    Edit(index, "description", "insert", pair.target_id, pair.description, noise_seed, float(strength))
                    for strength in strengths
                ]
                plan.append(Edit(index, "profile", "other", pair.target_id, pair.other, noise_seed))
                if with_distractors:
                    plan += [
                        Edit(index, kind, "other", pair.target_id, getattr(pair, kind), noise_seed) for kind in HARD
                    ]
                plan.append(Edit(index, "none", "noop", pair.target_id, pair.description, noise_seed))
            plan.append(Edit(index, "description", "remove", pair.image_id, pair.description, noise_seed))
            plan.append(Edit(index, "profile", "remove", pair.image_id, pair.present, noise_seed))
            if with_distractors:
                plan.append(Edit(index, "bystanders", "remove", pair.image_id, pair.bystanders, noise_seed))
            plan.append(Edit(index, "none", "noop", pair.image_id, pair.description, noise_seed))
    return plan


def edit_items(
    edits: Sequence[Edit],
    *,
    sources: dict[str, str],
    masks: Sequence[str],
    templates: dict[str, str],
    pairs: Sequence[Pair],
    name: str = "edits",
) -> list[Item | None]:
    """Turns edits into items to make.

    Args:
        edits: the plan.
        sources: image id -> PNG.
        masks: PNG of each edit; "" for none.
        templates: action -> text with `{words}`; the keys are those of `TEMPLATES`.
        pairs: of the plan.
        name: first part of the files' names.

    Returns:
        One item per edit; None where there are no words.
    """
    items: list[Item | None] = []
    for number, (edit, mask) in enumerate(zip(edits, masks, strict=True)):
        action = "insert" if edit.action == "other" else edit.action
        if not edit.words and action != "noop":
            items.append(None)
            continue
        shows = "with" if edit.image_id == pairs[edit.pair].image_id else "without"
        text = templates[f"noop_{shows}" if action == "noop" else action].format(words=", ".join(edit.words))
        items.append(
            Item(
                file=f"{name}-{number:06d}.png",
                text=text,
                seed=edit.seed,
                action=action,
                words=() if action == "noop" else edit.words,
                image_id=edit.image_id,
                strength=edit.strength,
                source=sources[edit.image_id],
                mask=mask,
            )
        )
    return items


def edits_table(
    pairs: Sequence[Pair],
    edits: Sequence[Edit],
    items: Sequence[Item | None],
    records: dict[str, dict[str, Any]],
    evaluators: Sequence[Evaluator],
    tokens: ImageTokens,
    audits: Sequence[Audit],
    *,
    maker: str = "",
) -> pd.DataFrame:
    """Builds edits.tsv, the rows of one editor.

    Args:
        pairs: of the plan.
        edits: the plan.
        items: what was to be made.
        records: of the images that were made.
        evaluators: the describing encoders first.
        tokens: image-tokens [N, P, D] of "original:<image id>" and of every usable picture by its file name.
        audits: of each edit.
        maker: the editor's name.

    Returns:
        One row per edit and evaluator; `after` and `shift` are NaN unless the status is ok.
    """
    rows = []
    for evaluator in evaluators:
        predictions = Predictions(evaluator, tokens)
        for edit, item, audit in zip(edits, items, audits, strict=True):
            pair = pairs[edit.pair]
            record = {"status": "no_words"} if item is None else records[item.file]
            picture = item.file if item is not None and record["status"] == "ok" else None
            original = f"original:{edit.image_id}"
            before, after = predictions(original, pair.voxel_id), predictions(picture, pair.voxel_id)
            partner = pairs[pair.exchanged].voxel_id if pair.exchanged >= 0 else None
            rows.append(
                {
                    "voxel_id": pair.voxel_id,
                    "image_id": edit.image_id,
                    "source": edit.source,
                    "action": edit.action,
                    "words": ", ".join(() if edit.action == "noop" else edit.words),
                    "seed": edit.seed,
                    "before": before,
                    "after": after,
                    "shift": after - before,
                    "evaluator": evaluator.name,
                    "status": record["status"],
                    "pair_image_id": pair.image_id,
                    "strength": edit.strength,
                    "evaluator_r2": predictions.r2(pair.voxel_id),
                    "exchanged_shift": predictions(picture, partner) - predictions(original, partner),
                    **vars(audit),
                    "prompt": "" if item is None else item.text,
                    "refit": record.get("refit", False),
                    "image": f"images/{item.file}" if item is not None and record.get("sha256") else "",
                    "maker": maker,
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def compare_edits(table: pd.DataFrame, **options: Any) -> list[tuple[dict[str, str], Comparison]]:
    """Compares edits with their controls.

    Args:
        table: edits.tsv.
        **options: of `comparisons.compare`.

    Returns:
        Labels and comparison. Positive effects are as predicted: a rise after an insertion, a fall
        after a removal, both beyond a no-op.
    """
    comparisons: list[tuple[dict[str, str], Comparison]] = []
    kinds = [(name, "shift", "described") for name in table["evaluator"].unique()]
    kinds += [(name, "exchanged_shift", "exchanged") for name in table["evaluator"].unique()]
    if table["true_shift"].notna().any():
        kinds.append((TRUTH, "true_shift", "described"))
    for name, column, voxels in kinds:
        usable = table[table["evaluator"] == (table["evaluator"].iloc[0] if name == TRUTH else name)]
        wide = per_pair(usable[usable["status"] == "ok"], column)
        groups = wide.index.get_level_values("voxel_id").to_numpy()
        for label, source, values in _differences(wide, is_null=voxels == "exchanged"):
            labels = {"test": "edit", "comparison": label, "source": source, "voxels": voxels, "evaluator": name}
            comparisons.append((labels, compare(values, groups=groups, **options)))
    return comparisons + _correlations(table, **options)


def per_pair(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Arranges edits by pair.

    Args:
        table: rows of edits.tsv, of one evaluator and maker.
        column: whose values are wanted.

    Returns:
        One row per (voxel, image that was described), one column per (source, action, place, strength), where place
        is "described" or "target": means over seeds.
    """
    place = np.where(table["image_id"] == table["pair_image_id"], "described", "target")
    return table.assign(place=place).pivot_table(
        index=["voxel_id", "pair_image_id"], columns=["source", "action", "place", "strength"], values=column
    )


def _differences(wide: pd.DataFrame, *, is_null: bool) -> list[_Difference]:
    """Effects per pair that are known for any."""

    def mean(source: str, action: str, place: str, strength: float = 1.0) -> np.ndarray:
        key = (source, action, place, strength)
        return wide[key].to_numpy() if key in wide.columns else np.full(len(wide), np.nan)

    noop, noop_described = mean("none", "noop", "target"), mean("none", "noop", "described")
    differences = []
    for source in ("description", "profile"):
        differences.append(_Difference("insert minus no-op", source, mean(source, "insert", "target") - noop))
        fall = noop_described - mean(source, "remove", "described")
        differences.append(_Difference("no-op minus remove", source, fall))
    if not is_null:
        other = mean("profile", "other", "target")
        for source in ("description", "profile"):
            for kind, name in OTHERS.items():
                gain = mean(source, "insert", "target") - mean(kind, "other", "target")
                differences.append(_Difference(f"insert minus {name}", source, gain))
            gain = mean("bystanders", "remove", "described") - mean(source, "remove", "described")
            differences.append(_Difference("other things removed minus remove", source, gain))
        differences.append(_Difference("other voxel's words minus no-op", "profile", other - noop))
        gain = mean("profile", "insert", "target") - mean("description", "insert", "target")
        differences.append(_Difference("insert: profile minus description", "both", gain))
        gain = mean("description", "remove", "described") - mean("profile", "remove", "described")
        differences.append(_Difference("remove: profile minus description", "both", gain))
        differences += _doses(wide, mean, noop)
    return [difference for difference in differences if np.isfinite(difference.values).any()]


def _doses(wide: pd.DataFrame, mean: Callable[..., np.ndarray], noop: np.ndarray) -> list[_Difference]:
    """What each weaker dose of an insertion adds to the no-op, and the full dose to it."""
    differences = []
    for dose in sorted({key[3] for key in wide.columns if key[1] == "insert" and key[3] < 1}):
        weaker = mean("description", "insert", "target", dose)
        differences.append(_Difference(f"insert at dose {dose:g} minus no-op", "description", weaker - noop))
        full = mean("description", "insert", "target")
        differences.append(_Difference(f"insert: full dose minus dose {dose:g}", "description", full - weaker))
    return differences


def _correlations(table: pd.DataFrame, **options: Any) -> list[tuple[dict[str, str], Comparison]]:
    correlations = []
    for name in table["evaluator"].unique():
        usable = table[(table["evaluator"] == name) & (table["status"] == "ok") & table["true_shift"].notna()]
        usable = usable[usable["action"].isin(["insert", "remove"])]
        if len(usable) > 2:
            labels = {"test": "edit", "comparison": "correlation of predicted and true shift", "source": "both"}
            comparison = correlate(usable["shift"].to_numpy(), usable["true_shift"].to_numpy(), **options)
            correlations.append(({**labels, "voxels": "described", "evaluator": name}, comparison))
    return correlations
