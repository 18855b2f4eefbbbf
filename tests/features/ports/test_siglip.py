import functools
import json

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from mine_jax import artifacts
from mine_jax.config import SiglipConfig
from mine_jax.errors import ConfigError, DataError, MissingExtraError, WeightsError
from mine_jax.features import Backbone, lens_scores, load_backbone, project_tokens
from mine_jax.features.ports.siglip.backbone import PROCESSOR, Siglip, load
from mine_jax.features.ports.text import load_tokenizer
from mine_jax.features.preprocess import read_processor

SIZES = {"intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4}
# SigLIP 2 at fixed resolution is the same classes with a larger vocabulary, another padding id and,
# in its largest size, towers of different width.
PARITY = {
    "siglip": (
        {"hidden_size": 48, "vocab_size": 40, "max_position_embeddings": 9, "pad_token_id": 1},
        {"hidden_size": 48, "image_size": 32, "patch_size": 8},
    ),
    "siglip2, other text width": (
        {"hidden_size": 32, "vocab_size": 90, "max_position_embeddings": 12, "pad_token_id": 0, "projection_size": 48},
        {"hidden_size": 48, "image_size": 36, "patch_size": 7, "num_attention_heads": 3, "layer_norm_eps": 1e-3},
    ),
}


def torch_model(text, vision, *, seed=0):
    import torch
    import transformers

    special = {"bos_token_id": 2, "eos_token_id": 1}
    config = transformers.SiglipConfig(text_config={**SIZES, **special, **text}, vision_config={**SIZES, **vision})
    torch.manual_seed(seed)
    model = transformers.SiglipModel(config).eval()
    for parameter in model.parameters():
        # the initial values would hide a wrong activation, bias or transposed square weight
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def save_torch(model, directory):
    model.save_pretrained(directory)
    size = model.config.vision_config.image_size
    processor = {"size": {"height": size, "width": size}, "image_processor_type": "SiglipImageProcessor"}
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    return directory


def pixels_of(config, n=2, seed=0):
    return np.random.default_rng(seed).standard_normal((n, config.image_size, config.image_size, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def torch_siglip():
    return torch_model(*PARITY["siglip"])


@pytest.fixture
def siglip(torch_siglip, tmp_path, words, write_tokens):
    directory = save_torch(torch_siglip, tmp_path / "tiny-siglip")
    write_tokens(directory, ("<pad>", "</s>", "<unk>", "a", "photo", "of", "this", *words, *map(str, range(20))))
    return directory


@pytest.mark.torch
@pytest.mark.parametrize("case", PARITY)
def test_matches_torch(case, tmp_path):
    import torch

    model = torch_model(*PARITY[case])
    backbone = load(save_torch(model, tmp_path))
    pixels = pixels_of(backbone.config)
    ids = np.random.default_rng(1).integers(2, 40, (3, backbone.config.text.positions)).astype(np.int32)
    ids[1, 4:] = model.config.text_config.pad_token_id
    with torch.no_grad():
        images = torch.tensor(pixels.transpose(0, 3, 1, 2))
        image = model.vision_model(images, output_hidden_states=True)
        text = model.text_model(torch.tensor(ids).long(), output_hidden_states=True)
        whole = model(input_ids=torch.tensor(ids).long(), pixel_values=images)
    with jax.numpy_rank_promotion("raise"):
        states = backbone.encode(pixels, layers=range(backbone.layers + 1))
        text_states = jax.jit(functools.partial(Siglip(backbone.config).apply, method="text_states"))(
            {"params": backbone.params}, ids
        )
        ours = backbone.image_features(pixels), backbone.text_features(ids)
    assert len(image.hidden_states) == backbone.layers + 1
    for layer, expected in enumerate(image.hidden_states):
        np.testing.assert_allclose(states[layer], expected.numpy(), rtol=1e-5, atol=1e-5)
    for state, expected in zip(text_states, text.hidden_states, strict=True):
        np.testing.assert_allclose(state, expected.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours[0], image.pooler_output.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours[1], text.pooler_output.numpy(), rtol=1e-5, atol=1e-5)
    unit = [np.asarray(v) / np.linalg.norm(v, axis=1, keepdims=True) for v in ours]
    scale, bias = (np.asarray(backbone.params[name])[0] for name in ("logit_scale", "logit_bias"))
    np.testing.assert_allclose(np.exp(scale) * unit[0] @ unit[1].T + bias, whole.logits_per_image.numpy(), atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("case", PARITY)
def test_bfloat16_weights(case, tmp_path):
    import copy

    import torch

    model = torch_model(*PARITY[case])
    directory = save_torch(model, tmp_path)
    full, half = (load_backbone(SiglipConfig(model=str(directory), weights=w)) for w in ("float32", "bfloat16"))
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
        expected = state.float().numpy()
        assert np.linalg.norm(states[layer] - expected) < 2e-2 * np.linalg.norm(expected)
        # the error of torch, whose sums and residuals are bfloat16 too, is the larger one
        assert np.linalg.norm(states[layer] - exact[layer]) < 1e-2 * np.linalg.norm(exact[layer])
    # words are read by a text tower that stays float32
    ids = np.random.default_rng(1).integers(2, 40, (1, full.config.text.positions)).astype(np.int32)
    np.testing.assert_array_equal(half.text_features(ids), full.text_features(ids))


@pytest.mark.torch
def test_lens_is_the_pooling_head_of_one_token(torch_siglip, siglip, words):
    import torch

    backbone = load(siglip)
    lens = backbone.lens(words)
    tokens = np.asarray(backbone.encode(pixels_of(backbone.config))[-1])
    with torch.no_grad():
        vision = torch_siglip.vision_model
        alone = vision.head(vision.post_layernorm(torch.tensor(tokens.reshape(-1, 1, 48)))).numpy()
    alone /= np.linalg.norm(alone, axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(project_tokens(lens, tokens)).reshape(alone.shape), alone, atol=1e-5)
    scale, bias = (float(np.asarray(backbone.params[name])[0]) for name in ("logit_scale", "logit_bias"))
    expected = np.exp(scale) * alone @ lens.unembedding.T + bias
    np.testing.assert_allclose(np.asarray(lens_scores(lens, tokens)).reshape(expected.shape), expected, atol=1e-4)


def test_lens_survives_saving(siglip, words, tmp_path):
    backbone = load(siglip)
    tokens = np.asarray(backbone.encode(pixels_of(backbone.config))[-1])
    lens = backbone.lens(words)
    artifacts.save(lens, tmp_path / "lens")
    again = artifacts.load(tmp_path / "lens")
    assert set(again.mlp) == set(lens.mlp)
    np.testing.assert_array_equal(lens_scores(again, tokens), lens_scores(lens, tokens))


def test_lens_pads_prompts_to_the_full_length(siglip, words):
    backbone = load(siglip)
    single = backbone.lens(words, ("{}",))
    ids = np.array([[7 + i, 1, 0, 0, 0, 0, 0, 0, 0] for i in range(len(words))], np.int32)
    vectors = np.asarray(backbone.text_features(ids), np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors -= vectors.mean(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(single.unembedding, vectors, atol=1e-5)
    with pytest.raises(DataError, match="has 11 tokens; the text tower takes 9"):
        backbone.lens(words, ("a " * 9 + "{}",))
    with pytest.raises(ConfigError, match="templates"):
        backbone.lens(words, ("no place",))


def test_capitals_become_small_letters_whatever_the_tokenizer_does(siglip, words):
    backbone, tokenizer = load(siglip), load_tokenizer(siglip)
    assert tokenizer("A Photo")["input_ids"] != tokenizer("a photo")["input_ids"]
    ids = backbone.text_ids(tokenizer, [f"A Photo of {words[0].upper()}"], backbone.config.text)
    assert ids[0, :5].tolist() == [3, 4, 5, 7, 1]


def test_a_package_that_the_tokenizer_lacks_is_named_with_the_command_that_brings_it(siglip, monkeypatch):
    import transformers

    def fails(*args, **options):
        raise ImportError("SiglipTokenizer requires the SentencePiece library")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fails)
    with pytest.raises(MissingExtraError, match=r"SentencePiece library.*pip install sentencepiece protobuf"):
        load(siglip).lens(("dog", "cat"))


@pytest.mark.torch
def test_vision_only_checkpoint_with_and_without_prefix(torch_siglip, tmp_path):
    """F-52: both namespaces."""
    import transformers

    alone = transformers.SiglipVisionModel(torch_siglip.config.vision_config)
    alone.load_state_dict(torch_siglip.vision_model.state_dict())
    bare = save_torch_vision(alone, tmp_path / "bare")
    prefixed = save_torch_vision(alone, tmp_path / "prefixed")
    tensors = safetensors.numpy.load_file(bare / "model.safetensors")
    assert "post_layernorm.weight" in tensors
    tensors = {f"vision_model.{key}": value for key, value in tensors.items()}
    safetensors.numpy.save_file(tensors, prefixed / "model.safetensors")
    first, second = load(bare), load(prefixed)
    pixels = pixels_of(first.config)
    np.testing.assert_array_equal(first.encode(pixels)[-1], second.encode(pixels)[-1])
    with pytest.raises(ConfigError, match="no text tower"):
        first.lens(["cat", "dog"])


def save_torch_vision(model, directory):
    model.save_pretrained(directory)
    size = model.config.image_size
    (directory / "preprocessor_config.json").write_text(json.dumps({"size": {"height": size, "width": size}}))
    return directory


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("shape", [(224, 224), (425, 425), (31, 90), (97, 40)])
def test_image_processing_matches_transformers(shape, resample):
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    values = {"size": {"height": 36, "width": 36}, "resample": resample}
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = SiglipImageProcessorPil(**values)(image, return_tensors="np", input_data_format="channels_last")
    ours = read_processor({**PROCESSOR, **values}, image_size=36)(image)
    np.testing.assert_array_equal(ours.transpose(2, 0, 1), expected["pixel_values"][0])


def test_one_patch_is_one_token_in_row_major_order(siglip):
    backbone = load_backbone(SiglipConfig(model=str(siglip)))
    assert isinstance(backbone, Backbone)
    assert (backbone.grid, backbone.width, backbone.layers) == ((4, 4), 48, 2)
    images = np.zeros((3, 32, 32, 3), np.uint8)
    images[1, 8:16, 24:32] = 255
    images[2, 24:32, 0:8] = 255
    tokens = np.asarray(backbone.encode(backbone.preprocess(list(images)), layers=(0,))[0])
    for image, (row, column) in ((1, (1, 3)), (2, (3, 0))):
        changed = np.flatnonzero(np.abs(tokens[image] - tokens[0]).max(-1) > 1e-6)
        assert changed.tolist() == [row * 4 + column]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "siglip2"}, "NaFlex"),
        ({"model_type": "clip"}, "not SigLIP"),
        ({"vision_config": {"hidden_size": 10**9}}, "`hidden_size` must be an integer from 1 to"),
        ({"vision_config": {"hidden_size": 48, "patch_size": [8, 8]}}, "`patch_size` must be an integer"),
        ({"text_config": {"hidden_size": 48, "num_attention_heads": 4, "projection_size": 24}}, "share one space"),
        ({"auto_map": {"AutoModel": "evil.py"}}, "foreign code"),
    ],
)
def test_configuration_messages(siglip, change, message):
    values = json.loads((siglip / "config.json").read_text())
    (siglip / "config.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(WeightsError, match=message):
        load(siglip)


def test_missing_tensor_and_tokenizer(siglip, words, write_tokens):
    write_tokens(siglip, ("<pad>", "</s>", "<unk>", *map(str, range(50))))
    with pytest.raises(WeightsError, match="has 53 tokens, but the text embedding has 40 rows"):
        load(siglip).lens(words)
    tensors = safetensors.numpy.load_file(siglip / "model.safetensors")
    del tensors["vision_model.head.probe"]
    safetensors.numpy.save_file(tensors, siglip / "model.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing: vision_model\.head\.probe"):
        load(siglip)
