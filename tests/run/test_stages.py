"""The whole job on a small phantom, from the command line's entry point to the files of the contract."""

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import mine_jax
from mine_jax import artifacts, config, data, encoder, features, run
from mine_jax.errors import AlignmentError, CheckpointError, ConfigError, DataError, IntegrityError, MissingInputError
from mine_jax.phantom.write_nsd import write_phantom
from mine_jax.run import demo, files, graph, queries
from mine_jax.run.recovery import truth
from mine_jax.run.reporter import Reporter
from mine_jax.run.stages import report

ROOT = Path(__file__).parent.parent.parent
SMALL = {
    "encoder": {"epochs": 3},
    "attribution": {"n_images": 24},
    "profile": {"n_permutations": 200},
    "validation": {"n_pairs": 24, "n_permutations": 1000},
    "roi": {"n_permutations": 200},
}
FILES = {
    "images.tsv": ["image_id", "split", "n_repeats"],
    "voxels.tsv": ["voxel_id", "i", "j", "k", "rois", "ncsnr", "noise_ceiling", "r2", "r", "r2_normalized", "n_train"],
    "attribution/pairs.tsv": ["voxel_id", "image_id", "predicted", "predicted_baseline", "completeness_gap"],
    "attribution/curves.tsv": ["kind", "order", "k", "relative_performance", "low", "high", "n_voxels"],
    "description/words.tsv": ["voxel_id", "image_id", "rank", "word", "weight", "n_tokens"],
    "description/sentences.tsv": ["voxel_id", "image_id", "sentence"],
    "profile/words.tsv": ["voxel_id", "rank", "word", "weight", "low", "high", "log_odds"],
    "profile/sentences.tsv": ["voxel_id", "sentence"],
    "profile/voxels.tsv": [
        "voxel_id",
        "n_images",
        "reliability",
        "effect_words",
        "p_words",
        "q_predicted",
        "r_measured",
    ],
    "profile/ledger.tsv": ["voxel_id", "word", "r", "confound", "r_given", "p", "q", "survives"],
    "profile/drivers.tsv": ["voxel_id", "role", "word", "r", "p", "q"],
    "profile/conjunctions.tsv": ["voxel_id", "first", "second", "r", "p", "q"],
    "profile/field.tsv": ["voxel_id", "x", "y", "size", "p", "q"],
    "profile/decoys.tsv": ["voxel_id", "reliability", "p_words", "q_words", "claim"],
    "roi/selectivity.tsv": ["roi", "category", "enrichment", "low", "high", "p", "q"],
    "roi/structure.tsv": ["roi", "n_voxels", "between_distance", "noise_distance", "n_clusters", "cluster_stability"],
    "roi/contrasts.tsv": ["roi", "other", "word", "log_odds", "p", "q"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished small run: (configuration, run directory, phantom)."""
    folder = tmp_path_factory.mktemp("small")
    root = folder / "phantom"
    write_phantom(root, subjects=("subj01",), n_images=500, n_shared=100, shape=(12, 12, 10))
    made = config.from_dict({**demo.configuration(root, "subj01").model_dump(exclude_unset=True), **_merged(root)})
    run.execute(made, folder / "run", graph.STEPS)
    return made, folder / "run", root


def _merged(root):
    base = demo.configuration(root, "subj01").model_dump(exclude_unset=True)
    return {section: {**base.get(section, {}), **values} for section, values in SMALL.items()}


@pytest.mark.parametrize("name", FILES)
def test_tables_have_the_columns_of_the_contract(finished, name):
    table = artifacts.read_table(finished[1] / name)
    assert set(FILES[name]) <= set(table.columns) and len(table)


def test_other_files_of_the_contract_are_there(finished):
    _, out, _ = finished
    pairs = artifacts.read_table(out / "attribution/pairs.tsv")
    tokens, scores = (np.load(out / "attribution" / name) for name in ("tokens.npy", "scores.npy"))
    assert tokens.shape == scores.shape == (len(pairs), 8) and tokens.dtype == np.int32 and scores.dtype == np.float32
    assert (np.diff(scores, axis=1) <= 0).all()
    assert {p.name for p in (out / "maps").glob("*.nii.gz")} >= {"r2.nii.gz", "r2_normalized.nii.gz"}
    assert "<html" in (out / "report.html").read_text(encoding="utf-8")
    manifest = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert {stage["state"] for stage in manifest["stages"].values()} == {"done"}


def test_every_file_of_a_run_belongs_to_a_stage(finished):
    _, out, _ = finished
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert not {name for name in there - set(record["files"]) if not name.startswith(("run.json", "truth"))}


def test_the_phantom_is_recovered_and_noise_is_not_explained(finished):
    _, out, _ = finished
    print_ready = truth(out)
    table = pd.read_csv(out / "truth.tsv", sep="\t").set_index("metric")
    # 500 images instead of 2,500: weaker than the demo, far above chance (1 of 58 concepts)
    assert table.loc["planted word is the profile's first", "value"] > 0.5
    assert table.loc["image shows the concept: first word is right", "value"] > 0.6
    assert table.loc["control: the same from random tokens", "value"] < 0.45
    assert table.loc["noise voxels with q <= .05 at `words`", "value"] <= 0.05
    assert table.loc["constant or invalid voxels claimed to have words", "value"] == 0
    assert "Recovery of the planted truth" in print_ready


def test_an_opened_run_has_its_tables_and_predicts_photos(finished, tmp_path):
    made, out, _ = finished
    opened = mine_jax.open_run(out)
    pd.testing.assert_frame_equal(opened.voxels, artifacts.read_table(out / "voxels.tsv"))
    assert {"voxels", "profile/words", "roi/selectivity"} <= set(opened.tables)
    with pytest.raises(MissingInputError, match="no table 'voxel'; it has"):
        opened.table("voxel")
    stimuli, tokens = data.open_stimuli(made.data), files.load_tokens(out)
    ids = stimuli.image_ids[[3, 10, 30, 200]]
    photos = stimuli.read(ids)
    rows = [tokens.image_ids.tolist().index(name) for name in ids]
    encoders = opened.encoders.take(np.flatnonzero(np.asarray(opened.encoders.status) == 0))
    expected = encoder.predict(encoders, tokens.take_images(np.array(rows)))
    predicted = opened.predict(photos)
    np.testing.assert_array_equal(predicted.columns, encoders.voxel_ids)
    np.testing.assert_allclose(predicted.to_numpy(), expected, atol=1e-3 * np.abs(expected).max())
    (tmp_path / "photos").mkdir()
    for name, photo in zip(ids, photos, strict=True):
        PIL.Image.fromarray(photo).save(tmp_path / "photos" / f"{name}.png")
    voxel = int(encoders.voxel_ids[5])
    again = opened.predict(tmp_path / "photos", voxels=[voxel]).loc[[str(name) for name in ids], voxel]
    np.testing.assert_allclose(again, predicted[voxel], atol=1e-5)
    one = opened.predict(tmp_path / "photos" / f"{ids[0]}.png")[voxel]
    assert np.allclose(one, again.iloc[0], atol=1e-5) and one.index.tolist() == [str(ids[0])]
    with pytest.raises(DataError, match=f"two photos are called '{ids[0]}'"):
        opened.predict([tmp_path / "photos" / f"{ids[0]}.png", tmp_path / "photos"])
    with pytest.raises(DataError, match="no voxel 999999999"):
        opened.predict(photos, voxels=[999999999])
    words = opened.explain(photos[0], voxel=voxel)
    assert len(words) and set(words["word"]) <= set(files.load_descriptions(out).words)


def test_a_published_folder_predicts_without_the_run(finished, tmp_path):
    made, out, root = finished
    photo, folder = tmp_path / "photo.png", tmp_path / "published"
    PIL.Image.fromarray(data.open_stimuli(made.data).read(["7"])[0]).save(photo)
    opened = mine_jax.open_run(out)
    explained = opened.profiles.voxel_ids[opened.profiles.explained]
    expected, words = opened.predict(photo), opened.explain(photo, voxel=explained[0])
    mine_jax.publish(out, folder)
    with pytest.raises(ConfigError, match="is not empty"):
        mine_jax.publish(out, folder)
    moved = out.parent / "moved"
    out.rename(moved)
    try:
        code = (
            "import sys, numpy as np, mine_jax as mine\n"
            "model = mine.load(sys.argv[1])\n"
            "np.save(sys.argv[3], model.predict(sys.argv[2]).to_numpy())\n"
            "model.explain(sys.argv[2], voxel=int(sys.argv[4])).to_json(sys.argv[5])\n"
            "assert model.attribute(sys.argv[2], voxels=[int(sys.argv[4])]).scores.shape == (1, 1, 64)\n"
        )
        found = [tmp_path / "predicted.npy", tmp_path / "words.json"]
        arguments = [folder, photo, found[0], int(explained[0]), found[1]]
        subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)
    finally:
        moved.rename(out)
    np.testing.assert_array_equal(np.load(found[0]), expected.to_numpy())
    assert pd.read_json(found[1])["word"].tolist() == words["word"].tolist()
    published = mine_jax.load(folder)
    pd.testing.assert_frame_equal(published.voxels, opened.voxels)
    assert set(published.profiles["voxel_id"]) <= set(opened.profiles.voxel_ids)
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for private in (str(root), str(out), str(out.parent.parent), str(Path.home()) + "/", "photo.png", "subj01"):
        assert private.encode() not in content
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "config.json", "model.safetensors", "profiles.tsv", "voxels.tsv")
    }
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="differs from the sha256"):
        _ = mine_jax.load(folder).encoders


def test_a_plan_in_a_fresh_directory_knows_the_sizes_of_the_run(finished, tmp_path):
    """From the design, the areas and the model's configuration; nothing is written."""
    made, out, _ = finished
    tokens = artifacts.read_json(out / "features" / "meta.json")["shape"]
    n_images, n_voxels = artifacts.load(out / "data").responses.shape
    lines = run.plan(made, tmp_path / "new", graph.STEPS)
    assert any(line.strip().startswith(f"{n_voxels} voxels, {n_images} images") for line in lines)
    assert any(f"image-tokens {tokens}" in line for line in lines)
    assert not any(files.UNKNOWN in line for line in lines) and not (tmp_path / "new").exists()
    to_be_written = {**made.data.model_dump(), "root": None, "n_images": 500, "n_shared": 100, "shape": (12, 12, 10)}
    fresh = made.model_copy(update={"data": config.PhantomConfig(**to_be_written)})
    assert run.plan(fresh, tmp_path / "new", graph.STEPS)[-12:] == lines[-12:]
    assert files.responses_shape(fresh, tmp_path / "new") == (n_images, n_voxels)
    areas = fresh.model_copy(update={"data": fresh.data.model_copy(update={"roi": ("FFA-1", "food")})})
    assert files.responses_shape(areas, tmp_path) == data.expected_shape(
        made.data.model_copy(update={"roi": ("FFA-1", "food")})
    )
    unknown = made.model_copy(update={"data": config.NsdConfig(root=str(tmp_path))})
    assert any(files.UNKNOWN in line for line in run.plan(unknown, tmp_path / "new", graph.STEPS))


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("voxels.tsv", ("truth", "figures", "publish")),
        ("attribution/tokens.npy", ("truth", "figures")),
        ("description/corpus.npy", ("truth", "query", "publish")),
        ("roi/selectivity.tsv", ("truth", "figures", "subjects")),
    ],
)
def test_commands_answer_from_no_file_that_was_edited(finished, tmp_path, name, commands):
    """One digit is enough; the other commands do not read it."""
    _, out, _ = finished
    answers = {
        "truth": lambda: truth(out),
        "figures": lambda: report.draw_figures(out, tmp_path / "figures", kind="png"),
        "query": lambda: queries.query(out, "cat"),
        "subjects": lambda: queries.subjects(out.parent),
        "publish": lambda: mine_jax.publish(out, tmp_path / "published"),
    }
    path = out / name
    content = path.read_bytes()
    position = max(content.rfind(digit) for digit in b"13579") if name.endswith(".tsv") else len(content) - 2
    path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    try:
        for command in commands:
            with pytest.raises(IntegrityError, match=f"{re.escape(name)}.*(is damaged or was edited|differs)"):
                answers[command]()
    finally:
        path.write_bytes(content)


