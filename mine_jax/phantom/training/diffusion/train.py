"""Trains the phantom's diffusion models: pairs of scenes in, two pipeline directories out.

One network learns three tasks: paint a whole scene, insert a thing into a masked region, and
paint what lies behind a masked thing. Run as ``python -m mine_jax.phantom.training.diffusion.train
--vae DIR --clip DIR --out DIR --steps N --seed S``; the autoencoder comes from `train_vae`.

Source: Ho and Salimans 2022 (guidance); Salimans and Ho 2022 (velocity); Lin et al. 2024 (zero
terminal signal-to-noise ratio).
"""

import argparse
import copy
import importlib.metadata
import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import diffusers
import numpy as np
import torch
import transformers

from mine_jax.phantom import scenes
from mine_jax.phantom.training.diffusion import checkpoint, corpus, judge, latent_reader, train_vae

_logger = logging.getLogger("mine_jax.phantom.training")

TRAINING_SEED: Final = 20_000
_MASK_STREAM: Final = 1
_BATCH_STREAM: Final = 2
WARMUP_STEPS: Final = 100
# Share of the run at the full learning rate, before it falls linearly to almost nothing.
PLATEAU: Final = 0.5
DROPPED_PROMPTS: Final = 0.1
# Shares of the tasks: paint a scene, insert a thing; the rest paints what lies behind.
PAINT_SHARE: Final = 0.48
INSERT_SHARE: Final = 0.42
# Pixels outside the mask are given to the network, so they weigh less; the thing is small and hard.
OUTSIDE_WEIGHT: Final = 0.3
THING_WEIGHT: Final = 2.5
N_READERS: Final = 2
READER_STEPS: Final = 2000
READER_WEIGHT: Final = 0.06
AVERAGE_DECAY: Final = 0.998


@dataclass(frozen=True)
class Recipe:
    """What decides the result, apart from this code.

    Attributes:
        n_steps: optimiser steps.
        seed: decides the initial weights, scenes, prompts and batches.
        n_pairs: training pairs.
        batch_size: examples per step.
        learning_rate: highest learning rate.
        is_read: whether readers of latents say as well what is missing; worth it once the
            network paints things at all.
    """

    n_steps: int = 4000
    seed: int = 0
    n_pairs: int = 14_000
    batch_size: int = 64
    learning_rate: float = 1.2e-3
    is_read: bool = False


@dataclass(frozen=True)
class Latents:
    """Encoded pairs, as the network sees them.

    Attributes:
        full: latents of full scenes, float16 [N, 4, 16, 16], unit variance.
        without: latents of scenes without the thing, float16 [N, 4, 16, 16].
        masked: latents of the masked image, float16 [N, 4, 16, 16].
        masks: 1 where the network repaints, bool [N, 16, 16].
        things: 1 where the thing is, bool [N, 16, 16].
        shown: the concepts of full scenes, bool [N, n_concepts].
        shown_without: the concepts of scenes without the thing, bool [N, n_concepts].
        empty: latents of an image that is masked everywhere, float32 [4, 16, 16].
    """

    full: torch.Tensor
    without: torch.Tensor
    masked: torch.Tensor
    masks: torch.Tensor
    things: torch.Tensor
    shown: np.ndarray
    shown_without: np.ndarray
    empty: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """Examples of all three tasks.

    Attributes:
        targets: latents to paint, float32 [B, 4, 16, 16].
        conditions: mask and masked latents, float32 [B, 5, 16, 16].
        weights: of every position's error, float32 [B, 1, 16, 16].
        shown: the concepts that the targets show, bool [B, n_concepts].
        prompts: B texts, some empty.
    """

    targets: torch.Tensor
    conditions: torch.Tensor
    weights: torch.Tensor
    shown: torch.Tensor
    prompts: list[str]


