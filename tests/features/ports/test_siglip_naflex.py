"""SigLIP 2 NaFlex against transformers: every layer, pooling, text, logits, pixels; on grids of several shapes."""

import copy
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from mine_jax.config import SiglipNaflexConfig
from mine_jax.errors import ConfigError, WeightsError
from mine_jax.features import lens_scores, load_backbone
from mine_jax.features.ports.siglip_naflex.backbone import load

SIZES = {"hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {
    **SIZES,
    "vocab_size": 40,
    "max_position_embeddings": 9,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
VISION = {**SIZES, "patch_size": 4, "num_patches": 16}
MOST = 24
# the square of the table, more rows and fewer columns than it has, a strip
GRIDS = {(4, 4): (31, 32), (6, 3): (60, 30), (2, 12): (8, 48)}


@pytest.fixture(scope="module")
def model():
    import torch
    import transformers

    torch.manual_seed(0)
    made = transformers.Siglip2Model(transformers.Siglip2Config(text_config=TEXT, vision_config=VISION)).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


@pytest.fixture
def directory(model, tmp_path, words, write_tokens):
    model.save_pretrained(tmp_path)
    values = {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 4, "max_num_patches": MOST}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    return write_tokens(tmp_path, ("<pad>", "</s>", "<unk>", "a", "photo", "of", *words, *map(str, range(20))))


def photos(shape, n=2):
    return [np.random.default_rng(i).integers(0, 256, (*shape, 3), dtype=np.uint8) for i in range(n)]


def prepared(images, most):
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    processor = Siglip2ImageProcessorPil(patch_size=4, max_num_patches=most)
    return processor(images, return_tensors="pt", input_data_format="channels_last")


def torch_vision(model, images, grid, dtype=None):
    """What the tower of transformers makes of photos that it pads to more patches than they have."""
    import torch

    inputs = prepared(images, grid[0] * grid[1])
    assert inputs["spatial_shapes"].tolist() == [list(grid)] * len(images)
    # what is added beyond the grid must be masked, there and here by not being there
    pad = MOST - grid[0] * grid[1]
    pixels = torch.nn.functional.pad(inputs["pixel_values"].to(dtype or torch.float32), (0, 0, 0, pad), value=7.0)
    mask = torch.nn.functional.pad(inputs["pixel_attention_mask"], (0, pad))
    arguments = {"pixel_values": pixels, "pixel_attention_mask": mask, "spatial_shapes": inputs["spatial_shapes"]}
    with torch.no_grad():
        return model.vision_model(**arguments, output_hidden_states=True), arguments


@pytest.mark.torch
@pytest.mark.parametrize("grid", GRIDS)
def test_matches_torch(grid, model, directory):
    import torch

    config = SiglipNaflexConfig(model=str(directory), grid=grid)
    backbone = load_backbone(config, mesh={"data": 1})
    images, n_tokens = photos(GRIDS[grid]), grid[0] * grid[1]
    assert (backbone.grid, backbone.width, backbone.layers) == (grid, 48, 2)
    pixels = backbone.preprocess(images)
    expected, arguments = torch_vision(model, images, grid)
    with jax.numpy_rank_promotion("raise"):
        states = backbone.encode(pixels, layers=range(3))
        ours = backbone.image_features(pixels)
    assert len(expected.hidden_states) == 3
    for layer, state in enumerate(expected.hidden_states):
        np.testing.assert_allclose(states[layer], state.numpy()[:, :n_tokens], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours, expected.pooler_output.numpy(), rtol=1e-5, atol=1e-5)
    ids = np.random.default_rng(1).integers(2, 40, (3, 9)).astype(np.int32)
    with torch.no_grad():
        whole = model(input_ids=torch.tensor(ids).long(), **arguments)
    unit = [np.asarray(v) / np.linalg.norm(v, axis=1, keepdims=True) for v in (ours, backbone.text_features(ids))]
    scale, bias = (np.asarray(backbone.params[name])[0] for name in ("logit_scale", "logit_bias"))
    np.testing.assert_allclose(np.exp(scale) * unit[0] @ unit[1].T + bias, whole.logits_per_image.numpy(), atol=1e-5)


@pytest.mark.torch
def test_lens_of_one_token_is_the_model_on_one_token(model, directory, words):
    import torch

    backbone = load(directory, grid=(6, 3))
    tokens = np.asarray(backbone.encode(backbone.preprocess(photos((60, 30))))[-1])
    lens = backbone.lens(words, ("a photo of a {}",))
    with torch.no_grad():
        normed = model.vision_model.post_layernorm(torch.tensor(tokens[:, 3:4]))
        vectors = model.vision_model.head(normed, torch.ones(2, 1, dtype=torch.int32)).numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = lens.scale * unit @ np.asarray(lens.unembedding).T + np.asarray(lens.bias)[None]
    np.testing.assert_allclose(lens_scores(lens, tokens[:, 3]), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.torch
def test_bfloat16_weights(model, directory):
    import torch

    half, images = copy.deepcopy(model).to(torch.bfloat16), photos((60, 30))
    expected, _ = torch_vision(half, images, (6, 3), torch.bfloat16)
    backbone = load(directory, weights="bfloat16", grid=(6, 3))
    states = backbone.encode(backbone.preprocess(images), layers=range(3))
    for layer, state in enumerate(expected.hidden_states):
        wanted = state.float().numpy()[:, :18]
        assert np.linalg.norm(states[layer] - wanted) < 2e-2 * np.linalg.norm(wanted)


@pytest.mark.torch
@pytest.mark.parametrize("shape", [(425, 425), (31, 32), (60, 30), (8, 48), (90, 70)])
def test_pixels_are_those_of_the_processor(shape, directory):
    images = photos(shape, n=1)
    inputs = prepared(images, MOST)
    rows, columns = inputs["spatial_shapes"][0].tolist()
    pixels = load(directory, grid=(rows, columns)).preprocess(images)[0]
    patches = pixels.reshape(rows, 4, columns, 4, 3).transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1)
    np.testing.assert_array_equal(patches, inputs["pixel_values"][0, : rows * columns].numpy())


@pytest.mark.torch
def test_square_photos_come_to_the_default_grid():
    from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

    sides = get_image_size_for_max_num_patches(425, 425, patch_size=16, max_num_patches=256)
    assert tuple(side // 16 for side in sides) == SiglipNaflexConfig().grid


def test_one_bright_patch_is_one_token(directory):
    backbone = load(directory, grid=(6, 3))
    images = np.zeros((2, 24, 12, 3), np.uint8)
    images[1, 16:20, 8:12] = 255
    tokens = np.asarray(backbone.encode(backbone.preprocess(list(images)), layers=(0,))[0])
    assert np.flatnonzero(np.abs(tokens[1] - tokens[0]).max(-1) > 1e-6).tolist() == [4 * 3 + 2]


def test_vision_only_checkpoints_of_both_namespaces(model, directory, tmp_path):
    """F-52: with and without the prefix."""
    whole = load(directory, grid=(6, 3))
    pixels = whole.preprocess(photos((60, 30)))
    expected = whole.encode(pixels)[-1]
    bare = tmp_path / "vision"
    model.vision_model.save_pretrained(bare)
    tensors = safetensors.numpy.load_file(bare / "model.safetensors")
    for prefix in ("", "vision_model."):
        renamed = {f"{prefix}{key.removeprefix('vision_model.')}": value for key, value in tensors.items()}
        safetensors.numpy.save_file(renamed, bare / "model.safetensors")
        backbone = load(bare, grid=(6, 3))
        np.testing.assert_array_equal(backbone.encode(pixels)[-1], expected)
    with pytest.raises(ConfigError, match="reads no words"):
        backbone.lens(["face"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "siglip"}, "not a NaFlex variant"),
        ({"vision_config": {**VISION, "num_patches": 15}}, "must be a square number"),
        ({"vision_config": {**VISION, "hidden_size": 10**9}}, "`hidden_size` must be"),
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
    (directory / "preprocessor_config.json").write_text('{"patch_size": 16}')
    with pytest.raises(WeightsError, match="makes patches of 16 pixels"):
        load(directory)
