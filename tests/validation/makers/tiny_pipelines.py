"""Real diffusers pipelines with tiny random weights, built without any download."""

import functools

import diffusers
import torch
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

WORDS = ("a", "add", "remove", "the", "photo", "of", "cat", "dog", "background", "pizza", ",", "words", "keep")
LIMIT = 12
QWEN_LIMIT = 1024
QWEN_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def tokenizer():
    vocabulary = {word: index for index, word in enumerate(("<pad>", "<bos>", "<eos>", "<unk>", *WORDS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        model_max_length=LIMIT,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
    )


def text_config(width=16, projection=16):
    return transformers.CLIPTextConfig(
        vocab_size=len(WORDS) + 4,
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LIMIT,
        projection_dim=projection,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


def t5():
    config = transformers.T5Config(
        vocab_size=len(WORDS) + 4, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    return transformers.T5EncoderModel(config).eval()  # as `from_pretrained` gives it: no dropout


def vae(channels=4, **options):
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=32,
        **options,
    )


def unet(in_channels=4, **options):
    return diffusers.UNet2DConditionModel(
        sample_size=16,
        in_channels=in_channels,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=options.pop("attention_head_dim", 4),
        cross_attention_dim=options.pop("cross_attention_dim", 16),
        **options,
    )


def stable_diffusion(kind, in_channels=4):
    return getattr(diffusers, kind)(
        vae=vae(),
        text_encoder=transformers.CLIPTextModel(text_config()),
        tokenizer=tokenizer(),
        unet=unet(in_channels),
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(kind, in_channels=4):
    options = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "cross_attention_dim": 32}
    return getattr(diffusers, kind)(
        vae=vae(),
        text_encoder=transformers.CLIPTextModel(text_config()),
        text_encoder_2=transformers.CLIPTextModelWithProjection(text_config()),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet(in_channels, projection_class_embeddings_input_dim=16 + 6 * 8, **options),
        scheduler=diffusers.EulerDiscreteScheduler(),
    )


def stable_diffusion_3():
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        out_channels=4,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5),
        text_encoder=transformers.CLIPTextModelWithProjection(text_config()),
        tokenizer=tokenizer(),
        text_encoder_2=transformers.CLIPTextModelWithProjection(text_config()),
        tokenizer_2=tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )


def flux(kind, in_channels=4):
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=in_channels,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    return getattr(diffusers, kind)(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae(1, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5),
        text_encoder=transformers.CLIPTextModel(text_config()),
        tokenizer=tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=tokenizer(),
        transformer=transformer,
    )


class QwenProcessor(transformers.Qwen2VLProcessor):
    """The real processor, for images only: its part for videos, which the class insists on, needs torchvision."""

    def check_argument_for_proper_class(self, argument_name, argument):
        """Accepts the missing part."""


def qwen_tokenizer():
    vocabulary = {word: index for index, word in enumerate(("<unk>", *WORDS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    # Line breaks count, so that the pipelines' templates are as long as with the real tokenizer.
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]|\n"), "removed", invert=True)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        model_max_length=QWEN_LIMIT,
        unk_token="<unk>",
        pad_token=QWEN_TOKENS[0],
        additional_special_tokens=list(QWEN_TOKENS[1:]),
    )


def qwen_vl(tokens):
    ids = dict(zip(QWEN_TOKENS, tokens.convert_tokens_to_ids(list(QWEN_TOKENS)), strict=True))
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": len(tokens),
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 16,
        "fullatt_block_indexes": [0],
    }
    config = transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config).eval()


def qwen(kind):
    tokens = qwen_tokenizer()
    parts = {} if kind == "QwenImagePipeline" else {"processor": QwenProcessor(Qwen2VLImageProcessorPil(), tokens)}
    return getattr(diffusers, kind)(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=diffusers.AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=qwen_vl(tokens),
        tokenizer=tokens,
        transformer=diffusers.QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(4, 6, 6),
        ),
        **parts,
    )


@functools.cache
def build(name):
    """Returns a pipeline; the same name always has the same weights."""
    torch.manual_seed(0)
    return {
        "sd": lambda: stable_diffusion("StableDiffusionPipeline"),
        "sd-instruct": lambda: stable_diffusion("StableDiffusionInstructPix2PixPipeline", 8),
        "sd-inpaint": lambda: stable_diffusion("StableDiffusionInpaintPipeline", 9),
        "sd-img2img": lambda: stable_diffusion("StableDiffusionImg2ImgPipeline"),
        "sdxl": lambda: stable_diffusion_xl("StableDiffusionXLPipeline"),
        "sdxl-instruct": lambda: stable_diffusion_xl("StableDiffusionXLInstructPix2PixPipeline", 8),
        "sdxl-inpaint": lambda: stable_diffusion_xl("StableDiffusionXLInpaintPipeline", 9),
        "sdxl-img2img": lambda: stable_diffusion_xl("StableDiffusionXLImg2ImgPipeline"),
        "sd3": stable_diffusion_3,
        "flux": lambda: flux("FluxPipeline"),
        "flux-kontext": lambda: flux("FluxKontextPipeline"),
        "flux-fill": lambda: flux("FluxFillPipeline", 24),
        "qwen": lambda: qwen("QwenImagePipeline"),
        "qwen-edit": lambda: qwen("QwenImageEditPipeline"),
        "qwen-edit-plus": lambda: qwen("QwenImageEditPlusPipeline"),
    }[name]()
