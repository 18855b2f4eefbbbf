"""Areas against the truth: preferences, structure and queries; also where nothing should be found."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mine_jax import roi
from mine_jax.phantom.areas import STRUCTURED, UNSTRUCTURED
from mine_jax.phantom.cortex import smooth_preferences
from mine_jax.run import files
from mine_jax.run.recovery.opened import Opened
from mine_jax.run.recovery.voxels import WORDED

# A category that is asked for in a query, and the share of an area's voxels that makes the answer name it.
_QUERY, _NAMED = "face", 0.5


def areas_table(run: Opened) -> pd.DataFrame:
    """Compares what is said of areas with what was planted.

    Args:
        run: a run on a phantom.

    Returns:
        One row per area: the categories planted ("" for a control area), the category found ("" for none),
        and whether that is right; whether patches were planted (NaN for areas that are neither with nor
        without), and whether structure was found; the share of voxels that a query for faces finds. A smooth
        map that knows no areas may happen to prefer one category all over an area: `own_found` and `own_asked`
        are the shares of the area's voxels whose own planted preference is the category found, and faces.
    """
    named = run.planted[run.planted["area"] != ""]
    found = files.selectivity_table(run.directory)
    preferred = found[_true(found["preferred"])].groupby("roi")["category"].first().to_dict()
    structure = files.structure_table(run.directory)
    structured = set(structure.loc[_true(structure["is_structured"]), "roi"])
    asked = _asked(run)
    rows = []
    for area, group in named.groupby("area"):
        planted = group.loc[group["kind"].isin(WORDED), "category"]
        own = smooth_preferences(group)
        has_patches = 1.0 if area in STRUCTURED else 0.0 if area in UNSTRUCTURED else np.nan
        rows.append(
            {
                "area": area,
                "planted": planted.iloc[0] if len(planted) else "",
                "found": preferred.get(area, ""),
                "has_patches": has_patches,
                "structured": area in structured,
                "asked": asked.reindex(group["voxel_id"])["q"].le(0.05).mean(),
                "own_found": float(np.mean(own == preferred.get(area))),
                "own_asked": float(np.mean(own == _QUERY)),
            }
        )
    table = pd.DataFrame(rows)
    table["right"] = [
        found in planted.split(";") if planted else found == ""
        for found, planted in zip(table["found"], table["planted"], strict=True)
    ]
    return table.assign(named=table["asked"] > _NAMED)


def query_auc(run: Opened) -> float:
    """Computes how well a query for faces tells the voxels of face areas from all others.

    Args:
        run: a run on a phantom.

    Returns:
        Area under the curve of the answer's values over all fitted voxels; 0 is the value of those without words.
    """
    from scipy.stats import rankdata

    asked = _asked(run).reindex(run.planted["voxel_id"])
    values = asked["value"].where(asked["explained"].eq(True), 0.0).to_numpy(float)
    usable = run.planted["noise_ceiling"].to_numpy() > 0
    is_face = run.planted["category"].eq(_QUERY).to_numpy()[usable]
    ranks = rankdata(values[usable])
    n = int(is_face.sum())
    return float((ranks[is_face].sum() - n * (n + 1) / 2) / max(n * (len(ranks) - n), 1))


def _asked(run: Opened) -> pd.DataFrame:
    """The answer to the query, by voxel id."""
    answer = roi.query(
        run.profiles,
        _QUERY,
        corpus=files.corpus(run.directory),
        decoys=run.decoys,
        categories=run.config.roi.categories,
        seed=run.config.run.seed,
    )
    columns = {"value": answer.values, "q": answer.q, "explained": run.profiles.explained}
    return pd.DataFrame(columns, index=run.profiles.voxel_ids)


def _true(column: pd.Series) -> pd.Series:
    return column.astype(str).str.lower() == "true"
