"""Any diffusers pipeline on disk, behind the two protocols; the only file with torch.

What a pipeline takes differs by family (guidance under three names, sizes, masks, strength),
so arguments are offered to all and filtered by the signature of its `__call__`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from mine_jax import artifacts
from mine_jax._optional import require
from mine_jax.errors import ConfigError, GenerationError, MissingExtraError, MissingInputError, WeightsError
from mine_jax.validation.makers.protocols import Instruction, Picture

INDEX = "model_index.json"
# Sides of latents in pixels; inputs are padded to it and results cut back.
_MULTIPLE = 16
# Text-to-image classes that `load` turns into inpainting ones when they shall edit.
_BECOME_INPAINTING = (
    "FluxPipeline",
    "QwenImagePipeline",
    "StableDiffusion3Pipeline",
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
)
# Edit each image of a list by itself; others read a list as one input, or take none.
_BATCHED = (
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInstructPix2PixPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
)
# Bytes of files up to which a pipeline is small, 50 million parameters: threads within an operation of a CPU are of no
# use to it. At 2.5 million two took up to twice the time of one; larger ones were not measured.
_SMALL_BYTES = 200_000_000
_WHY = "generate and edit images"


class PipelineGenerator:
    """A text-to-image pipeline as a `Generator`."""

    def __init__(self, pipeline: Any, *, steps: int | None = None, guidance: float | None = None) -> None:
        """Keeps a diffusers pipeline; None leaves its own default."""
        self.pipeline = _quiet(pipeline)
        self.guidance = guidance
        self.options = {"num_inference_steps": steps}

    def generate(self, prompts: Sequence[str], *, seeds: Sequence[int], size: tuple[int, int] | None) -> list[Picture]:
        """Returns one picture per prompt, from `seeds` and in `size` (height, width) or the pipeline's own."""
        height, width = (None, None) if size is None else size
        output = _call(
            self.pipeline,
            prompt=list(prompts),
            generator=_generators(seeds),
            height=height,
            width=width,
            max_area=None if size is None else size[0] * size[1],
            **_guidance(self.pipeline, self.guidance, n_prompts=len(prompts)),
            **self.options,
        )
        return to_pictures(output, [truncated_tokens(self.pipeline, prompt) for prompt in prompts])


