"""Qwen2.5-VL against transformers: the tower per block, the decoder per layer, logits, pixels and positions."""

import copy
import json
import logging

import jax
import numpy as np
import pytest
import safetensors.numpy

from mine_jax.config import QwenVlConfig
from mine_jax.errors import ConfigError, WeightsError
from mine_jax.features import lens_scores, load_backbone, load_features
from mine_jax.features.ports.qwen_vl.backbone import load, pixel_range
from mine_jax.features.ports.qwen_vl.model import windows_of
from mine_jax.types import Stimuli

IMAGE, PATCH = 57, 4
VISION = {"depth": 3, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "patch_size": PATCH}
VISION |= {"spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 16, "out_hidden_size": 24}
VISION |= {"fullatt_block_indexes": [1]}
TEXT = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3, "vocab_size": 64}
TEXT |= {"num_key_value_heads": 1, "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "pad_token_id": 0}
TEXT |= {"bos_token_id": 1, "eos_token_id": 1}
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
PROCESSOR = {"patch_size": PATCH, "merge_size": 2, "temporal_patch_size": 2}
SIZE = {"shortest_edge": 8 * 8 * 2, "longest_edge": 8 * 8 * 40}
PROMPT = "user <image> photo a"


@pytest.fixture(scope="module")
def models():
    return {}


@pytest.fixture
def saved(models, tmp_path, words, write_tokens):
    """Saves a torch model, tied or not, with tokenizer and processor; returns (model, directory)."""
    import torch
    import transformers

    def save(*, tied=False):
        if tied not in models:
            config = transformers.Qwen2_5_VLConfig(
                vision_config=dict(VISION),
                text_config={**TEXT, "rope_parameters": dict(ROPE)},
                image_token_id=IMAGE,
                video_token_id=58,
                vision_start_token_id=55,
                vision_end_token_id=56,
                tie_word_embeddings=tied,
            )
            torch.manual_seed(0)
            models[tied] = transformers.Qwen2_5_VLForConditionalGeneration(config).eval()
            for name, parameter in models[tied].named_parameters():
                torch.nn.init.normal_(parameter, mean=float("norm" in name or "ln_q" in name), std=0.2)
        models[tied].save_pretrained(tmp_path)
        special = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
        names = ("<pad>", "</s>", "<unk>", "user", ":", "photo", "a", *words, *map(str, range(40)), *special)
        assert names.index("<|image_pad|>") == IMAGE
        write_tokens(tmp_path, names, special=special)
        values = {**PROCESSOR, "size": SIZE, "image_processor_type": "Qwen2VLImageProcessor"}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
        return models[tied], tmp_path

    return save


def photos(shape, n=2):
    return [np.random.default_rng(i).integers(0, 256, (*shape, 3), dtype=np.uint8) for i in range(n)]


def prepared(images):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(**PROCESSOR, size=SIZE)(
        images, return_tensors="pt", input_data_format="channels_last"
    )


def torch_states(model, images, rows, *, mask=None, dtype=None):
    """Gives hidden states and logits of prompts `rows` (lists of ids, padded to one length) around photos."""
    import torch

    pixels = prepared(images)
    ids = torch.tensor(rows)
    with torch.no_grad():
        out = model(
            input_ids=ids,
            attention_mask=None if mask is None else torch.tensor(mask).long(),
            mm_token_type_ids=(ids == IMAGE).int(),
            pixel_values=pixels["pixel_values"].to(dtype or torch.float32),
            image_grid_thw=pixels["image_grid_thw"],
            output_hidden_states=True,
        )
    return [state.float().numpy() for state in out.hidden_states], out.logits.float().numpy()


# one whose last windows are cut off, one smaller than a window in one direction
GRIDS = {(5, 3): (40, 24), (1, 6): (9, 50)}


@pytest.mark.torch
@pytest.mark.parametrize("grid", GRIDS)
def test_matches_torch(grid, saved):
    model, directory = saved()
    config = QwenVlConfig(model=str(directory), prompt=PROMPT, grid=grid)
    backbone = load_backbone(config, mesh={"data": 1})
    images, n_tokens = photos(GRIDS[grid]), grid[0] * grid[1]
    assert (backbone.grid, backbone.width, backbone.layers) == (grid, 24, 2)
    pixels = backbone.preprocess(images)
    expected, logits = torch_states(model, images, [[3, 55, *[IMAGE] * n_tokens, 56, 5, 6]] * 2)
    with jax.numpy_rank_promotion("raise"):
        tokens = backbone.encode(pixels, layers=range(3))
        lens = backbone.lens(backbone.lens_defaults()[0])
    for layer in range(2):
        np.testing.assert_allclose(tokens[layer], expected[layer][:, 2 : 2 + n_tokens], rtol=1e-5, atol=1e-5)
    # six rows of the head have no piece
    ours = np.asarray(lens_scores(lens, tokens[2]))
    assert ours.shape == (2, n_tokens, 58)
    np.testing.assert_allclose(ours, logits[:, 2 : 2 + n_tokens, :58], rtol=1e-5, atol=2e-5)


@pytest.mark.torch
def test_tower_matches_torch_per_block(saved):
    import torch

    (model, directory), grid = saved(), (5, 3)
    backbone = load(directory, prompt=PROMPT, grid=grid)
    images = photos(GRIDS[grid])
    ours = backbone.model.apply(
        {"params": backbone.params}, backbone.preprocess(images), method=lambda network, x: network.visual.states(x)
    )
    inputs = prepared(images)
    with torch.no_grad():
        out = model.model.visual(inputs["pixel_values"], inputs["image_grid_thw"], output_hidden_states=True)
    assert len(ours) == 4
    # transformers puts the patches of each window side by side
    windows = windows_of(backbone.config.vision, *grid)
    order = np.concatenate([index[real] for index, real in zip(windows.index, windows.real, strict=True)])
    states = {0: out.hidden_states[0], 1: out.hidden_states[1], 2: out.hidden_states[2], 3: out.last_hidden_state}
    for number, state in states.items():
        expected = state.numpy().reshape(2, -1, 32)
        np.testing.assert_allclose(ours[number][:, order], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.torch
def test_padded_prompts_and_tied_head(saved):
    model, directory = saved(tied=True)
    backbone = load(directory, prompt=PROMPT, grid=(2, 3))
    images, image = photos((16, 24), n=3), [55, *[IMAGE] * 6, 56]
    longest = [3, 9, 12, *image, 20, 21, 22]
    ids, mask = np.zeros((3, len(longest)), np.int32), np.zeros((3, len(longest)), bool)
    ids[0], mask[0] = longest, True
    ids[1, :10], mask[1, :10] = [5, *image, 30], True
    ids[2, -10:], mask[2, -10:] = [8, 9, *image], True
    expected, logits = torch_states(model, images, ids.tolist(), mask=mask)
    states = backbone.sequence_states(backbone.preprocess(images), ids, mask, layers=range(3))
    for layer in range(2):
        np.testing.assert_allclose(np.asarray(states[layer])[mask], expected[layer][mask], rtol=1e-5, atol=1e-5)
    ours = np.asarray(lens_scores(backbone.lens(backbone.lens_defaults()[0]), states[2]))
    np.testing.assert_allclose(ours[mask], logits[mask][:, :58], rtol=1e-5, atol=2e-5)


@pytest.mark.torch
def test_bfloat16_weights(saved):
    import torch

    model, directory = saved()
    backbone = load(directory, prompt=PROMPT, grid=(5, 3), weights="bfloat16")
    half, images = copy.deepcopy(model).to(torch.bfloat16), photos((40, 24))
    expected, _ = torch_states(half, images, [[3, 55, *[IMAGE] * 15]] * 2, dtype=torch.bfloat16)
    tokens = backbone.encode(backbone.preprocess(images), layers=range(2))
    for layer in range(2):
        wanted = expected[layer][:, 2:]
        assert np.linalg.norm(tokens[layer] - wanted) < 2e-2 * np.linalg.norm(wanted)


@pytest.mark.torch
@pytest.mark.parametrize("shape", [(425, 425), (33, 31), (40, 90), (9, 50), (600, 500), (8, 200)])
def test_pixels_are_those_of_the_processor(shape, saved):
    _, directory = saved()
    image = photos(shape, n=1)
    inputs = prepared(image)
    grid = tuple((inputs["image_grid_thw"][0, 1:].numpy() // 2).tolist())
    pixels = load(directory, prompt=PROMPT, grid=grid).preprocess(image)[0]
    # as the processor lays them out: by image-token, patch, channel and frame
    split = pixels.reshape(grid[0], 2, PATCH, grid[1], 2, PATCH, 3).transpose(0, 3, 1, 4, 6, 2, 5)
    expected = inputs["pixel_values"].numpy().reshape(*split.shape[:5], 2, PATCH, PATCH)
    for frame in range(2):
        np.testing.assert_array_equal(split, expected[:, :, :, :, :, frame])


@pytest.mark.torch
def test_photos_of_nsd_come_to_the_default_grid():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    pixels = smart_resize(425, 425, factor=28, min_pixels=3136, max_pixels=12_845_056)
    assert tuple(side // 28 for side in pixels) == QwenVlConfig().grid


def test_pixels_of_both_forms_of_the_processor():
    assert pixel_range({"min_pixels": 3136, "max_pixels": 12_845_056}) == (3136, 12_845_056)
    assert pixel_range({"size": {"shortest_edge": 1, "longest_edge": 2}}) == (1, 2)


def test_stretched_photos_are_told(saved, caplog):
    _, directory = saved()
    backbone = load(directory, prompt=PROMPT, grid=(3, 3))
    with caplog.at_level(logging.WARNING, logger="mine_jax"):
        backbone.preprocess(photos((40, 41)))
        assert not caplog.records
        backbone.preprocess(photos((40, 63)))
        backbone.preprocess(photos((40, 63)))
    assert [record.getMessage() for record in caplog.records] == [
        "photos of 40 x 63 pixels are stretched to 3 x 3 image-tokens, see `features.grid`"
    ]


@pytest.mark.torch
def test_names_and_flat_configurations_of_other_versions(saved):
    """F-52: earlier and later namespaces."""
    _, directory = saved()
    pixels = np.random.default_rng(1).standard_normal((2, 40, 24, 3)).astype(np.float32)
    backbone = load(directory, prompt=PROMPT, grid=(5, 3))
    expected = np.asarray(backbone.encode(pixels)[-1])
    path, values = directory / "model.safetensors", json.loads((directory / "config.json").read_text())
    tensors = safetensors.numpy.load_file(path)
    assert {"visual.merger.mlp.2.weight", "model.embed_tokens.weight", "lm_head.weight"} <= set(tensors)
    # transformers 4 has the keys of the decoder beside the others
    flat = {**values.pop("text_config"), **values, "rope_theta": 1e4}
    flat["rope_scaling"] = {"type": "mrope", "mrope_section": flat.pop("rope_parameters")["mrope_section"]}
    (directory / "config.json").write_text(json.dumps(flat))
    renamed = {}
    for key, value in tensors.items():
        key = key.replace("visual.", "model.visual.")
        if key.startswith("model.") and not key.startswith("model.visual."):
            key = key.replace("model.", "model.language_model.")
        renamed[key] = value
    safetensors.numpy.save_file(renamed, path)
    again = load(directory, prompt=PROMPT, grid=(5, 3))
    np.testing.assert_array_equal(again.encode(pixels)[-1], expected)
    assert again.config == backbone.config
    # a grid is part of what decides the tokens
    assert load(directory, prompt=PROMPT, grid=(3, 5)).sha256 != again.sha256


def test_tokens_and_lens_of_a_store(saved, tmp_path):
    _, directory = saved()
    images = dict(zip(("a", "b", "c"), photos((40, 24), n=3), strict=True))
    empty, unshared = np.array([""] * 3), np.zeros(3, bool)
    stimuli = Stimuli(np.array(list(images)), lambda ids: [images[i] for i in ids], empty, unshared)
    config = QwenVlConfig(model=str(directory), prompt=PROMPT, grid=(5, 3), batch_size=2, dtype="float32")
    tokens, lens = load_features(config, stimuli, directory=tmp_path / "features")
    assert (tokens.tokens.shape, tokens.grid, len(lens.words)) == ((3, 15, 24), (5, 3), 58)
    backbone = load(directory, prompt=PROMPT, grid=(5, 3))
    expected = backbone.encode(backbone.preprocess(list(images.values())[:2]))[-1]
    np.testing.assert_allclose(tokens.tokens[:2], expected, rtol=1e-5, atol=1e-5)


def test_one_bright_token_is_one_token(saved):
    _, directory = saved()
    backbone = load(directory, prompt="<image>", grid=(3, 5))
    images = np.zeros((2, 24, 40, 3), np.uint8)
    images[1, 8:16, 32:40] = 255
    # tokens see earlier ones in the decoder, and their window in the tower: later rows of windows see nothing before
    patches = np.asarray(
        backbone.model.apply(
            {"params": backbone.params},
            backbone.preprocess(list(images)),
            method=lambda network, x: network.visual.patch_embed(x),
        )
    )
    changed = np.flatnonzero(np.abs(patches[1] - patches[0]).max(-1) > 1e-6)
    assert changed.tolist() == [4 * (1 * 5 + 4) + patch for patch in range(4)]


def test_two_devices_give_the_same(saved):
    _, directory = saved()
    config = QwenVlConfig(model=str(directory), prompt=PROMPT, grid=(5, 3))
    pixels = np.random.default_rng(1).standard_normal((2, 40, 24, 3)).astype(np.float32)
    one, two = load_backbone(config, mesh={"data": 1}), load_backbone(config, mesh={"data": 2})
    np.testing.assert_allclose(two.encode(pixels)[-1], one.encode(pixels)[-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        (None, {"model_type": "qwen2_vl"}, "not Qwen2.5-VL"),
        ("vision_config", {"in_channels": 1}, "`in_channels` must be 3"),
        ("vision_config", {"out_hidden_size": 32}, "the tower gives tokens of width 32"),
        ("vision_config", {"fullatt_block_indexes": "all"}, "`fullatt_block_indexes` must be"),
        ("vision_config", {"window_size": 4}, "`window_size` 4 at least"),
        ("text_config", {"rope_parameters": {**ROPE, "mrope_section": [1, 1, 1]}}, "`mrope_section` must be three"),
        ("text_config", {"use_sliding_window": True}, "sliding-window"),
    ],
)
def test_configuration_messages(saved, section, change, message):
    _, directory = saved()
    values = json.loads((directory / "config.json").read_text())
    (values if section is None else values[section]).update(change)
    (directory / "config.json").write_text(json.dumps(values))
    with pytest.raises(WeightsError, match=message):
        load(directory, prompt=PROMPT)


@pytest.mark.parametrize("grid", [(1, 1), (7, 7), (0, 3), (3, 300)])
def test_grids_that_the_model_never_saw(saved, grid):
    _, directory = saved()
    with pytest.raises(ConfigError, match=r"`features\.grid`"):
        load(directory, prompt=PROMPT, grid=grid)


def test_processor_of_another_checkpoint(saved):
    _, directory = saved()
    (directory / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "patch_size": 14}))
    with pytest.raises(WeightsError, match="makes patches of 14 pixels"):
        load(directory, prompt=PROMPT)
