"""The ladder of claims: what may be said of a voxel, and why not more.

Each rung has a test of its own, on data that the rungs before it did not choose by:

    predicted   R2 on the images that chose the encoder, against decoys
    reliable    agreement of the profiles of two refits on disjoint halves, against decoys
    words       held-out measured responses, against exchanged images, the low-level rival, other profiles
    localised   held-out images of several things: critical tokens against random tokens of the same images
    causal      inserted and removed words (see `mine_jax.validation`)

A rung's q is Benjamini-Hochberg over all fitted voxels, and a voxel stops at its first rung that fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mine_jax.profile.localised import LocalisedTest
from mine_jax.profile.measured import MeasuredTest
from mine_jax.statistics import false_discovery_rate, leave_one_out_rank_p, rank_p
from mine_jax.types import CLAIMS, Profiles


class Evidence(NamedTuple):
    """What the tests of the ladder read, of voxels or of decoys that were described.

    Attributes:
        r2_selection: [V] R2 on the images that chose the encoders.
        reliability: [V] agreement of two halves; NaN where unknown.
        measured: tests of the profiles on measured responses.
        localised: tests of critical tokens against the images they are from.
        n_fitted: how many were fitted; those that were not described failed every test.
    """

    r2_selection: np.ndarray
    reliability: np.ndarray
    measured: MeasuredTest
    localised: LocalisedTest
    n_fitted: int


class Rung(NamedTuple):
    """Test of one claim.

    Attributes:
        effect: [V] what is tested; NaN where it could not be.
        p: [V].
        q: [V], over all fitted voxels.
        holds: [V] bool.
        reasons: [V] str, why it does not hold.
    """

    effect: np.ndarray
    p: np.ndarray
    q: np.ndarray
    holds: np.ndarray
    reasons: np.ndarray


class Limits(NamedTuple):
    """What a claim needs.

    Attributes:
        max_q: largest q of every test.
        min_share: smallest r of the words beyond the low-level rival, as a share of the encoder's r.
        max_rank: largest share of other voxels' words that predict the voxel no worse.
    """

    max_q: float = 0.05
    min_share: float = 0.2
    max_rank: float = 0.2


def climb(voxels: Evidence, decoys: Evidence | None, limits: Limits) -> dict[str, Rung]:
    """Tests every rung up to "localised".

    Args:
        voxels: evidence of V voxels.
        decoys: of decoys, the null of the first two rungs; None if none were fitted, when both fail.
        limits: what a claim needs.

    Returns:
        Claim -> its test, in the order of `CLAIMS`.
    """
    null = [None, None] if decoys is None else [_of_all(one, decoys.n_fitted) for one in decoys[:2]]
    first = {
        claim: _against_decoys(effect, of_decoys, voxels.n_fitted, limits, claim=claim)
        for claim, effect, of_decoys in zip(CLAIMS[1:3], voxels[:2], null, strict=True)
    }
    decoy_r = None if decoys is None else _of_all(decoys.measured.effect, decoys.n_fitted)
    return first | _measured_rungs(voxels, decoy_r, limits)


def climb_decoys(decoys: Evidence, limits: Limits) -> dict[str, Rung]:
    """Tests every rung for decoys, each against the others: none should hold.

    Args:
        decoys: evidence of M decoys.
        limits: what a claim needs.

    Returns:
        Claim -> its test.
    """
    first = {}
    for claim, effect in zip(CLAIMS[1:3], decoys[:2], strict=True):
        p = leave_one_out_rank_p(effect)
        q = family_q(p, decoys.n_fitted)
        first[claim] = Rung(effect, p, q, np.nan_to_num(q, nan=1) <= limits.max_q, _all(len(p), "a decoy"))
    return first | _measured_rungs(decoys, None, limits)


def family_q(p: np.ndarray, n_fitted: int) -> np.ndarray:
    """Computes Benjamini-Hochberg q over all fitted voxels.

    Args:
        p: [V] of the voxels that were described; NaN, and those that were not described, count as p = 1.
        n_fitted: how many voxels were fitted.

    Returns:
        q [V]; NaN where p is NaN.

    Source: Benjamini & Hochberg 1995.
    """
    tested = np.isfinite(p)
    family = np.concatenate([np.where(tested, p, 1.0), np.ones(max(0, n_fitted - len(p)))])
    return np.where(tested, false_discovery_rate(family)[: len(p)], np.nan)


def judge(profiles: Profiles, rungs: dict[str, Rung], *, statuses: np.ndarray, min_images: int = 6) -> Profiles:
    """Gives every voxel its highest claim, and the reason why not a higher one.

    Args:
        profiles: of V voxels.
        rungs: claim -> its test, in the order of `CLAIMS`; those that were not tested are left out.
        statuses: [V] str of `STATUSES`.
        min_images: fewest images that make a profile.

    Returns:
        The profiles with claims, reasons and the numbers of every rung.
    """
    claims = np.full(len(profiles.voxel_ids), CLAIMS[0], dtype=object)
    reasons = np.where(statuses == "ok", "", statuses).astype(object)
    reasons[(reasons == "") & (profiles.n_images < min_images)] = f"fewer than {min_images} images"
    for claim in CLAIMS[1:]:
        going = reasons == ""
        if claim not in rungs:
            reasons[going] = f"{claim}: not tested"
            break
        passed = going & rungs[claim].holds
        claims[passed] = claim
        reasons[going & ~passed] = rungs[claim].reasons[going & ~passed]
    return replace(
        profiles,
        effects={claim: rung.effect for claim, rung in rungs.items()},
        p_values={claim: rung.p for claim, rung in rungs.items()},
        q_values={claim: rung.q for claim, rung in rungs.items()},
        claims=claims.astype(str),
        reasons=reasons.astype(str),
    )


def _against_decoys(
    effect: np.ndarray, decoys: np.ndarray | None, n_fitted: int, limits: Limits, *, claim: str
) -> Rung:
    """Tests voxels by their ranks among decoys."""
    effect = np.asarray(effect, np.float64)
    if decoys is None:
        unknown = np.full(len(effect), np.nan)
        reasons = _all(len(effect), f"not tested for {claim}: no decoys were fitted (encoder.decoys = 0)")
        return Rung(effect, unknown, unknown, np.zeros(len(effect), bool), reasons)
    p = rank_p(effect, decoys)
    q = family_q(p, n_fitted)
    reasons = np.where(
        np.isfinite(effect), f"not {claim} more than decoys (q > {limits.max_q:g})", f"not tested for {claim}"
    )
    return Rung(effect, p, q, np.nan_to_num(q, nan=1) <= limits.max_q, reasons.astype(object))


def _measured_rungs(voxels: Evidence, decoy_r: np.ndarray | None, limits: Limits) -> dict[str, Rung]:
    """Tests words and localisation, on measured responses to held-out images."""
    test, localised, chance = voxels.measured, voxels.localised, f"(q > {limits.max_q:g})"
    q, local_q = (family_q(p, voxels.n_fitted) for p in (test.p, localised.p))
    of_decoys = q if decoy_r is None else family_q(rank_p(test.effect, decoy_r), voxels.n_fitted)
    # without predictions no share can be asked for; words that are tested whole carry enough
    excused = ~np.isfinite(test.r_encoder) | test.is_whole
    above_chance = np.where(
        test.is_whole | ~np.isfinite(test.r_rival),
        f"words predict held-out responses no better than chance {chance}",
        f"beyond low-level features, words predict held-out responses no better than chance {chance}",
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        share = test.r_beyond / test.r_encoder
        words = [
            (np.isfinite(test.r), "no words"),
            (q <= limits.max_q, above_chance),
            (of_decoys <= limits.max_q, f"words predict held-out responses no better than those of decoys {chance}"),
            (
                excused | (share >= limits.min_share),
                f"words add less than {limits.min_share:g} of the encoder's r to low-level features",
            ),
            (test.rank <= limits.max_rank, f"more than {limits.max_rank:g} of other voxels' words predict it as well"),
        ]
        local = [
            (
                local_q <= limits.max_q,
                f"image-level: critical tokens say no more than all of its images {chance}",
            )
        ]
    return {
        "words": Rung(test.effect, test.p, q, *_first_failure(words)),
        "localised": Rung(localised.effect, localised.p, local_q, *_first_failure(local)),
    }


def _of_all(values: np.ndarray, n_fitted: int) -> np.ndarray:
    """Adds those that were fitted but not described, which reach nothing."""
    return np.concatenate([values, np.full(max(0, n_fitted - len(values)), np.nan)])


def _first_failure(rules: Sequence[tuple[np.ndarray, str | np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether all rules hold [V], and the reason of the first that does not."""
    reasons = np.full(len(rules[0][0]), "", dtype=object)
    for holds, reason in reversed(rules):
        reasons = np.where(holds, reasons, reason)
    return reasons == "", reasons


def _all(n: int, reason: str) -> np.ndarray:
    return np.full(n, reason, dtype=object)