class PipelineEditor:
    """An instruction-editing, inpainting or image-to-image pipeline as an `Editor`."""

    def __init__(
        self,
        pipeline: Any,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        image_guidance: float | None = None,
        size: int | None = None,
    ) -> None:
        """Keeps a diffusers pipeline; None leaves its own default, and images at their own `size`."""
        self.size = size
        self.pipeline = _quiet(pipeline)
        self.guidance = guidance
        self.options: dict[str, Any] = {"num_inference_steps": steps, "image_guidance_scale": image_guidance}

    def edit(
        self,
        images: Sequence[np.ndarray],
        instructions: Sequence[str],
        *,
        seeds: Sequence[int],
        masks: Sequence[np.ndarray] | None = None,
    ) -> list[Picture]:
        """Returns one picture per image [h, w, 3]; a call takes several images only where a pipeline keeps them apart.

        Args:
            images: N images uint8 [h, w, 3].
            instructions: N texts.
            seeds: one per image.
            masks: N masks bool [h, w]; needed by inpainting pipelines.

        Raises:
            GenerationError: if masks are needed and missing.
        """
        known = call_parameters(self.pipeline)
        if "mask_image" in known and masks is None:
            raise GenerationError(f"{type(self.pipeline).__name__} fills masks, but no mask was given.")
        fitted = [_fitted(image, self.size) for image in images]
        strengths = [_strength(self.pipeline, text, self.options["num_inference_steps"]) for text in instructions]
        # by what one call can have one value of
        alike: dict[Any, list[int]] = {}
        is_batched = type(self.pipeline).__name__ in _BATCHED
        for row, (pixels, strength) in enumerate(zip(fitted, strengths, strict=True)):
            alike.setdefault((pixels.shape, strength) if is_batched else row, []).append(row)
        pictures: dict[int, Picture] = {}
        for rows in alike.values():
            output = self._edit_alike(
                [fitted[row] for row in rows],
                [str(instructions[row]) for row in rows],
                [seeds[row] for row in rows],
                None if masks is None else [masks[row] for row in rows],
                strengths[rows[0]],
            )
            lost = [truncated_tokens(self.pipeline, instructions[row]) for row in rows]
            pictures.update(zip(rows, to_pictures(output, lost), strict=True))
        return [self._unfitted(pictures[row], fitted[row], image) for row, image in enumerate(images)]

    def _edit_alike(
        self,
        images: Sequence[np.ndarray],
        texts: Sequence[str],
        seeds: Sequence[int],
        masks: Sequence[np.ndarray] | None,
        strength: float | None,
    ) -> Any:
        """Calls the pipeline once for images of one size; one image is given as such, not as a list."""
        height, width = images[0].shape[:2]
        whites = [Image.fromarray(_fitted(mask.astype(np.uint8) * 255, self.size)) for mask in masks or ()]
        rows: dict[str, list[Any]] = {
            "prompt": list(texts),
            "image": [Image.fromarray(image) for image in images],
            "mask_image": whites,
            "generator": _generators(seeds),
        }
        is_one = len(images) == 1
        return _call(
            self.pipeline,
            **{name: (values[0] if is_one else values) if values else None for name, values in rows.items()},
            height=height,
            width=width,
            # Flux-Kontext would scale everything to one megapixel.
            max_area=height * width,
            _auto_resize=False,
            strength=strength,
            **_guidance(self.pipeline, self.guidance, n_prompts=None if is_one else len(images)),
            **self.options,
        )

    def _unfitted(self, picture: Picture, fitted: np.ndarray, image: np.ndarray) -> Picture:
        if picture.pixels is None or picture.pixels.shape != fitted.shape or fitted.shape == image.shape:
            return picture
        pixels = _restored(picture.pixels, image.shape[:2], self.size)
        return Picture(pixels, picture.status, picture.truncated_tokens, refit=True)


def load(
    directory: str,
    *,
    role: Literal["generator", "editor"],
    steps: int | None = None,
    guidance: float | None = None,
    image_guidance: float | None = None,
    size: int | None = None,
) -> PipelineGenerator | PipelineEditor:
    """Loads a pipeline directory, offline.

    Args:
        directory: with `model_index.json` and safetensors weights.
        role: what it shall do.
        steps: denoising steps; None for the pipeline's default.
        guidance: strength of the text; None for the pipeline's default.
        image_guidance: strength of the image (InstructPix2Pix); None for the pipeline's default.
        size: side of a square as large as edited images are made for the editor; None for their own size.

    Returns:
        The adapter, on the GPU in bfloat16 where there is one, else in float32.

    Raises:
        MissingInputError: if it is no pipeline directory.
        WeightsError: if its weights cannot be loaded.
        ConfigError: if the pipeline cannot do what its role asks.
        MissingExtraError: if it is made of parts whose packages are not installed.
    """
    check_directory(directory, role=role)
    torch = require("torch", extra="edit", why=_WHY)
    diffusers = require("diffusers", extra="edit", why=_WHY)
    on_gpu = torch.cuda.is_available()
    try:
        pipeline = _from_pretrained(diffusers, directory, role, torch.bfloat16 if on_gpu else torch.float32)
    except ImportError as error:
        # The processor of Qwen-Image-Edit needs torchvision.
        raise MissingExtraError(f"the pipeline at {directory} needs a package that is missing: {error}") from error
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        raise WeightsError(f"the pipeline at {directory} cannot be loaded: {error}") from error
    needed = "image" if role == "editor" else "prompt"
    if needed not in call_parameters(pipeline):
        raise ConfigError(f"{directory} holds {type(pipeline).__name__}, which takes no `{needed}`: no {role}.")
    pipeline.to("cuda" if on_gpu else "cpu")
    if role == "generator":
        return PipelineGenerator(pipeline, steps=steps, guidance=guidance)
    return PipelineEditor(pipeline, steps=steps, guidance=guidance, image_guidance=image_guidance, size=size)


