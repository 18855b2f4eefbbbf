"""Fields, confounds, drivers and conjunctions against the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mine_jax.phantom.sampling import CORRELATED
from mine_jax.phantom.scenes import CATEGORIES
from mine_jax.phantom.signals import SIZE
from mine_jax.run import files
from mine_jax.run.recovery.areas import query_auc
from mine_jax.run.recovery.opened import Opened
from mine_jax.run.recovery.voxels import MIN_CEILING
from mine_jax.types import reaches

# Measure -> its target and sign; also the order in which they are shown.
_TARGETS: dict[str, tuple[float | None, int]] = {
    "query for faces: area under the curve": (0.9, 1),
    "field of localised voxels: median distance, image-tokens": (1.0, -1),
    "planted words that survive the ledger of confounds": (None, 1),
    "planted confounds that do not": (1.0, 1),
    "suppressed voxels: the category that lowers is named": (None, 1),
    "conjunctions: the other category is named": (None, 1),
    "noise voxels with a driver or conjunction at q <= .05": (0.05, -1),
}


def evidence_table(run: Opened, voxels: pd.DataFrame) -> pd.DataFrame:
    """Compares tables of evidence with what was planted.

    Args:
        run: a run on a phantom.
        voxels: one row per voxel of it.

    Returns:
        One row per case: the measure that it counts in, and its value.
    """
    truth = voxels.set_index("voxel_id")
    values = {"query for faces: area under the curve": [query_auc(run)]}
    for part in (_fields(run, truth), _ledger(run, truth), _pairs(run, truth)):
        values |= part
    rows = [(metric, float(value)) for metric in _TARGETS for value in values.get(metric, ())]
    return pd.DataFrame(rows, columns=["metric", "value"])


def of_evidence(evidence: pd.DataFrame) -> list[tuple[str, Any, float | None, int]]:
    """Lists the measures: name, values, target, sign."""
    cases = dict(tuple(evidence.groupby("metric")["value"]))
    return [(metric, cases[metric], *goal) for metric, goal in _TARGETS.items() if metric in cases]


def _fields(run: Opened, truth: pd.DataFrame) -> dict[str, list[float]]:
    field = files.load_evidence(run.directory, "field")
    grid = files.load_tokens(run.directory).grid
    if field is None or grid is None:
        return {}
    planted = truth.reindex(field["voxel_id"])
    localised = reaches(planted["claim"].to_numpy(str), "localised")
    rows, columns = grid
    across = columns * (field["x"].to_numpy() - planted["rf_x"].to_numpy() / SIZE)
    down = rows * (field["y"].to_numpy() - planted["rf_y"].to_numpy() / SIZE)
    distance = np.hypot(across, down)[localised]
    return {"field of localised voxels: median distance, image-tokens": [np.median(distance)] if len(distance) else []}


def _ledger(run: Opened, truth: pd.DataFrame) -> dict[str, list[float]]:
    ledger = files.load_evidence(run.directory, "ledger")
    if ledger is None:
        return {}
    planted = truth.reindex(ledger["voxel_id"]).reset_index()
    survives = ledger["survives"].astype(str).str.lower().eq("true")
    strong = planted["kind"].eq("concept") & (planted["true_ceiling"] >= MIN_CEILING)
    own = strong & (ledger["word"] == planted["concepts"])
    confounded = strong & (ledger["word"] == planted["concepts"].map(CORRELATED))
    return {
        "planted words that survive the ledger of confounds": survives[own].tolist(),
        "planted confounds that do not": (~survives[confounded]).tolist(),
    }


def _pairs(run: Opened, truth: pd.DataFrame) -> dict[str, list[float]]:
    """Suppressed voxels and conjunctions: found with q <= .05, and the planted category or a member of it named."""
    drivers, pairs = (files.load_evidence(run.directory, name) for name in ("drivers", "conjunctions"))
    if drivers is None or pairs is None:
        return {}
    lowers = drivers[drivers["role"] == "lowers"]
    named = {
        "suppressed": lowers[lowers["q"] <= 0.05].groupby("voxel_id")["word"].agg(set),
        "conjunction": pairs[pairs["q"] <= 0.05].groupby("voxel_id")["second"].agg(set),
    }
    strong = truth[truth["true_ceiling"] >= MIN_CEILING]
    found: dict[str, list[float]] = {}
    for kind, words in named.items():
        planted = strong.loc[strong["kind"] == kind, "concepts"].str.split(";").str[-1]
        found[kind] = [
            float(category in words.get(voxel, set()) or bool(set(CATEGORIES[category]) & words.get(voxel, set())))
            for voxel, category in planted.items()
        ]
    noise = truth.index[truth["kind"] == "noise"]
    hits = [float(voxel in words.index) for voxel in noise for words in named.values()]
    return {
        "suppressed voxels: the category that lowers is named": found["suppressed"],
        "conjunctions: the other category is named": found["conjunction"],
        "noise voxels with a driver or conjunction at q <= .05": hits,
    }
