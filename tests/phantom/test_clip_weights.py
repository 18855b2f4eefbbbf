"""The phantom's two CLIPs: of one size, one vocabulary and one architecture; one was trained on captions alone."""

import json
from pathlib import Path

import numpy as np
import pytest

import mine_jax.phantom
from mine_jax import config, features
from mine_jax.config import ClipConfig
from mine_jax.phantom import scenes
from mine_jax.types import ImageTokens

WEIGHTS = Path(mine_jax.phantom.__file__).parent / "weights"
FOLDERS = {"phantom": "clip", "phantom-captions": "clip-captions"}
SEED = 990_070
# Of 200 captions; one would be right by chance in 200 of them.
LEAST_RETRIEVAL = {"phantom": 0.97, "phantom-captions": 0.9}


def read(model, name):
    return json.loads((WEIGHTS / FOLDERS[model] / name).read_text(encoding="utf-8"))


def test_the_second_differs_in_training_alone():
    assert read("phantom", "config.json") == read("phantom-captions", "config.json")
    lenses = [read(model, "lens.json") for model in FOLDERS]
    assert lenses[0]["words"] == lenses[1]["words"] == list(scenes.VOCABULARY)
    assert lenses[0]["templates"] == lenses[1]["templates"]
    assert read("phantom-captions", "training.json")["loss"] == "captions"
    sizes = [(WEIGHTS / folder / "model.safetensors").stat().st_size for folder in FOLDERS.values()]
    assert max(sizes) < 2.6e6


def test_named_like_a_checkpoint_but_no_path(tmp_path):
    (tmp_path / "run.toml").write_text('[features]\nmodel = "phantom-captions"\ndenoise = ["position", "neighbors"]\n')
    read_config = config.read(tmp_path / "run.toml")
    assert read_config.features.model == "phantom-captions" and not config.paths(read_config.features)
    assert read_config.features.denoise == ("position", "neighbors")
    models = [features.load_backbone(ClipConfig(model=name)) for name in config.EMBEDDED_MODELS]
    assert len({model.sha256 for model in models}) == 2


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("model", FOLDERS)
def test_finds_captions(model):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    from mine_jax.phantom.training.clip import checkpoint, corpus, evaluation

    rendered = corpus.render_corpus(200, seed=SEED, with_targets=False)
    loaded = transformers.CLIPModel.from_pretrained(WEIGHTS / FOLDERS[model], dtype="float32")
    scores = evaluation.retrieval(loaded, checkpoint.build_tokenizer(), rendered)
    assert LEAST_RETRIEVAL[model] <= scores["retrieval_top1"] <= scores["retrieval_top5"]
    # captions of other scenes are not found
    images, shuffled = rendered.images, np.random.default_rng(0).permutation(200)
    images[:] = images[shuffled]
    assert evaluation.retrieval(loaded, checkpoint.build_tokenizer(), rendered)["retrieval_top1"] < 0.05


def test_values_name_their_own_thing_where_states_do_not():
    rng = np.random.default_rng(SEED)
    shown = [scenes.sample_scene(rng, n_things=(2, 2)) for _ in range(60)]
    images = [scenes.render(scene) for scene in shown]
    masks = np.stack([scenes.thing_masks(scene) for scene in shown])
    inside = masks.reshape(60, 2, 8, 8, 8, 8).mean((3, 5)).reshape(60, 2, 64) > 0.5
    own, other = {}, {}
    for kind in ("states", "values"):
        model = features.load_backbone(ClipConfig(model="phantom-captions", image_tokens=kind))
        tokens = np.asarray(model.encode(model.preprocess(images))[-1])
        words, templates = model.lens_defaults()
        lens = features.center_lens(model.lens(words, templates), ImageTokens(tokens, np.arange(60).astype(str)))
        best = np.argsort(-np.asarray(features.lens_scores(lens, tokens)), -1)[..., :5]
        concepts = np.array([[words.tolist().index(thing.concept) for thing in scene.things] for scene in shown])
        # [scene, thing named, token]
        named = (best[:, None] == concepts[:, :, None, None]).any(-1)
        own[kind], other[kind] = named[inside].mean(), named[inside[:, ::-1]].mean()
    chance = 5 / len(words)
    assert own["values"] > max(0.3, 1.1 * other["values"], 1.5 * own["states"])
    assert own["states"] < 6 * chance
