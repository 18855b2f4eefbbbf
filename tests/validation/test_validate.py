"""The whole stage on a small phantom with the exact models."""

import logging

import numpy as np
import pytest

from mine_jax import artifacts, config, run, validation
from mine_jax.errors import ConfigError, MissingInputError
from mine_jax.run import graph
from mine_jax.validation.makers import models

SETTINGS = {
    "data": {"kind": "phantom", "subject": "subj01", "n_images": 260, "n_shared": 80, "shape": [16, 16, 12]},
    "features": {"model": "phantom"},
    "encoder": {"kind": "ridge", "folds": 2, "penalties": 6},
    "attribution": {"k": 8, "n_images": 8, "min_r2": 0.15},
    "profile": {"n_permutations": 200, "n_bootstrap": 50, "min_faithfulness": 0.0, "max_q": 0.5},
    "validation": {"generator": "oracle", "editor": "oracle", "n_pairs": 12, "n_seeds": 1, "n_permutations": 500},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run up to the profiles: (configuration, run directory)."""
    folder = tmp_path_factory.mktemp("validation")
    settings = {**SETTINGS, "data": {**SETTINGS["data"], "root": str(folder / "phantom")}}
    made = config.from_dict(settings)
    run.execute(made, folder / "run", graph.STEPS, until="profile")
    return made, folder / "run"


@pytest.fixture(scope="module")
def validated(finished):
    made, directory = finished
    seen = []
    summary = validation.validate(made, directory, progress=lambda done, total: seen.append((done, total)))
    return directory / "validation", summary, seen


def test_exact_edits_move_voxels_as_described(validated):
    out, summary, _ = validated
    assert summary["pairs"] == 12
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


def test_a_second_run_makes_no_image_again(finished, validated):
    made, directory = finished
    files = sorted((directory / "validation" / "images").glob("*.png"))
    before = {path.name: path.stat().st_mtime_ns for path in files}
    tables = {name: (directory / "validation" / name).read_bytes() for name in ("edits.tsv", "summary.tsv")}
    assert validation.validate(made, directory) == validated[1]
    assert {path.name: path.stat().st_mtime_ns for path in files} == before
    assert all((directory / "validation" / name).read_bytes() == content for name, content in tables.items())


def test_a_plain_callable_takes_the_place_of_a_model(finished, tmp_path):
    class Darker:
        def edit(self, images, instructions, *, seeds, masks=None):
            return [image // 2 for image in images]

    made, directory = finished
    quiet = made.model_copy(update={"validation": config.ValidationConfig(n_pairs=4, n_seeds=1, evaluator="none")})
    for part in ("data", "features", "encoder", "scores", "attribution", "description", "profile"):
        (tmp_path / part).symlink_to(directory / part)
    (tmp_path / "images.tsv").symlink_to(directory / "images.tsv")
    summary = validation.validate(quiet, tmp_path, editor=Darker())
    table = artifacts.read_table(tmp_path / "validation" / "summary.tsv")
    assert summary["pairs"] == 4 and set(table["evaluator"]) == {"ridge (describing)", "simulated truth"}
    effect = table[(table["comparison"] == "insert minus no-op") & (table["evaluator"] == "ridge (describing)")]
    effect = effect[effect["voxels"] == "described"]
    own, bound = effect[effect["maker"] != "oracle"], effect[effect["maker"] == "oracle"]
    np.testing.assert_allclose(own["effect"], 0, atol=1e-6)
    assert summary["insert_minus_noop"] == pytest.approx(0, abs=1e-6)
    # the exact editor on the same pairs is what a perfect one would reach
    assert len(bound) == len(own) and (bound["effect"] > 0.1).all()
    assert not (tmp_path / "validation" / "generation.tsv").exists()


def test_nothing_configured_says_so(finished, tmp_path):
    made, _ = finished
    none = made.model_copy(update={"validation": config.ValidationConfig()})
    assert "neither" in validation.validate(none, tmp_path)["reason"]
    assert artifacts.read_json(tmp_path / "validation" / "none.json")["reason"]


def test_precomputed_features_cannot_be_validated(finished, tmp_path):
    made, _ = finished
    features = made.features.model_copy(update={"kind": "precomputed"})
    assert "precomputed" in validation.validate(made.model_copy(update={"features": features}), tmp_path)["reason"]


def test_models_that_do_not_fit():
    with pytest.raises(ConfigError, match="phantom"):
        models.with_exact(models.choose(config.ValidationConfig(editor="oracle"))["editor"], "editor", None)
    with pytest.raises(ConfigError, match="only removes"):
        models.choose(config.ValidationConfig(generator="fill"))
    with pytest.raises(MissingInputError, match=r"model_index\.json"):
        models.choose(config.ValidationConfig(generator="/no/such/pipeline"))


def test_missing_embedded_models_are_explained(monkeypatch, tmp_path):
    monkeypatch.setattr(models.importlib.resources, "files", lambda name: tmp_path)
    with pytest.raises(MissingInputError, match="oracle"):
        models.choose(config.ValidationConfig(editor="phantom"))


def test_a_pipeline_may_bring_its_own_texts(tmp_path):
    artifacts.write_json(tmp_path / "model_index.json", {"_class_name": "StableDiffusionInpaintPipeline"})
    artifacts.write_json(tmp_path / "prompts.json", {"remove": "an empty room"})
    made = models.choose(config.ValidationConfig(editor=str(tmp_path)))["editor"]
    assert made.templates["remove"] == "an empty room" and made.templates["insert"] == "a photo of {words}"
    artifacts.write_json(tmp_path / "prompts.json", {"delete": "x"})
    with pytest.raises(ConfigError, match=r"prompts\.json"):
        models.choose(config.ValidationConfig(editor=str(tmp_path)))


@pytest.fixture(autouse=True)
def quiet_logging():
    logging.getLogger("absl").setLevel(logging.ERROR)