def main() -> None:
    """Reads the command line, trains and writes the pipeline directories."""
    recipe = Recipe()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--vae", type=Path, required=True, help="autoencoder directory from train_vae")
    parser.add_argument("--clip", type=Path, required=True, help="CLIP directory whose text tower is the start")
    parser.add_argument("--out", type=Path, required=True, help="gets the folders generator and editor")
    parser.add_argument("--steps", type=int, default=recipe.n_steps)
    parser.add_argument("--seed", type=int, default=recipe.seed)
    parser.add_argument("--pairs", type=int, default=recipe.n_pairs)
    parser.add_argument("--learning-rate", type=float, default=recipe.learning_rate)
    parser.add_argument("--read", action="store_true", help="readers of latents say as well what is missing")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", type=Path, help="editor directory whose weights are the start")
    parser.add_argument("--compile", action="store_true", help="compile the network first; needs a C++ compiler")
    parser.add_argument("--save-every-s", type=float, default=300.0)
    parser.add_argument("--max-s", type=float, default=float("inf"), help="shortens the schedule to end by then")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    recipe = Recipe(
        options.steps,
        options.seed,
        options.pairs,
        learning_rate=options.learning_rate,
        is_read=options.read,
    )
    vae = diffusers.AutoencoderTiny.from_pretrained(options.vae, use_safetensors=True).eval()
    train(
        options.out,
        recipe,
        vae=vae,
        clip=options.clip,
        resume=options.resume,
        is_compiled=options.compile,
        save_every_s=options.save_every_s,
        max_s=options.max_s,
    )


def train(
    out: Path,
    recipe: Recipe,
    *,
    vae: diffusers.AutoencoderTiny,
    clip: Path,
    resume: Path | None = None,
    is_compiled: bool = False,
    save_every_s: float = 300.0,
    max_s: float = float("inf"),
) -> int:
    """Trains from scratch and writes both pipeline directories.

    Args:
        out: gets the folders `generator` and `editor`.
        recipe: what decides the result.
        vae: the trained autoencoder.
        clip: CLIP directory whose text tower is the start.
        resume: editor directory of an earlier run whose weights are the start.
        is_compiled: whether the network is compiled first: 1.6 times as fast on a CPU.
        save_every_s: seconds between intermediate checkpoints; never changes the result.
        max_s: seconds after which training ends early, with the schedule compressed to fit.

    Returns:
        int: optimiser steps done.
    """
    torch.manual_seed(recipe.seed)
    start_s = saved_s = time.monotonic()
    pairs = corpus.render_pairs(recipe.n_pairs, seed=TRAINING_SEED + recipe.seed)
    _logger.info("rendered")
    latents = encode(pairs, vae, seed=recipe.seed)
    _logger.info("encoded, spread %.3f", latents.full.float().std())
    readers = _fit_readers(latents, recipe) if recipe.is_read else None
    parts = _build_parts(vae, clip, resume, latents.empty.mean(dim=(1, 2)))
    averaged = replace(parts, unet=copy.deepcopy(parts.unet), text_encoder=copy.deepcopy(parts.text_encoder))
    if is_compiled:
        parts.unet.compile()
    parameters = [*parts.unet.parameters(), *parts.text_encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    alphas = checkpoint.build_scheduler().alphas_cumprod
    rng = np.random.default_rng((recipe.seed, _BATCH_STREAM))
    running, step, progress = 1.0, 0, 0.0
    while progress < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, progress)
        loss = _loss(parts, _sample_batch(pairs, latents, rng, recipe.batch_size), alphas, readers)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        _average(averaged, parts, step)
        running += 0.02 * (loss.item() - running)
        step += 1
        now_s = time.monotonic()
        progress = max(step / recipe.n_steps, (now_s - start_s) / max_s)
        if step % 50 == 0:
            _logger.info("step %d loss %.4f %.0f s", step, running, now_s - start_s)
        if now_s - saved_s > save_every_s or progress >= 1.0:
            checkpoint.save_editor(out / "editor", averaged)
            checkpoint.save_generator(out / "generator", averaged)
            record(out, recipe, step, resume=resume)
            saved_s = now_s
    return step


