"""The ladder: each rung has its reason, and decoys climb none of them more often than chance."""

import numpy as np
import pytest
import scipy.stats

from mine_jax import memory, profile
from mine_jax.profile import Evidence, Limits, LocalisedTest, MeasuredTest
from mine_jax.types import CLAIMS, Profiles, reaches

LIMITS = Limits()


def evidence(n, **changes):
    """Voxels for which every claim holds, but for the changes."""
    values = {
        "r2_selection": 0.5,
        "reliability": 0.9,
        "r": 0.6,
        "r_beyond": 0.5,
        "is_whole": False,
        "p": 0.001,
        "r_rival": 0.1,
        "r_encoder": 0.7,
        "rank": 0.01,
        "effect": 0.2,
        "p_localised": 0.001,
    } | changes
    of = {name: np.broadcast_to(np.asarray(value, float), n).copy() for name, value in values.items()}
    measured = MeasuredTest(**{name: of[name] for name in MeasuredTest._fields} | {"is_whole": of["is_whole"] > 0})
    return Evidence(of["r2_selection"], of["reliability"], measured, LocalisedTest(of["effect"], of["p_localised"]), n)


def decoys(n=400, seed=0):
    rng = np.random.default_rng(seed)
    noise = {name: rng.normal(0, 0.05, n) for name in ("r2_selection", "reliability", "r", "r_beyond", "effect")}
    return evidence(n, **noise, p=rng.uniform(size=n), p_localised=rng.uniform(size=n), rank=rng.uniform(size=n))


def profiles(n, n_images=10):
    blank = np.zeros((n, 1))
    empty = np.zeros((n, 1), np.int32)
    return Profiles(
        voxel_ids=np.arange(n),
        words=np.array(["w"]),
        word_ids=empty,
        weights=blank,
        low=blank,
        high=blank,
        log_odds=blank,
        distribution=memory.empty_rows(n, 1),
        halves=(memory.empty_rows(n, 1),) * 2,
        faithfulness=np.ones(n),
        is_named=np.ones((n, 1), bool),
        n_images=np.full(n, n_images),
        reliability=np.ones(n),
        r_measured=np.ones(n),
        effects={},
        p_values={},
        q_values={},
        claims=np.full(n, "none"),
        reasons=np.full(n, ""),
    )


@pytest.mark.parametrize(
    ("changes", "claim", "reason"),
    [
        ({}, "localised", "causal: not tested"),
        ({"r2_selection": -0.2}, "none", "not predicted more than decoys"),
        ({"reliability": 0.0}, "predicted", "not reliable more than decoys"),
        ({"reliability": np.nan}, "predicted", "not tested for reliable"),
        ({"p": 0.4}, "reliable", "beyond low-level features, words predict held-out responses no better than chance"),
        ({"r_beyond": -0.5}, "reliable", "no better than those of decoys"),
        ({"r_beyond": 0.3, "r_encoder": 1.9}, "reliable", "add less than 0.2"),
        ({"r_beyond": 0.05, "is_whole": True}, "localised", "causal: not tested"),
        ({"r": -0.5, "is_whole": True}, "reliable", "no better than those of decoys"),
        ({"rank": 0.6}, "reliable", "other voxels' words"),
        ({"p_localised": 0.5}, "words", "image-level"),
    ],
)
def test_a_voxel_stops_at_the_first_rung_that_fails(changes, claim, reason):
    rungs = profile.climb(evidence(20, **changes), decoys(), LIMITS)
    judged = profile.judge(profiles(20), rungs, statuses=np.full(20, "ok"))
    assert set(judged.claims) == {claim} and reason in judged.reasons[0]
    assert (reaches(judged.claims, "words") == judged.explained).all()
    assert list(judged.effects) == list(CLAIMS[1:5])


@pytest.mark.parametrize("changes", [{"is_whole": True}, {"r_rival": np.nan}])
def test_the_reason_speaks_of_low_level_features_only_where_they_were_asked_for(changes):
    rungs = profile.climb(evidence(5, p=0.4, **changes), decoys(), LIMITS)
    judged = profile.judge(profiles(5), rungs, statuses=np.full(5, "ok"))
    assert all(reason.startswith("words predict") for reason in judged.reasons)


def test_status_and_too_few_images_come_first():
    rungs = profile.climb(evidence(2), decoys(), LIMITS)
    judged = profile.judge(profiles(2, n_images=3), rungs, statuses=np.array(["diverged", "ok"]))
    assert list(judged.reasons) == ["diverged", "fewer than 6 images"] and set(judged.claims) == {"none"}


def test_without_decoys_nothing_is_claimed_and_the_reason_says_how_to_get_them():
    judged = profile.judge(profiles(3), profile.climb(evidence(3), None, LIMITS), statuses=np.full(3, "ok"))
    assert set(judged.claims) == {"none"} and "encoder.decoys" in judged.reasons[0]


def test_voxels_like_decoys_reach_no_rung():
    voxels, null = decoys(400, seed=1), decoys(400)
    for rung in profile.climb(voxels, null, LIMITS).values():
        assert rung.holds.mean() <= 0.02
    for claim, rung in profile.climb_decoys(null, LIMITS).items():
        assert rung.holds.mean() <= 0.02 and scipy.stats.kstest(rung.p, "uniform").pvalue > 0.01, claim


def test_voxels_that_were_not_described_count_in_the_family():
    p = np.full(10, 0.004)
    assert (profile.family_q(p, 10) <= 0.05).all()
    np.testing.assert_allclose(
        profile.family_q(p, 1000), scipy.stats.false_discovery_control(np.r_[p, np.ones(990)])[:10]
    )
    assert np.isnan(profile.family_q(np.array([0.01, np.nan]), 2)[1])
