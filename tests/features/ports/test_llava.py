import json

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from mine_jax import artifacts
from mine_jax.config import LlavaConfig
from mine_jax.errors import ConfigError, DataError, WeightsError
from mine_jax.features import Backbone, lens_scores, load_backbone, load_features
from mine_jax.features.ports.decoder.backbone import image_spans
from mine_jax.features.ports.llava.backbone import load
from mine_jax.features.preprocess import read_processor
from mine_jax.types import Stimuli

IMAGE = 57
CLIP = {"model_type": "clip_vision_model", "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3}
CLIP |= {"num_attention_heads": 3, "image_size": 32, "patch_size": 8}
SIGLIP = {**CLIP, "model_type": "siglip_vision_model"}
LLAMA = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "vocab_size": 60}
LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0}
QWEN2 = {**LLAMA, "model_type": "qwen2"}
ROPE3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ROPE3["original_max_position_embeddings"] = 16
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
PARITY = {
    "CLIP, Llama": ({}, CLIP, LLAMA),
    "SigLIP, Llama 3, tied, biases, wide heads": (
        {"vision_feature_select_strategy": "full", "vision_feature_layer": -1, "tie_word_embeddings": True},
        SIGLIP,
        {**LLAMA, "rope_parameters": ROPE3, "attention_bias": True, "mlp_bias": True, "head_dim": 12},
    ),
    "CLIP with class token of two layers, Qwen2": (
        {"vision_feature_select_strategy": "full", "vision_feature_layer": [1, -1], "projector_hidden_act": "relu"},
        CLIP,
        {**QWEN2, "rope_parameters": LINEAR, "num_key_value_heads": 1},
    ),
    "SigLIP, Qwen2, tied": (
        {"vision_feature_select_strategy": "full", "multimodal_projector_bias": False},
        SIGLIP,
        {**QWEN2, "tie_word_embeddings": True, "num_key_value_heads": 4},
    ),
}


def torch_model(case, *, seed=0):
    import torch
    import transformers

    top, vision, text = PARITY[case]
    config = transformers.LlavaConfig(
        vision_config=dict(vision), text_config=dict(text), image_token_index=IMAGE, image_seq_length=16, **top
    )
    torch.manual_seed(seed)
    model = transformers.LlavaForConditionalGeneration(config).eval()
    for name, parameter in model.named_parameters():
        # large enough for a wrong activation, bias, rotation or transposed square weight to show
        torch.nn.init.normal_(parameter, mean=float("norm" in name and "bias" not in name), std=0.2)
    return model


def tokens_of(words):
    return ("<pad>", "</s>", "<unk>", "USER", ":", "photo", "a", *words, *map(str, range(42)), "<image>")


@pytest.fixture(scope="session")
def torch_llava():
    return {}


@pytest.fixture
def saved(torch_llava, tmp_path, words, write_tokens):
    """Saves the torch model of a case with tokenizer and processor; returns (model, directory)."""

    def save(case):
        if case not in torch_llava:
            torch_llava[case] = torch_model(case)
        directory = tmp_path / "tiny-llava"
        torch_llava[case].save_pretrained(directory)
        names = tokens_of(words)
        assert names.index("<image>") == IMAGE
        write_tokens(directory, names, special=("<image>",))
        processor = {"size": {"shortest_edge": 32}, "crop_size": 32, "image_processor_type": "CLIPImageProcessor"}
        if PARITY[case][1] is SIGLIP:
            processor = {"size": {"height": 32, "width": 32}, "image_processor_type": "SiglipImageProcessor"}
        (directory / "preprocessor_config.json").write_text(json.dumps(processor))
        return torch_llava[case], directory

    return save


