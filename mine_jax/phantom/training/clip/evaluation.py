"""Held-out scores of the phantom's CLIP: caption retrieval, and what its image-tokens say.

The lens compares an image-token of the last layer with each word's text embedding by cosine, as
it stands (`plain`) and after both sides had their mean removed (`centered`).
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
import transformers
from torch.nn import functional

from mine_jax.phantom import scenes
from mine_jax.phantom.training.clip import checkpoint
from mine_jax.phantom.training.clip import corpus as clip_corpus

N_RETRIEVAL: Final = 500
# Image-tokens that their object covers by at least a quarter count as "of the object".
_MIN_COVER: Final = 0.25
_BATCH: Final = 200

_WORD_INDEX: Final = {word: index for index, word in enumerate(scenes.VOCABULARY)}


def token_embeddings(model: transformers.CLIPModel, hidden: torch.Tensor) -> torch.Tensor:
    """Projects last-layer image-tokens [..., D] into the shared space [..., E]."""
    return model.visual_projection(model.vision_model.post_layernorm(hidden))


def text_embeddings(model: transformers.CLIPModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Embeds tokenised texts as unit vectors [B, E]."""
    pooled = model.text_model(**inputs).pooler_output
    return functional.normalize(model.text_projection(pooled), dim=-1)


def word_embeddings(model: transformers.CLIPModel, prompts: dict[str, torch.Tensor]) -> torch.Tensor:
    """Embeds each lens word as the unit mean of its templates' vectors [W, E]."""
    vectors = text_embeddings(model, prompts).unflatten(0, (len(scenes.VOCABULARY), -1))
    return functional.normalize(vectors.mean(dim=1), dim=-1)


def word_prompts(tokenizer: transformers.PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    """Tokenises every template of every lens word, word by word."""
    texts = [t.format(word) for word in scenes.VOCABULARY for t in checkpoint.TEMPLATES]
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def center(vectors: torch.Tensor) -> torch.Tensor:
    """Removes the mean over all but the last axis and rescales to unit length."""
    mean = vectors.flatten(0, -2).mean(dim=0)
    return functional.normalize(vectors - mean, dim=-1)


@torch.inference_mode()
def evaluate(
    model: transformers.CLIPModel,
    tokenizer: transformers.PreTrainedTokenizerFast,
    corpus: clip_corpus.Corpus,
) -> dict[str, float]:
    """Scores a model on held-out scenes.

    Args:
        model: the model in float32.
        tokenizer: its tokenizer.
        corpus: scenes it was not trained on.

    Returns:
        dict[str, float]: fractions 0..1; see the README of this folder for each name.
    """
    model.eval()
    hidden = torch.cat(
        [
            model.vision_model(
                checkpoint.normalize(torch.from_numpy(corpus.images[start : start + _BATCH]))
            ).last_hidden_state
            for start in range(0, len(corpus.images), _BATCH)
        ]
    )
    projected = token_embeddings(model, hidden)
    words = word_embeddings(model, word_prompts(tokenizer))
    scores = retrieval(model, tokenizer, corpus)
    tokens = projected[:, 1:]
    plain = functional.normalize(tokens, dim=-1) @ words.T
    centered = center(tokens) @ center(words).T
    for name, logits in (("plain", plain), ("centered", centered)):
        scores |= {f"{name}_{key}": value for key, value in lens_scores(corpus, logits.numpy()).items()}
    return {name: round(float(value), 4) for name, value in scores.items()}


@torch.inference_mode()
def retrieval(
    model: transformers.CLIPModel,
    tokenizer: transformers.PreTrainedTokenizerFast,
    corpus: clip_corpus.Corpus,
) -> dict[str, float]:
    """Finds each image's full caption among 500; equal captions count as the same.

    Args:
        model: the model in float32.
        tokenizer: its tokenizer.
        corpus: scenes it was not trained on; the first 500 are used.

    Returns:
        dict[str, float]: fractions 0..1 of images whose caption comes first, and among the first five.
    """
    model.eval()
    texts = [scenes.caption(scene) for scene in corpus.scenes[:N_RETRIEVAL]]
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    captions = text_embeddings(
        model,
        {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]},
    )
    pixels = checkpoint.normalize(torch.from_numpy(corpus.images[: len(texts)]))
    pooled = torch.cat([model.vision_model(part).last_hidden_state[:, 0] for part in pixels.split(_BATCH)])
    images = functional.normalize(token_embeddings(model, pooled), dim=-1)
    ranking = (images @ captions.T).argsort(dim=1, descending=True)[:, :5].tolist()
    hits = np.array([[texts[j] == texts[i] for j in row] for i, row in enumerate(ranking)])
    return {"retrieval_top1": hits[:, 0].mean(), "retrieval_top5": hits.any(axis=1).mean()}


