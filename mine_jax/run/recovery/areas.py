"""Areas against the truth: the category that each prefers, and areas that prefer none."""

from __future__ import annotations

import pandas as pd

from mine_jax.run import files
from mine_jax.run.recovery.opened import Opened
from mine_jax.run.recovery.voxels import WORDED


def areas_table(run: Opened) -> pd.DataFrame:
    """Compares what areas prefer with what was planted.

    Args:
        run: a run on a phantom.

    Returns:
        One row per area: the categories planted ("" for a control area), the category found ("" for none),
        and whether that is right.
    """
    named = run.planted[run.planted["area"] != ""]
    found = files.selectivity_table(run.directory)
    preferred = found[found["preferred"].astype(str).str.lower() == "true"].groupby("roi")["category"].first().to_dict()
    rows = []
    for area, group in named.groupby("area"):
        planted = group.loc[group["kind"].isin(WORDED), "category"]
        rows.append(
            {"area": area, "planted": planted.iloc[0] if len(planted) else "", "found": preferred.get(area, "")}
        )
    table = pd.DataFrame(rows, columns=["area", "planted", "found"])
    table["right"] = [
        found in planted.split(";") if planted else found == ""
        for found, planted in zip(table["found"], table["planted"], strict=True)
    ]
    return table