def padded_prompts(n_image):
    """Three prompts of different length around an image: unpadded, padded right, padded left."""
    rng = np.random.default_rng(0)
    image = [IMAGE] * n_image
    longest = [3, 9, 12, *image, 20, 21, 22]
    right, left = [5, *image, 30], [8, 9, *image]
    ids = np.zeros((3, len(longest)), np.int32)
    mask = np.zeros(ids.shape, bool)
    ids[0], mask[0] = longest, True
    ids[1, : len(right)], mask[1, : len(right)] = right, True
    ids[2, -len(left) :], mask[2, -len(left) :] = left, True
    return ids, mask, rng.standard_normal((3, 32, 32, 3)).astype(np.float32)


def torch_states(model, pixels, ids, mask, dtype=None):
    import torch

    images = torch.tensor(pixels.transpose(0, 3, 1, 2))
    with torch.no_grad():
        out = model(
            input_ids=torch.tensor(ids).long(),
            pixel_values=images if dtype is None else images.to(dtype),
            attention_mask=torch.tensor(mask).long(),
            output_hidden_states=True,
        )
    return [state.float().numpy() for state in out.hidden_states], out.logits.float().numpy()


@pytest.mark.torch
@pytest.mark.parametrize("case", PARITY)
def test_matches_torch(case, saved):
    model, directory = saved(case)
    backbone = load(directory, prompt="USER: <image> photo")
    ids, mask, pixels = padded_prompts(backbone.config.n_placeholders)
    expected, logits = torch_states(model, pixels, ids, mask)
    with jax.numpy_rank_promotion("raise"):
        states = backbone.sequence_states(pixels, ids, mask, layers=range(backbone.layers + 1))
        lens = backbone.lens(backbone.lens_defaults()[0])
    assert len(expected) == backbone.layers + 1
    for layer in range(backbone.layers):
        np.testing.assert_allclose(np.asarray(states[layer])[mask], expected[layer][mask], rtol=1e-5, atol=1e-5)
    # the last state of transformers is normed already, ours is not: the lens norms it once
    last = np.asarray(states[backbone.layers])
    assert np.isfinite(last).all()
    scale, epsilon = lens.norm_scale, lens.norm_epsilon
    normed = last / np.sqrt((last**2).mean(-1, keepdims=True) + epsilon) * scale
    np.testing.assert_allclose(normed[mask], expected[-1][mask], rtol=1e-5, atol=1e-5)
    ours = np.asarray(lens_scores(lens, last))
    n_words = ours.shape[-1]
    np.testing.assert_allclose(ours[mask], logits[mask][:, :n_words], rtol=1e-5, atol=2e-5)


@pytest.mark.torch
@pytest.mark.parametrize("case", ["CLIP, Llama", "SigLIP, Qwen2, tied"])
def test_bfloat16_weights(case, saved):
    import copy

    import torch

    model, directory = saved(case)
    backbone = load(directory, prompt="USER: <image>", weights="bfloat16")
    decoder = backbone.params["language_model"]
    assert decoder["layers_0"]["mlp"]["gate_proj"]["kernel"].dtype == ml_dtypes.bfloat16
    assert decoder["norm"]["scale"].dtype == np.float32
    tower = backbone.params["vision_tower"]
    assert tower["encoder"]["layers_0"]["mlp"]["fc1"]["kernel"].dtype == ml_dtypes.bfloat16
    assert tower["embeddings"]["patch_embedding"]["kernel"].dtype == np.float32
    ids, mask, pixels = padded_prompts(backbone.config.n_placeholders)
    half = copy.deepcopy(model).to(torch.bfloat16)
    expected, logits = torch_states(half, pixels, ids, mask, torch.bfloat16)
    states = backbone.sequence_states(pixels, ids, mask, layers=range(backbone.layers + 1))
    for layer in range(backbone.layers):
        ours = np.asarray(states[layer])[mask]
        assert np.linalg.norm(ours - expected[layer][mask]) < 2e-2 * np.linalg.norm(expected[layer][mask])
    lens = backbone.lens(backbone.lens_defaults()[0])
    ours = np.asarray(lens_scores(lens, states[backbone.layers]))[mask]
    wanted = logits[mask][:, : ours.shape[-1]]
    assert np.linalg.norm(ours - wanted) < 2e-2 * np.linalg.norm(wanted)


