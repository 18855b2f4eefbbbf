"""LLaVA-OneVision: the whole photo's tokens are those of transformers with all crops behind them."""

import copy
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from mine_jax.config import LlavaOnevisionConfig
from mine_jax.errors import ConfigError, WeightsError
from mine_jax.features import lens_scores, load_backbone
from mine_jax.features.ports.llava.onevision import load

IMAGE, SIDE = 57, 32
PINPOINTS = [[32, 32], [32, 64], [64, 32], [64, 64]]
VISION = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 3}
VISION |= {"image_size": SIDE, "patch_size": 8}
SIGLIP = {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}
QWEN2 = {"model_type": "qwen2", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "vocab_size": 64}
QWEN2 |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0}
QWEN2 |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
PARITY = {
    "as published": ({}, SIGLIP, QWEN2),
    "tied, earlier layers": (
        {"tie_word_embeddings": True, "vision_feature_layer": [1, -2], "multimodal_projector_bias": False},
        SIGLIP,
        QWEN2,
    ),
    "CLIP without its class token": (
        {"vision_feature_select_strategy": "default", "vision_feature_layer": -2},
        {**VISION, "model_type": "clip_vision_model"},
        QWEN2,
    ),
}


@pytest.fixture(scope="module")
def models():
    return {}


@pytest.fixture
def saved(models, tmp_path, words, write_tokens):
    """Saves the torch model of a case with tokenizer and processor; returns (model, directory)."""
    import torch
    import transformers

    def save(case):
        top, vision, text = PARITY[case]
        if case not in models:
            config = transformers.LlavaOnevisionConfig(
                vision_config=dict(vision),
                text_config=dict(text),
                image_token_index=IMAGE,
                image_grid_pinpoints=PINPOINTS,
                **top,
            )
            torch.manual_seed(0)
            models[case] = transformers.LlavaOnevisionForConditionalGeneration(config).eval()
            for name, parameter in models[case].named_parameters():
                torch.nn.init.normal_(parameter, mean=float("norm" in name and "bias" not in name), std=0.2)
        models[case].save_pretrained(tmp_path)
        names = ("<pad>", "</s>", "<unk>", "user", ":", "photo", "a", *words, *map(str, range(42)), "<image>")
        assert names.index("<image>") == IMAGE
        write_tokens(tmp_path, names, special=("<image>",))
        processor = {"size": {"height": SIDE, "width": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        processor |= {"image_processor_type": "LlavaOnevisionImageProcessor", "image_grid_pinpoints": PINPOINTS}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
        return models[case], tmp_path

    return save


def photos(shape, n=2):
    return [np.random.default_rng(i).integers(0, 256, (*shape, 3), dtype=np.uint8) for i in range(n)]


def torch_states(model, directory, images, dtype=None):
    """Shows photos to torch whole and in crops, as transformers prepares them; gives states and logits."""
    import torch
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    values = json.loads((directory / "preprocessor_config.json").read_text())
    del values["image_processor_type"]
    prepared = LlavaOnevisionImageProcessorPil(**values)(images, return_tensors="pt", input_data_format="channels_last")
    pixels = prepared["pixel_values"].to(dtype or torch.float32)
    with torch.no_grad():
        sizes = prepared["image_sizes"]
        packed = model.model.get_image_features(pixels, sizes, return_dict=True).pooler_output
        ids = torch.tensor([[3, 4, *[IMAGE] * len(packed[0]), 5, 6]] * len(images))
        out = model(input_ids=ids, pixel_values=pixels, image_sizes=sizes, output_hidden_states=True)
    assert len(packed[0]) > 2 * 16  # crops and what ends their rows
    return [state.float().numpy() for state in out.hidden_states], out.logits.float().numpy(), pixels.float().numpy()


@pytest.mark.torch
@pytest.mark.parametrize("case", PARITY)
def test_matches_torch_with_all_crops(case, saved):
    model, directory = saved(case)
    backbone = load_backbone(
        LlavaOnevisionConfig(model=str(directory), prompt="user : <image> photo a"), mesh={"data": 1}
    )
    assert (backbone.grid, backbone.width, backbone.layers) == ((4, 4), 32, 3)
    images = photos((30, 62))
    expected, logits, prepared = torch_states(model, directory, images)
    pixels = backbone.preprocess(images)
    np.testing.assert_array_equal(pixels.transpose(0, 3, 1, 2), prepared[:, 0])
    with jax.numpy_rank_promotion("raise"):
        tokens = backbone.encode(pixels, layers=range(4))
        lens = backbone.lens(backbone.lens_defaults()[0])
    whole = slice(2, 18)
    for layer in range(3):
        np.testing.assert_allclose(tokens[layer], expected[layer][:, whole], rtol=1e-5, atol=1e-5)
    # six rows of the head are padding: the tokenizer has no pieces for them
    assert len(lens.words) == 58
    ours = np.asarray(lens_scores(lens, tokens[3]))
    np.testing.assert_allclose(ours, logits[:, whole, :58], rtol=1e-5, atol=2e-5)


@pytest.mark.torch
@pytest.mark.parametrize("case", PARITY)
@pytest.mark.parametrize(("shape", "grid"), [((60, 60), (8, 8)), ((30, 60), (4, 8)), ((60, 30), (8, 4))])
def test_crops_match_torch(case, shape, grid, saved):
    """Photos of the shape of the grid, for which it is the one that transformers chooses."""
    model, directory = saved(case)
    config = LlavaOnevisionConfig(model=str(directory), prompt="user : <image> photo a", grid=grid)
    backbone, whole = load_backbone(config, mesh={"data": 1}), load(directory)
    assert backbone.grid == grid and backbone.sha256 != whole.sha256
    images, n_crops = photos(shape), grid[0] * grid[1] // 16
    expected, logits, prepared = torch_states(model, directory, images)
    pixels = backbone.preprocess(images)
    views = pixels.reshape(2, 1 + n_crops, SIDE, SIDE, 3).transpose(0, 1, 4, 2, 3)
    np.testing.assert_array_equal(views, prepared)
    with jax.numpy_rank_promotion("raise"):
        tokens = backbone.encode(pixels, layers=range(4))
        lens = backbone.lens(backbone.lens_defaults()[0])
    # two words and the whole photo come before; each row ends with a newline
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    places = 18 + rows * (grid[1] + 1) + columns
    for layer in range(3):
        np.testing.assert_allclose(tokens[layer], expected[layer][:, places], rtol=1e-5, atol=1e-5)
    ours = np.asarray(lens_scores(lens, tokens[3]))
    np.testing.assert_allclose(ours, logits[:, places, :58], rtol=1e-5, atol=2e-5)


@pytest.mark.torch
def test_nsd_photos_come_to_two_by_two_crops():
    from transformers.image_processing_utils import select_best_resolution
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    chosen = select_best_resolution((425, 425), LlavaOnevisionImageProcessorPil.image_grid_pinpoints)
    assert tuple(side // 384 for side in chosen) == (2, 2)


def test_crops_on_two_devices(saved):
    _, directory = saved("as published")
    config = LlavaOnevisionConfig(model=str(directory), prompt="user : <image>", grid=(8, 4))
    one, data, model = (load_backbone(config, mesh=mesh) for mesh in ({"data": 1}, {"data": 2}, {"model": 2}))
    pixels = one.preprocess(photos((60, 30)))
    for other in (data, model):
        np.testing.assert_allclose(other.encode(pixels)[-1], one.encode(pixels)[-1], rtol=1e-5, atol=1e-5)


def test_one_bright_patch_of_a_crop_is_one_token(saved):
    backbone = load(saved("as published")[1], grid=(8, 4))
    images = np.zeros((2, 64, 32, 3), np.uint8)
    # in the fifth row of the grid, in the lower crop
    images[1, 32:40, 16:24] = 255
    tokens = np.asarray(backbone.encode(backbone.preprocess(list(images)), layers=(0,))[0])
    changed = np.abs(tokens[1] - tokens[0]).max(-1)
    # the tower mixes the patches of a crop, but not crops
    assert np.flatnonzero(changed > 1e-6).min() == 16 and changed.argmax() == 4 * 4 + 2


@pytest.mark.parametrize(
    ("grid", "change", "error", "message"),
    [
        ((8, 6), {}, ConfigError, r"must be rows and columns of crops times 4"),
        ((12, 4), {}, ConfigError, r"must be rows and columns of crops times 4"),
        (
            (8, 8),
            {"vision_aspect_ratio": "anyres_max_2"},
            ConfigError,
            "has 4 crops, but the model shrinks more than 2",
        ),
        ((8, 8), {"vision_aspect_ratio": "anyres_max_0"}, WeightsError, "must be anyres_max_ and a number"),
        ((8, 8), {"image_grid_pinpoints": 64}, ConfigError, r"must be rows and columns of crops times 4"),
    ],
)
def test_grids_that_the_model_does_not_make(grid, change, error, message, saved):
    _, directory = saved("as published")
    values = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(error, match=message):
        load(directory, grid=grid)


@pytest.mark.torch
def test_bfloat16_weights(saved):
    import torch

    model, directory = saved("as published")
    backbone = load(directory, prompt="user : <image>", weights="bfloat16")
    half = copy.deepcopy(model).to(torch.bfloat16)
    images = photos((62, 30))
    expected, _, _ = torch_states(half, directory, images, torch.bfloat16)
    tokens = backbone.encode(backbone.preprocess(images), layers=range(3))
    for layer in range(3):
        wanted = expected[layer][:, 2:18]
        assert np.linalg.norm(tokens[layer] - wanted) < 2e-2 * np.linalg.norm(wanted)


@pytest.mark.torch
def test_names_of_older_and_newer_checkpoints(saved):
    """F-52: earlier and later namespaces."""
    _, directory = saved("as published")
    pixels = np.random.default_rng(1).standard_normal((1, SIDE, SIDE, 3)).astype(np.float32)
    expected = np.asarray(load(directory, prompt="<image>").encode(pixels)[-1])
    views = np.random.default_rng(2).standard_normal((1, 5 * SIDE, SIDE, 3)).astype(np.float32)
    of_crops = np.asarray(load(directory, prompt="<image>", grid=(8, 8)).encode(views)[-1])
    tensors = safetensors.numpy.load_file(directory / "model.safetensors")
    assert {"image_newline", "language_model.lm_head.weight"} <= set(tensors)
    for newer in (False, True):
        renamed = {}
        for key, value in tensors.items():
            if newer:
                key = key.replace("language_model.lm_head", "lm_head").replace("language_model.model", "language_model")
                key = key if key.startswith("lm_head") else f"model.{key}"
            else:
                key = key.replace("vision_tower.", "vision_tower.vision_model.")
            renamed[key] = value
        safetensors.numpy.save_file(renamed, directory / "model.safetensors")
        np.testing.assert_array_equal(load(directory, prompt="<image>").encode(pixels)[-1], expected)
        np.testing.assert_array_equal(load(directory, prompt="<image>", grid=(8, 8)).encode(views)[-1], of_crops)


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        ("as published", {"model_type": "llava"}, "not LLaVA-OneVision"),
        ("as published", {"vision_feature_select_strategy": "default"}, "no class token"),
        ("CLIP without its class token", {"vision_feature_select_strategy": "full"}, "packs grids"),
    ],
)
def test_configuration_messages(saved, case, change, message):
    _, directory = saved(case)
    values = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(WeightsError, match=message):
        load(directory)
