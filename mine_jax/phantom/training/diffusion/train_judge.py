"""Trains the phantom's judge: scenes in, a classifier of concepts out.

Run as ``python -m mine_jax.phantom.training.diffusion.train_judge --out DIR --steps N --seed S``. Noise and
blur on the training images keep it from depending on details that generated images lack.
"""

import argparse
import importlib.metadata
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from mine_jax.phantom import scenes
from mine_jax.phantom.training.diffusion import judge

_logger = logging.getLogger("mine_jax.phantom.training")

TRAINING_SEED: Final = 30_000
HELD_OUT_SEED: Final = 990_030
N_HELD_OUT: Final = 1000
NOISE: Final = 0.12


@dataclass(frozen=True)
class Recipe:
    """What decides the result, apart from this code.

    Attributes:
        n_steps: optimiser steps.
        seed: decides the initial weights, scenes and batches.
        n_scenes: number of training scenes.
        batch_size: scenes per step.
        learning_rate: highest learning rate.
    """

    n_steps: int = 1300
    seed: int = 0
    n_scenes: int = 12_000
    batch_size: int = 64
    learning_rate: float = 4e-3


def main() -> None:
    """Reads the command line, trains and writes the judge."""
    recipe = Recipe()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="directory of the judge")
    parser.add_argument("--steps", type=int, default=recipe.n_steps)
    parser.add_argument("--seed", type=int, default=recipe.seed)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    train(options.out, Recipe(options.steps, options.seed))


def train(out: Path, recipe: Recipe) -> dict[str, float]:
    """Trains from scratch and writes the judge.

    Args:
        out: directory of the judge.
        recipe: what decides the result.

    Returns:
        dict[str, float]: held-out scores of the float16 weights as written.
    """
    torch.manual_seed(recipe.seed)
    images, shown = render(recipe.n_scenes, seed=TRAINING_SEED + recipe.seed)
    fresh = judge.build()
    network = fresh.network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=recipe.n_steps)
    rng = np.random.default_rng((recipe.seed, 1))
    for step in range(recipe.n_steps):
        batch = rng.choice(len(images), recipe.batch_size, replace=False)
        signal = _disturb(judge.to_signal(images[batch])).contiguous(memory_format=torch.channels_last)
        truth = torch.from_numpy(shown[batch]).float()
        loss = functional.binary_cross_entropy_with_logits(network(signal), truth, reduction="none").sum(1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            _logger.info("step %d loss %.3f", step, loss)
    network.eval()
    judge.save(out, fresh)
    scores = evaluate(judge.load(out))
    training: dict[str, Any] = {
        **asdict(recipe),
        "training_scene_seed": TRAINING_SEED + recipe.seed,
        "held_out_scene_seed": HELD_OUT_SEED,
        "versions": {"torch": importlib.metadata.version("torch")},
        "held_out": scores,
    }
    (out / "training.json").write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")
    _logger.info("held out %s", scores)
    return scores


def evaluate(trained: judge.Judge) -> dict[str, float]:
    """Scores a judge on held-out scenes, as they are and blurred.

    Returns:
        dict[str, float]: recall and false-positive rate per concept and image, fractions 0..1.
    """
    images, shown = render(N_HELD_OUT, seed=HELD_OUT_SEED)
    blurred = _blur(judge.to_signal(images)).permute(0, 2, 3, 1)
    blurred_images = ((blurred + 1) * 127.5).round().clamp(0, 255).byte().numpy()
    scores = rates(trained, images, shown)
    return {**scores, **{f"blurred_{name}": value for name, value in rates(trained, blurred_images, shown).items()}}


def rates(trained: judge.Judge, images: np.ndarray, shown: np.ndarray) -> dict[str, float]:
    """Returns recall and false-positive rate over concepts and images.

    Args:
        trained: the judge.
        images: RGB, uint8 [N, S, S, 3].
        shown: the truth, bool [N, n_concepts].

    Returns:
        dict[str, float]: `recall` of things and places, `thing_recall`, `false_positives`.
    """
    seen = trained.present(images)
    is_thing = np.array([name in scenes.OBJECTS for name in trained.concepts])
    return {
        "recall": round(float(seen[shown].mean()), 4),
        "thing_recall": round(float(seen[shown & is_thing].mean()), 4),
        "false_positives": round(float(seen[~shown].mean()), 5),
    }


def render(n_scenes: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 [N, 64, 64, 3] and the concepts they show, bool [N, n_concepts]."""
    rng = np.random.default_rng(seed)
    sampled = [scenes.sample_scene(rng, n_things=(0 if rng.random() < 0.1 else 1, 3)) for _ in range(n_scenes)]
    return np.stack([scenes.render(scene) for scene in sampled]), judge.labels(sampled)


def _disturb(signal: torch.Tensor) -> torch.Tensor:
    """Blurs half of the images to varying degrees and adds noise of varying strength."""
    shape = (len(signal), 1, 1, 1)
    amount = torch.rand(shape) * (torch.rand(shape) < 0.5)
    signal = signal + amount * (_blur(signal) - signal)
    return signal + NOISE * torch.rand(shape) * torch.randn_like(signal)


def _blur(signal: torch.Tensor) -> torch.Tensor:
    """Averages 3 x 3 pixels."""
    return functional.avg_pool2d(functional.pad(signal, (1, 1, 1, 1), mode="replicate"), 3, 1)


if __name__ == "__main__":
    main()
