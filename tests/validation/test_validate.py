"""The whole stage on a small phantom with the exact models."""

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mine_jax import artifacts, config, run, validation
from mine_jax._progress import silent
from mine_jax.run import files, graph
from mine_jax.run.stages import validation as stage

SETTINGS = {
    "data": {"kind": "phantom", "subject": "subj01", "n_images": 260, "n_shared": 80, "shape": [16, 16, 12]},
    "features": {"model": "phantom"},
    "encoder": {"kind": "ridge", "folds": 2, "penalties": 6},
    "attribution": {"k": 8, "n_images": 8, "min_r2": 0.15},
    "profile": {"n_permutations": 200, "n_bootstrap": 50, "max_q": 0.5},
    "validation": {"generator": "oracle", "editor": "oracle", "n_pairs": 36, "n_images": 3, "n_permutations": 500},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run up to the profiles: (configuration, run directory).

    260 images are too few for the ladder; the stage is what is tested here, so voxels whose words predict
    measured responses are taken as localised, and every third of them as having words only.
    """
    folder = tmp_path_factory.mktemp("validation")
    settings = {**SETTINGS, "data": {**SETTINGS["data"], "root": str(folder / "phantom")}}
    settings = config.from_dict(settings)
    directory = folder / "run"
    run.execute(settings, directory, graph.STEPS, until="profile")
    profiles = files.load_profiles(directory)
    claims = np.where(profiles.r_measured > 0.4, "localised", "predicted")
    worded = np.flatnonzero(claims == "localised")
    claims[worded[::3]] = "words"
    profiles = replace(profiles, claims=claims, reasons=np.where(claims == "localised", "causal: not tested", "short"))
    files.save_profiles(directory, profiles, None)
    files.save_voxels(directory, files.load_responses(directory), files.load_scores(directory), profiles)
    return settings, directory


@pytest.fixture(scope="module")
def validated(finished):
    settings, directory = finished
    reports = []
    numbers = stage.compute(settings, directory, lambda done, total: reports.append((done, total)))
    return directory / "validation", numbers, reports


def test_exact_edits_move_voxels_as_described(validated):
    out, numbers, _ = validated
    assert numbers["pairs"] == 36
    table = artifacts.read_table(out / "summary.tsv")
    table = table[(table["voxels"] == "described") & (table["source"] == "profile")]
    for comparison in ("insert minus no-op", "no-op minus remove"):
        rows = table[table["comparison"] == comparison].set_index("evaluator")
        assert (rows["effect"] > 0).all() and set(rows.index) >= {"ridge (describing)", "simulated truth"}
        assert rows.loc["simulated truth", "share"] > 0.8 and rows.loc["ridge (describing)", "q"] < 0.05


def test_predicted_and_true_shift_agree(validated):
    table = artifacts.read_table(validated[0] / "summary.tsv")
    row = table[table["comparison"] == "correlation of predicted and true shift"].iloc[0]
    assert row["effect"] > 0.5 and row["q"] < 0.01


def test_controls_and_hits_are_families_of_their_own_and_no_row_comes_twice(validated):
    table = artifacts.read_table(validated[0] / "summary.tsv")
    keys = ["test", "comparison", "source", "voxels", "evaluator", "maker"]
    assert not table.duplicated(keys).any() and not table.duplicated([*keys[:5], "effect", "p"]).any()
    for _, family in table.groupby(["test", "voxels", "evaluator", "maker"]):
        known = family["p"].notna()
        expected = stats.false_discovery_control(family["p"][known])
        np.testing.assert_allclose(family["q"][known], expected, rtol=1e-5)  # tables keep seven digits


def test_words_beat_hard_distractors(validated):
    table = artifacts.read_table(validated[0] / "summary.tsv")
    table = table[(table["voxels"] == "described") & (table["source"] == "profile")]
    for name in ("words of nearly the same meaning", "co-occurring words"):
        rows = table[table["comparison"] == f"insert minus {name}"].set_index("evaluator")
        assert rows.loc["ridge (describing)", "effect"] > 0 and rows.loc["simulated truth", "share"] > 0.5


def test_each_voxel_is_tested_and_claims_follow(finished, validated):
    """F-93: claims are of an encoder that did not write the words."""
    out, numbers, _ = validated
    directory = finished[1]
    table = artifacts.read_table(out / "voxels.tsv").set_index("voxel_id")
    assert list(table.columns) == ["n_pairs", "effect", "p", "q", "causal", "evaluator", "evaluator_r2"]
    assert set(table["evaluator"]) == {"ridge (independent)"} and numbers["causal_exchanged"] <= 1
    profiled = artifacts.read_table(directory / "profile" / "voxels.tsv").set_index("voxel_id")
    every = artifacts.read_table(directory / "voxels.tsv").set_index("voxel_id")
    before = files.load_profiles(directory)
    ladder = pd.Series(before.claims, before.voxel_ids)
    passed = table.index[table["causal"].astype(str).str.lower() == "true"]
    raised = profiled.index[profiled["claim"] == "causal"]
    assert set(raised) == {voxel for voxel in passed if ladder[voxel] == "localised"}
    assert numbers.get("raised_to_causal", 0) == len(raised)
    assert (every.loc[profiled.index, "claim"] == profiled["claim"]).all()
    assert profiled.loc[raised, "q_causal"].notna().all()


def test_exchanged_voxels_see_nothing(validated):
    table = artifacts.read_table(validated[0] / "summary.tsv")
    null = table[(table["voxels"] == "exchanged") & (table["evaluator"] == "ridge (describing)")]
    assert len(null) >= 4 and (null["q"] > 0.01).all()


def test_every_row_has_its_picture_and_the_audit_agrees_with_the_scene(validated):
    out, _, _ = validated
    edits = artifacts.read_table(out / "edits.tsv", named=str, image=str)
    usable = edits[edits["status"] == "ok"]
    assert len(usable) and all((out / name).is_file() for name in usable["image"])
    assert edits.loc[usable.index, "shift"].notna().all()
    moved = usable[usable["action"].isin(["insert", "remove"])]
    assert (moved["named"] == "true").mean() > 0.9
    # camera noise is drawn after the place, so a changed place changes every pixel
    assert (moved["change_inside"] > moved["change_outside"]).mean() > 0.9
    assert (usable.loc[usable["action"] == "noop", "shift"].abs() < 1e-2).all()
    generated = artifacts.read_table(out / "generation.tsv")
    assert set(generated["condition"]) == {"description", "random", "lowest"}
    drawn = generated[generated["status"] == "ok"]
    assert drawn["true_response"].notna().all() and np.corrcoef(drawn["predicted"], drawn["true_response"])[0, 1] > 0.5
    assert len(list((out / "images").glob("*.png"))) >= edits["image"].nunique() - 1
    assert not (out / ".work").exists()


def test_progress_never_goes_back(validated):
    seen = [done for done, _ in validated[2]]
    assert seen == sorted(seen) and seen[-1] > 0 and all(done <= total for done, total in validated[2])
    assert seen[-1] == validated[2][-1][1]


def test_a_second_run_makes_no_image_again(finished, validated):
    settings, directory = finished
    files = sorted((directory / "validation" / "images").glob("*.png"))
    before = {path.name: path.stat().st_mtime_ns for path in files}
    tables = {name: (directory / "validation" / name).read_bytes() for name in ("edits.tsv", "summary.tsv")}
    assert stage.compute(settings, directory, silent) == validated[1]
    assert {path.name: path.stat().st_mtime_ns for path in files} == before
    assert all((directory / "validation" / name).read_bytes() == content for name, content in tables.items())


def test_a_plain_callable_takes_the_place_of_a_model(finished, tmp_path):
    class Darker:
        def edit(self, images, instructions, *, seeds, masks=None):
            return [image // 2 for image in images]

    quiet = config.ValidationConfig(n_pairs=4, n_images=1, evaluator="none")
    images = tmp_path / "images"
    result = validation.validate(stage.read_inputs(*finished), quiet, images=images, editor=Darker())
    table = result.tables["summary"]
    assert result.numbers["pairs"] == 4 and set(table["evaluator"]) == {"ridge (describing)", "simulated truth"}
    effect = table[(table["comparison"] == "insert minus no-op") & (table["evaluator"] == "ridge (describing)")]
    effect = effect[effect["voxels"] == "described"]
    darker, bound = effect[effect["maker"] != "oracle"], effect[effect["maker"] == "oracle"]
    np.testing.assert_allclose(darker["effect"], 0, atol=1e-6)
    assert result.numbers["insert_minus_noop"] == pytest.approx(0, abs=1e-6)
    # the exact editor on the same pairs is what a perfect one would reach
    assert len(bound) == len(darker) and (bound["effect"] > 0.1).all()
    assert set(result.tables) == {"edits", "summary"}
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_nothing_configured_says_so(finished, tmp_path):
    settings, _ = finished
    none = settings.model_copy(update={"validation": config.ValidationConfig()})
    assert "neither" in stage.compute(none, tmp_path, silent)["reason"]
    assert artifacts.read_json(tmp_path / "validation" / "none.json")["reason"]


def test_precomputed_features_cannot_be_validated(finished, tmp_path):
    settings, _ = finished
    precomputed = settings.model_copy(update={"features": config.PrecomputedConfig()})
    reason = stage.compute(precomputed, tmp_path, silent)["reason"]
    assert "precomputed" in reason and "profile/voxels.tsv" in reason
    assert artifacts.read_json(tmp_path / "validation" / "none.json")["reason"] == reason


@pytest.fixture(autouse=True)
def quiet_logging():
    logging.getLogger("absl").setLevel(logging.ERROR)


def test_an_evaluator_may_see_through_another_backbone(finished, tmp_path):
    settings, directory = finished
    changed = config.ValidationConfig(editor="fill", n_pairs=4, n_images=2, evaluator="clip:phantom-captions")
    settings = settings.model_copy(update={"validation": changed})
    inputs = stage.read_inputs(settings, directory)
    (name,) = inputs.other_backbones
    result = validation.validate(inputs, changed, images=tmp_path / "images")
    edits = result.tables["edits"]
    judges = edits["evaluator"].unique().tolist()
    assert judges == ["ridge (describing)", "ridge (independent)", name]
    # two backbones do not say the same of one picture
    removed = edits[(edits["action"] == "remove") & (edits["status"] == "ok")]
    of = [removed[removed["evaluator"] == judge]["shift"].to_numpy() for judge in judges]
    assert len(of[2]) and np.isfinite(of[2]).all() and np.abs(of[1] - of[2]).max() > 1e-3
    assert set(edits["maker"]) == {"fill", "fill (true masks)", "oracle"}
    # masks without the truth are not those of the truth, and both are whole masks
    masks = {maker: edits[edits["maker"] == maker]["change_inside"].notna().sum() for maker in set(edits["maker"])}
    assert all(count > 0 for count in masks.values())
    assert set(result.tables["voxels"]["evaluator"]) <= {name}
