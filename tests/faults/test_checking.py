"""F-95: `mine-jax check` opens everything that a run will read."""

import re

import numpy as np
import pytest
import safetensors.numpy

from mine_jax import config, errors
from mine_jax.run import execute, graph
from mine_jax.run.checks import inputs
from mine_jax.run.execute import plan

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    tokens = RNG.standard_normal((60, 4, 3)).astype(np.float32)
    np.save(tmp_path / "tokens.npy", tokens)
    np.save(tmp_path / "responses.npy", RNG.standard_normal((60, 2)).astype(np.float32))
    np.save(tmp_path / "unembedding.npy", RNG.standard_normal((2, 3)).astype(np.float32))
    (tmp_path / "words.txt").write_text("cat\ndog\n")
    (tmp_path / "ids.txt").write_text("".join(f"im{i:03d}\n" for i in range(60)))
    return tmp_path


def configured(folder, **given):
    values = {
        "data": {"responses": "responses.npy", "image_ids": "ids.txt", "test": 0.25},
        "features": {
            **{"kind": "precomputed", "tokens": "tokens.npy", "token_image_ids": "ids.txt", "grid": [2, 2]},
            **{"unembedding": "unembedding.npy", "words": "words.txt"},
        },
        "attribution": {"k": 2},
    }
    for section, changes in given.items():
        is_other = "kind" in changes
        values[section] = changes if is_other else {**values.get(section, {}), **changes}
    return config.from_dict(values, base=folder)


def checked(folder, **given):
    return inputs.check(configured(folder, **given))


def test_what_is_right_is_said(folder):
    assert any("60 images x 4 tokens x 3, 2 words" in finding for finding in checked(folder))


def test_other_ids_of_tokens_are_named(folder):
    (folder / "others.txt").write_text("".join(f"x{i:03d}\n" for i in range(60)))
    with pytest.raises(errors.AlignmentError, match="have responses but no tokens"):
        checked(folder, features={"token_image_ids": "others.txt"})


@pytest.mark.parametrize(
    ("section", "changes", "error", "words"),
    [
        ("features", {"tokens": "no.npy"}, errors.MissingInputError, "no.npy"),
        ("features", {"grid": [3, 2]}, errors.DataError, "6 positions"),
        ("features", {"words": "no.txt"}, errors.MissingInputError, "no.txt"),
        ("features", {"unembedding": "no.npy"}, errors.MissingInputError, "no.npy"),
        ("features", {"kind": "clip", "model": "no-model"}, errors.MissingInputError, "no-model"),
        ("attribution", {"k": 4}, errors.ConfigError, "4 image-tokens"),
        ("validation", {"generator": "no-pipeline"}, errors.MissingInputError, "no-pipeline"),
        ("validation", {"editor": "no-pipeline"}, errors.MissingInputError, "no-pipeline"),
        ("validation", {"evaluator": "clip:no-judge"}, errors.MissingInputError, "no-judge"),
    ],
)
def test_what_is_wrong_is_named(folder, section, changes, error, words):
    with pytest.raises(error, match=words):
        checked(folder, **{section: changes})


@pytest.mark.parametrize(
    ("section", "changes", "error", "words"),
    [
        ("features", {"tokens": "no.npy", "words": "no.txt"}, errors.MissingInputError, "no.npy.*no.txt"),
        ("features", {"kind": "clip", "model": "no-model"}, errors.MissingInputError, "no-model"),
        ("features", {"kind": "clip"}, errors.ConfigError, "must be a checkpoint directory"),
        ("attribution", {"k": 4}, errors.ConfigError, "4 image-tokens"),
        ("validation", {"generator": "no-pipeline"}, errors.MissingInputError, "no-pipeline"),
    ],
)
def test_plans_say_what_would_stop_a_run_and_runs_stop_before_the_first_stage(folder, section, changes, error, words):
    settings = configured(folder, **{section: changes})
    (line,) = [line for line in plan(settings, folder / "run", graph.STEPS) if "would stop" in line]
    assert re.search(words, line)
    with pytest.raises(error, match=words):
        execute(settings, folder / "run", graph.STEPS)
    assert not (folder / "run" / "images.tsv").exists()


def test_models_of_images_that_precomputed_features_cannot_read_are_said_to_be_unused(folder):
    found = checked(folder, validation={"editor": "oracle"})
    assert any(line.startswith("warning: not used: precomputed features: no model here") for line in found)
    assert not any("not used" in line for line in checked(folder))


def test_the_exact_editor_needs_a_phantom(folder):
    model = {"features": {"kind": "clip", "model": "phantom"}, "validation": {"editor": "oracle"}}
    (line,) = [line for line in plan(configured(folder, **model), folder, graph.STEPS) if "would stop" in line]
    assert "the data are no phantom" in line
    with pytest.raises(errors.ConfigError, match="the data are no phantom"):
        checked(folder, **model)


def test_all_problems_are_named_at_once(folder):
    """F-95: all at once."""
    with pytest.raises(errors.MissingInputError) as raised:
        checked(folder, features={"tokens": "no.npy"}, validation={"editor": "no-pipeline"})
    assert "no.npy" in str(raised.value) and "no-pipeline" in str(raised.value)


def test_checkpoint_with_other_tensors_is_named(folder):
    import importlib.resources
    import shutil

    source = importlib.resources.files("mine_jax") / "phantom" / "weights" / "clip"
    shutil.copytree(str(source), folder / "model")
    for path in (folder / "model").glob("weights.sha256"):
        path.unlink()
    for path in (folder / "model").glob("*.safetensors"):
        tensors = safetensors.numpy.load_file(path)
        tensors.pop(next(iter(tensors)))
        safetensors.numpy.save_file(tensors, path)
    with pytest.raises(errors.WeightsError, match="1 missing"):
        checked(folder, features={"kind": "clip", "model": "model"})


def test_a_checkpoint_without_its_tokenizer_reads_no_words(folder):
    import importlib.resources
    import shutil

    source, model = importlib.resources.files("mine_jax") / "phantom" / "weights" / "clip", folder / "model"
    shutil.copytree(str(source), model)
    for path in model.glob("*token*"):
        path.unlink()
    given = {"features": {"kind": "clip", "model": "model"}, "attribution": {"k": 4}}
    # lens.json asks for words
    with pytest.raises(errors.WeightsError, match="tokenizer"):
        checked(folder, **given)
    (model / "lens.json").unlink()
    (warning,) = [finding for finding in checked(folder, **given) if "no lens" in finding]
    assert warning.startswith("warning: ") and "tokenizer" in warning


def test_phantom_that_is_not_written_yet_is_no_error():
    found = inputs.check(config.from_dict({"data": {"kind": "phantom"}, "features": {"model": "phantom"}}))
    assert "writes it" in found[0] and any("tokens x" in finding for finding in found)
