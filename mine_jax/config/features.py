"""Section [features]: what turns images into image-tokens, one model per family of frozen models."""

from __future__ import annotations

from typing import Annotated, Literal

from mine_jax.config.sections import (
    Checkpoint,
    Commit,
    Count,
    Denoising,
    Download,
    File,
    Grid,
    Layers,
    Names,
    Section,
    by_kind,
)


class _Features(Section):
    """Keys of every kind of features."""

    layer: int = -1
    """Layer whose states are the image-tokens; negative ones count from the last. [ours]"""
    words: File = None
    """Text file of the lens's words, one per line; without it the checkpoint's own list, else the shipped one."""
    low_level: bool = True
    """Stores low-level statistics of the photos, the rival that the words of a profile must beat. [ours]"""


class _Model(_Features):
    """Keys of features that a model computes."""

    model: Checkpoint = None
    """Folder of the checkpoint (config.json, *.safetensors, tokenizer), "phantom", "phantom-captions" or a hub id."""
    revision: Commit = None
    """Commit of a model OWNER/NAME of the Hugging Face hub, 40 hex digits; a folder of that name wins."""
    allow_download: Download = False
    """Fetches a model of the hub that is not in the local cache: safetensors and texts, no code, no pickles. [ours]"""
    batch_size: Count = 64
    """Images that go through the model at once: memory, never the result. [ours]"""
    dtype: Literal["bfloat16", "float16", "float32"] = "float16"
    """Type of numbers in which image-tokens are stored. [ours]"""
    weights: Literal["float32", "bfloat16"] = "float32"
    """Type of numbers of the model's weights and products. [ours]"""
    more_layers: Layers = ()
    """Layers that are stored too; the encoder stage says which one predicts each voxel best. [ours]"""
    denoise: Denoising = ()
    """What is taken out of image-tokens, always in the order register, position, neighbors; [] for nothing. [ours]"""
    reduce: Count | None = None
    """Principal components that are kept of image-tokens; without it all of their width D."""


class _Contrastive(_Model):
    """Keys of models that read words in sentences."""

    templates: Names = ("a photo of a {}.",)
    """Sentences in which the model reads a word, in place of {}; `lens.json` of the checkpoint wins. [parent]"""


class ClipConfig(_Contrastive):
    """Images to the image-tokens of a CLIP model and a lens."""

    kind: Literal["clip"] = "clip"
    image_tokens: Literal["states", "values"] = "states"
    """Image-tokens: states of the layer, or what the class token becomes that looks at one of them alone. [ours]"""


class SiglipConfig(_Contrastive):
    """Images to the image-tokens of a SigLIP model and a lens."""

    kind: Literal["siglip"] = "siglip"


class SiglipNaflexConfig(_Contrastive):
    """Images to the image-tokens of a NaFlex variant of SigLIP 2 and a lens."""

    kind: Literal["siglip_naflex"] = "siglip_naflex"
    grid: Grid = (16, 16)
    """Rows and columns of image-tokens, to which photos are resized; by the model's rule that of square ones. [ours]"""


class DinoTxtConfig(_Contrastive):
    """Images to the image-tokens of dino.txt, DINOv2 with a text head, and a lens."""

    kind: Literal["dinotxt"] = "dinotxt"
    grid: Grid = (16, 16)
    """Rows and columns of image-tokens, to which photos are resized; what the text head was trained on. [ours]"""


class LlavaConfig(_Model):
    """Images to the image-tokens of a LLaVA-1.5-style model and the lens of its head."""

    kind: Literal["llava"] = "llava"
    prompt: str = "USER: <image>\nDescribe the image. ASSISTANT:"
    """Text around the image; what follows <image> changes nothing. [ours]"""


class LlavaOnevisionConfig(_Model):
    """Images to the image-tokens of LLaVA-OneVision and the lens of its head."""

    kind: Literal["llava_onevision"] = "llava_onevision"
    prompt: str = "<|im_start|>user <image>\nDescribe the image.<|im_end|><|im_start|>assistant\n"
    """Text around the image; what follows <image> changes nothing. [ours]"""
    grid: Grid | None = None
    """Rows and columns of image-tokens of all crops, 27 to a crop's side; without it those of the whole photo."""


class QwenVlConfig(_Model):
    """Images to the image-tokens of Qwen2.5-VL and the lens of its head."""

    kind: Literal["qwen2_5_vl"] = "qwen2_5_vl"
    prompt: str = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<image>Describe the image.<|im_end|>\n<|im_start|>assistant\n"
    )
    """Text around the image; what follows <image> changes nothing. [ours]"""
    grid: Grid = (15, 15)
    """Rows and columns of image-tokens, 28 pixels each, to which photos are resized; that of NSD's photos. [ours]"""


class PrecomputedConfig(_Features):
    """Image-tokens and a lens that were made elsewhere."""

    kind: Literal["precomputed"] = "precomputed"
    tokens: File = None
    """Image-tokens [N images, P tokens, D] as .npy."""
    token_image_ids: File = None
    """Text file with the image id of each row of `tokens`."""
    index_base: Literal[0, 1] | None = None
    """What numeric ids in `token_image_ids` count from; without it as in [data]."""
    mask: File = None
    """Which tokens are there [N, P], bool, as .npy; without it all."""
    unembedding: File = None
    """Lens [W words, D] as .npy: a token's product with a row is the score of that row's word."""
    unembedding_bias: File = None
    """What is added to these scores [W], as .npy."""
    grid: Grid | None = None
    """Rows and columns of the P image-tokens in the photo; without it there are no heat maps."""


ModelConfig = (
    ClipConfig | SiglipConfig | SiglipNaflexConfig | DinoTxtConfig | LlavaConfig | LlavaOnevisionConfig | QwenVlConfig
)
FeaturesConfig = Annotated[ModelConfig | PrecomputedConfig, *by_kind(ClipConfig)]
