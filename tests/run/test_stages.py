"""The whole job on a small phantom, from the command line's entry point to the files of the contract."""

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
from mine_jax.errors import CheckpointError, ConfigError, DataError, IntegrityError, MissingInputError
from mine_jax.phantom.write_nsd import write_phantom
from mine_jax.run import demo, files, graph, queries
from mine_jax.run.recovery import truth
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


def test_an_opened_run_draws_the_figures_of_the_command(finished, tmp_path):
    drawn = mine_jax.open_run(finished[1]).plot(tmp_path / "plates", kind="svg")
    said = report.draw_figures(finished[1], tmp_path / "again", kind="svg")
    wrote = [line for line in said.splitlines() if line.startswith("wrote ")]
    assert [path.name for path in drawn] == [Path(line).name for line in wrote]
    assert len(drawn) > 4 and all(path.read_text().startswith("<?xml") for path in drawn)
    with pytest.raises(ConfigError, match="not as 'gif'"):
        mine_jax.open_run(finished[1]).plot(tmp_path / "plates", kind="gif")


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


def test_demo_and_configs_phantom_toml_agree(tmp_path):
    from_file = config.read(ROOT / "configs" / "phantom.toml")
    made = demo.configuration(Path(from_file.data.root), "subj01")
    assert made == from_file
