"""The chain on arrays gives what a run on the same arrays gives, and finds what was planted."""

import numpy as np
import pytest

import mine_jax
from mine_jax import artifacts, config, pipeline, run
from mine_jax.errors import ConfigError, DataError
from mine_jax.run import files, graph
from mine_jax.types import ImageTokens, Lens, Responses

N, P, D, V = 240, 16, 12, 8
WORDS = ["dog", "cat", "car", "tree", "house", "face", "boat", "chair", "apple", "road", "bird", "cloud"]
SETTINGS = {
    "encoder": {"epochs": 3, "width": 12, "position_order": 0, "reference": False},
    "attribution": {"k": 2, "n_images": 24},
    "profile": {"n_permutations": 400},
}


@pytest.fixture(scope="module")
def planted():
    """Tokens of one concept each, one word for each concept, and voxels that count the tokens of theirs."""
    rng = np.random.default_rng(3)
    shown = rng.integers(0, D, (N, 3))
    concept = np.take_along_axis(shown, rng.integers(0, 3, (N, P)), 1)
    tokens = (3 * np.eye(D)[concept] + 0.3 * rng.standard_normal((N, P, D))).astype(np.float32)
    counts = np.stack([(concept == v).mean(1) for v in range(V - 2)], 1)
    signal = np.concatenate([counts / counts.std(0), np.zeros((N, 2))], 1)
    responses = signal + 0.7 * rng.standard_normal((N, V))
    responses = ((responses - responses.mean(0)) / responses.std(0)).astype(np.float32)
    lens = Lens(np.array(WORDS), np.eye(D, dtype=np.float32), np.zeros(D, np.float32))
    return tokens, responses, lens


@pytest.fixture(scope="module")
def verdicts(planted):
    return pipeline.describe(*planted, test=0.25, settings=SETTINGS)


def test_planted_words_are_found_and_noise_has_none(verdicts):
    table = verdicts.table.set_index("voxel_id")
    assert table.loc[: V - 3, "explained"].eq("true").mean() > 0.6
    assert table.loc[V - 2 :, "explained"].eq("false").all()
    firsts = verdicts.words.query("rank == 1").set_index("voxel_id")
    explained = table.index[table["explained"] == "true"]
    assert firsts.loc[explained, "word"].tolist() == [WORDS[v] for v in explained]
    assert (firsts["low"] <= firsts["weight"]).all() and (firsts["weight"] <= firsts["high"]).all()
    text = repr(verdicts)
    assert f"Verdicts: {V} voxels, 180 training and 60 test images" in text
    assert "no photos" in text and "no `grid`" in text and len(text.splitlines()) < 12


def test_a_run_on_the_same_arrays_claims_the_same(planted, verdicts, tmp_path):
    tokens, responses, lens = planted
    for name, array in (("tokens", tokens), ("responses", responses), ("unembedding", lens.unembedding)):
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "ids.txt").write_text("\n".join(map(str, range(N))), encoding="utf-8")
    (tmp_path / "words.txt").write_text("\n".join(WORDS), encoding="utf-8")
    sections = {
        "data": {"kind": "folder", "responses": "responses.npy", "image_ids": "ids.txt", "zscore": "none"}
        | {"test": 0.25},
        "features": {"kind": "precomputed", "tokens": "tokens.npy", "token_image_ids": "ids.txt"}
        | {"unembedding": "unembedding.npy", "words": "words.txt"},
    }
    run.execute(
        config.from_dict({**sections, **SETTINGS}, base=tmp_path), tmp_path / "run", graph.STEPS, until="profile"
    )
    ours, theirs = verdicts.table, artifacts.read_table(tmp_path / "run" / "voxels.tsv")
    assert ours["claim"].nunique() > 1
    for column in ("claim", "reason", "status", "words"):
        assert ours[column].tolist() == theirs[column].tolist()
    assert ((ours["words"] != "") == (ours["explained"] == "true")).all() and (ours["words"] != "").any()
    np.testing.assert_allclose(ours["r2"], theirs["r2"], atol=1e-5)
    profiles = files.load_profiles(tmp_path / "run")
    for claim, q in verdicts.profiles.q_values.items():
        np.testing.assert_allclose(q, profiles.q_values[claim], atol=1e-9)
        np.testing.assert_allclose(verdicts.profiles.effects[claim], profiles.effects[claim], atol=1e-5)
    np.testing.assert_array_equal(verdicts.profiles.word_ids, profiles.word_ids)
    np.testing.assert_array_equal(verdicts.decoys.claims, files.load_profiles(tmp_path / "run", decoys=True).claims)


def test_types_are_joined_by_image_id_and_test_images_may_be_named(planted):
    """No voxel passes the gate, so this costs one fit."""
    tokens, responses, lens = planted
    ids = np.array([f"photo{i}" for i in range(N)])
    held = ids[::5]
    shuffled = np.random.default_rng(0).permutation(N)
    quick = {"encoder": {"kind": "ridge", "decoys": 0, "halves": False}, "attribution": {"k": 2, "min_r2": 0.999}}
    found = mine_jax.pipeline.describe(
        ImageTokens.from_array(tokens[shuffled], image_ids=ids[shuffled]),
        Responses.from_array(responses, image_ids=ids),
        lens,
        test=held,
        grid=(4, 4),
        settings=quick,
    )
    assert found.scores.n_test == len(held) and found.scores.r2[: V - 2].mean() > 0.2
    assert found.profiles is None and found.words.empty
    assert set(found.table["reason"]) == {"not profiled"} and "no `grid`" not in repr(found)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"Y": np.zeros((5, 2))}, DataError, "`X` has 240 images, but `Y` has 5"),
        ({"settings": {"data": {"test": 0.3}}}, ConfigError, "but has data"),
        ({"settings": {"epochs": 1}}, ConfigError, "epochs outside of any section"),
        ({"lens": None}, DataError, "`lens` must be Lens, but is NoneType"),
        ({"lens": Lens(np.array(["7", "x"]), np.eye(2), np.zeros(2))}, DataError, "none of the 2 entries"),
        ({"grid": 4}, DataError, r"`grid` must be \(rows, columns\), but is 4"),
        ({"settings": {"encoder": {"epoch": 3}}}, ConfigError, "Did you mean 'epochs'"),
        ({"test": ["7", "x7"]}, DataError, "1 images without responses, first x7"),
    ],
)
def test_message(planted, changed, error, message):
    given = dict(zip(("X", "Y", "lens"), planted, strict=True)) | changed
    with pytest.raises(error, match=message):
        pipeline.describe(given.pop("X"), given.pop("Y"), given.pop("lens"), **given)
