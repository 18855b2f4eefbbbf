"""The pipeline directories of the phantom's diffusion models: plain diffusers directories.

One network is trained to repaint masked regions. The editor is that network; the generator is
the same network with everything masked, its mask channels folded into a bias, so that a plain
text-to-image pipeline runs it.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import diffusers
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from mine_jax.phantom import scenes
from mine_jax.phantom.training.clip import checkpoint

CONTEXT: Final = checkpoint.CONTEXT
INSTRUCTION_WORDS: Final = ("add", "remove", "the", "background", ",")
LATENT_CHANNELS: Final = 4
LATENT_SIZE: Final = 16
_CHANNELS: Final = (48, 96)
_TEXT_WIDTH: Final = 96


@dataclass(frozen=True)
class Parts:
    """What a pipeline directory is made of.

    Attributes:
        unet: repaints masked regions; channels are noisy latents, mask, masked image's latents.
        text_encoder: turns prompts into the vectors that `unet` attends to.
        tokenizer: word-level tokenizer of prompts.
        vae: between pixels and latents.
        empty: latents of an image that is masked everywhere, averaged over positions, [4].
    """

    unet: diffusers.UNet2DConditionModel
    text_encoder: transformers.CLIPTextModel
    tokenizer: transformers.PreTrainedTokenizerFast
    vae: diffusers.AutoencoderTiny
    empty: torch.Tensor


def build_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Returns the CLIP's word-level tokenizer with the words of instructions added."""
    known = (*checkpoint.SPECIAL_TOKENS, *scenes.FUNCTION_WORDS, *scenes.VOCABULARY)
    vocabulary = {word: index for index, word in enumerate((*known, *INSTRUCTION_WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>",
        special_tokens=[("<bos>", vocabulary["<bos>"]), ("<eos>", vocabulary["<eos>"])],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=CONTEXT,
        pad_token="<pad>",
        bos_token="<bos>",
        unk_token="<unk>",
        eos_token="<eos>",
    )


def build_text_encoder(clip: Path, tokenizer: transformers.PreTrainedTokenizerFast) -> transformers.CLIPTextModel:
    """Returns the CLIP's text tower, with new rows for the words of instructions."""
    trained = transformers.CLIPModel.from_pretrained(clip, dtype=torch.float32)
    config = transformers.CLIPTextConfig(**{**trained.config.text_config.to_dict(), "vocab_size": len(tokenizer)})
    text_encoder = transformers.CLIPTextModel(config)
    state = text_encoder.state_dict()
    source = {name.removeprefix("text_model."): value for name, value in trained.state_dict().items()}
    for name, value in state.items():
        known = source[name.removeprefix("text_model.")]
        value[tuple(slice(0, length) for length in known.shape)] = known
    text_encoder.load_state_dict(state)
    return text_encoder


def build_unet() -> diffusers.UNet2DConditionModel:
    """Returns a fresh repainting network on latents of 16 x 16."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=2 * LATENT_CHANNELS + 1,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=_TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        # Without padding, constant mask channels fold into a bias exactly.
        conv_in_kernel=1,
    )
    return unet.to(memory_format=torch.channels_last)


def build_scheduler() -> diffusers.DDIMScheduler:
    """Returns the noise schedule: the last step is pure noise, the network predicts velocity."""
    return diffusers.DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def save_editor(directory: Path, parts: Parts) -> None:
    """Writes a float16 directory for `StableDiffusionInpaintPipeline`."""
    _save(diffusers.StableDiffusionInpaintPipeline, directory, parts, parts.unet)


def save_generator(directory: Path, parts: Parts) -> None:
    """Writes a float16 directory for `StableDiffusionPipeline`."""
    _save(diffusers.StableDiffusionPipeline, directory, parts, fold_mask(parts.unet, parts.empty))


def fold_mask(unet: diffusers.UNet2DConditionModel, empty: torch.Tensor) -> diffusers.UNet2DConditionModel:
    """Turns a repainting network into one that paints everything.

    Args:
        unet: the repainting network; left unchanged.
        empty: latents of an image that is masked everywhere, [4].

    Returns:
        UNet2DConditionModel: equals `unet` with a mask of ones and these latents everywhere.
    """
    folded = diffusers.UNet2DConditionModel.from_config({**unet.config, "in_channels": LATENT_CHANNELS})
    state = dict(unet.state_dict())
    weight = state["conv_in.weight"]
    constant = torch.cat([torch.ones(1), empty.float()])
    state["conv_in.bias"] = state["conv_in.bias"] + weight[:, LATENT_CHANNELS:, 0, 0] @ constant
    state["conv_in.weight"] = weight[:, :LATENT_CHANNELS]
    folded.load_state_dict(state)
    return folded


def _save(
    pipeline_class: type[diffusers.DiffusionPipeline],
    directory: Path,
    parts: Parts,
    unet: diffusers.UNet2DConditionModel,
) -> None:
    """Writes a pipeline directory, file by file through renames."""
    pipeline = pipeline_class(
        vae=_half(parts.vae),
        text_encoder=_half(parts.text_encoder),
        tokenizer=parts.tokenizer,
        unet=_half(unet),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)
        for path in sorted(Path(temporary).rglob("*")):
            target = directory / path.relative_to(temporary)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                path.chmod(0o644)
                path.replace(target)


def _half(model: torch.nn.Module) -> torch.nn.Module:
    """A float16 copy."""
    if isinstance(model, transformers.PreTrainedModel):
        copy = type(model)(model.config)
    else:
        # Private fields hold the folder that the model was read from.
        copy = model.from_config({name: value for name, value in model.config.items() if not name.startswith("_")})
    copy.load_state_dict(model.state_dict())
    return copy.half().eval()