@pytest.mark.torch
@pytest.mark.parametrize("case", list(PARITY)[:3])
def test_encode_gives_the_grid_after_the_prompt(case, saved):
    model, directory = saved(case)
    backbone = load_backbone(LlavaConfig(model=str(directory), prompt="USER : <image> photo a"), mesh={"data": 1})
    assert isinstance(backbone, Backbone)
    assert (backbone.grid, backbone.width, backbone.layers) == ((4, 4), 32, 3)
    pixels = np.random.default_rng(1).standard_normal((2, 32, 32, 3)).astype(np.float32)
    tokens = backbone.encode(pixels, layers=(0, 2, -1))
    # the same through the whole prompt, text after the image included
    whole = np.array([[3, 4, *[IMAGE] * backbone.config.n_placeholders, 5, 6]] * 2)
    expected, _ = torch_states(model, pixels, whole, np.ones(whole.shape, bool))
    first = image_spans(whole, backbone.config)[0]
    assert first == 2 + backbone.config.has_class
    for layer in (0, 2):
        np.testing.assert_allclose(tokens[layer], expected[layer][:, first : first + 16], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(backbone.encode(pixels[:, None], layers=(2,))[2], tokens[2])
    with pytest.raises(DataError, match="Several crops"):
        backbone.encode(np.stack([pixels, pixels], 1))


def test_one_patch_is_one_token_in_row_major_order(saved):
    _, directory = saved("CLIP, Llama")
    values = json.loads((directory / "config.json").read_text())
    # before any attention a patch reaches its own token only
    (directory / "config.json").write_text(json.dumps({**values, "vision_feature_layer": 0}))
    backbone = load(directory)
    images = np.zeros((3, 32, 32, 3), np.uint8)
    images[1, 8:16, 24:32] = 255
    images[2, 24:32, 0:8] = 255
    tokens = np.asarray(backbone.encode(backbone.preprocess(list(images)), layers=(0,))[0])
    for image, (row, column) in ((1, (1, 3)), (2, (3, 0))):
        changed = np.flatnonzero(np.abs(tokens[image] - tokens[0]).max(-1) > 1e-6)
        assert changed.tolist() == [row * 4 + column]
    # causal: a later token sees earlier patches, not the other way round
    deep = np.asarray(backbone.encode(backbone.preprocess(list(images)), layers=(2,))[2])
    changed = np.flatnonzero(np.abs(deep[1] - deep[0]).max(-1) > 1e-6)
    assert changed.tolist() == list(range(7, 16))


@pytest.mark.parametrize("mesh", [{"model": 2}, {"data": 2}])
def test_two_devices_give_the_same(saved, mesh):
    _, directory = saved("CLIP, Llama")
    config = LlavaConfig(model=str(directory))
    one, two = load_backbone(config, mesh={"data": 1}), load_backbone(config, mesh=mesh)
    pixels = np.random.default_rng(1).standard_normal((3, 32, 32, 3)).astype(np.float32)
    for layer in (0, 1, 3):
        ours, expected = two.encode(pixels, layers=(layer,))[layer], one.encode(pixels, layers=(layer,))[layer]
        assert ours.shape == expected.shape
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
    kernel = two.params["language_model"]["layers_1"]["mlp"]["gate_proj"]["kernel"]
    parts = {shard.data.shape for shard in kernel.addressable_shards}
    assert parts == ({(32, 24)} if "model" in mesh else {(32, 48)})
    down = two.params["language_model"]["layers_1"]["mlp"]["down_proj"]["kernel"]
    assert {shard.data.shape for shard in down.addressable_shards} == ({(24, 32)} if "model" in mesh else {(48, 32)})
    assert one.sha256 == two.sha256


def test_devices_that_are_not_there(saved):
    _, directory = saved("CLIP, Llama")
    config = LlavaConfig(model=str(directory))
    for mesh in ({"model": 3}, {"data": 2, "model": 2}):
        with pytest.raises(ConfigError, match=r"`run\.mesh` asks for"):
            load_backbone(config, mesh=mesh)


@pytest.mark.torch
@pytest.mark.parametrize("old", ["language_model.model", "model.language_model"])
def test_names_of_older_checkpoints(saved, old):
    """F-52: earlier namespaces."""
    _, directory = saved("CLIP, Llama")
    pixels = np.random.default_rng(1).standard_normal((1, 32, 32, 3)).astype(np.float32)
    expected = np.asarray(load(directory).encode(pixels)[-1])
    prefix = "" if old == "language_model.model" else "model."
    renamed = {}
    for key, value in safetensors.numpy.load_file(directory / "model.safetensors").items():
        key = key.replace("vision_tower.", f"{prefix}vision_tower.vision_model.")
        key = key.replace("multi_modal_projector.", f"{prefix}multi_modal_projector.")
        if prefix:
            key = key.replace("language_model.lm_head", "lm_head").replace("language_model.model", old)
        renamed[key] = value
    renamed["vision_tower.vision_model.embeddings.position_ids"] = np.arange(17)[None]
    safetensors.numpy.save_file(renamed, directory / "model.safetensors")
    np.testing.assert_array_equal(load(directory).encode(pixels)[-1], expected)


def test_head_rows_and_vocabulary(saved, words, write_tokens, caplog):
    """F-57: padded rows, and a tokenizer that is too small."""
    _, directory = saved("CLIP, Llama")
    backbone = load(directory)
    # 58 tokens, 60 rows: padding rows are left out, and it is said
    with caplog.at_level("WARNING"):
        pieces, _ = backbone.lens_defaults()
    assert "58 tokens, the head 60 rows" in caplog.text
    lens = backbone.lens(pieces)
    head = safetensors.numpy.load_file(directory / "model.safetensors")["language_model.lm_head.weight"]
    assert lens.words.tolist() == list(tokens_of(words))
    np.testing.assert_array_equal(lens.unembedding, head[:58])
    some = backbone.lens(["cat", "photo car"])
    ids = [tokens_of(words).index(word) for word in ("cat", "photo", "car")]
    np.testing.assert_allclose(some.unembedding, [head[ids[0]], head[ids[1:]].mean(0)], rtol=1e-6)
    with pytest.raises(DataError, match="no piece for the word 'zebra'"):
        backbone.lens(["cat", "zebra"])
    write_tokens(directory, tokens_of(words)[:20], special=())
    with pytest.raises(WeightsError, match="has 20 tokens, but the head has 60 rows"):
        backbone.lens_defaults()


def test_stage_with_llava(saved, tmp_path):
    _, directory = saved("SigLIP, Qwen2, tied")
    images = np.random.default_rng(0).integers(0, 256, (5, 40, 48, 3), dtype=np.uint8)
    ids = np.array([f"im{i}" for i in range(5)])
    lookup = dict(zip(ids.tolist(), images, strict=True))
    stimuli = Stimuli(ids, lambda wanted: [lookup[i] for i in wanted], np.array([""] * 5), np.zeros(5, bool))
    config = LlavaConfig(model=str(directory), prompt="USER <image>", batch_size=2, dtype="float32")
    tokens, lens = load_features(config, stimuli, directory=tmp_path / "features")
    assert (tokens.tokens.shape, tokens.grid, tokens.layer) == ((5, 16, 32), (4, 4), 3)
    # the head is read as it is: not centered, over the whole vocabulary
    assert lens.center is None and len(lens.words) == 58
    backbone = load(directory, prompt="USER <image>")
    expected = backbone.encode(backbone.preprocess(list(images)))[-1]
    np.testing.assert_allclose(tokens.tokens[:], expected, rtol=1e-5, atol=1e-5)
    again = artifacts.load(tmp_path / "features" / "lens")
    np.testing.assert_array_equal(lens_scores(again, tokens.tokens[:]), lens_scores(lens, tokens.tokens[:]))


def test_prompt_and_image_span(saved, words, write_tokens):
    """F-59: no image, two, or another number of its tokens."""
    _, directory = saved("CLIP, Llama")
    backbone = load(directory, prompt="USER : <image> photo")
    assert backbone.prompt_ids.tolist() == [3, 4, *[IMAGE] * 16]
    # what follows the image changes nothing, what comes before does
    assert load(directory, prompt="USER : <image> a").sha256 == backbone.sha256
    assert load(directory, prompt="a <image>").sha256 != backbone.sha256
    for prompt in ("no image", "<image> and <image>"):
        with pytest.raises(ConfigError, match="must hold <image> once"):
            load(directory, prompt=prompt)
    with pytest.raises(ConfigError, match="the decoder takes 64"):
        load(directory, prompt="a " * 60 + "<image>")
    image = [IMAGE] * 16
    for row in ([1, 2, 3], [*image, 4, *image], [IMAGE] * 17, [*image[:8], 3, *image[:8]]):
        with pytest.raises(DataError, match="an unbroken run of 16: 4 x 4 patches"):
            image_spans(np.array([row]), backbone.config)
    with pytest.raises(DataError, match="must be 0 to 59"):
        image_spans(np.array([[99, *image]]), backbone.config)
    write_tokens(directory, tokens_of(words)[:-1], special=())
    with pytest.raises(WeightsError, match="makes 0 image id"):
        load(directory)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        (None, {"model_type": "llava_next"}, "not LLaVA 1.5"),
        (None, {"vision_feature_layer": -9}, "`vision_feature_layer` must name layers -4 to 3"),
        (None, {"vision_feature_select_strategy": "cls"}, "must be default or full"),
        (None, {"image_token_index": -1}, "`image_token_index` must be a token id"),
        ("text_config", {"model_type": "gpt2"}, "must be one of"),
        ("text_config", {"num_hidden_layers": 10**9}, "`num_hidden_layers` must be an integer from 1 to"),
        ("text_config", {"num_key_value_heads": 3}, "must be a multiple of 3"),
        ("text_config", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rotary positions must be"),
        ("text_config", {"rope_parameters": {"rope_type": "linear", "factor": -1}}, "`factor` of the rotary"),
        ("text_config", {"model_type": "qwen2", "use_sliding_window": True}, "sliding-window"),
        ("vision_config", {"model_type": "siglip_vision_model"}, "no class token"),
        ("vision_config", {"model_type": "dinov2"}, "must be CLIP or SigLIP"),
        ("vision_config", {"patch_size": 64}, "larger than `image_size`"),
    ],
)
def test_configuration_messages(saved, section, change, message):
    _, directory = saved("CLIP, Llama")
    values = json.loads((directory / "config.json").read_text())
    (values if section is None else values[section]).update(change)
    (directory / "config.json").write_text(json.dumps(values))
    with pytest.raises(WeightsError, match=message):
        load(directory)


def test_missing_and_damaged_tensors(saved):
    _, directory = saved("CLIP, Llama")
    path = directory / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    head = tensors.pop("language_model.lm_head.weight")
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(WeightsError, match=r"1 missing: lm_head\.weight"):
        load(directory)
    tensors["language_model.lm_head.weight"] = head
    tensors["language_model.model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan
    safetensors.numpy.save_file(tensors, path)
    for mesh in ({"data": 1}, {"model": 2}):
        with pytest.raises(WeightsError, match=r"NaN or infinity in 1 tensor: language_model\.layers\.1\.mlp\.up_proj"):
            load_backbone(LlavaConfig(model=str(directory)), mesh=mesh)


@pytest.mark.parametrize("shape", [(40, 90), (97, 31), (64, 64)])
def test_padding_to_a_square_matches_transformers(shape):
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    values = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "do_pad": True}
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = LlavaImageProcessorPil(**values)(image, return_tensors="np", input_data_format="channels_last")
    ours = read_processor({**values, "image_processor_type": "LlavaImageProcessorFast"}, image_size=32)(image)
    np.testing.assert_array_equal(ours.transpose(2, 0, 1), expected["pixel_values"][0])
