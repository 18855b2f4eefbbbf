"""The table of families: sizes agree with published counts, with whole models, and with the tested release."""

import inspect
import json
import re
from pathlib import Path

import jax
import pytest

from mine_jax import cli
from mine_jax.config import from_dict, keys
from mine_jax.features import backbones, family_of, usual_model
from mine_jax.features.families import table
from mine_jax.features.families.registry import FAMILIES, TESTED_TRANSFORMERS
from mine_jax.features.families.usual import USUAL
from mine_jax.features.ports.untrained import untrained_backbone

ROOT = Path(__file__).parents[3]
# parameters as the hub counts them in the safetensors of these checkpoints
PUBLISHED = {
    "openai/clip-vit-base-patch32": 151_277_313,
    "openai/clip-vit-large-patch14": 427_616_513,
    "openai/clip-vit-large-patch14-336": 427_944_193,
    "google/siglip-base-patch16-224": 203_155_970,
    # of the first the head is the embedding; that of the second is read by the lens alone
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656 - 152064 * 3584,
}
TINY = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4}
TINY_VISION = {**TINY, "image_size": 32, "patch_size": 8}
TINY_TEXT = {**TINY, "vocab_size": 30}
MODELS = {
    "clip": {"model_type": "clip", "vision_config": TINY_VISION, "text_config": TINY_TEXT},
    "siglip": {"model_type": "siglip", "vision_config": TINY_VISION, "text_config": TINY_TEXT},
    "siglip_naflex": {"model_type": "siglip2", "vision_config": TINY_VISION, "text_config": TINY_TEXT},
    # one of its three layers is in the head
    "dinotxt": {
        "model_type": "dinotxt",
        "vision_config": {**TINY_VISION, "num_hidden_layers": 2, "num_head_layers": 1},
        "text_config": TINY_TEXT,
    },
    "llava_onevision": {
        "model_type": "llava_onevision",
        "vision_config": {"model_type": "siglip_vision_model", **TINY_VISION},
        "text_config": {**TINY_TEXT, "model_type": "qwen2", "num_key_value_heads": 2},
    },
    "llava": {"model_type": "llava", "vision_config": TINY_VISION, "text_config": {**TINY_TEXT, "model_type": "llama"}},
    "qwen2_5_vl": {
        "model_type": "qwen2_5_vl",
        "vision_config": {
            **{"depth": 3, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 24},
            **{"patch_size": 4, "window_size": 16},
        },
        "text_config": {**TINY_TEXT, "num_key_value_heads": 2, "rope_parameters": {"mrope_section": [1, 1, 1]}},
    },
}


@pytest.fixture(scope="module")
def listed():
    return backbones().set_index("model")


def test_sizes_are_those_that_were_published(listed):
    assert {name: listed.loc[name, "parameters"] for name in PUBLISHED} == PUBLISHED
    # the whole of LLaVA 1.5 7B but its head and the last block of its tower, which are not loaded
    head, block = 32064 * 4096, 12 * 1024**2 + 13 * 1024
    unused = head + block + 2 * 1024
    assert listed.loc["llava-hf/llava-1.5-7b-hf", "parameters"] == pytest.approx(7_063_427_072 - unused, abs=5000)
    assert listed.loc["google/siglip-so400m-patch14-384", "grid"] == (27, 27)


def test_a_configuration_names_a_usual_model_or_has_one_of_its_kind(listed):
    def usual(**settings):
        return usual_model(from_dict({"features": settings}).features)

    for model, row in listed.iterrows():
        assert usual(kind=row["kind"], model=f"models/{model}")[:2] == (model, True)
    for kind in FAMILIES:
        one = usual(kind=kind, model="mine")
        assert not one.is_named and listed.loc[one.model, "kind"] == kind
        assert one.weights_bytes == listed.loc[one.model, "float32_bytes"]
    one = usual(kind="qwen2_5_vl", grid=[18, 24], reduce=512, weights="bfloat16")
    assert (one.n_tokens, one.width) == (18 * 24, 512)
    assert one.weights_bytes == listed.loc[one.model, "bfloat16_bytes"]


@pytest.mark.parametrize("kind", MODELS)
def test_sizes_are_those_of_the_whole_model(kind, key):
    sizes = table._sizes(MODELS[kind])
    for weights in ("float32", "bfloat16"):
        model = untrained_backbone(MODELS[kind], key=key, weights=weights)
        leaves = jax.tree.leaves(model.params)
        assert sizes["parameters"] == sum(leaf.size for leaf in leaves)
        assert sizes[f"{weights}_bytes"] == sum(leaf.nbytes for leaf in leaves)
    assert (sizes["layers"], sizes["grid"], sizes["width"]) == (3, model.grid, 24)


def test_the_tested_release_is_the_locked_one():
    locked = re.search(r"^transformers==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert locked[1] == TESTED_TRANSFORMERS


@pytest.mark.parametrize("kind", FAMILIES)
def test_options_are_keys_and_arguments(kind):
    family = FAMILIES[kind]
    taken = set(inspect.signature(family.port.load).parameters) - {"directory", "precision", "mesh"}
    assert taken == set(family.options) <= set(keys.kinds("features")[kind].model_fields)


@pytest.mark.parametrize("name", USUAL)
def test_checkpoints_are_recognized(name, tmp_path, listed):
    (tmp_path / "config.json").write_text(json.dumps(USUAL[name]))
    assert family_of(tmp_path) == listed.loc[name, "kind"]


def test_a_model_of_another_family_is_not(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llava_next_video"}')
    assert family_of(tmp_path) is None


def test_command(capsys, monkeypatch, tmp_path, listed):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--openai--clip-vit-base-patch32" / "snapshots" / ("a" * 40)).mkdir(parents=True)
    # the sizes are tested above
    monkeypatch.setattr(table, "backbones", listed.reset_index)
    cli.backbones()
    text = capsys.readouterr().out
    assert all(f'kind = "{kind}"' in text for kind in FAMILIES) and TESTED_TRANSFORMERS in text
    assert f'revision = "{"a" * 40}"  # in the local cache' in text
    assert re.search(r"siglip +google/siglip-base-patch16-224 +12 +768 +196 \(14 x 14\) +203 M +775.0 MiB", text)
    assert max(map(len, text.splitlines())) <= 120
