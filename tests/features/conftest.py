import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

WORDS = ("cat", "dog", "face", "house", "tree", "car", "apple", "street")


def tower_shapes(prefix, width, hidden, layers):
    shapes = {}
    for i in range(layers):
        block = f"{prefix}.encoder.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{block}.self_attn.{part}.weight": (width, width), f"{block}.self_attn.{part}.bias": (width,)}
        shapes |= {f"{block}.mlp.fc1.weight": (hidden, width), f"{block}.mlp.fc1.bias": (hidden,)}
        shapes |= {f"{block}.mlp.fc2.weight": (width, hidden), f"{block}.mlp.fc2.bias": (width,)}
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
    return shapes


def tiny_tensors(seed=0):
    """Random tensors of a tiny CLIP, with the keys of a Hugging Face checkpoint."""
    shapes = {
        "logit_scale": (),
        "text_projection.weight": (12, 16),
        "visual_projection.weight": (12, 24),
        "text_model.embeddings.position_embedding.weight": (16, 16),
        "text_model.embeddings.token_embedding.weight": (20, 16),
        "text_model.final_layer_norm.weight": (16,),
        "text_model.final_layer_norm.bias": (16,),
        "vision_model.embeddings.class_embedding": (24,),
        "vision_model.embeddings.patch_embedding.weight": (24, 3, 8, 8),
        "vision_model.embeddings.position_embedding.weight": (17, 24),
        **{
            f"vision_model.{norm}.{kind}": (24,)
            for norm in ("pre_layrnorm", "post_layernorm")
            for kind in ("weight", "bias")
        },
        **tower_shapes("text_model", 16, 32, 1),
        **tower_shapes("vision_model", 24, 40, 2),
    }
    rng = np.random.default_rng(seed)
    tensors = {key: (0.3 * rng.standard_normal(shape)).astype(np.float32) for key, shape in sorted(shapes.items())}
    tensors["logit_scale"] = np.asarray(np.log(10), np.float32)
    return tensors


TINY_CONFIG = {
    "model_type": "clip",
    "projection_dim": 12,
    "text_config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 20,
        "max_position_embeddings": 16,
        "eos_token_id": 1,
    },
    "vision_config": {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 32,
        "patch_size": 8,
    },
}


def write_tokenizer(directory, tokens, *, end=True):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if end:
        special = [("<s>", 0), ("</s>", 1)]
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=special)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(directory)


@pytest.fixture(scope="session")
def _checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("clip") / "tiny-clip"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(TINY_CONFIG))
    processor = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    safetensors.numpy.save_file(tiny_tensors(), directory / "model.safetensors")
    write_tokenizer(directory, ("<s>", "</s>", "<unk>", "a", "photo", "of", *WORDS))
    return directory


@pytest.fixture
def checkpoint(_checkpoint, tmp_path):
    """A tiny CLIP checkpoint directory that the test may damage."""
    return shutil.copytree(_checkpoint, tmp_path / "tiny-clip")


@pytest.fixture
def tensors():
    return tiny_tensors()


@pytest.fixture
def rewrite(checkpoint):
    """Writes other tensors, or other values of config.json, into the checkpoint."""

    def write(tensors=None, **config):
        if tensors is not None:
            safetensors.numpy.save_file(tensors, checkpoint / "model.safetensors")
        if config:
            (checkpoint / "config.json").write_text(json.dumps({**TINY_CONFIG, **config}))
        return checkpoint

    return write


@pytest.fixture
def words():
    return np.asarray(WORDS)


@pytest.fixture
def retokenize(checkpoint):
    """Replaces the tokenizer of the checkpoint."""

    def write(tokens, *, end=True):
        write_tokenizer(checkpoint, tokens, end=end)
        return checkpoint

    return write


@pytest.fixture
def write_tokens():
    """Writes a word-level tokenizer that ends texts with `</s>`, with `<pad>` if it is among the tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    def write(directory, tokens, *, start=None, special=()):
        vocabulary = {token: i for i, token in enumerate(tokens)}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        ends = [(token, vocabulary[token]) for token in (start, "</s>") if token]
        template = f"{start} $A" if start else "$A </s>"
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ends)
        names = {"eos_token": "</s>", "unk_token": "<unk>", "additional_special_tokens": list(special)}
        names |= {"pad_token": "<pad>"} if "<pad>" in vocabulary else {}
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(directory)
        return directory

    return write