def lens_scores(corpus: clip_corpus.Corpus, logits: np.ndarray) -> dict[str, float]:
    """Compares the words of each image-token with the scene's truth.

    Args:
        corpus: N scenes.
        logits: scores of the words of `VOCABULARY` for each image-token, [N, P, W].

    Returns:
        dict[str, float]: fractions 0..1; see the README of this folder for each name.
    """
    boxed = np.argwhere(corpus.owners >= 0)
    covered = np.argwhere((corpus.owners >= 0) & (corpus.covers >= _MIN_COVER))
    empty = np.argwhere(corpus.owners < 0)
    concepts = [_WORD_INDEX[word] for word in scenes.CONCEPTS]
    colors = [_WORD_INDEX[word] for word in scenes.COLORS]

    def concept(scene: int, token: int) -> str | None:
        return corpus.scenes[scene].things[corpus.owners[scene, token]].concept

    def others(scene: int, token: int) -> list[str]:
        owner = corpus.owners[scene, token]
        return [thing.concept for index, thing in enumerate(corpus.scenes[scene].things) if index != owner]

    def color(scene: int, token: int) -> str | None:
        return corpus.scenes[scene].things[corpus.owners[scene, token]].color

    def place(scene: int, _token: int) -> str | None:
        return corpus.scenes[scene].place

    return {
        "other_top5_box": _hit_rate(logits, boxed, others, top=5),
        "concept_top1_box": _hit_rate(logits, boxed, concept, top=1),
        "concept_top5_box": _hit_rate(logits, boxed, concept, top=5),
        "concept_top5": _hit_rate(logits, covered, concept, top=5),
        "concept_top1": _hit_rate(logits, covered, concept, top=1),
        "concept_top1_among_concepts": _hit_rate(logits, covered, concept, top=1, among=concepts),
        "color_top5": _hit_rate(logits, covered, color, top=5),
        "color_top1_among_colors": _hit_rate(logits, covered, color, top=1, among=colors),
        "place_top5": _hit_rate(logits, empty, place, top=5),
        "place_top1": _hit_rate(logits, empty, place, top=1),
    }


def _hit_rate(
    logits: np.ndarray,
    tokens: np.ndarray,
    truth: Callable[[int, int], str | list[str] | None],
    *,
    top: int,
    among: list[int] | None = None,
) -> float:
    """Fraction of tokens [n, 2] with a true word that have one, or any of several, among the `top` best."""
    candidates = np.arange(logits.shape[-1]) if among is None else np.array(among)
    named = [(s, t, [words] if isinstance(words, str) else words) for s, t in tokens if (words := truth(s, t))]
    rows = logits[[s for s, _, _ in named], [t for _, t, _ in named]][:, candidates]
    best = candidates[np.argsort(-rows, axis=1)[:, :top]]
    is_right = np.zeros((len(named), logits.shape[-1]), bool)
    for row, (_, _, words) in zip(is_right, named, strict=True):
        row[[_WORD_INDEX[word] for word in words]] = True
    return float(np.take_along_axis(is_right, best, axis=1).any(axis=1).mean())