def record(out: Path, recipe: Recipe, n_steps_done: int, *, resume: Path | None = None) -> None:
    """Writes `training.json` beside both pipelines.

    Args:
        out: holds the folders `generator` and `editor`.
        recipe: what decided the result.
        n_steps_done: optimiser steps done.
        resume: editor directory of the earlier run, whose own record is kept within.
    """
    training: dict[str, Any] = {
        **asdict(recipe),
        "n_steps_done": n_steps_done,
        "training_scene_seed": TRAINING_SEED + recipe.seed,
        "autoencoder_scene_seed": train_vae.TRAINING_SEED,
        "versions": {name: importlib.metadata.version(name) for name in ("diffusers", "torch", "transformers")},
    }
    earlier = None if resume is None else resume / "training.json"
    if earlier is not None and earlier.is_file():
        training["resumed_from"] = json.loads(earlier.read_text(encoding="utf-8"))
    for name in ("generator", "editor"):
        (out / name / "training.json").write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")


def encode(pairs: corpus.Pairs, vae: diffusers.AutoencoderTiny, *, seed: int) -> Latents:
    """Encodes pairs, each with one region to repaint.

    Args:
        pairs: N rendered pairs.
        vae: the trained autoencoder.
        seed: decides the regions.

    Returns:
        Latents: everything the training loop reads.
    """
    rng = np.random.default_rng((seed, _MASK_STREAM))
    masks = np.stack([corpus.sample_mask(thing, rng) for thing in pairs.things])
    cell, side = corpus.FINE, checkpoint.LATENT_SIZE
    without = [
        scenes.remove_thing(scene, index) for scene, index in zip(pairs.scenes, pairs.indices.tolist(), strict=True)
    ]
    # Pipelines hand over grey, the middle of the signal, where the mask is set.
    visible = torch.from_numpy(~masks)[:, None]
    return Latents(
        full=_encode(vae, pairs.full),
        without=_encode(vae, pairs.without),
        masked=_encode(vae, pairs.without, visible),
        masks=torch.from_numpy(masks[:, ::cell, ::cell]),
        things=torch.from_numpy(pairs.things.reshape(-1, side, cell, side, cell).any(axis=(2, 4))),
        shown=judge.labels(list(pairs.scenes)),
        shown_without=judge.labels(without),
        empty=_encode(vae, pairs.full[:1], torch.zeros(1, 1, 1, 1))[0].float(),
    )


def _build_parts(
    vae: diffusers.AutoencoderTiny, clip: Path, resume: Path | None, empty: torch.Tensor
) -> checkpoint.Parts:
    """The network and the text tower, fresh or from an earlier run, ready to be trained."""
    tokenizer = checkpoint.build_tokenizer()
    unet = checkpoint.build_unet()
    text_encoder = checkpoint.build_text_encoder(clip, tokenizer)
    if resume is not None:
        written = diffusers.StableDiffusionInpaintPipeline.from_pretrained(resume, local_files_only=True)
        unet.load_state_dict(written.unet.float().state_dict())
        text_encoder.load_state_dict(written.text_encoder.float().state_dict())
    # On CPUs the backward pass of plain attention is several times as fast as the fused one's.
    unet.set_attn_processor(diffusers.models.attention_processor.AttnProcessor())
    text_encoder.set_attn_implementation("eager")
    return checkpoint.Parts(unet, text_encoder, tokenizer, vae, empty)


def _encode(vae: diffusers.AutoencoderTiny, images: np.ndarray, visible: torch.Tensor | None = None) -> torch.Tensor:
    """Images uint8 [N, S, S, 3], masked where not visible -> scaled latents float16 [N, 4, 16, 16]."""
    encoded = []
    for start in range(0, len(images), 64):
        signal = train_vae.to_signal(images[start : start + 64])
        if visible is not None:
            signal = signal * visible[start : start + 64]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            encoded.append((vae.encode(signal).latents.float() * vae.config.scaling_factor).half())
    return torch.cat(encoded).clone()


def _fit_readers(latents: Latents, recipe: Recipe) -> latent_reader.Readers:
    """Trains readers on all scenes, with and without the thing."""
    return latent_reader.fit(
        torch.cat([latents.full, latents.without]),
        np.concatenate([latents.shown, latents.shown_without]),
        n_readers=N_READERS,
        n_steps=READER_STEPS,
        seed=recipe.seed,
    )


