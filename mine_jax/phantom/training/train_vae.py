"""Trains the autoencoder of the phantom's diffusion models: scenes in, a checkpoint directory out.

Run as ``python -m mine_jax.phantom.training.train_vae --out DIR --steps N --seed S``. Pixels are
compared with their neighbours as well as one by one, because outlines carry the concepts. Noise
on the latents makes the decoder tolerate what a diffusion model leaves unfinished.
"""

import argparse
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import diffusers
import numpy as np
import torch
from torch.nn import functional

from mine_jax.phantom.training import diffusion_corpus

_logger = logging.getLogger("mine_jax.phantom.training")

TRAINING_SEED = 21_000
HELD_OUT_SEED = 990_021
WIDTH = 48
LATENT_NOISE = 0.08
GRADIENT_LOSS_WEIGHT = 0.5
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
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    train(options.out, Recipe(options.steps, options.seed))


def train(out: Path, recipe: Recipe) -> float:
    """Trains from scratch and writes the checkpoint in float32.

    Args:
        out: checkpoint directory.
        recipe: what decides the result.

    Returns:
        float: peak signal-to-noise ratio on held-out scenes, in decibel.
    """
    torch.manual_seed(recipe.seed)
    model = build()
    pairs = diffusion_corpus.render_pairs(recipe.n_pairs, seed=TRAINING_SEED + recipe.seed)
    held_out = to_signal(diffusion_corpus.render_pairs(128, seed=HELD_OUT_SEED).full)
    images = np.concatenate([pairs.full, pairs.without])
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.0, betas=(0.9, 0.98))
    rng = np.random.default_rng((recipe.seed, 1))
    start_s, ratio = time.monotonic(), math.nan
    for step in range(recipe.n_steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe.n_steps)
        loss = _loss(model, to_signal(images[rng.choice(len(images), recipe.batch_size, replace=False)]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 99 or step == recipe.n_steps - 1:
            ratio = signal_to_noise(model, held_out)
            _logger.info("step %d loss %.4f held out %.2f dB %.0f s", step, loss, ratio, time.monotonic() - start_s)
            model.save_pretrained(out)
    scale = latent_scale(model, to_signal(pairs.full[:512]))
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


def _loss(model: diffusers.AutoencoderTiny, signal: torch.Tensor) -> torch.Tensor:
    """Absolute error of pixels and of their differences to neighbours, plus a pull to small latents."""
    with torch.autocast("cpu", torch.bfloat16):
        latents = model.encode(signal).latents
        # Noise is relative to the spread, or large latents would drown it.
        spread = latents.detach().float().std()
        noisy = latents + LATENT_NOISE * spread * torch.randn_like(latents)
        decoded = model.decode(noisy).sample
    error = decoded.float() - signal
    edges = (error.diff(dim=-1)).abs().mean() + (error.diff(dim=-2)).abs().mean()
    return error.abs().mean() + GRADIENT_LOSS_WEIGHT * edges + 1e-3 * functional.relu(latents.float().abs() - 3).mean()


def _schedule(step: int, n_steps: int) -> float:
    """Linear warm-up, a plateau, then a linear descent over the last half, as a factor 0..1."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * min(1.0, 2.0 * (1 - step / n_steps) + 0.01)


if __name__ == "__main__":
    main()
