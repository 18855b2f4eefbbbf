"""The edit test on planted voxels."""

from dataclasses import replace

import numpy as np
import pytest

from mine_jax.validation import compare_edits, editing, plan_edits
from mine_jax.validation.editing import TEMPLATES, Audit
from mine_jax.validation.simulated import TRUTH

OPTIONS = {"n_permutations": 500, "n_bootstrap": 200}


def items_of(pairs, plan):
    sources = {edit.image_id: f"{edit.image_id}.png" for edit in plan}
    return editing.edit_items(plan, sources=sources, masks=[""] * len(plan), templates=TEMPLATES, pairs=pairs)


def table_of(pairs, planted, plan, *, works=True, bad=None, audits=None):
    """An editor that does what it is told (or nothing but a change that every edit makes)."""
    items = items_of(pairs, plan)
    shown, records = {}, {}
    for pair in pairs:
        shown[f"original:{pair.image_id}"] = set(pair.description)
        shown[f"original:{pair.target_id}"] = {"book"}
    for row, (edit, item) in enumerate(zip(plan, items, strict=True)):
        if item is None:
            continue
        status = (bad or {}).get(row, "ok")
        records[item.file] = {"status": status, "sha256": "x"}
        if status == "ok":
            before = shown[f"original:{edit.image_id}"]
            after = before | set(item.words) if item.action == "insert" else before - set(item.words)
            # every edit adds a house by accident, no-ops too
            shown[item.file] = (after if works else before) | {"house"}
    evaluators = [planted["evaluator"](), planted["evaluator"]("ridge (independent)")]
    audits = audits or [Audit()] * len(plan)
    return editing.edits_table(pairs, plan, items, records, evaluators, planted["tokens"](shown), audits)


def results(table, **options):
    compared = compare_edits(table, **{**OPTIONS, **options})
    return {(x["comparison"], x["source"], x["voxels"], x["evaluator"]): result for x, result in compared}


NAME = "ridge (describing)"


def test_columns_begin_as_the_contract_says(pairs, planted):
    table = table_of(pairs, planted, plan_edits(pairs))
    wanted = ["voxel_id", "image_id", "source", "action", "words", "seed", "before", "after", "shift", "evaluator"]
    assert table.columns[:11].tolist() == [*wanted, "status"]
    assert len(table) == 2 * 6 * 11
    first = table[table["evaluator"] == NAME]
    assert first["image"].tolist() == [f"images/edits-{row:06d}.png" for row in range(len(first))]
    np.testing.assert_allclose(table["shift"], table["after"] - table["before"])


def test_edits_move_the_voxel_beyond_a_noop(pairs, planted):
    pairs = pairs[:5]  # the sixth voxel wants a house
    effects = results(table_of(pairs, planted, plan_edits(pairs)))
    for source in ("description", "profile"):
        assert effects["insert minus no-op", source, "described", NAME].effect == pytest.approx(2)
        assert effects["no-op minus remove", source, "described", NAME].effect == pytest.approx(2)
        assert effects["insert minus no-op", source, "described", NAME].share == 1
    other = effects["insert minus other voxel's words", "profile", "described", NAME]
    # one of the five other words is the house that every edit adds
    assert other.effect == pytest.approx((4 * 1.5 + 2) / 5)
    for name in list(editing.OTHERS.values())[1:]:
        hard = effects[f"insert minus {name}", "profile", "described", NAME]
        assert hard.effect == pytest.approx(1.5) and hard.p == pytest.approx(2 / 32)
    # nothing that is beside the words is there to be removed
    assert effects["other things removed minus remove", "profile", "described", NAME].effect == pytest.approx(2)
    assert effects["insert: profile minus description", "both", "described", NAME].effect == pytest.approx(0)


def test_what_the_editor_does_to_any_image_does_not_count(pairs, planted):
    effects = results(table_of(pairs, planted, plan_edits(pairs), works=False))
    for key, result in effects.items():
        assert result.effect == pytest.approx(0), key


def test_exchanged_voxels_see_only_the_generic_effect(pairs, planted):
    pairs = pairs[:5]
    effects = results(table_of(pairs, planted, plan_edits(pairs)))
    assert effects["insert minus no-op", "profile", "exchanged", NAME].effect == pytest.approx(0.5)
    assert ("insert minus other voxel's words", "profile", "exchanged", NAME) not in effects


def test_unusable_edits_are_never_scored(pairs, planted):
    """F-89: an unchanged edit is no shift of 0."""
    plan = plan_edits(pairs[:5], n_seeds=1)
    bad = {row: "unchanged" for row, edit in enumerate(plan) if edit.action == "insert" and edit.pair == 0}
    table = table_of(pairs[:5], planted, plan, bad=bad)
    assert table["shift"].isna().sum() == 2 * len(bad)
    effects = results(table)
    assert effects["insert minus no-op", "profile", "described", NAME].n_pairs == 4


def test_true_shift_is_one_more_evaluator_and_correlates(pairs, planted):
    plan = plan_edits(pairs[:5])
    true = {"insert": 3.0, "remove": -3.0}
    audits = [Audit(true_shift=0.0 if edit.source == "bystanders" else true.get(edit.action, 0.0)) for edit in plan]
    effects = results(table_of(pairs[:5], planted, plan, audits=audits))
    assert effects["insert minus no-op", "profile", "described", TRUTH].effect == pytest.approx(3)
    correlation = effects["correlation of predicted and true shift", "both", "described", NAME]
    assert correlation.effect > 0.95 and correlation.p < 0.01


def test_doses_are_compared(pairs, planted):
    plan = plan_edits(pairs[:5], strengths=(0.5,))
    effects = results(table_of(pairs[:5], planted, plan))
    key = ("description", "described", NAME)
    assert effects["insert at dose 0.5 minus no-op", *key].effect == pytest.approx(2)
    assert effects["insert: full dose minus dose 0.5", *key].effect == pytest.approx(0)


def test_texts_and_seeds(pairs):
    plan = plan_edits([replace(pairs[0], present=())], n_seeds=1)
    items = items_of(pairs, plan)
    texts = {
        (edit.action, edit.source, edit.image_id): item and item.text for edit, item in zip(plan, items, strict=True)
    }
    assert texts["insert", "description", "t0"] == "add cat"
    assert texts["remove", "description", "0"] == "remove the cat"
    assert texts["noop", "none", "0"] == texts["noop", "none", "t0"] == "keep the image as it is"
    assert texts["remove", "profile", "0"] is None and texts["other", "profile", "t0"] == "add pizza"
    assert len({edit.seed for edit in plan}) == 1
    assert [item.file for item in items if item][:2] == ["edits-000000.png", "edits-000001.png"]
