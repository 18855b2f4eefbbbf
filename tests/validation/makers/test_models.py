"""The generator and editor of a configuration."""

import pytest

from mine_jax import artifacts, config
from mine_jax.errors import ConfigError, MissingInputError
from mine_jax.validation import simulated
from mine_jax.validation.makers import models


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
    editor = models.choose(config.ValidationConfig(editor=str(tmp_path)))["editor"]
    assert editor.templates["remove"] == "an empty room" and editor.templates["insert"] == "a photo of {words}"
    artifacts.write_json(tmp_path / "prompts.json", {"delete": "x"})
    with pytest.raises(ConfigError, match=r"prompts\.json"):
        models.choose(config.ValidationConfig(editor=str(tmp_path)))


def test_a_model_that_takes_masks_is_tried_with_true_ones_too(known):
    truth = simulated.Truth(known, None)
    fill = models.choose(config.ValidationConfig(editor="fill"))["editor"]
    names = [(model.name, model.true_masks, model.exact) for model in models.with_exact(fill, "editor", truth)]
    assert names == [("fill", False, False), ("fill (true masks)", True, False), ("oracle", False, True)]
    # data without a truth have no true masks
    assert models.with_exact(fill, "editor", None) == (fill,)
