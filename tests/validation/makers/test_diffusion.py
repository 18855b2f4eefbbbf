"""The adapters on the real classes of diffusers, one tiny random pipeline per family."""

import functools
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from mine_jax.errors import ConfigError, GenerationError, MissingExtraError, MissingInputError, WeightsError
from mine_jax.validation.makers import diffusion, pictures, process
from mine_jax.validation.makers.protocols import Editor, Generator, Instruction, check_picture

pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    # diffusers' own schedulers under numpy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
STEPS = 2
GENERATORS = ("sd", "sdxl", "sd3", "flux", "flux-kontext", "qwen")
EDITORS = (
    "sd-instruct",
    "sd-inpaint",
    "sd-img2img",
    "sdxl-instruct",
    "sdxl-inpaint",
    "sdxl-img2img",
    "flux-kontext",
    "flux-fill",
    "qwen-edit",
    "qwen-edit-plus",
)
# Qwen's editors look at images scaled to about this many pixels; the real megapixel takes seconds on a CPU.
QWEN_AREA = 64 * 64


@pytest.fixture(scope="module")
def tiny():
    import torch

    spec = importlib.util.spec_from_file_location("tiny_pipelines", Path(__file__).parent / "tiny_pipelines.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("qwen-edit", "qwen-edit-plus"):
            home = sys.modules[type(module.build(name)).__module__]
            real = home.calculate_dimensions
            patch.setattr(home, "calculate_dimensions", lambda area, ratio, real=real: real(QWEN_AREA, ratio))
        yield module
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 255, (31, 45, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def mask():
    box = np.zeros((31, 45), bool)
    box[5:20, 5:20] = True
    return box


@pytest.mark.parametrize("name", GENERATORS)
def test_generators(tiny, name):
    """F-90: a seed decides, not a place in the batch."""
    generator = diffusion.PipelineGenerator(tiny.build(name), steps=STEPS, guidance=2.0)
    assert isinstance(generator, Generator)
    drawn = generator.generate(["a photo of cat", "dog"], seeds=[3, 4], size=(32, 48))
    assert [check_picture(picture, size=(32, 48)).status for picture in drawn] == ["ok", "ok"]
    alone = generator.generate(["dog"], seeds=[4], size=(32, 48))
    assert np.abs(alone[0].pixels.astype(int) - drawn[1].pixels).max() <= 1  # a seed, not a place in the batch
    other = generator.generate(["dog"], seeds=[5], size=(32, 48))
    assert (other[0].pixels != alone[0].pixels).any()


@pytest.mark.parametrize("name", EDITORS)
def test_editors(tiny, name, photo, mask):
    editor = diffusion.PipelineEditor(tiny.build(name), steps=STEPS, guidance=2.0, image_guidance=1.5)
    assert isinstance(editor, Editor)
    drawn = editor.edit([photo, photo], ["add cat", "remove the dog"], seeds=[3, 4], masks=[mask, mask])
    for picture in drawn:
        checked = check_picture(picture, before=photo)
        assert checked.status == "ok" and checked.pixels.shape == photo.shape and checked.refit


@pytest.mark.parametrize("name", ["sd-inpaint", "flux-fill", "qwen-edit"])
def test_equal_seed_gives_equal_bits(tiny, photo, mask, name):
    """F-90: the same seed."""
    editor = diffusion.PipelineEditor(tiny.build(name), steps=STEPS)
    first, second, other = (editor.edit([photo], ["cat"], seeds=[seed], masks=[mask])[0].pixels for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


@pytest.mark.parametrize("name", EDITORS)
def test_images_edited_together_are_those_edited_alone(tiny, photo, mask, name):
    """Whatever their sizes and doses."""
    editor = diffusion.PipelineEditor(tiny.build(name), steps=4, guidance=2.0)
    images, masks = [photo, photo[:, :20], photo[::-1], photo], [mask, mask[:, :20], mask[::-1], mask]
    texts = [Instruction("add cat", strength=dose) for dose in (1, 1, 1, 0.5)]
    together = editor.edit(images, texts, seeds=[1, 2, 3, 4], masks=masks)
    for row, drawn in enumerate(together):
        alone = editor.edit([images[row]], [texts[row]], seeds=[row + 1], masks=[masks[row]])[0]
        assert drawn.pixels.shape == images[row].shape and drawn.refit == alone.refit
        assert np.abs(drawn.pixels.astype(int) - alone.pixels).max() <= 1


def test_images_of_one_size_and_dose_are_edited_in_one_call(tiny, photo, mask, monkeypatch):
    pipeline = tiny.build("sd-inpaint")
    call, n_images = type(pipeline).__call__, []

    @functools.wraps(call)
    def counted(self, **named):
        n_images.append(len(named["image"]) if isinstance(named["image"], list) else 1)
        return call(self, **named)

    monkeypatch.setattr(type(pipeline), "__call__", counted)
    editor = diffusion.PipelineEditor(pipeline, steps=STEPS)
    editor.edit([photo, photo[:, :20], photo], ["cat"] * 3, seeds=[1, 2, 3], masks=[mask, mask[:, :20], mask])
    assert n_images == [2, 1]


def test_size_scales_for_the_editor_and_back(tiny, photo, mask):
    editor = diffusion.PipelineEditor(tiny.build("sd-inpaint"), steps=STEPS, size=48)
    drawn = editor.edit([photo], ["cat"], seeds=[7], masks=[mask])[0]
    assert drawn.pixels.shape == photo.shape and drawn.refit


def test_strength_reaches_the_pipeline(tiny, photo, mask):
    editor = diffusion.PipelineEditor(tiny.build("sd-img2img"), steps=4)
    weak = Instruction("add cat", words=("cat",), strength=0.25)
    drawn = [editor.edit([photo], [text], seeds=[1])[0].pixels for text in (weak, "add cat")]
    assert (drawn[0] != drawn[1]).any()


@pytest.mark.parametrize("name", ["sd", "sdxl-inpaint", "flux", "flux-fill", "qwen", "qwen-edit", "qwen-edit-plus"])
def test_guidance_reaches_the_model(tiny, photo, mask, name):
    pipeline = tiny.build(name)

    def pixels(guidance):
        if name in GENERATORS:
            model = diffusion.PipelineGenerator(pipeline, steps=STEPS, guidance=guidance)
            return model.generate(["cat", "a dog"], seeds=[1, 2], size=(32, 48))[1].pixels
        model = diffusion.PipelineEditor(pipeline, steps=STEPS, guidance=guidance)
        return model.edit([photo], ["add cat"], seeds=[1], masks=[mask])[0].pixels

    default, off, strong = (pixels(guidance) for guidance in (None, 1.0, 9.0))
    assert (off != strong).any() and (default != off).any() and (default != strong).any()
    if name.startswith("qwen"):
        np.testing.assert_array_equal(default, pixels(4.0))  # the default of Qwen's pipelines


@pytest.mark.parametrize("name", ["sd-img2img", "sdxl-img2img"])
def test_a_larger_dose_changes_more(tiny, photo, name):
    pipeline = tiny.build(name)
    doses = (0.1, 0.5, 1.0)
    steps = []
    for dose in doses:
        diffusion.PipelineEditor(pipeline, steps=20).edit([photo], [Instruction("cat", strength=dose)], seeds=[1])
        steps.append(pipeline._num_timesteps)
    full = 16 if name == "sd-img2img" else 6  # 20 steps at the default strengths 0.8 and 0.3
    assert steps == [max(1, int(dose * full)) for dose in doses]


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd-inpaint", "sdxl-img2img"])
def test_turbo_settings(tiny, photo, mask, name):
    settings = {"steps": 1, "guidance": 0.0}
    if name in GENERATORS:
        drawn = diffusion.PipelineGenerator(tiny.build(name), **settings).generate(["cat"], seeds=[1], size=(32, 48))
    else:
        drawn = diffusion.PipelineEditor(tiny.build(name), **settings).edit([photo], ["cat"], seeds=[1], masks=[mask])
    assert check_picture(drawn[0]).status == "ok"


def test_inpainting_without_a_mask_is_an_error(tiny, photo):
    editor = diffusion.PipelineEditor(tiny.build("sd-inpaint"), steps=STEPS)
    with pytest.raises(GenerationError, match="no mask"):
        editor.edit([photo], ["cat"], seeds=[1])


def test_counts_tokens_beyond_the_limit(tiny):
    """F-91: prompts that are too long."""
    pipeline = tiny.build("sd")
    assert diffusion.truncated_tokens(pipeline, "a photo of cat") == 0
    assert diffusion.truncated_tokens(pipeline, "cat " * (tiny.LIMIT + 1)) == 3
    # Qwen-Image reads 512 tokens of the prompt, its editor what the tokenizer allows.
    assert diffusion.truncated_tokens(tiny.build("qwen"), "cat " * 515) == 3
    assert diffusion.truncated_tokens(tiny.build("qwen-edit"), "cat " * 515) == 0
    assert diffusion.truncated_tokens(tiny.build("qwen-edit"), "cat " * (tiny.QWEN_LIMIT + 3)) == 3


def test_a_tokenizer_without_its_encoder_reads_nothing(tiny):
    pipeline = types.SimpleNamespace(
        tokenizer=tiny.tokenizer(), text_encoder=object(), tokenizer_3=tiny.qwen_tokenizer(), text_encoder_3=None
    )
    assert diffusion.truncated_tokens(pipeline, "cat " * (tiny.LIMIT + 1)) == 3


def test_nonfinite_and_flagged_images_are_told_apart():
    """F-88: NaN and flagged images."""

    class Output:
        images = np.stack([np.full((8, 8, 3), np.nan), np.random.default_rng(0).random((8, 8, 3))])
        nsfw_content_detected = (False, True)

    drawn = diffusion.to_pictures(Output, [0, 0])
    assert [picture.status for picture in drawn] == ["nonfinite", "flagged"]


def test_loads_a_directory_and_works_in_its_own_process(tiny, tmp_path, photo, mask):
    tiny.build("sd-inpaint").save_pretrained(tmp_path / "editor", safe_serialization=True)
    directory = str(tmp_path / "editor")
    assert diffusion.takes_mask(directory)
    items = [
        pictures.Item(
            f"edits-{number:06d}.png",
            "add cat",
            seed=number,
            action="insert",
            words=("cat",),
            source=pictures.write_png(tmp_path / "source.png", photo),
            mask=pictures.write_png(tmp_path / "mask.png", mask),
        )
        for number in range(2)
    ]
    loader = {"directory": directory, "role": "editor", "steps": STEPS}
    maker = diffusion.identity(**loader)
    counts = []
    records = process.make_in_process(
        items, loader, tmp_path / "images", name="edits", maker=maker, progress=lambda done, total: counts.append(done)
    )
    assert [records[item.file]["status"] for item in items] == ["ok", "ok"] and counts[-1] == 2
    here = diffusion.load(**loader).edit([photo], ["add cat"], seeds=[0], masks=[mask])[0].pixels
    there = pictures.read_png(tmp_path / "images" / items[0].file).astype(int)
    assert np.abs(there - here).max() <= 1
    loader["steps"] = STEPS + 1
    assert diffusion.identity(**loader) != maker


def test_a_process_that_fails_says_why(tmp_path):
    loader = {"directory": str(tmp_path / "broken"), "role": "generator"}
    items = [pictures.Item("generation-000000.png", "cat", 0)]
    with pytest.raises(GenerationError, match=r"model_index\.json"):
        process.make_in_process(items, loader, tmp_path / "images", name="generation", maker="x")


def test_a_directory_that_is_no_pipeline(tmp_path):
    with pytest.raises(MissingInputError, match=r"model_index\.json"):
        diffusion.check_directory(str(tmp_path), role="editor")
    (tmp_path / "model_index.json").write_text("[]")
    with pytest.raises(WeightsError, match="index"):
        diffusion.check_directory(str(tmp_path), role="editor")


def test_a_text_to_image_pipeline_becomes_an_inpainting_editor(tiny, tmp_path, photo, mask):
    tiny.build("sd").save_pretrained(tmp_path / "sd", safe_serialization=True)
    editor = diffusion.load(str(tmp_path / "sd"), role="editor", steps=STEPS)
    assert "Inpaint" in type(editor.pipeline).__name__
    assert editor.edit([photo], ["cat"], seeds=[1], masks=[mask])[0].status == "ok"


def test_an_instruction_pipeline_is_no_generator(tiny, tmp_path):
    tiny.build("sd-instruct").save_pretrained(tmp_path / "instruct", safe_serialization=True)
    with pytest.raises((ConfigError, WeightsError), match=r"generator|cannot be loaded"):
        diffusion.load(str(tmp_path / "instruct"), role="generator")


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        ("StableDiffusionXLInpaintPipeline", True),
        ("FluxFillPipeline", True),
        ("StableDiffusionPipeline", True),
        ("StableDiffusionXLPipeline", True),
        ("StableDiffusion3Pipeline", True),
        ("FluxPipeline", True),
        ("QwenImagePipeline", True),
        ("StableDiffusionInstructPix2PixPipeline", False),
        ("StableDiffusionImg2ImgPipeline", False),
        ("FluxKontextPipeline", False),
        ("QwenImageEditPipeline", False),
    ],
)
def test_knows_which_editors_fill_masks(tmp_path, name, masked):
    import diffusers
    from diffusers.pipelines import auto_pipeline

    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    assert diffusion.takes_mask(str(tmp_path)) is masked
    # as loaded: text-to-image pipelines become inpainting ones
    loaded = getattr(diffusers, name)
    if "image" not in diffusion.call_parameters(loaded.__new__(loaded)):
        loaded = auto_pipeline._get_task_class(auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING, name)
    assert ("mask_image" in diffusion.call_parameters(loaded.__new__(loaded))) is masked


def test_qwen_edit_from_disk_works_or_says_what_is_missing(tiny, tmp_path, photo):
    directory = tmp_path / "qwen"
    tiny.build("qwen").save_pretrained(directory, safe_serialization=True)
    processor = tiny.build("qwen-edit").processor
    processor.image_processor.save_pretrained(directory / "processor")
    processor.tokenizer.save_pretrained(directory / "processor")
    index = json.loads((directory / "model_index.json").read_text())
    index |= {"_class_name": "QwenImageEditPipeline", "processor": ["transformers", "Qwen2VLProcessor"]}
    (directory / "model_index.json").write_text(json.dumps(index))
    if importlib.util.find_spec("torchvision") is None:
        with pytest.raises(MissingExtraError, match=r"(?i)torchvision"):
            diffusion.load(str(directory), role="editor")
        return
    editor = diffusion.load(str(directory), role="editor", steps=STEPS)
    assert editor.edit([photo], ["add cat"], seeds=[1])[0].status == "ok"
