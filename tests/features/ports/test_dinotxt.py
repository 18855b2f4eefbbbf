"""dino.txt against torch: DINOv2 of transformers, and on it the two heads as the original's code has them."""

import copy
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from mine_jax.config import DinoTxtConfig
from mine_jax.errors import ConfigError, DataError, WeightsError
from mine_jax.features import lens_scores, load_backbone, ports
from mine_jax.features.families.usual import USUAL
from mine_jax.features.ports import params
from mine_jax.features.ports.dinotxt import config as dinotxt_config
from mine_jax.features.ports.dinotxt.backbone import load
from mine_jax.features.ports.text import load_tokenizer
from mine_jax.features.ports.untrained import blank_backbone

PUBLISHED = "dinov2_vitl14_reg4_dinotxt_tet1280d20h24l"
VISION = {"hidden_size": 48, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
# a small number of norms that the head does not have
VISION |= {"image_size": 32, "patch_size": 8, "num_register_tokens": 3, "num_head_layers": 2, "layer_norm_eps": 1e-2}
TEXT = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT |= {"vocab_size": 40, "max_position_embeddings": 9}
# width of text vectors: twice that of the tower, as in the published model, or another with a projection
EMBED_DIMS = {"as published": 96, "with a projection": 56}
# that of the table of positions, more rows and fewer columns, and larger
GRIDS = ((4, 4), (6, 3), (7, 5))
WRAPPER, HEAD = "visual_model.backbone.model.", "visual_model.head."
# of transformers' Dinov2WithRegistersModel -> of the original
NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "encoder.layer": "blocks",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "layernorm": "norm",
}


def parts(vision, text, embed_dim):
    """Returns DINOv2, its head and the text tower, whose keys are those of the published files."""
    import torch
    import transformers
    from torch import nn

    class Attention(nn.Module):
        def __init__(self, width, heads):
            super().__init__()
            self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

        def forward(self, x, causal):
            q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
            return self.proj(mixed.transpose(1, 2).flatten(2))

    class Gated(nn.Module):
        def __init__(self, width):
            super().__init__()
            hidden = -(-int(4 * width * 2 / 3) // 64) * 64
            self.w1, self.w2, self.w3 = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, width)

        def forward(self, x):
            return self.w3(nn.functional.silu(self.w1(x)) * self.w2(x))

    class Scale(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(width))

    class HeadBlock(nn.Module):
        def __init__(self, width, heads):
            super().__init__()
            self.norm1, self.attn, self.ls1 = nn.LayerNorm(width), Attention(width, heads), Scale(width)
            self.norm2, self.mlp, self.ls2 = nn.LayerNorm(width), Gated(width), Scale(width)

        def forward(self, x):
            x = x + self.attn(self.norm1(x), False) * self.ls1.gamma
            return x + self.mlp(self.norm2(x)) * self.ls2.gamma

    class TextBlock(nn.Module):
        def __init__(self, width, heads):
            super().__init__()
            self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
            self.ffn_norm, self.feed_forward = nn.LayerNorm(width), nn.Module()
            self.feed_forward.fc1, self.feed_forward.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            x = x + self.attention(self.attention_norm(x), True)
            hidden = nn.functional.gelu(self.feed_forward.fc1(self.ffn_norm(x)))
            return x + self.feed_forward.fc2(hidden)

    sizes = {key: value for key, value in vision.items() if key not in ("intermediate_size", "num_head_layers")}
    dino = transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**sizes)).eval()
    head, backbone, tower = nn.Module(), nn.Module(), nn.Module()
    width, heads = vision["hidden_size"], vision["num_attention_heads"]
    head.block_list = nn.ModuleList(HeadBlock(width, heads) for _ in range(vision["num_head_layers"]))
    head.ln_final, half = nn.LayerNorm(width), embed_dim // 2
    head.linear_projection = nn.Identity() if half == width else nn.Linear(width, half, bias=False)
    width, heads = text["hidden_size"], text["num_attention_heads"]
    backbone.token_embedding = nn.Embedding(text["vocab_size"], width)
    backbone.positional_embedding = nn.Parameter(torch.empty(text["max_position_embeddings"], width))
    backbone.blocks = nn.ModuleList(TextBlock(width, heads) for _ in range(text["num_hidden_layers"]))
    backbone.ln_final = nn.LayerNorm(width)
    tower.backbone, tower.head = backbone, nn.Module()
    tower.head.linear_projection = nn.Linear(width, embed_dim, bias=False)
    return dino, head, tower


