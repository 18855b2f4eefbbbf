"""Models that are used in practice: what their config.json says of sizes, by the id that they have on the hub.

What a configuration leaves out has the default of transformers, as in the ports. A name without an owner is that of a
model whose weights the hub has in no format that a port reads.
"""

from __future__ import annotations

from typing import Any


def _tower(model_type: str, width: int, hidden: int, layers: int, heads: int, **others: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        **others,
    }


def _clip(vision: dict[str, Any], text: dict[str, Any], projection: int) -> dict[str, Any]:
    return {"model_type": "clip", "vision_config": vision, "text_config": text, "projection_dim": projection}


def _siglip(sizes: tuple[int, int, int, int], image_size: int, patch_size: int, vocabulary: int) -> dict[str, Any]:
    vision = _tower("siglip_vision_model", *sizes, image_size=image_size, patch_size=patch_size)
    text = _tower("siglip_text_model", *sizes, vocab_size=vocabulary, max_position_embeddings=64)
    return {"model_type": "siglip", "vision_config": vision, "text_config": text}


def _naflex(sizes: tuple[int, int, int, int]) -> dict[str, Any]:
    whole = _siglip(sizes, 256, 16, 256000)
    vision = {**whole["vision_config"], "model_type": "siglip2_vision_model", "num_patches": 256}
    return {**whole, "model_type": "siglip2", "vision_config": vision}


_VIT_L_336 = _tower("clip_vision_model", 1024, 4096, 24, 16, image_size=336, patch_size=14)
_CLIP_L_TEXT = _tower("clip_text_model", 768, 3072, 12, 12)
_BASE, _SO400M = (768, 3072, 12, 12), (1152, 4304, 27, 16)
_VICUNA_7B = _tower("llama", 4096, 11008, 32, 32, num_key_value_heads=32, vocab_size=32064, rms_norm_eps=1e-5)
_ONEVISION_TOWER = _tower("siglip_vision_model", 1152, 4304, 26, 16, image_size=384, patch_size=14)


def _onevision(text: dict[str, Any], *, tied: bool = False) -> dict[str, Any]:
    parts = {"vision_config": _ONEVISION_TOWER, "text_config": {**text, "rope_theta": 1e6, "tie_word_embeddings": tied}}
    return {"model_type": "llava_onevision", **parts, "image_token_index": 151646}


def _qwen_vl(text: dict[str, Any], *, tied: bool = False) -> dict[str, Any]:
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": text["hidden_size"]}
    return {"model_type": "qwen2_5_vl", "vision_config": vision, "text_config": text, "tie_word_embeddings": tied}


USUAL: dict[str, dict[str, Any]] = {
    "openai/clip-vit-base-patch32": _clip(
        _tower("clip_vision_model", *_BASE, image_size=224, patch_size=32),
        _tower("clip_text_model", 512, 2048, 12, 8),
        512,
    ),
    "openai/clip-vit-large-patch14": _clip({**_VIT_L_336, "image_size": 224}, _CLIP_L_TEXT, 768),
    "openai/clip-vit-large-patch14-336": _clip(_VIT_L_336, _CLIP_L_TEXT, 768),
    "google/siglip-base-patch16-224": _siglip(_BASE, 224, 16, 32000),
    "google/siglip-so400m-patch14-384": _siglip(_SO400M, 384, 14, 32000),
    "google/siglip2-base-patch16-224": _siglip(_BASE, 224, 16, 256000),
    "google/siglip2-so400m-patch14-384": _siglip(_SO400M, 384, 14, 256000),
    "google/siglip2-base-patch16-naflex": _naflex(_BASE),
    "google/siglip2-so400m-patch16-naflex": _naflex(_SO400M),
    "dinov2_vitl14_reg4_dinotxt_tet1280d20h24l": {
        "model_type": "dinotxt",
        "vision_config": _tower("dinov2_with_registers", 1024, 4096, 24, 16, image_size=518, patch_size=14),
        "text_config": _tower("dinotxt_text_model", 1280, 5120, 24, 20, vocab_size=49408, max_position_embeddings=77),
    },
    "llava-hf/llava-1.5-7b-hf": {
        "model_type": "llava",
        "vision_config": _VIT_L_336,
        "text_config": _VICUNA_7B,
        "image_token_index": 32000,
    },
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": _onevision(
        _tower("qwen2", 896, 4864, 24, 14, num_key_value_heads=2, vocab_size=152000), tied=True
    ),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": _onevision(
        _tower("qwen2", 3584, 18944, 28, 28, num_key_value_heads=4, vocab_size=152128)
    ),
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen_vl(
        _tower("qwen2_5_vl_text", 2048, 11008, 36, 16, num_key_value_heads=2, vocab_size=151936), tied=True
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen_vl(
        _tower("qwen2_5_vl_text", 3584, 18944, 28, 28, num_key_value_heads=4, vocab_size=152064)
    ),
}
