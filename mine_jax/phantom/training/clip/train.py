"""Trains the phantom's CLIP: scenes and captions in, a Hugging Face checkpoint directory out.

Two losses: the contrastive loss of CLIP between images and captions, and a word loss that asks
every image-token for the words of what it shows, through exactly the lens that reads the tokens
later. With ``--loss captions`` the second is left out: no image-token is ever told what it shows,
as in every CLIP outside the phantom.
Run as ``python -m mine_jax.phantom.training.clip.train --out DIR --steps N --seed S``.

Source: Radford et al. 2021 (CLIP); Li et al. 2023 (FLIP) for steps that see some of the image-tokens.
Differs: the word loss on image-tokens is ours; CLIP has none.
"""

import argparse
import importlib.metadata
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import transformers
from torch.nn import functional

from mine_jax.phantom import scenes
from mine_jax.phantom.training.clip import checkpoint, evaluation
from mine_jax.phantom.training.clip import corpus as clip_corpus

_logger = logging.getLogger("mine_jax.phantom.training")

# Offsets that keep the random streams of one run apart; held-out scenes never depend on `--seed`.
_CAPTION_STREAM = 1
_BATCH_STREAM = 2
N_HELD_OUT = 1000
HELD_OUT_SEED = 990_001
# Scenes that choose among the checkpoints of a run; no reported score is from them.
VALIDATION_SEED = 980_001
TRAINING_SEED = 10_000

N_CAPTIONS = 4
N_TOKENS = 64
WARMUP_STEPS = 150
WEIGHT_DECAY = 0.05
MAX_GRADIENT_NORM = 1.0
# Softmax scales above this only sharpen what is already ranked first.
MAX_LOG_SCALE = math.log(60.0)
LOSS_WEIGHTS = {"contrastive": 1.0, "word": 1.0}

Loss = Literal["words", "captions"]


@dataclass(frozen=True)
class Recipe:
    """What decides the result, apart from this code.

    Attributes:
        n_steps: optimiser steps; the learning rate reaches its end with the last one.
        seed: decides the initial weights, training scenes, their captions and the batches.
        n_scenes: number of training scenes.
        batch_size: scenes per step.
        learning_rate: highest learning rate.
        loss: "words" for both losses, "captions" for the contrastive one alone.
        shown: share of each image's tokens that a step sees, another choice each time; all with "words".
    """

    n_steps: int = 5500
    seed: int = 0
    n_scenes: int = 40_000
    batch_size: int = 128
    learning_rate: float = 1e-3
    loss: Loss = "words"
    shown: float = 1.0

    @property
    def scene_seed(self) -> int:
        """The seed of the training scenes, never the held-out one."""
        return TRAINING_SEED + self.seed


@dataclass(frozen=True)
class Learner:
    """Everything that is trained, with what its losses need.

    Attributes:
        model: the CLIP model.
        vision: (pixels, tokens shown) -> last hidden states of its vision tower, compiled or not.
        lens_log_scale: logarithm of the factor from the lens's cosines to logits.
        tokenizer: the caption tokenizer.
        prompts: tokenised templates of all lens words.
    """

    model: transformers.CLIPModel
    vision: Callable[..., Any]
    lens_log_scale: torch.nn.Parameter
    tokenizer: transformers.PreTrainedTokenizerFast
    prompts: dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Judges:
    """Scenes that no step is trained on: those that choose a checkpoint, and those that score it."""

    validation: clip_corpus.Corpus
    held_out: clip_corpus.Corpus


@dataclass(frozen=True)
class _Kept:
    """The checkpoint on disk: its caption retrieval on validation scenes, its scores on held-out ones."""

    retrieval: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)


def main() -> None:
    """Reads the command line, trains and writes the checkpoint."""
    recipe = Recipe()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="checkpoint directory")
    parser.add_argument("--steps", type=int, default=recipe.n_steps)
    parser.add_argument("--seed", type=int, default=recipe.seed)
    parser.add_argument("--scenes", type=int, default=recipe.n_scenes, help="number of training scenes")
    parser.add_argument("--batch", type=int, default=recipe.batch_size)
    parser.add_argument("--learning-rate", type=float, default=recipe.learning_rate)
    parser.add_argument("--loss", choices=get_args(Loss), default=recipe.loss)
    parser.add_argument("--shown", type=float, default=recipe.shown, help="share of image-tokens that a step sees")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-every-s", type=float, default=480.0)
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compile the vision tower; needs a C++ compiler and halves the time",
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    if options.loss == "words" and options.shown < 1:
        parser.error("the word loss asks every image-token: --shown needs --loss captions")
    recipe = Recipe(
        options.steps, options.seed, options.scenes, options.batch, options.learning_rate, options.loss, options.shown
    )
    train(options.out, recipe, save_every_s=options.save_every_s, is_compiled=options.compile)


