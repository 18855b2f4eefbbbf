import functools
import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from mine_jax.config import ClipConfig, PrecomputedConfig
from mine_jax.errors import ConfigError, DataError, WeightsError
from mine_jax.features import load_backbone
from mine_jax.features.ports.clip.backbone import load
from mine_jax.features.ports.clip.model import Clip

PARITY = {
    "quick_gelu, legacy end": ({"hidden_act": "quick_gelu", "eos_token_id": 2}, {"hidden_act": "quick_gelu"}),
    "gelu, more heads": (
        {"hidden_act": "gelu", "num_attention_heads": 8, "eos_token_id": 58},
        {"hidden_act": "gelu", "num_attention_heads": 6, "num_hidden_layers": 3},
    ),
    "patch that leaves a rest": (
        {"eos_token_id": 58, "layer_norm_eps": 1e-3},
        {"patch_size": 10, "num_attention_heads": 1, "layer_norm_eps": 1e-3, "hidden_act": "gelu_new"},
    ),
}


def pixels_of(config, n=2, seed=0):
    return np.random.default_rng(seed).standard_normal((n, config.image_size, config.image_size, 3)).astype(np.float32)


def torch_model(text, vision, *, seed=0):
    import torch
    import transformers

    sizes = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"hidden_size": 32, "vocab_size": 60, "max_position_embeddings": 12, "bos_token_id": 0, **sizes, **text}
    vision = {"hidden_size": 48, "image_size": 32, "patch_size": 8, **sizes, **vision}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    torch.manual_seed(seed)
    model = transformers.CLIPModel(config).eval()
    for parameter in model.parameters():
        # the initial scale of 0.02 would hide a wrong activation or a transposed square weight
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def save_torch(model, directory, *, image_size=32):
    model.save_pretrained(directory)
    processor = {"size": {"shortest_edge": image_size}, "crop_size": image_size}
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    return directory


