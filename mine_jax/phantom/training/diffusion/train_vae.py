"""Trains the autoencoder of the phantom's diffusion models: scenes in, a checkpoint directory out.

Run as ``python -m mine_jax.phantom.training.diffusion.train_vae --out DIR --steps N --seed S``. Pixels are
compared with their neighbours as well as one by one, because outlines carry the concepts. Noise
on the latents makes the decoder tolerate what a diffusion model leaves unfinished. With
``--refine DIR --clip DIR`` only the decoder of DIR goes on: latents stay what they were, and
pictures must also look alike to the CLIP's image-tokens.

Source of the comparison by features: Johnson, Alahi and Fei-Fei 2016.
"""

import argparse
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from torch.nn import functional

from mine_jax.phantom.training.diffusion import corpus

_logger = logging.getLogger("mine_jax.phantom.training")

TRAINING_SEED = 21_000
HELD_OUT_SEED = 990_021
WIDTH = 48
LATENT_NOISE = 0.08
GRADIENT_LOSS_WEIGHT = 0.5
FEATURE_LOSS_WEIGHT = 0.2
WARMUP_STEPS = 50


@dataclass(frozen=True)
class Recipe:
    """What decides the result, apart from this code.

    Attributes:
        n_steps: optimiser steps.
        seed: decides the initial weights, scenes and batches.
        n_pairs: training pairs; both images of each are used.
        batch_size: images per step.
        learning_rate: highest learning rate.
    """

    n_steps: int = 1800
    seed: int = 0
    n_pairs: int = 6000
    batch_size: int = 16
    learning_rate: float = 2e-3


def main() -> None:
    """Reads the command line, trains and writes the checkpoint."""
    recipe = Recipe()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="checkpoint directory")
    parser.add_argument("--steps", type=int, default=recipe.n_steps)
    parser.add_argument("--seed", type=int, default=recipe.seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--refine", type=Path, help="autoencoder directory whose decoder is trained on")
    parser.add_argument("--clip", type=Path, help="CLIP directory that compares pictures; with --refine")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    if (options.refine is None) != (options.clip is None):
        parser.error("--refine and --clip belong together")
    train(options.out, Recipe(options.steps, options.seed), refine=options.refine, clip=options.clip)


def train(out: Path, recipe: Recipe, *, refine: Path | None = None, clip: Path | None = None) -> float:
    """Trains an autoencoder, or the decoder of one, and writes the checkpoint in float32.

    Args:
        out: checkpoint directory.
        recipe: what decides the result.
        refine: autoencoder whose encoder is kept and whose decoder is the start; None for scratch.
        clip: CLIP directory whose image-tokens compare pictures; None compares pixels only.

    Returns:
        float: peak signal-to-noise ratio on held-out scenes, in decibel.
    """
    torch.manual_seed(recipe.seed)
    model = build()
    if refine is not None:
        written = diffusers.AutoencoderTiny.from_pretrained(refine, use_safetensors=True)
        model.load_state_dict(written.float().state_dict())
        model.encoder.requires_grad_(False)
    features = None if clip is None else _features(clip)
    pairs = corpus.render_pairs(recipe.n_pairs, seed=TRAINING_SEED + recipe.seed)
    held_out = to_signal(corpus.render_pairs(128, seed=HELD_OUT_SEED).full)
    images = np.concatenate([pairs.full, pairs.without])
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=recipe.learning_rate, weight_decay=0.0, betas=(0.9, 0.98))
    rng = np.random.default_rng((recipe.seed, 1))
    start_s, ratio = time.monotonic(), math.nan
    for step in range(recipe.n_steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe.n_steps)
        loss = _loss(model, to_signal(images[rng.choice(len(images), recipe.batch_size, replace=False)]), features)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moving, 1.0)
        optimizer.step()
        if step % 100 == 99 or step == recipe.n_steps - 1:
            ratio = signal_to_noise(model, held_out)
            _logger.info("step %d loss %.4f held out %.2f dB %.0f s", step, loss, ratio, time.monotonic() - start_s)
            model.save_pretrained(out)
    # The diffusion network knows the latents by the scale that it was trained with.
    scale = latent_scale(model, to_signal(pairs.full[:512])) if refine is None else written.config.scaling_factor
    model.register_to_config(scaling_factor=scale)
    model.save_pretrained(out)
    return ratio


