"""Do the words move this one voxel? The last rung of the ladder, from the table of edits.

A voxel's edits are compared twice: with no-op edits, and with hard distractors (words of its area, of nearly
the same meaning, of things that come along; other things of the image removed). It is moved by its words
where both comparisons say so. The judge is the most independent one there is, never the encoder that made
the description.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from mine_jax.statistics import false_discovery_rate, sign_flip_p
from mine_jax.types import CLAIMS, Profiles, reaches
from mine_jax.validation import editing

COLUMNS = ("voxel_id", "n_pairs", "effect", "p", "q", "causal", "evaluator")
# With fewer differences no p can be small.
MIN_DIFFERENCES = 5


def causal_voxels(
    edits: pd.DataFrame,
    *,
    evaluator: str,
    maker: str,
    column: str = "shift",
    max_q: float = 0.05,
    n_permutations: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Tests each voxel of edits.tsv.

    Args:
        edits: the table.
        evaluator: whose predictions count.
        maker: whose edits count.
        column: "shift", or "exchanged_shift" for the voxels that changed places, none of which should pass.
        max_q: largest q of a voxel that passes.
        n_permutations: random changes of sign; all of them where there are few pairs.
        seed: of the changes.

    Returns:
        One row per voxel: pairs with a usable edit, effect (z-scored beta, the smaller of both comparisons), p (the
        larger of both, one-sided), q over the voxels (Benjamini-Hochberg), and whether it is causal.

    Source: intersection-union test, Berger 1982: both comparisons must hold, so the larger p is one of both.
    """
    usable = edits[(edits["evaluator"] == evaluator) & (edits["maker"] == maker) & (edits["status"] == "ok")]
    voxel_ids = np.unique(edits.loc[edits["maker"] == maker, "voxel_id"].to_numpy(np.int64))
    if not len(usable):
        return pd.DataFrame(columns=list(COLUMNS))
    of_noop, of_distractors, groups = _differences(editing.per_pair(usable, column))
    rows = []
    for voxel in voxel_ids:
        inside = groups == voxel
        tests = [_one_sided(part[inside].ravel(), n_permutations, seed) for part in (of_noop, of_distractors)]
        known = np.isfinite(of_noop[inside]).any(1)
        effect, p = min(effect for effect, _ in tests), max(p for _, p in tests)
        rows.append((voxel, int(known.sum()), effect, p, np.nan, False, evaluator))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["q"] = false_discovery_rate(table["p"].to_numpy(float))
    table["causal"] = (table["q"] <= max_q) & (table["effect"] > 0)
    return table


def with_causal(profiles: Profiles, table: pd.DataFrame, *, max_q: float = 0.05) -> Profiles:
    """Raises localised voxels that pass to "causal", and says of the others why not.

    Args:
        profiles: of V voxels, judged up to "localised".
        table: of `causal_voxels`.
        max_q: that of the table, for the reasons.

    Returns:
        The profiles with effects, p and q of the claim; voxels that were not drawn keep "causal: not tested".
    """
    found = table.set_index("voxel_id").reindex(profiles.voxel_ids)
    localised = reaches(profiles.claims, "localised")
    drawn = found["n_pairs"].notna().to_numpy()
    tested = found["p"].notna().to_numpy()
    passed = localised & found["causal"].eq(True).to_numpy()
    claims, reasons = profiles.claims.astype(object), profiles.reasons.astype(object)
    claims[passed], reasons[passed] = CLAIMS[-1], ""
    reasons[localised & tested & ~passed] = f"causal: its words move it no more than hard distractors (q > {max_q:g})"
    reasons[localised & drawn & ~tested] = "causal: too few usable edits"
    return replace(
        profiles,
        claims=claims.astype(str),
        reasons=reasons.astype(str),
        **{
            name: {**getattr(profiles, name), CLAIMS[-1]: found[column].to_numpy(float)}
            for name, column in (("effects", "effect"), ("p_values", "p"), ("q_values", "q"))
        },
    )


def _differences(wide: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gains of insertion and of removal [pairs, 2] over no-ops and over distractors, and the voxel of each pair."""

    def mean(source: str, action: str, place: str) -> np.ndarray:
        key = (source, action, place, 1.0)
        return wide[key].to_numpy(float) if key in wide.columns else np.full(len(wide), np.nan)

    insert, remove = mean("profile", "insert", "target"), mean("profile", "remove", "described")
    hard = np.stack([mean(source, "other", "target") for source in editing.HARD])
    known = np.isfinite(hard)
    distractor = np.where(known.any(0), np.where(known, hard, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)
    noop = np.stack([insert - mean("none", "noop", "target"), mean("none", "noop", "described") - remove], 1)
    beyond = np.stack([insert - distractor, mean("bystanders", "remove", "described") - remove], 1)
    return noop, beyond, wide.index.get_level_values("voxel_id").to_numpy(np.int64)


def _one_sided(values: np.ndarray, n_permutations: int, seed: int) -> tuple[float, float]:
    """Mean of the known differences, and p of a positive one; NaN where they are too few."""
    values = values[np.isfinite(values)]
    if len(values) < MIN_DIFFERENCES:
        return float("nan"), float("nan")
    both = sign_flip_p(values, n_permutations=n_permutations, rng=np.random.default_rng(seed))
    return float(values.mean()), both / 2 if values.sum() > 0 else 1 - both / 2