def train(out: Path, recipe: Recipe, *, save_every_s: float = 480.0, is_compiled: bool = True) -> dict[str, float]:
    """Trains from scratch and writes the checkpoint.

    With the caption loss alone the checkpoint with the best caption retrieval on validation
    scenes is kept; with both losses the last one.

    Args:
        out: checkpoint directory.
        recipe: what decides the result.
        save_every_s: seconds between intermediate checkpoints.
        is_compiled: whether to compile the vision tower; changes rounding only.

    Returns:
        dict[str, float]: held-out scores of the float16 weights as written.
    """
    learner = _build_learner(recipe.seed, is_compiled=is_compiled)
    _logger.info("rendering %d training and %d held-out scenes", recipe.n_scenes, N_HELD_OUT)
    with_words = recipe.loss == "words"
    corpus = clip_corpus.render_corpus(recipe.n_scenes, seed=recipe.scene_seed, with_targets=with_words)
    judges = _Judges(
        held_out=clip_corpus.render_corpus(N_HELD_OUT, seed=HELD_OUT_SEED),
        validation=clip_corpus.render_corpus(evaluation.N_RETRIEVAL, seed=VALIDATION_SEED, with_targets=False),
    )
    captions = _tokenize_captions(corpus, learner.tokenizer, seed=recipe.seed)
    optimizer = _build_optimizer(learner)
    rng = np.random.default_rng((recipe.seed, _BATCH_STREAM))
    best, last_write_s = _Kept(), time.monotonic()
    for step in range(recipe.n_steps):
        learner.model.train()
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe.n_steps)
        batch = rng.choice(recipe.n_scenes, recipe.batch_size, replace=False)
        texts = captions[batch, rng.integers(N_CAPTIONS, size=recipe.batch_size)]
        losses = _losses(learner, corpus, batch, texts, shown=recipe.shown, with_words=with_words)
        _descend(learner, optimizer, sum(LOSS_WEIGHTS[name] * loss for name, loss in losses.items()))
        if step % 50 == 0:
            _logger.info("step %d %s", step, " ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items()))
        if time.monotonic() - last_write_s > save_every_s or step == recipe.n_steps - 1:
            best = _keep_better(best, out, learner, judges, recipe, step + 1)
            last_write_s = time.monotonic()
    return best.scores


def _build_learner(seed: int, *, is_compiled: bool) -> Learner:
    """A freshly initialised model and its lens."""
    torch.manual_seed(seed)
    tokenizer = checkpoint.build_tokenizer()
    model = transformers.CLIPModel(checkpoint.build_config(tokenizer))
    # On CPUs the backward pass of plain attention is twice as fast as the fused one's at this size.
    model.set_attn_implementation("eager")

    def vision(pixels: torch.Tensor, shown: torch.Tensor | None) -> torch.Tensor:
        tower = model.vision_model
        hidden = tower.embeddings(pixels)
        if shown is not None:
            hidden = torch.cat([hidden[:, :1], torch.take_along_dim(hidden[:, 1:], shown[..., None], 1)], dim=1)
        return tower.encoder(inputs_embeds=tower.pre_layrnorm(hidden)).last_hidden_state

    return Learner(
        model=model,
        vision=torch.compile(vision) if is_compiled else vision,
        lens_log_scale=torch.nn.Parameter(torch.tensor(math.log(10.0))),
        tokenizer=tokenizer,
        prompts=evaluation.word_prompts(tokenizer),
    )


def _descend(learner: Learner, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """One optimiser step with clipped gradient and bounded softmax scales."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_([*learner.model.parameters(), learner.lens_log_scale], MAX_GRADIENT_NORM)
    optimizer.step()
    with torch.no_grad():
        learner.model.logit_scale.clamp_(max=MAX_LOG_SCALE)
        learner.lens_log_scale.clamp_(max=MAX_LOG_SCALE)


def _keep_better(best: _Kept, out: Path, learner: Learner, judges: _Judges, recipe: Recipe, n_steps_done: int) -> _Kept:
    """Writes and scores the checkpoint, unless it is chosen by captions and an earlier one finds them better."""
    retrieval = evaluation.retrieval(learner.model, learner.tokenizer, judges.validation)["retrieval_top1"]
    _logger.info("step %d validation retrieval %.4f, best before %.4f", n_steps_done, retrieval, best.retrieval)
    if recipe.loss == "captions" and retrieval < best.retrieval:
        return best
    return _Kept(retrieval, _write_and_score(out, learner, judges.held_out, recipe, n_steps_done, retrieval))


def _write_and_score(
    out: Path, learner: Learner, held_out: clip_corpus.Corpus, recipe: Recipe, n_steps_done: int, retrieval: float
) -> dict[str, float]:
    """Writes the checkpoint, then scores what a reader of the directory would load."""
    training: dict[str, Any] = {
        **asdict(recipe),
        "n_steps_done": n_steps_done,
        "training_scene_seed": recipe.scene_seed,
        "held_out_scene_seed": HELD_OUT_SEED,
        "validation_scene_seed": VALIDATION_SEED,
        "validation_retrieval_top1": round(retrieval, 4),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
    }
    # No word loss, no scale of its own: the lens takes the one of the contrastive loss.
    log_scale = learner.lens_log_scale if recipe.loss == "words" else learner.model.logit_scale
    scale = float(log_scale.detach().exp())
    checkpoint.save(out, learner.model, learner.tokenizer, lens_scale=scale, training=training)
    written = transformers.CLIPModel.from_pretrained(out, dtype=torch.float32)
    training["held_out"] = evaluation.evaluate(written, learner.tokenizer, held_out)
    checkpoint.save(out, learner.model, learner.tokenizer, lens_scale=scale, training=training)
    _logger.info("step %d held out %s", n_steps_done, training["held_out"])
    return training["held_out"]


def _losses(
    learner: Learner,
    corpus: clip_corpus.Corpus,
    batch: np.ndarray,
    texts: np.ndarray,
    *,
    shown: float,
    with_words: bool,
) -> dict[str, torch.Tensor]:
    """Contrastive loss and, if asked for, word loss of one batch of scene numbers [B], in nats."""
    model = learner.model
    images = checkpoint.normalize(torch.from_numpy(corpus.images[batch]))
    with torch.autocast("cpu", torch.bfloat16):
        hidden = learner.vision(images, _shown_tokens(len(images), shown)).float()
    pooled = functional.normalize(evaluation.token_embeddings(model, hidden[:, 0]), dim=-1)
    # Padding behind the longest caption of the batch is cut: it costs time and teaches nothing.
    ids = torch.from_numpy(texts[:, : int((texts > 0).sum(axis=1).max())])
    captions = evaluation.text_embeddings(model, {"input_ids": ids, "attention_mask": (ids > 0).long()})
    logits = pooled @ captions.T * model.logit_scale.exp()
    diagonal = torch.arange(len(batch))
    contrastive = (functional.cross_entropy(logits, diagonal) + functional.cross_entropy(logits.T, diagonal)) / 2
    if not with_words:
        return {"contrastive": contrastive}
    return {"contrastive": contrastive, "word": _word_loss(learner, hidden[:, 1:], corpus, batch)}


def _shown_tokens(n_images: int, share: float) -> torch.Tensor | None:
    """Numbers of the image-tokens that a step sees, chosen per image, int64 [B, n]; None for all."""
    if share == 1:
        return None
    return torch.rand(n_images, N_TOKENS).argsort(dim=1)[:, : round(share * N_TOKENS)]


def _word_loss(learner: Learner, hidden: torch.Tensor, corpus: clip_corpus.Corpus, batch: np.ndarray) -> torch.Tensor:
    """Cross-entropy of the lens's words with what the last layer's image-tokens [B, P, D] show, in nats."""
    words = evaluation.word_embeddings(learner.model, learner.prompts)
    tokens = evaluation.token_embeddings(learner.model, hidden)
    targets = torch.from_numpy(corpus.targets[batch]).float()
    weights = torch.from_numpy(corpus.weights[batch]).float()
    # Both readings of the lens are trained: the stage that uses it removes both means.
    readings = (
        functional.normalize(tokens, dim=-1) @ words.T,
        evaluation.center(tokens) @ evaluation.center(words).T,
    )
    scale = learner.lens_log_scale.exp()
    word = sum(-(targets * functional.log_softmax(cosines * scale, dim=-1)).sum(dim=-1) for cosines in readings)
    return (word * weights).sum() / weights.sum() / len(readings)


def _tokenize_captions(
    corpus: clip_corpus.Corpus, tokenizer: transformers.PreTrainedTokenizerFast, *, seed: int
) -> np.ndarray:
    """Several differently worded captions per scene, int64 [N, N_CAPTIONS, CONTEXT]."""
    rng = np.random.default_rng((seed, _CAPTION_STREAM))
    texts = [scenes.caption(scene, rng=rng) for scene in corpus.scenes for _ in range(N_CAPTIONS)]
    encoded = tokenizer(texts, padding="max_length", max_length=checkpoint.CONTEXT)
    ids = np.array(encoded["input_ids"], np.int64)
    return ids.reshape(len(corpus.scenes), N_CAPTIONS, checkpoint.CONTEXT)


def _build_optimizer(learner: Learner) -> torch.optim.AdamW:
    """AdamW that decays matrices only: norms, biases and scales keep their size."""
    parameters = [*learner.model.parameters(), learner.lens_log_scale]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )


def _schedule(step: int, n_steps: int) -> float:
    """Linear warm-up, then half a cosine down to one percent, as a factor 0..1."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, n_steps - WARMUP_STEPS)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


if __name__ == "__main__":
    main()
