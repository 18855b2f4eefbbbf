"""The last rung: voxels that their words move, against no-ops and hard distractors."""

import numpy as np
import pandas as pd
import pytest

from mine_jax.validation import causal_voxels, plan_edits, with_causal
from mine_jax.validation.editing import HARD
from mine_jax.validation.pairs import Pair

JUDGE = {"evaluator": "ridge (independent)", "maker": "model"}


def edits_of(effects, *, n_images=6, noise=0.3, seed=0, status="ok"):
    """Edits of voxels: `effects` maps voxel -> (shift of its own words, shift of hard distractors)."""
    rng = np.random.default_rng(seed)
    words = {name: ("w",) for name in ("description", "profile", "present", "other", "bystanders", *HARD)}
    rows = []
    for voxel, (own, hard) in effects.items():
        pairs = [Pair(0, voxel, f"i{i}", f"t{i}", **words) for i in range(n_images)]
        for edit in plan_edits(pairs):
            gain = {"noop": 0.0}.get(edit.action, hard if edit.source in (*HARD, "bystanders") else own)
            rows.append(
                {
                    **{"voxel_id": voxel, "image_id": edit.image_id, "pair_image_id": f"i{edit.pair}"},
                    **{"source": edit.source, "action": edit.action, "strength": 1.0, "status": status, **JUDGE},
                    "shift": (-gain if edit.action == "remove" else gain) + noise * rng.standard_normal(),
                    "exchanged_shift": noise * rng.standard_normal(),
                }
            )
    return pd.DataFrame(rows)


def test_only_words_that_beat_noops_and_distractors_are_causal():
    effects = {1: (1.0, 0.2), 2: (1.0, 1.0), 3: (0.0, 0.0), 4: (-1.0, 0.0), 5: (0.0, -1.0)}
    table = causal_voxels(edits_of(effects), **JUDGE).set_index("voxel_id")
    assert table["causal"].to_dict() == {1: True, 2: False, 3: False, 4: False, 5: False}
    assert table.loc[1, "effect"] == pytest.approx(0.8, abs=0.2) and (table["n_pairs"] == 6).all()
    # twelve differences, all positive: one of 2 ** 12 signs, both comparisons alike
    assert table.loc[1, "p"] == pytest.approx(2.0**-12, rel=0.01) and table.loc[4, "p"] > 0.9


def test_voxels_that_nothing_moves_pass_as_rarely_as_q_says():
    table = causal_voxels(edits_of({voxel: (0.0, 0.0) for voxel in range(200)}), **JUDGE)
    # the larger of two p of one voxel
    assert (table["p"] <= 0.05).mean() < 0.05 and table["causal"].sum() <= 1
    exchanged = causal_voxels(edits_of({voxel: (1.0, 0.0) for voxel in range(200)}), column="exchanged_shift", **JUDGE)
    assert exchanged["causal"].sum() <= 1
    # words that move a voxel as any thing of their kind does
    alike = causal_voxels(edits_of({voxel: (1.0, 1.0) for voxel in range(200)}), **JUDGE)
    assert alike["causal"].sum() <= 1 and (alike["p"] <= 0.05).mean() < 0.1


def test_too_few_usable_edits_are_no_test():
    few = causal_voxels(edits_of({1: (1.0, 0.0)}, n_images=2), **JUDGE)
    assert few["p"].isna().all() and not few["causal"].any()
    assert causal_voxels(edits_of({1: (1.0, 0.0)}, status="failed"), **JUDGE).empty


def test_localised_voxels_are_raised_and_others_keep_their_reason(profiles):
    claims = np.array(["localised", "localised", "localised", "words", "localised", "reliable"])
    given = profiles.__class__(
        **{**vars(profiles), "claims": claims, "reasons": np.array(["causal: not tested"] * 3 + ["x"] * 3)}
    )
    table = causal_voxels(edits_of({100: (1.0, 0.0), 101: (0.0, 0.0), 103: (1.0, 0.0)}), **JUDGE)
    raised = with_causal(given, table)
    assert raised.claims.tolist() == ["causal", *claims[1:].tolist()]
    assert raised.reasons[0] == "" and raised.reasons[1].startswith("causal: its words move it no more")
    assert raised.reasons[2] == "causal: not tested" and raised.reasons[3] == "x"
    assert np.isfinite(raised.q_values["causal"]).tolist() == [True, True, False, True, False, False]
    assert (given.claims == claims).all() and "causal" not in given.effects
