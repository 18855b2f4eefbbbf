"""Stages on precomputed tokens, in seconds: what is fitted, controlled and refused; no photos, no lens."""

import contextlib
import json
import re

import numpy as np
import pytest

from mine_jax import artifacts, config, encoder, features, run
from mine_jax.errors import AlignmentError, ConfigError, DataError, IntegrityError, MissingInputError
from mine_jax.run import graph
from mine_jax.run.reporter import Reporter


@pytest.fixture
def recordings(tmp_path):
    """A folder of precomputed tokens and responses to their mean; no photos, no lens."""
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((120, 16, 8)).astype(np.float32)
    responses = tokens.mean(1) @ rng.standard_normal((8, 3)) + 0.1 * rng.standard_normal((120, 3))
    np.save(tmp_path / "tokens.npy", tokens)
    np.save(tmp_path / "responses.npy", responses.astype(np.float32))
    (tmp_path / "ids.txt").write_text("".join(f"photo{i:03d}\n" for i in range(120)), encoding="utf-8")
    values = {
        "data": {"kind": "folder", "responses": "responses.npy", "image_ids": "ids.txt", "test": 0.25},
        "features": {"kind": "precomputed", "tokens": "tokens.npy", "token_image_ids": "ids.txt", "grid": [4, 4]},
        "encoder": {"width": 8, "epochs": 4, "learning_rate": 0.1},
        "attribution": {"k": 4},
    }
    return tmp_path, values


def execute(recordings, *, until=None, reporter=None, **changes):
    folder, values = recordings
    values = {section: {**entries, **changes.get(section, {})} for section, entries in values.items()}
    out = folder / "run"
    run.execute(config.from_dict(values, base=folder), out, graph.STEPS, until=until, reporter=reporter)
    return out


def test_tokens_without_a_lens_are_fitted_and_attributed_but_not_described(recordings):
    out = execute(recordings)
    voxels = artifacts.read_table(out / "voxels.tsv")
    assert (voxels["r2"] > 0.5).all() and len(artifacts.read_table(out / "attribution/pairs.tsv"))
    assert not (out / "description/words.tsv").exists() and (out / "report.html").exists()


def test_the_reference_ridge_chooses_penalties_as_the_user_says(recordings, monkeypatch):
    seen, fit = [], encoder.fit

    def spy(*given, **named):
        seen.append(named["config"])
        return fit(*given, **named)

    monkeypatch.setattr(encoder, "fit", spy)
    chosen = {"folds": 3, "penalties": 4, "penalty_low": -1.0, "penalty_high": 2.0, "selection": "gcv"}
    out = execute(recordings, until="encoder", encoder={**chosen, "halves": False})
    assert [settings.kind for settings in seen] == ["query", "ridge"]
    assert {name: getattr(seen[1], name) for name in chosen} == chosen and seen[1].summary == "mean"
    assert (artifacts.load(out / "scores/ridge").r2 > 0.5).all()


def test_the_reference_ridge_is_the_default_one_with_default_settings(recordings):
    out = execute(recordings, until="encoder")
    folder, values = recordings
    # without decoys: products of more columns round differently
    values = {**values, "encoder": {"kind": "ridge", "decoys": 0}}
    run.execute(config.from_dict(values, base=folder), folder / "linear", graph.STEPS, until="encoder")
    np.testing.assert_array_equal(
        artifacts.load(out / "scores/ridge").r2, artifacts.load(folder / "linear" / "scores").r2
    )


def test_features_are_fitted_on_training_images(recordings, monkeypatch):
    seen, load = [], features.load_features

    def spy(*given, **named):
        seen.append(named["fitted_on"])
        return load(*given, **named)

    monkeypatch.setattr(features, "load_features", spy)
    folder, values = recordings
    run.execute(config.from_dict(values, base=folder), folder / "run", graph.STEPS, until="features")
    images = artifacts.read_table(folder / "run/images.tsv")
    assert set(seen[0]) == set(images["image_id"][images["split"] == "train"])


@pytest.mark.parametrize("k", [16, 50, 0.99])
def test_too_many_critical_tokens_are_an_error_before_anything_is_computed(recordings, k):
    with pytest.raises(ConfigError, match="critical tokens, but an image has 16 image-tokens"):
        execute(recordings, attribution={"k": k})
    assert not (recordings[0] / "run" / "data").exists()


def test_attributions_of_one_half_hold_in_the_other(recordings):
    """The bar never goes back: voxels, both halves against each other, and each half have parts of their own."""
    shares = []

    class Recorder(Reporter):
        @contextlib.contextmanager
        def task(self, name):
            yield lambda done, total: shares.append(done / total) if name == "attribution" else None

    table = artifacts.read_table(
        execute(recordings, until="attribution", reporter=Recorder()) / "attribution/voxels.tsv"
    )
    assert (table["faithfulness"] > 0).all() and table["faithfulness_of_halves"].notna().all()
    assert shares == sorted(shares) and shares[-1] == 1 and len(set(shares)) >= 4


def test_random_images_are_the_same_for_all_voxels(recordings):
    recordings[1]["attribution"] = {"images": "random", "n_images": 7, "k": 4}
    pairs = artifacts.read_table(execute(recordings, until="attribution") / "attribution/pairs.tsv")
    assert pairs.groupby("voxel_id")["image_id"].agg(tuple).nunique() == 1 and len(pairs) == 3 * 7


def test_permuted_responses_are_not_predicted_and_a_colleague_would_say_what_is_odd(recordings):
    """F-14: the shuffled control."""
    out = execute(recordings, until="encoder", data={"permute": True})
    assert artifacts.read_table(out / "voxels.tsv")["r2"].mean() <= 0.05
    stages = json.loads((out / "run.json").read_text(encoding="utf-8"))["stages"]
    counts, fitted = stages["data"]["summary"], stages["encoder"]["summary"]
    assert counts["warning"].startswith(f"only {counts['test']} test images")
    assert ("worse than ridge" in fitted.get("warning", "")) == (
        round(fitted["mean_r2"], 3) < round(fitted["mean_r2_ridge"], 3)
    )


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (lambda f: (f / "responses.npy").unlink(), MissingInputError, "responses.npy"),
        (lambda f: truncate(f / "responses.npy"), IntegrityError, "responses.npy"),
        (lambda f: truncate(f / "tokens.npy"), (IntegrityError, DataError), "tokens.npy"),
        (lambda f: (f / "ids.txt").write_text("a\nb\n"), (AlignmentError, DataError), "120"),
        (lambda f: np.save(f / "responses.npy", np.full((120, 3), "x")), DataError, "real numbers"),
    ],
)
def test_bad_input_gives_one_named_error_and_leaves_nothing_half_written(recordings, damage, error, words):
    damage(recordings[0])
    with pytest.raises(error, match=re.escape(words)):
        execute(recordings)
    assert not [p for p in (recordings[0] / "run").rglob("*") if p.name.endswith(".tmp")]