def test_a_second_run_skips_every_stage(finished):
    made, out, _ = finished
    assert run.execute(made, out, graph.STEPS, resume=True)["ran"] == []


def test_encoders_load_back_and_predict_the_same(finished):
    _, out, _ = finished
    loaded = artifacts.load(out / "encoder")
    pairs = artifacts.read_table(out / "attribution/pairs.tsv").iloc[:5]
    tokens = features.open_store(out / "features")
    predicted = encoder.predict(loaded, tokens)
    for row in pairs.itertuples():
        image = np.flatnonzero(tokens.image_ids == row.image_id)[0]
        voxel = np.flatnonzero(loaded.voxel_ids == row.voxel_id)[0]
        assert predicted[image, voxel] == pytest.approx(row.predicted, abs=1e-4)


def test_critical_tokens_hurt_more_than_random_ones(finished):
    table = artifacts.read_table(finished[1] / "attribution/voxels.tsv")
    good = table[table["r2"] > 0.2]
    assert len(good) > 50 and (good["left_without_ig"] < good["left_without_random"]).mean() > 0.95


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
    assert ("worse than ridge" in fitted.get("warning", "")) == (fitted["mean_r2"] < fitted["mean_r2_ridge"])


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


def test_demo_and_configs_phantom_toml_agree(tmp_path):
    from_file = config.read(ROOT / "configs" / "phantom.toml")
    made = demo.configuration(Path(from_file.data.root), "subj01")
    assert made == from_file