def build() -> diffusers.AutoencoderTiny:
    """Returns a fresh autoencoder: 64 x 64 pixels to 4 channels of 16 x 16 and back."""
    return diffusers.AutoencoderTiny(
        encoder_block_out_channels=(WIDTH,) * 3,
        decoder_block_out_channels=(WIDTH,) * 3,
        num_encoder_blocks=(0, 1, 2),
        num_decoder_blocks=(2, 1, 1),
        latent_channels=4,
    ).to(memory_format=torch.channels_last)


def to_signal(images: np.ndarray) -> torch.Tensor:
    """Returns images as pipelines hand them over: uint8 [N, S, S, 3] -> float32 [N, 3, S, S] in -1..1."""
    signal = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return signal.contiguous(memory_format=torch.channels_last)


def signal_to_noise(model: diffusers.AutoencoderTiny, signal: torch.Tensor) -> float:
    """Returns the peak signal-to-noise ratio of reconstructions, in decibel."""
    with torch.inference_mode():
        error = (model(signal).sample.clamp(-1, 1) - signal).square().mean().item()
    return 10 * math.log10(4 / error)


def latent_scale(model: diffusers.AutoencoderTiny, signal: torch.Tensor) -> float:
    """Returns the factor that gives latents unit variance."""
    with torch.inference_mode():
        return round(1 / model.encode(signal).latents.std().item(), 4)


def _features(clip: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns what a CLIP's image-tokens make of a signal: [N, 3, S, S] -> [N, layers, P, D], unit length."""
    tower = transformers.CLIPVisionModel.from_pretrained(clip, dtype=torch.float32).eval().requires_grad_(False)
    written = json.loads((clip / "preprocessor_config.json").read_text(encoding="utf-8"))
    mean, spread = (torch.tensor(written[name])[None, :, None, None] for name in ("image_mean", "image_std"))

    def look(signal: torch.Tensor) -> torch.Tensor:
        states = tower(((signal + 1) / 2 - mean) / spread, output_hidden_states=True).hidden_states
        return torch.stack([functional.normalize(state.float(), dim=-1) for state in states[1:]], dim=1)

    return look


def _loss(
    model: diffusers.AutoencoderTiny,
    signal: torch.Tensor,
    features: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Absolute error of pixels and of their differences to neighbours, plus a pull to small latents."""
    with torch.autocast("cpu", torch.bfloat16):
        latents = model.encode(signal).latents
        # Noise is relative to the spread, or large latents would drown it.
        spread = latents.detach().float().std()
        noisy = latents + LATENT_NOISE * spread * torch.randn_like(latents)
        decoded = model.decode(noisy).sample
    error = decoded.float() - signal
    edges = (error.diff(dim=-1)).abs().mean() + (error.diff(dim=-2)).abs().mean()
    loss = error.abs().mean() + GRADIENT_LOSS_WEIGHT * edges + 1e-3 * functional.relu(latents.float().abs() - 3).mean()
    if features is None:
        return loss
    with torch.autocast("cpu", torch.bfloat16):
        seen = features(decoded.float())
        with torch.no_grad():
            wanted = features(signal)
    return loss + FEATURE_LOSS_WEIGHT * (seen - wanted).square().sum(-1).mean()


def _schedule(step: int, n_steps: int) -> float:
    """Linear warm-up, a plateau, then a linear descent over the last half, as a factor 0..1."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * min(1.0, 2.0 * (1 - step / n_steps) + 0.01)


if __name__ == "__main__":
    main()
