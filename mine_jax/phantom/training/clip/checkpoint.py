"""The checkpoint directory of the phantom's CLIP: a plain Hugging Face directory plus `lens.json`.

Files are replaced one by one through a rename, so a reader never meets a half-written file.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from mine_jax.phantom import scenes

# `<unk>` takes id 2 because transformers pools CLIP texts by another, legacy rule (the largest
# id instead of the first end-of-text) whenever `eos_token_id` is 2.
SPECIAL_TOKENS = ("<pad>", "<bos>", "<unk>", "<eos>")
CONTEXT = 32
TEMPLATES = ("a photo of a {}", "a picture of a {}", "{}")
IMAGE_MEAN = 0.5
IMAGE_STD = 0.5


def build_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Returns a word-level tokenizer of the caption words that adds `<bos>` and `<eos>`."""
    words = (*SPECIAL_TOKENS, *scenes.FUNCTION_WORDS, *scenes.VOCABULARY)
    vocabulary = {word: index for index, word in enumerate(words)}
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


def build_config(tokenizer: transformers.PreTrainedTokenizerFast) -> transformers.CLIPConfig:
    """Returns the architecture: 64 image-tokens of width 128, texts of width 96."""
    special_ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return transformers.CLIPConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 96,
            "intermediate_size": 384,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": CONTEXT,
            "projection_dim": 96,
            **special_ids,
        },
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "image_size": 64,
            "patch_size": 8,
            "projection_dim": 96,
        },
        projection_dim=96,
    )


def save(
    directory: Path,
    model: transformers.CLIPModel,
    tokenizer: transformers.PreTrainedTokenizerFast,
    *,
    lens_scale: float,
    training: dict[str, Any],
) -> None:
    """Writes the whole checkpoint directory, weights in float16.

    Args:
        directory: where to write; created if missing.
        model: the model; left unchanged.
        tokenizer: its tokenizer.
        lens_scale: factor from cosine to logit that the word loss learned.
        training: what `training.json` records.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as temporary:
        written = Path(temporary)
        half = transformers.CLIPModel(model.config).half()
        half.load_state_dict(model.state_dict())
        half.save_pretrained(written)
        tokenizer.save_pretrained(written)
        lens = {
            "words": list(scenes.VOCABULARY),
            "templates": list(TEMPLATES),
            "scale": round(lens_scale, 4),
        }
        _write_json(written / "lens.json", lens)
        _write_json(written / "preprocessor_config.json", _preprocessor())
        _write_json(written / "training.json", training)
        for path in sorted(written.iterdir()):
            path.chmod(0o644)
            path.replace(directory / path.name)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Applies the checkpoint's preprocessing: uint8 [N, S, S, 3] -> float32 [N, 3, S, S]."""
    return (images.permute(0, 3, 1, 2).float() / 255 - IMAGE_MEAN) / IMAGE_STD


def _preprocessor() -> dict[str, Any]:
    """The fields CLIP image processors read; written by hand, as they need no torchvision."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 64},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 64, "width": 64},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [IMAGE_MEAN] * 3,
        "image_std": [IMAGE_STD] * 3,
        "do_convert_rgb": True,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes indented JSON with a final newline."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