def random_parts(embed_dim):
    import torch

    torch.manual_seed(0)
    made = parts(VISION, TEXT, embed_dim)
    for part in made:
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return made


def original_keys(dino):
    """Returns the tensors of DINOv2 by the names that they have in its own code."""
    import torch

    found, split = {}, {}
    for key, tensor in dino.state_dict().items():
        for old, new in NAMES.items():
            key = key.replace(old, new)
        if "attention." in key:
            block, _, rest = key.partition("attention.")
            split.setdefault(f"{block}attn.qkv.{rest.rpartition('.')[2]}", []).append(tensor)
        else:
            found[key] = tensor
    # queries, keys and values, in the order in which transformers declares them
    return {**found, **{key: torch.cat(three) for key, three in split.items()}}


def tensors_of(dino, head, tower):
    """Returns the tensors of the whole model by the names of the original's `state_dict`."""
    tensors = {WRAPPER + key: value for key, value in original_keys(dino).items()}
    tensors |= {HEAD + key: value for key, value in head.state_dict().items()}
    tensors |= {f"text_model.{key}": value for key, value in tower.state_dict().items()}
    return {**{key: value.numpy() for key, value in tensors.items()}, "logit_scale": np.float32([np.log(1 / 0.07)])}


def image_of(dino, head, pixels):
    """Returns the states of all layers and the projected tokens, class token and registers first."""
    import torch

    with torch.no_grad():
        found = dino(torch.tensor(pixels.transpose(0, 3, 1, 2)), output_hidden_states=True)
        states, x = list(found.hidden_states), found.last_hidden_state
        for block in head.block_list:
            x = block(x)
            states.append(x)
        return states, head.linear_projection(head.ln_final(x))


def text_of(tower, ids):
    """Returns the states of all layers and the text vectors, read at the highest id."""
    import torch

    with torch.no_grad():
        ids, backbone = torch.tensor(ids).long(), tower.backbone
        states = [backbone.token_embedding(ids) + backbone.positional_embedding[: ids.shape[1]]]
        for block in backbone.blocks:
            states.append(block(states[-1]))
        projected = tower.head.linear_projection(backbone.ln_final(states[-1]))
        return states, projected[torch.arange(len(ids)), ids.argmax(-1)]


def write(directory, tensors, embed_dim, *, words, write_tokens):
    directory.mkdir(exist_ok=True)
    values = {"model_type": "dinotxt", "embed_dim": embed_dim, "vision_config": VISION, "text_config": TEXT}
    (directory / "config.json").write_text(json.dumps(values))
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    others = ["<unk>", "a", "photo", "of", *words]
    filling = map(str, range(TEXT["vocab_size"] - len(others) - 1))
    return write_tokens(directory, (*others, *filling, "</s>"))


both = pytest.mark.parametrize("made", EMBED_DIMS.values(), ids=EMBED_DIMS, indirect=True)


@pytest.fixture(scope="module")
def made(request):
    embed_dim = getattr(request, "param", EMBED_DIMS["with a projection"])
    return (*random_parts(embed_dim), embed_dim)


@pytest.fixture
def directory(made, tmp_path, words, write_tokens):
    *model, embed_dim = made
    return write(tmp_path / "tiny", tensors_of(*model), embed_dim, words=words, write_tokens=write_tokens)


def photos(grid, n=2):
    shape = (10 * grid[0], 10 * grid[1], 3)
    return [np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8) for i in range(n)]