def _sample_batch(pairs: corpus.Pairs, latents: Latents, rng: np.random.Generator, size: int) -> Batch:
    """Draws examples: a pair, a task and words for each."""
    targets, conditions, weights, shown, prompts = [], [], [], [], []
    constant = latents.empty.mean(dim=(1, 2), keepdim=True).expand_as(latents.empty)
    ones = torch.ones(1, *latents.empty.shape[1:])
    for index in rng.choice(len(pairs.scenes), size, replace=False):
        task = rng.random()
        scene, thing = pairs.scenes[index], pairs.thing(index)
        is_removal = task >= PAINT_SHARE + INSERT_SHARE
        if task < PAINT_SHARE:
            # Both forms of an empty image: the editor's own, and the constant the generator folds in.
            conditions.append(torch.cat([ones, constant if rng.random() < 0.6 else latents.empty]))
            prompt = corpus.scene_prompt(scene, rng)
        else:
            conditions.append(torch.cat([latents.masks[index][None].float(), latents.masked[index].float()]))
            word = corpus.remove_prompt if is_removal else corpus.insert_prompt
            prompt = word(thing, rng)
        targets.append((latents.without if is_removal else latents.full)[index])
        shown.append((latents.shown_without if is_removal else latents.shown)[index])
        emphasis = 0.0 if is_removal else THING_WEIGHT - 1
        weights.append(
            OUTSIDE_WEIGHT + (1 - OUTSIDE_WEIGHT) * conditions[-1][:1] + emphasis * latents.things[index][None].float()
        )
        prompts.append("" if rng.random() < DROPPED_PROMPTS else prompt)
    return Batch(
        torch.stack(targets).float(),
        torch.stack(conditions),
        torch.stack(weights),
        torch.from_numpy(np.stack(shown)),
        prompts,
    )


def _loss(
    parts: checkpoint.Parts,
    batch: Batch,
    alphas: torch.Tensor,
    readers: latent_reader.Readers | None,
) -> torch.Tensor:
    """Squared error of the predicted velocity at a random time, plus what readers miss."""
    targets = batch.targets
    times = torch.randint(len(alphas), (len(targets),))
    signal = alphas[times].sqrt()[:, None, None, None]
    noise_level = (1 - alphas[times]).sqrt()[:, None, None, None]
    noise = torch.randn_like(targets)
    noisy = signal * targets + noise_level * noise
    velocity = signal * noise - noise_level * targets
    hidden = encode_prompts(parts, batch.prompts)
    inputs = torch.cat([noisy, batch.conditions], dim=1).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        predicted = parts.unet(inputs, times, hidden).sample
    loss = ((predicted.float() - velocity).square() * batch.weights).mean()
    if readers is None:
        return loss
    painted = (signal * noisy - noise_level * predicted.float()).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        missing = readers.loss(painted, targets.contiguous(memory_format=torch.channels_last), batch.shown)
    # Nothing can be read where all is noise, and nothing was asked for without a prompt.
    counts = alphas[times] * torch.tensor([bool(prompt) for prompt in batch.prompts])
    return loss + READER_WEIGHT * (missing * counts).mean()


def encode_prompts(parts: checkpoint.Parts, prompts: list[str]) -> torch.Tensor:
    """Returns what the network attends to, float [B, 32, 96], padded as pipelines pad."""
    ids = parts.tokenizer(
        prompts,
        padding="max_length",
        max_length=checkpoint.CONTEXT,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    with torch.autocast("cpu", torch.bfloat16):
        return parts.text_encoder(ids)[0]


def _average(averaged: checkpoint.Parts, parts: checkpoint.Parts, step: int) -> None:
    """Moves the averaged weights towards the current ones, fast at first."""
    decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
    with torch.no_grad():
        for name in ("unet", "text_encoder"):
            pairs = zip(getattr(averaged, name).parameters(), getattr(parts, name).parameters(), strict=True)
            old, new = (list(side) for side in zip(*pairs, strict=True))
            torch._foreach_lerp_(old, new, 1 - decay)


def _schedule(step: int, progress: float) -> float:
    """Linear warm-up, a plateau, then a linear descent, as a factor 0..1."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * min(1.0, (1 - progress) / (1 - PLATEAU) + 0.02)


if __name__ == "__main__":
    transformers.utils.logging.disable_progress_bar()
    main()
