"""The ladder against the truth: who reaches which rung, and who should not have."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import kstest

from mine_jax.report.figures.truth import WORDLESS
from mine_jax.run.recovery.voxels import MIN_CEILING, UNUSABLE, WORDED
from mine_jax.types import CLAIMS, Profiles, reaches

RUNGS = CLAIMS[1:5]
_MAX_Q = 0.05


def claims_table(voxels: pd.DataFrame, decoys: Profiles | None) -> pd.DataFrame:
    """Counts, for every kind of voxel, which rungs are reached.

    Args:
        voxels: one row per voxel, of one run or of several.
        decoys: of the same runs, joined; None for none.

    Returns:
        One row per kind: its number, the share at each rung or above it, the share with q <= .05 at each rung
        by itself, and of those that reach "words" the share with a planted word first, and among five.
        Kinds with words are counted where the true ceiling is at least .3; all others with all their voxels.
    """
    rows = []
    for kind, group in voxels.groupby("kind", sort=False):
        if kind in UNUSABLE:
            continue
        counted = group[group["true_ceiling"] >= MIN_CEILING] if kind in WORDED else group
        rows.append({"kind": kind, **_row(counted)})
    table = pd.DataFrame(rows)
    if decoys is not None:
        rungs = {rung: reaches(decoys.claims, rung).mean() for rung in RUNGS}
        alone = {f"alone_{rung}": _passing(decoys.q_values.get(rung)) for rung in RUNGS}
        row = {"kind": "decoy", "n": len(decoys.voxel_ids), **rungs, **alone}
        row["median_reliability"] = np.nanmedian(decoys.reliability)
        table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
    return table


def false_discovery_proportion(voxels: pd.DataFrame) -> float:
    """Computes the share of voxels claimed to have words that have none.

    Args:
        voxels: one row per voxel.

    Returns:
        Of all voxels that reach "words", those of kinds without words; 0 where none reaches it.
    """
    claimed = voxels[voxels["explained"]]
    return float(claimed["kind"].isin(WORDLESS).mean()) if len(claimed) else 0.0


def uniformity(decoys: Profiles | None) -> dict[str, float]:
    """Tests whether p of decoys are uniform.

    Args:
        decoys: profiles of decoys; None for none.

    Returns:
        Rung -> p of the Kolmogorov-Smirnov test against the uniform distribution.
    """
    tested = {} if decoys is None else decoys.p_values
    return {
        rung: float(kstest(p[np.isfinite(p)], "uniform").pvalue)
        for rung, p in tested.items()
        if np.isfinite(p).sum() >= 20
    }


def _row(group: pd.DataFrame) -> dict[str, float]:
    claims = group["claim"].to_numpy(str)
    worded = group[group["explained"]]
    return {
        "n": len(group),
        **{rung: reaches(claims, rung).mean() if len(group) else np.nan for rung in RUNGS},
        **{f"alone_{rung}": _passing(group.get(f"q_{rung}")) for rung in RUNGS},
        "first": worded["hit1"].mean(),
        "first_five": worded["hit5"].mean(),
        "median_reliability": group["reliability"].median(),
    }


def _passing(q: np.ndarray | pd.Series | None) -> float:
    return np.nan if q is None or len(q) == 0 else float((np.nan_to_num(np.asarray(q), nan=1) <= _MAX_Q).mean())
