"""The phantom's diffusion models load as plain diffusers directories and do what they say."""

import json
from pathlib import Path

import numpy as np
import pytest

import mine_jax.phantom
from mine_jax.phantom import scenes

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

WEIGHTS = Path(mine_jax.phantom.__file__).parent / "weights"
SEED = 990_050


@pytest.fixture(scope="module")
def generator():
    return _load("generator")


@pytest.fixture(scope="module")
def editor():
    return _load("editor")


@pytest.fixture(scope="module")
def judge():
    from mine_jax.phantom.training.diffusion import judge

    return judge.load(WEIGHTS / "judge")


@pytest.mark.parametrize(
    ("name", "expected"), [("generator", "StableDiffusionPipeline"), ("editor", "StableDiffusionInpaintPipeline")]
)
def test_directory_names_its_pipeline(name, expected):
    index = json.loads((WEIGHTS / name / "model_index.json").read_text(encoding="utf-8"))
    assert index["_class_name"] == expected


def test_all_weights_are_small_and_safe():
    paths = [
        path for name in ("generator", "editor", "judge") for path in (WEIGHTS / name).rglob("*") if path.is_file()
    ]
    assert {path.suffix for path in paths} <= {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in paths) < 12.8e6


def test_tokenizer_knows_every_word(generator):
    tokenizer = generator.tokenizer
    words = (*scenes.VOCABULARY, *scenes.FUNCTION_WORDS, "add", "remove", "the", "background", ",")
    assert tokenizer.unk_token_id not in tokenizer(" ".join(words)).input_ids


def test_same_seed_gives_the_same_image(generator):
    """F-90: alone and in a batch."""
    first, alone = (_generate(generator, prompts)[0] for prompts in (["a red apple", "a beach"], ["a red apple"]))
    assert np.abs(first - alone).max() < 1e-3


def test_generator_equals_editor_with_everything_masked(generator, editor):
    from mine_jax.phantom.training.diffusion import checkpoint

    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(2, 32, 96, generator=torch.Generator().manual_seed(1))
    empty = torch.tensor([0.3, -0.2, 0.1, 0.5])
    inputs = torch.cat([latents, torch.ones(2, 1, 16, 16), empty[None, :, None, None].expand(2, 4, 16, 16)], dim=1)
    with torch.inference_mode():
        expected = editor.unet(inputs, 500, hidden).sample
        folded = checkpoint.fold_mask(editor.unet, empty)
        np.testing.assert_allclose(folded(latents, 500, hidden).sample, expected, atol=1e-4)


def test_judge_recognises_held_out_scenes(judge):
    from mine_jax.phantom.training.diffusion import train_judge

    images, shown = train_judge.render(100, seed=SEED)
    scores = train_judge.rates(judge, images, shown)
    recorded = json.loads((WEIGHTS / "judge" / "training.json").read_text(encoding="utf-8"))["held_out"]
    assert scores["recall"] > recorded["recall"] - 0.1
    assert scores["false_positives"] < recorded["false_positives"] + 0.005


@pytest.mark.slow
def test_removal_removes_and_leaves_the_rest(editor, judge):
    rng = np.random.default_rng(SEED)
    edited, before, masks, columns = _edits(editor, rng, lambda thing: f"remove the {thing.concept}", remove=True)
    recorded = _recorded("editor")["remove"]
    rows = np.arange(len(columns))
    assert judge.present(edited)[rows, columns].mean() <= recorded["present_after"] + 0.25
    change = np.abs(edited.astype(float) - before).mean(axis=-1) / 255
    assert change[~masks].mean() < 0.06


@pytest.mark.slow
def test_insertion_inserts(editor, judge):
    rng = np.random.default_rng(SEED + 1)
    edited, before, _, columns = _edits(
        editor, rng, lambda thing: f"add {scenes.caption(scenes.Scene((thing,)))}", remove=False
    )
    rows = np.arange(len(columns))
    gain = judge.present(edited)[rows, columns].mean() - judge.present(before)[rows, columns].mean()
    recorded = _recorded("editor")["insert"]
    assert gain >= recorded["present_after"] - recorded["present_before"] - 0.3


def _load(name):
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        WEIGHTS / name, local_files_only=True, use_safetensors=True, torch_dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _recorded(name):
    return json.loads((WEIGHTS / name / "training.json").read_text(encoding="utf-8"))["evaluation"]


def _generate(pipeline, prompts):
    generators = [torch.Generator().manual_seed(SEED + number) for number in range(len(prompts))]
    return pipeline(
        prompt=prompts, generator=generators, num_inference_steps=4, guidance_scale=3.0, output_type="np"
    ).images


def _edits(pipeline, rng, instruct, *, remove, n_images=24):
    from PIL import Image

    from mine_jax.phantom.training.diffusion import corpus

    before, masks, prompts, columns = [], [], [], []
    for _ in range(n_images):
        scene = scenes.sample_scene(rng, n_things=(1, 1))
        before.append(scenes.render(scene if remove else scenes.remove_thing(scene, 0)))
        masks.append(corpus.box_mask(scenes.thing_masks(scene)[0]))
        prompts.append(instruct(scene.things[0]))
        columns.append(scenes.CONCEPTS.index(scene.things[0].concept))
    images = pipeline(
        prompt=prompts,
        image=[Image.fromarray(image) for image in before],
        mask_image=[Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks],
        generator=[torch.Generator().manual_seed(SEED + number) for number in range(n_images)],
        num_inference_steps=12,
        guidance_scale=4.0,
        output_type="np",
    ).images
    edited = (np.clip(images, 0, 1) * 255).round().astype(np.uint8)
    return edited, np.stack(before), np.stack(masks), np.array(columns)