@pytest.mark.torch
@pytest.mark.parametrize("case", PARITY)
def test_matches_torch(case, tmp_path):
    """F-49: a transposed weight would not match."""
    import torch

    model = torch_model(*PARITY[case])
    backbone = load(save_torch(model, tmp_path))
    pixels = pixels_of(backbone.config)
    end = 58 if backbone.config.text.end else 59
    ids = np.array([[0, 5, 9, 31, end, 3], [0, 7, end, 1, 1, 1], [0, 8, 2, end, end, 6]], np.int32)
    with torch.no_grad():
        image = model.vision_model(torch.tensor(pixels.transpose(0, 3, 1, 2)), output_hidden_states=True)
        text = model.text_model(torch.tensor(ids).long(), output_hidden_states=True)
        image_features = model.visual_projection(image.pooler_output).numpy()
        text_features = model.text_projection(text.pooler_output).numpy()
    with jax.numpy_rank_promotion("raise"):
        states = backbone.encode(pixels, layers=range(backbone.layers + 1))
        text_states = jax.jit(functools.partial(Clip(backbone.config).apply, method="text_states"))(
            {"params": backbone.params}, ids
        )
        ours = backbone.image_features(pixels), backbone.text_features(ids)
    assert len(image.hidden_states) == backbone.layers + 1
    for layer, expected in enumerate(image.hidden_states):
        np.testing.assert_allclose(states[layer], expected[:, 1:].numpy(), rtol=1e-5, atol=1e-5)
    assert len(text_states) == len(text.hidden_states)
    for state, expected in zip(text_states, text.hidden_states, strict=True):
        np.testing.assert_allclose(state, expected.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours[0], image_features, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours[1], text_features, rtol=1e-5, atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("case", list(PARITY)[:2])
def test_values_are_the_class_token_that_looks_at_one_token(case, tmp_path):
    import torch

    model = torch_model(*PARITY[case])
    directory = save_torch(model, tmp_path)
    backbone = load_backbone(ClipConfig(model=str(directory), image_tokens="values"))
    plain = load_backbone(ClipConfig(model=str(directory)))
    assert backbone.sha256 != plain.sha256
    pixels = pixels_of(backbone.config)
    n_tokens = backbone.grid[0] * backbone.grid[1]
    with torch.no_grad():
        hidden = model.vision_model(torch.tensor(pixels.transpose(0, 3, 1, 2)), output_hidden_states=True).hidden_states
        blocks = model.vision_model.encoder.layers
        expected = [np.empty((len(pixels), n_tokens, backbone.width)) for _ in blocks]
        for token in range(n_tokens):
            # attention of torch, in which the class token sees this one token and nothing else
            mask = torch.zeros(len(pixels), 1, 1 + n_tokens, 1 + n_tokens)
            mask[:, :, 0] = torch.finfo(torch.float32).min
            mask[:, :, 0, 1 + token] = 0
            for layer, block in enumerate(blocks):
                out = block(hidden[layer], attention_mask=mask)
                expected[layer][:, token] = (out[0] if isinstance(out, tuple) else out)[:, 0].numpy()
    with jax.numpy_rank_promotion("raise"):
        ours = backbone.encode(pixels, layers=range(backbone.layers + 1))
    np.testing.assert_array_equal(ours[0], plain.encode(pixels, layers=(0,))[0])
    for layer, wanted in enumerate(expected, start=1):
        np.testing.assert_allclose(ours[layer], wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(backbone.image_features(pixels), plain.image_features(pixels))


@pytest.mark.torch
@pytest.mark.parametrize("case", list(PARITY)[:2])
def test_bfloat16_weights(case, tmp_path):
    import copy

    import torch

    model = torch_model(*PARITY[case])
    directory = save_torch(model, tmp_path)
    full, half = (load_backbone(ClipConfig(model=str(directory), weights=w)) for w in ("float32", "bfloat16"))
    assert half.sha256 != full.sha256
    block = half.params["vision_model"]["encoder"]["layers_1"]
    assert block["self_attn"]["q_proj"]["kernel"].dtype == block["mlp"]["fc1"]["bias"].dtype == ml_dtypes.bfloat16
    assert block["layer_norm1"]["scale"].dtype == block["layer_norm1"]["bias"].dtype == np.float32
    pixels = pixels_of(full.config)
    with torch.no_grad():
        images = torch.tensor(pixels.transpose(0, 3, 1, 2)).to(torch.bfloat16)
        found = copy.deepcopy(model.vision_model).to(torch.bfloat16)(images, output_hidden_states=True)
    states, exact = (backbone.encode(pixels, layers=range(full.layers + 1)) for backbone in (half, full))
    for layer, state in enumerate(found.hidden_states):
        expected = state.float().numpy()[:, 1:]
        assert np.linalg.norm(states[layer] - expected) < 2e-2 * np.linalg.norm(expected)
        # the error of torch, whose sums and residuals are bfloat16 too, is the larger one
        assert np.linalg.norm(states[layer] - exact[layer]) < 1e-2 * np.linalg.norm(exact[layer])
    # words are read by a text tower that stays float32
    ids = np.array([[0, 5, 9, 31, 58]], np.int32)
    np.testing.assert_array_equal(half.text_features(ids), full.text_features(ids))


@pytest.mark.torch
def test_vision_only_checkpoint_with_and_without_prefix(tmp_path):
    """F-52: both namespaces."""
    import torch
    import transformers

    model = torch_model({}, {})
    alone = transformers.CLIPVisionModel(model.config.vision_config)
    alone.load_state_dict(model.vision_model.state_dict())
    bare = save_torch(alone.eval(), tmp_path / "bare")
    assert any(key.startswith("embeddings.") for key in safetensors.numpy.load_file(bare / "model.safetensors"))
    prefixed = shutil.copytree(bare, tmp_path / "prefixed")
    tensors = safetensors.numpy.load_file(bare / "model.safetensors")
    tensors = {f"vision_model.{key}": value for key, value in tensors.items()}
    tensors["vision_model.embeddings.position_ids"] = np.arange(17)[None]
    safetensors.numpy.save_file(tensors, prefixed / "model.safetensors")
    first, second = load(bare), load(prefixed)
    pixels = pixels_of(first.config)
    with torch.no_grad():
        expected = alone(torch.tensor(pixels.transpose(0, 3, 1, 2))).last_hidden_state[:, 1:].numpy()
    np.testing.assert_allclose(first.encode(pixels)[-1], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(first.encode(pixels)[-1], second.encode(pixels)[-1])
    with pytest.raises(ConfigError, match="no text tower"):
        first.lens(["cat", "dog"])


def test_one_patch_is_one_token_in_row_major_order(checkpoint):
    backbone = load(checkpoint)
    images = np.zeros((3, 32, 32, 3), np.uint8)
    images[1, 8:16, 24:32] = 255
    images[2, 24:32, 0:8] = 255
    tokens = np.asarray(backbone.encode(backbone.preprocess(list(images)), layers=(0,))[0])
    for image, (row, column) in ((1, (1, 3)), (2, (3, 0))):
        changed = np.flatnonzero(np.abs(tokens[image] - tokens[0]).max(-1) > 1e-6)
        assert changed.tolist() == [row * 4 + column]


def test_layers_and_shapes(checkpoint):
    backbone = load_backbone(ClipConfig(model=str(checkpoint)))
    assert (backbone.layers, backbone.grid, backbone.width) == (2, (4, 4), 24)
    pixels = pixels_of(backbone.config, n=3)
    states = backbone.encode(pixels, layers=(0, -1, 2, -3))
    assert {layer: state.shape for layer, state in states.items()} == dict.fromkeys((0, -1, 2, -3), (3, 16, 24))
    np.testing.assert_array_equal(states[-1], states[2])
    np.testing.assert_array_equal(states[-3], states[0])
    for layer in (3, -4):
        with pytest.raises(ConfigError, match=r"-3 to 2 .* but is"):
            backbone.encode(pixels, layers=(layer,))


def test_batch_changes_nothing(checkpoint):
    backbone = load(checkpoint)
    pixels = pixels_of(backbone.config, n=5)
    whole = np.asarray(backbone.encode(pixels)[-1])
    np.testing.assert_allclose(whole[2:4], backbone.encode(pixels[2:4])[-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_weights_are_computed_in_float32(dtype, tensors, rewrite):
    """F-53: float16 and bfloat16."""
    full = load(rewrite({key: value.astype(dtype).astype(np.float32) for key, value in tensors.items()}))
    pixels = pixels_of(full.config)
    expected = full.encode(pixels)[-1]
    half = load(rewrite({key: value.astype(dtype) for key, value in tensors.items()}))
    np.testing.assert_array_equal(half.encode(pixels)[-1], expected)
    assert half.sha256 != full.sha256


def test_older_config_dict_wins(rewrite):
    vision = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
    vision |= {"image_size": 32, "patch_size": 8}
    backbone = load(rewrite(vision_config={"hidden_size": 999}, vision_config_dict=vision))
    assert backbone.width == 24


def test_lens_ranks_the_planted_word(checkpoint, words):
    backbone = load(checkpoint)
    lens = backbone.lens(words, ("a photo of a {}", "a {}"))
    assert lens.unembedding.shape == (len(words), 12)
    np.testing.assert_allclose(np.linalg.norm(lens.unembedding, axis=1), 1, rtol=1e-5)
    assert lens.scale == pytest.approx(10)
    assert (lens.norm, lens.normalize, lens.center) == ("layer", True, None)
    # the mean of the text vectors was removed: an independent computation for one template
    single = backbone.lens(words, ("{}",))
    ids = np.array([[0, 6 + i, 1] for i in range(len(words))], np.int32)
    vectors = np.asarray(backbone.text_features(ids), np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors -= vectors.mean(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(single.unembedding, vectors, atol=1e-5)


def test_lens_defaults_of_the_checkpoint(checkpoint):
    assert load(checkpoint).lens_defaults() == (None, None)
    (checkpoint / "lens.json").write_text(json.dumps({"words": ["cat", "dog"], "templates": ["a {}"]}))
    words, templates = load(checkpoint).lens_defaults()
    assert words.tolist() == ["cat", "dog"]
    assert templates == ("a {}",)
    (checkpoint / "lens.json").write_text(json.dumps({"words": [1]}))
    with pytest.raises(WeightsError, match=r"lens.json: `words` must be a list of strings"):
        load(checkpoint).lens_defaults()


def test_lens_messages(checkpoint, words, retokenize):
    """F-57: a tokenizer of another size."""
    backbone = load(checkpoint)
    with pytest.raises(ConfigError, match="templates"):
        backbone.lens(words, ("no place",))
    with pytest.raises(DataError, match=r"\['cat'\] more than once"):
        backbone.lens(["cat", "dog", "cat"])
    with pytest.raises(DataError, match=r"has 22 tokens; the text tower takes 16"):
        backbone.lens(words, ("a " * 19 + "{}",))
    retokenize(("<s>", "</s>", "<unk>"))
    with pytest.raises(WeightsError, match="has 3 tokens, but the text embedding has 20 rows"):
        backbone.lens(words)
    retokenize(("<s>", "</s>", "<unk>", *map(str, range(30))))
    with pytest.raises(WeightsError, match="has 33 tokens"):
        backbone.lens(words)
    retokenize(("<s>", "</s>", "<unk>", "a", "photo", "of", *words), end=False)
    with pytest.raises(WeightsError, match="does not add the end token 1"):
        backbone.lens(words)
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": "evil.py"}}))
    with pytest.raises(WeightsError, match="auto_map"):
        backbone.lens(words)
    for path in checkpoint.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(WeightsError, match="Are its files missing"):
        backbone.lens(words)


def test_load_backbone_messages(tmp_path):
    with pytest.raises(ConfigError, match=r"`features.model` must be a checkpoint directory"):
        load_backbone(ClipConfig())
    with pytest.raises(ConfigError, match="has no model to load"):
        load_backbone(PrecomputedConfig())