def is_small(directory: str) -> bool:
    """Tells whether one core is all that the pipeline in a directory can use, and several fit beside each other."""
    return sum(path.stat().st_size for path in artifacts.files_below(directory)) <= _SMALL_BYTES


def spare_threads(directory: str) -> None:
    """Lets PyTorch work in one thread on this process's CPU, if the pipeline in a directory is small."""
    if is_small(directory):
        require("torch", extra="edit", why=_WHY).set_num_threads(1)


def check_directory(directory: str, *, role: str) -> str:
    """Returns the class name of the pipeline in a directory.

    Raises:
        MissingInputError: if there is no `model_index.json`.
        WeightsError: if that is not a pipeline's.
    """
    index = Path(directory) / INDEX
    if not index.is_file():
        raise MissingInputError(
            f"no pipeline at {directory}: {INDEX} is missing. Set `validation.{role}` to a diffusers pipeline "
            'directory, or to "none".'
        )
    try:
        return str(json.loads(index.read_text(encoding="utf-8"))["_class_name"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(f"{index} is no pipeline's index: {error!r}.") from error


def takes_mask(directory: str, *, role: str = "editor") -> bool:
    """Tells whether the pipeline in a directory fills masks as an editor, without loading it."""
    name = check_directory(directory, role=role)
    return "Inpaint" in name or "Fill" in name or name in _BECOME_INPAINTING


def identity(directory: str, **settings: Any) -> str:
    """Returns a hash of every byte of a pipeline's files, their names, and settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in artifacts.files_below(directory):
        digest.update(f"{path.relative_to(directory)}:{artifacts.sha256(path)}\n".encode())
    return digest.hexdigest()


def truncated_tokens(pipeline: Any, prompt: str) -> int:
    """Counts tokens of a prompt that no text encoder of a pipeline reads."""
    lost = []
    for suffix in ("", "_2", "_3"):
        tokenizer = getattr(pipeline, f"tokenizer{suffix}", None)
        if tokenizer is None or getattr(pipeline, f"text_encoder{suffix}", None) is None:
            continue
        limits = [getattr(tokenizer, "model_max_length", None)]
        # Pipelines that read images and text through one processor cut nothing.
        if getattr(pipeline, "processor", None) is None and "max_sequence_length" in call_parameters(pipeline):
            limits.append(call_parameters(pipeline)["max_sequence_length"].default)
        length = len(tokenizer(str(prompt), truncation=False, verbose=False)["input_ids"])
        lost.append(max(0, length - min((limit for limit in limits if limit), default=length)))
    return min(lost, default=0)


def call_parameters(pipeline: Any) -> dict[str, inspect.Parameter]:
    """Returns the parameters that calls of a pipeline take, by name."""
    return dict(inspect.signature(type(pipeline).__call__).parameters)


def to_pictures(output: Any, truncated: Sequence[int]) -> list[Picture]:
    """Pairs a pipeline's float images with its safety flags.

    Args:
        output: what a call of a pipeline returned, N images.
        truncated: tokens that were not read of each of the N prompts.

    Returns:
        N pictures.

    Raises:
        GenerationError: if another number of images came.
    """
    images = list(output.images)
    flags = getattr(output, "nsfw_content_detected", None) or [False] * len(images)
    if len(images) != len(truncated):
        raise GenerationError(f"{len(truncated)} images were asked for, {len(images)} came.")
    return [
        Picture(_pixels(image), _status(image, flag), lost)
        for image, flag, lost in zip(images, flags, truncated, strict=True)
    ]


def _from_pretrained(diffusers: Any, directory: str, role: str, dtype: Any) -> Any:
    options = {"local_files_only": True, "use_safetensors": True, "torch_dtype": dtype}
    pipeline = diffusers.DiffusionPipeline.from_pretrained(directory, **options)
    known = call_parameters(pipeline)
    if role == "generator" and "image" in known:
        return diffusers.AutoPipelineForText2Image.from_pipe(pipeline)
    if role == "editor" and "image" not in known:
        return diffusers.AutoPipelineForInpainting.from_pipe(pipeline)
    return pipeline


def _call(pipeline: Any, **arguments: Any) -> Any:
    """Calls a pipeline with those arguments that it takes and that are not None."""
    torch = require("torch", extra="edit", why=_WHY)
    known = call_parameters(pipeline)
    arguments["output_type"] = "np"
    taken = {name: value for name, value in arguments.items() if name in known and value is not None}
    with torch.inference_mode():
        return pipeline(**taken)


def _status(image: np.ndarray, flag: bool) -> str:
    return "flagged" if flag else "ok" if np.isfinite(image).all() else "nonfinite"


def _pixels(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8)


def _guidance(pipeline: Any, guidance: float | None, *, n_prompts: int | None = None) -> dict[str, Any]:
    """Offers the strength of the text under the name that a pipeline follows; `n_prompts` of a list of them."""
    true_scale = call_parameters(pipeline).get("true_cfg_scale")
    # Flux has both names, its second one off by default.
    if true_scale is None or true_scale.default <= 1:
        return {"guidance_scale": guidance}
    scale = true_scale.default if guidance is None else guidance
    # Qwen-Image ignores its scale, the default too, unless there is a negative prompt; a blank one will do.
    blank = " " if n_prompts is None else [" "] * n_prompts
    return {"true_cfg_scale": scale, "negative_prompt": blank if scale > 1 else None}


def _strength(pipeline: Any, instruction: str, steps: int | None) -> float | None:
    """The dose of an edit as the share of noise that a pipeline starts from, at least one step of it."""
    known = call_parameters(pipeline)
    if "strength" not in known:
        return None
    dose = instruction.strength if isinstance(instruction, Instruction) else 1.0
    # Under a mask all may go; elsewhere all noise would leave nothing of the image.
    full = 1.0 if "mask_image" in known else known["strength"].default
    # A little more than one step, because pipelines round down.
    return min(1.0, max(dose * full, 1.001 / (steps or known["num_inference_steps"].default)))


def _generators(seeds: Sequence[int]) -> list[Any]:
    """One generator per image, on the CPU: the same noise on every device and in every batch."""
    torch = require("torch", extra="edit", why=_WHY)
    return [torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds]


def _fitted(image: np.ndarray, size: int | None) -> np.ndarray:
    """Scales an image [h, w, ...] to the area of a square, or repeats its edge up to whole latents."""
    if size is None:
        missing = [-side % _MULTIPLE for side in image.shape[:2]]
        padding = [(0, missing[0]), (0, missing[1])] + [(0, 0)] * (image.ndim - 2)
        return np.pad(image, padding, mode="edge") if any(missing) else image
    scale = size / float(np.sqrt(image.shape[0] * image.shape[1]))
    height, width = (max(_MULTIPLE, round(side * scale / _MULTIPLE) * _MULTIPLE) for side in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def _restored(pixels: np.ndarray, shape: tuple[int, int], size: int | None) -> np.ndarray:
    """Undoes `_fitted`."""
    if size is None:
        return pixels[: shape[0], : shape[1]]
    return np.asarray(Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _quiet(pipeline: Any) -> Any:
    if hasattr(pipeline, "set_progress_bar_config"):
        pipeline.set_progress_bar_config(disable=True)
    return pipeline
