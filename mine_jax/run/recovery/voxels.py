"""One row per voxel of a run: what was planted, what was found and claimed, and what random tokens give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mine_jax.phantom import scenes
from mine_jax.run import files
from mine_jax.run.recovery.opened import Opened
from mine_jax.types import CLAIMS, Profiles

# Voxels count whose planted ceiling is at least this (fraction of variance, mean of three repeats).
MIN_CEILING = 0.3
# Kinds whose words are planted and expected in their profile.
WORDED = ("concept", "pair", "category", "attribute", "place", "conjunction")
# Kinds that cannot be fitted.
UNUSABLE = ("constant", "invalid")


def voxels_table(run: Opened, control: Profiles) -> pd.DataFrame:
    """Builds the table.

    Args:
        run: a run on a phantom.
        control: profiles of the same images, from random tokens.

    Returns:
        One row per voxel; `counted` marks those that the measures of recovery are over.
    """
    planted = run.planted.drop(columns=["subject", "i", "j", "k"]).rename(columns={"noise_ceiling": "true_ceiling"})
    found = files.voxels_table(run.directory)
    table = found[["voxel_id", "r2", "status", "claim", "explained", "reason"]].merge(planted, on="voxel_id")
    table["explained"] = table["explained"].astype(str).str.lower() == "true"
    table["counted"] = table["kind"].isin(WORDED) & (table["true_ceiling"] >= MIN_CEILING)
    linear = files.load_reference(run.directory)
    table["r2_ridge"] = np.nan if linear is None else linear.r2[np.searchsorted(linear.voxel_ids, table["voxel_id"])]
    for name, values in _per_voxel(run.profiles).items():
        table[name] = pd.Series(values, index=run.profiles.voxel_ids).reindex(table["voxel_id"]).to_numpy()
    targets = [_targets(row) for row in table.itertuples()]
    for name, source in {"": run.profiles, "control_": control}.items():
        words = {int(v): source.words[row[row >= 0]] for v, row in zip(source.voxel_ids, source.word_ids, strict=True)}
        listed = [[str(word) for word in words.get(v, [])] for v in table["voxel_id"]]
        table[f"{name}first_word"] = [row[0] if row else "" for row in listed]
        for n in (1, 5):
            table[f"{name}hit{n}"] = [bool(t & set(row[:n])) for t, row in zip(targets, listed, strict=True)]
    return table


def _per_voxel(profiles: Profiles) -> dict[str, np.ndarray]:
    """Reliability, and effect, p and q of every rung."""
    columns = {"reliability": profiles.reliability, "n_words_images": profiles.n_images}
    for claim in CLAIMS[1:]:
        for name, values in (("p", profiles.p_values), ("q", profiles.q_values)):
            if claim in values:
                columns[f"{name}_{claim}"] = values[claim]
    return columns


def _targets(row: Any) -> set[str]:
    """Words that count as found: the planted ones, where they are categories also their members.

    Where only the category of the area raises the response ("category", "suppressed"), it or a member.
    """
    of_area = row.kind in ("category", "suppressed")
    words = set(str(row.category if of_area else row.concepts).split(";")) - {""}
    return words | {member for word in words for member in scenes.CATEGORIES.get(word, ())}
