"""The tables of a run directory, built from the types; column names are those of the contract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from mine_jax import attribution, description, memory, profile, roi, statistics
from mine_jax.types import (
    Attributions,
    CriticalTokens,
    Descriptions,
    Faithfulness,
    Profiles,
    Responses,
    Scores,
)

SELECTIVITY = (
    *("roi", "category", "share", "enrichment", "low", "high", "p", "q", "n_voxels", "preferred"),
    *("worded", "border_q", "null"),
)
STRUCTURE = (
    *("roi", "n_voxels", "between_distance", "noise_distance", "n_clusters", "cluster_stability"),
    *(
        "reproducible_p",
        "reproducible_q",
        "patches",
        "structure_p",
        "structure_q",
        "halves_p",
        "halves_q",
        "is_structured",
        "cluster_p",
    ),
)
SUBJECTS = ("roi", "category", "n_subjects", "n_preferred", "enrichment", "low", "high", "p", "q")
# Rows of a long table that are made at once.
_ROWS = 1 << 19
CONTRASTS = ("roi", "other", "word", "log_odds", "share", "share_other", "p", "q")


def rows(records: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    """Builds a table with these columns from records, also when there are none."""
    return pd.DataFrame(records, columns=list(columns))


def images(responses: Responses, splits: np.ndarray) -> pd.DataFrame:
    """Builds images.tsv: image_id, split, n_repeats."""
    return pd.DataFrame({"image_id": responses.image_ids, "split": splits, "n_repeats": responses.n_repeats})


def layers(responses: Responses, best: np.ndarray, by_layer: dict[int, Scores]) -> pd.DataFrame:
    """Tables how many voxels of each area, and of all, each layer predicts best, with their mean R2 at that layer."""
    fitted = best >= 0
    areas = {"all": fitted} | {name: fitted & inside for name, inside in roi.memberships(responses.rois).items()}
    records = []
    for name, inside in areas.items():
        for layer, scores in by_layer.items():
            chosen = inside & (best == layer)
            r2 = statistics.mean_r2(scores.r2[chosen])
            n_voxels, share = int(chosen.sum()), chosen.sum() / max(1, inside.sum())
            records.append({"roi": name, "layer": layer, "n_voxels": n_voxels, "share": share, "r2": r2})
    return rows(records, ("roi", "layer", "n_voxels", "share", "r2"))


def voxel_layers(best: np.ndarray, by_layer: dict[int, Scores]) -> pd.DataFrame:
    """Tables the layer that predicts each voxel best, -1 for none, and what it was chosen by."""
    table = {"voxel_id": next(iter(by_layer.values())).voxel_ids, "layer": best}
    for layer, scores in by_layer.items():
        table |= {f"r2_selection_{layer}": scores.r2_selection, f"r2_{layer}": scores.r2}
    return pd.DataFrame(table)


def pairs(attributions: Attributions, faithfulness: Faithfulness, *, tolerance: float) -> Iterator[pd.DataFrame]:
    """Builds attribution/pairs.tsv, some voxels after the others, images in the order of the attributions."""
    n_voxels, n_images = attributions.predicted.shape
    for block in memory.blocks(n_voxels, _ROWS // max(1, n_images)):
        yield _pairs(attributions.take(block), faithfulness.take(block), tolerance=tolerance)


def _pairs(attributions: Attributions, faithfulness: Faithfulness, *, tolerance: float) -> pd.DataFrame:
    allowed = tolerance * statistics.prediction_range(attributions.predicted, attributions.predicted_baseline)
    late = np.abs(attributions.completeness_gap) > allowed[:, None]
    undefined = ~np.isfinite(faithfulness.faithfulness)
    return pd.DataFrame(
        {
            **_pair_ids(attributions),
            "predicted": attributions.predicted.ravel(),
            "predicted_baseline": attributions.predicted_baseline.ravel(),
            "completeness_gap": attributions.completeness_gap.ravel(),
            "faithfulness": faithfulness.faithfulness.ravel(),
            "k_adaptive": faithfulness.k_adaptive.ravel(),
            "status": np.where(late, "incomplete", np.where(undefined, "no_change", "ok")).ravel(),
        }
    )


def curves(attributions: Attributions, faithfulness: Faithfulness, *, seed: int = 0) -> pd.DataFrame:
    """Builds attribution/curves.tsv: mean over voxels with a 95 % bootstrap interval."""
    rows = [
        (curve.kind, curve.order, int(k), curve.mean[c], curve.low[c], curve.high[c], curve.n_voxels)
        for curve in attribution.mean_curves(attributions, faithfulness, seed=seed)
        for c, k in enumerate(faithfulness.k_values)
    ]
    columns = ["kind", "order", "k", "relative_performance", "low", "high", "n_voxels"]
    return pd.DataFrame(rows, columns=columns)


def attributed_voxels(
    attributions: Attributions,
    faithfulness: Faithfulness,
    of_halves: np.ndarray,
    critical: CriticalTokens,
    scores: Scores,
) -> pd.DataFrame:
    """Builds attribution/voxels.tsv: what patching the K critical tokens does, against controls."""
    k = critical.indices.shape[2]
    left = attribution.left_without(attributions, faithfulness, k=k)
    rows = np.searchsorted(scores.voxel_ids, attributions.voxel_ids)
    return pd.DataFrame(
        {
            "voxel_id": attributions.voxel_ids,
            "r2": scores.r2[rows],
            "k": k,
            "left_without_ig": left["ig"],
            "left_without_random": left["random"],
            "left_without_lowest": left["lowest"],
            "faithfulness": attribution.median_faithfulness(faithfulness),
            "faithfulness_of_halves": of_halves,
            "extent": attribution.extent(faithfulness),
        }
    )


def description_words(descriptions: Descriptions) -> Iterator[pd.DataFrame]:
    """Builds description/words.tsv, some voxels after the others: the ranked words of every pair."""
    names = descriptions.words.astype(object)
    for block in memory.blocks(len(descriptions.voxel_ids), _ROWS // max(1, descriptions.word_ids[:1].size)):
        ids = descriptions.word_ids[block]
        v, i, rank = np.nonzero(ids >= 0)
        place = block.start + v
        yield pd.DataFrame(
            {
                "voxel_id": descriptions.voxel_ids[place],
                "image_id": descriptions.image_ids[block].astype(object)[v, i],
                "rank": rank + 1,
                "word": names[ids[v, i, rank]],
                "weight": descriptions.weights[place, i, rank],
                "n_tokens": descriptions.n_tokens[place, i, rank],
            }
        )


def description_sentences(descriptions: Descriptions) -> Iterator[pd.DataFrame]:
    """Builds description/sentences.tsv, some voxels after the others."""
    n_images = descriptions.image_ids.shape[1]
    for block in memory.blocks(len(descriptions.voxel_ids), _ROWS // max(1, n_images)):
        yield pd.DataFrame(
            {
                "voxel_id": np.repeat(descriptions.voxel_ids[block], n_images),
                "image_id": descriptions.image_ids[block].astype(object).ravel(),
                "sentence": description.sentences(descriptions, voxels=block).ravel(),
            }
        )


def profile_sentences(profiles: Profiles) -> pd.DataFrame:
    """Builds profile/sentences.tsv; a voxel that is not explained says why instead."""
    explained = profiles.explained
    texts = np.array([f"Not explained: {reason}." for reason in profiles.reasons.tolist()], dtype=object)
    texts[explained] = profile.sentences(profiles, voxels=explained)
    return pd.DataFrame({"voxel_id": profiles.voxel_ids, "sentence": texts})


def _pair_ids(pairs: Attributions) -> dict[str, np.ndarray]:
    return {"voxel_id": np.repeat(pairs.voxel_ids, pairs.image_ids.shape[1]), "image_id": pairs.image_ids.ravel()}