@pytest.mark.torch
@both
@pytest.mark.parametrize("grid", GRIDS)
def test_matches_torch(grid, made, directory):
    dino, head, tower, embed_dim = made
    backbone = load_backbone(DinoTxtConfig(model=str(directory), grid=grid), mesh={"data": 1})
    assert (backbone.grid, backbone.width, backbone.layers) == (grid, 48, 4)
    pixels, first = backbone.preprocess(photos(grid)), 1 + VISION["num_register_tokens"]
    expected, projected = image_of(dino, head, pixels)
    ids = np.random.default_rng(1).integers(0, 39, (3, 7)).astype(np.int32)
    ids[[0, 1, 2], [6, 2, 4]] = 39
    text_states, text = text_of(tower, ids)
    with jax.numpy_rank_promotion("raise"):
        states = backbone.encode(pixels, layers=range(5))
        ours = backbone.image_features(pixels), backbone.text_features(ids), backbone.word_features(ids)
        text_ours = backbone.model.apply({"params": backbone.params}, ids, method="text_states")
    assert len(expected) == 5 and len(text_ours) == len(text_states) == 3
    for layer, state in enumerate(expected):
        np.testing.assert_allclose(states[layer], state[:, first:].numpy(), rtol=1e-5, atol=1e-5)
    for state, wanted in zip(text_ours, text_states, strict=True):
        np.testing.assert_allclose(state, wanted.numpy(), rtol=1e-5, atol=1e-5)
    image = np.concatenate([projected[:, 0], projected[:, first:].mean(1)], 1)
    assert ours[0].shape[1] == ours[1].shape[1] == embed_dim
    np.testing.assert_allclose(ours[0], image, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours[1], text.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ours[2], ours[1][:, embed_dim // 2 :])


@pytest.mark.torch
@both
def test_lens_compares_patches_with_their_half_of_texts(made, directory, words):
    dino, head, tower, embed_dim = made
    backbone = load(directory, grid=(6, 3))
    pixels = backbone.preprocess(photos((6, 3)))
    lens = backbone.lens(words, ("a photo of a {}",))
    # the map of a patch that the original compares with texts
    patches = image_of(dino, head, pixels)[1][:, 1 + VISION["num_register_tokens"] :].numpy().astype(np.float64)
    patches /= np.linalg.norm(patches, axis=-1, keepdims=True)
    # ids of the tokenizer below: "<unk>", "a", "photo", "of", the words, ..., "</s>"
    ids = np.array([[1, 2, 3, 1, 4 + i, 39] for i in range(len(words))], np.int32)
    texts = text_of(tower, ids)[1].numpy().astype(np.float64)[:, embed_dim // 2 :]
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    texts -= texts.mean(0)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    expected = patches @ texts.T / 0.07
    scores = lens_scores(lens, backbone.encode(pixels)[-1])
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.torch
def test_bfloat16_weights(made, directory):
    import torch

    full, half = (load(directory, weights=weights, grid=(6, 3)) for weights in ("float32", "bfloat16"))
    assert half.sha256 != full.sha256
    visual = half.params["visual_model"]
    for block in (visual["backbone"]["blocks_1"], visual["head"]["block_list_1"]):
        assert block["attn"]["qkv"]["kernel"].dtype == block["attn"]["proj"]["bias"].dtype == jax.numpy.bfloat16
        assert block["norm1"]["bias"].dtype == block["ls1"]["gamma"].dtype == np.float32
    pixels = full.preprocess(photos((6, 3)))
    dino, head = (copy.deepcopy(part).to(torch.bfloat16) for part in made[:2])
    states, exact = (backbone.encode(pixels, layers=range(5)) for backbone in (half, full))
    for layer, state in enumerate(image_of(dino, head, pixels.astype(jax.numpy.bfloat16).astype(np.float32))[0]):
        wanted = state.float().numpy()[:, 4:]
        assert np.linalg.norm(states[layer] - wanted) < 2e-2 * np.linalg.norm(wanted)
        assert np.linalg.norm(states[layer] - exact[layer]) < 1e-2 * np.linalg.norm(exact[layer])


@pytest.mark.torch
def test_the_published_sizes():
    """The published files hold what the original's code makes, and the port loads all of it."""
    import torch

    values = USUAL[PUBLISHED]
    with torch.device("meta"):
        made = parts(
            {**dinotxt_config.VISION, **values["vision_config"]}, {**dinotxt_config.TEXT, **values["text_config"]}, 2048
        )
    # bytes of DINOv2, its head and the text tower as they are published; a pickle has some for each tensor
    for part, n_bytes in zip(made, (1_217_607_321, 101_317_814, 2_152_639_923), strict=True):
        held = 4 * sum(tensor.numel() for tensor in part.state_dict().values())
        assert 0 < n_bytes - held < 500 * len(part.state_dict())
    shapes = {f"{HEAD}{key}": tuple(value.shape) for key, value in made[1].state_dict().items()}
    shapes |= {f"text_model.{key}": tuple(value.shape) for key, value in made[2].state_dict().items()}
    shapes |= {f"visual_model.backbone.{key}": tuple(value.shape) for key, value in original_keys(made[0]).items()}
    del shapes["visual_model.backbone.mask_token"]
    for config in (values, {"model_type": "dinotxt"}):
        blank = blank_backbone(config)
        sizes, flat = blank.config, params.parameter_shapes(blank.model)
        ours = {params.checkpoint_key(path): params._torch_shape(path, leaf.shape) for path, leaf in flat.items()}
        assert ours == {**shapes, "logit_scale": (1,)}
        heads = (sizes.vision.heads, sizes.head.heads, sizes.text.heads)
        assert heads == (made[0].config.num_attention_heads, made[1].block_list[0].attn.heads, 20)
        small = (sizes.vision.epsilon, sizes.head.epsilon, sizes.text.epsilon)
        assert small == (1e-6, made[1].ln_final.eps, made[2].backbone.ln_final.eps)


@pytest.mark.torch
def test_pixels_are_those_of_the_processor(directory):
    """But for the crop: the whole photo is resized."""
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    values = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 3}
    values |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    processor = BitImageProcessorPil(**{**values, "size": {"height": 48, "width": 24}, "do_center_crop": False})
    images = photos((6, 3))
    wanted = processor(images, return_tensors="np", input_data_format="channels_last")["pixel_values"]
    without = load(directory, grid=(6, 3)).preprocess(images)
    # what the hub has beside DINOv2 with registers
    (directory / "preprocessor_config.json").write_text(json.dumps({**values, "do_center_crop": True}))
    for pixels in (without, load(directory, grid=(6, 3)).preprocess(images)):
        np.testing.assert_array_equal(pixels.transpose(0, 3, 1, 2), wanted)


def test_one_bright_patch_is_one_token(directory):
    backbone = load(directory, grid=(6, 3))
    images = np.zeros((2, 48, 24, 3), np.uint8)
    images[1, 32:40, 16:24] = 255
    tokens = np.asarray(backbone.encode(backbone.preprocess(list(images)), layers=(0,))[0])
    assert np.flatnonzero(np.abs(tokens[1] - tokens[0]).max(-1) > 1e-6).tolist() == [4 * 3 + 2]


def test_two_devices_give_the_same(directory):
    one, two = (load_backbone(DinoTxtConfig(model=str(directory)), mesh={"data": n}) for n in (1, 2))
    assert one.grid == DinoTxtConfig().grid == (16, 16)
    pixels = one.preprocess(photos((4, 4), n=3))
    np.testing.assert_allclose(one.encode(pixels)[-1], two.encode(pixels)[-1], rtol=1e-5, atol=1e-5)


@pytest.mark.torch
def test_the_lines_of_the_readme_convert_the_published_files(made, tmp_path, monkeypatch, words, write_tokens):
    import torch

    dino, head, tower, embed_dim = made
    expected = tensors_of(dino, head, tower)
    monkeypatch.chdir(tmp_path)
    for name, part in (
        ("pretrain", original_keys(dino)),
        ("dinotxt_tet1280d20h24l_vision_head", head.state_dict()),
        ("dinotxt_tet1280d20h24l_text_encoder", tower.state_dict()),
    ):
        torch.save(dict(part), f"dinov2_vitl14_reg4_{name}.pth")
    (tmp_path / "dinotxt").mkdir()
    (code,) = re.findall(r"```python\n(.*?)```", (Path(ports.__file__).parent / "README.md").read_text(), re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    converted = safetensors.numpy.load_file("dinotxt/model.safetensors")
    assert set(converted) == set(expected)
    for key, tensor in expected.items():
        np.testing.assert_allclose(converted[key], tensor, rtol=1e-6, atol=0)
    blank = dinotxt_config.read_config(tmp_path / "dinotxt", grid=(16, 16))
    assert (blank.vision.width, blank.text.width, blank.head.layers) == (1024, 1280, 2)
    write(tmp_path / "dinotxt", converted, embed_dim, words=words, write_tokens=write_tokens)
    load("dinotxt")


def test_names_with_and_without_the_wrapper(directory, tmp_path):
    first = load(directory, grid=(4, 4))
    tensors = safetensors.numpy.load_file(directory / "model.safetensors")
    other = shutil.copytree(directory, tmp_path / "other")
    bare = {key.replace(WRAPPER, "visual_model.backbone."): value for key, value in tensors.items()}
    safetensors.numpy.save_file(bare, other / "model.safetensors")
    pixels = first.preprocess(photos((4, 4)))
    np.testing.assert_array_equal(load(other, grid=(4, 4)).encode(pixels)[-1], first.encode(pixels)[-1])
    del bare["visual_model.head.block_list.1.mlp.w2.bias"]
    safetensors.numpy.save_file({**bare, "text_model.head.extra": np.ones(3, np.float32)}, other / "model.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing: .*block_list\.1\.mlp\.w2\.bias; 1 unexpected: .*extra"):
        load(other)


@pytest.mark.torch
def test_texts_are_those_of_the_tokenizer_of_clip(directory):
    """Its byte-pair classes load beside a config.json that transformers does not know."""
    from transformers import CLIPTokenizer

    for path in directory.glob("*token*"):
        path.unlink()
    pieces = [*"acdgot", "a</w>", "g</w>", "t</w>", "do", "dog</w>", "ca", "cat</w>"]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    numbers = {piece: i for i, piece in enumerate(pieces)}
    merges = [("d", "o"), ("do", "g</w>"), ("c", "a"), ("ca", "t</w>")]
    CLIPTokenizer(vocab=numbers, merges=merges).save_pretrained(directory)
    backbone = load(directory)
    ids = backbone.text_ids(load_tokenizer(directory), ["A cat", "a dog  a"], backbone.config.text)
    start, end, a, cat, dog = (
        numbers[piece] for piece in ("<|startoftext|>", "<|endoftext|>", "a</w>", "cat</w>", "dog</w>")
    )
    assert ids.tolist() == [[start, a, cat, end, 0], [start, a, dog, a, end]]


def test_lens_messages(directory, words, write_tokens):
    backbone = load(directory)
    with pytest.raises(DataError, match=r"has 13 tokens; the text tower takes 9"):
        backbone.lens(words, ("a " * 11 + "{}",))
    write_tokens(directory, ("</s>", "<unk>", "a", *words, *map(str, range(20))))
    with pytest.raises(WeightsError, match="does not end texts with its highest id"):
        backbone.lens(words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "dinov2_with_registers"}, "'dinov2_with_registers' model, not dino.txt"),
        ({"embed_dim": 95}, "`embed_dim` must be even"),
        ({"vision_config": {**VISION, "num_register_tokens": 0}}, "`num_register_tokens` must be"),
        ({"vision_config": {**VISION, "hidden_act": "swiglu"}}, "`hidden_act` must be one of"),
        ({"text_config": {**TEXT, "hidden_size": 10**9}}, "`hidden_size` must be"),
    ],
)
def test_configuration_messages(change, message, directory):
    values = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(WeightsError, match=message):
        load(directory)


def test_grids_and_processors_that_do_not_fit(directory):
    with pytest.raises(ConfigError, match=r"`features\.grid` must be two numbers from 1 to"):
        load(directory, grid=(0, 4))
    (directory / "preprocessor_config.json").write_text('{"do_resize": false}')
    with pytest.raises(WeightsError, match="Is it the preprocessor of another checkpoint"):
        load(directory)
