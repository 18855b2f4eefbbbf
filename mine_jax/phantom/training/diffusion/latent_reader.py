"""Reads concepts from an autoencoder's latents: latents in, the concepts that they show out.

A diffusion model's squared error hardly notices whether a small thing has its shape. Two readers,
trained on latents of true scenes, say what the model's pictures lack; the gradients go through
them. They share no weight, scene or input with the judge, which sees pixels.

Source of comparing diffusion models' pictures by features: Lin and Yang 2023.
"""

import logging
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch.nn import functional

_logger = logging.getLogger("mine_jax.phantom.training")

_WIDTHS: Final = (48, 64, 96, 96)
_STRIDES: Final = (1, 1, 2, 1)
_BATCH_SIZE: Final = 64
_LEARNING_RATE: Final = 4e-3
# Latents have unit variance; what a diffusion model leaves behind is of this order.
_NOISE: Final = 0.4


class Reader(torch.nn.Module):
    """Four convolutions, then the strongest evidence over all positions per concept."""

    def __init__(self, n_channels: int, n_concepts: int) -> None:
        """Builds random weights."""
        super().__init__()
        self.stages = torch.nn.ModuleList(
            torch.nn.Sequential(
                torch.nn.Conv2d(before, width, 3, stride, 1, bias=False), torch.nn.BatchNorm2d(width), torch.nn.ReLU()
            )
            for before, width, stride in zip((n_channels, *_WIDTHS), _WIDTHS, _STRIDES, strict=False)
        )
        self.head = torch.nn.Linear(_WIDTHS[-1], n_concepts)
        # Nearly every concept is absent from an image: start from that belief.
        torch.nn.init.constant_(self.head.bias, -6.0)

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Latents [N, C, S, S] -> logits [N, n_concepts] and each stage's features."""
        features = []
        for stage in self.stages:
            latents = stage(latents)
            features.append(latents)
        evidence = self.head(latents.permute(0, 2, 3, 1).flatten(1, 2))
        return torch.logsumexp(evidence, dim=1), features


@dataclass(frozen=True)
class Readers:
    """Several readers, whose errors differ.

    Attributes:
        members: trained readers, frozen.
    """

    members: tuple[Reader, ...]

    def loss(self, painted: torch.Tensor, truth: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        """Says how far painted latents are from showing what they should.

        Args:
            painted: latents of a diffusion model's pictures, float [N, C, S, S].
            truth: latents of the true scenes, float [N, C, S, S].
            shown: the concepts that they show, bool [N, n_concepts].

        Returns:
            torch.Tensor: per picture, cross-entropy plus the squared distance of features, in
            units of the features' spread, [N].
        """
        total = painted.new_zeros(len(painted))
        for member in self.members:
            logits, features = member(painted)
            with torch.no_grad():
                _, wanted = member(truth)
            total = total + functional.binary_cross_entropy_with_logits(
                logits.float(), shown.float(), reduction="none"
            ).sum(1)
            for seen, true in zip(features, wanted, strict=True):
                total = total + (seen - true).float().square().mean((1, 2, 3)) / true.float().var()
        return total / len(self.members)


def fit(latents: torch.Tensor, shown: np.ndarray, *, n_readers: int, n_steps: int, seed: int) -> Readers:
    """Trains readers on true latents, noisy and shifted by a position.

    Args:
        latents: float16 [N, C, S, S], unit variance.
        shown: the concepts that they show, bool [N, n_concepts].
        n_readers: number of readers.
        n_steps: optimiser steps of each.
        seed: decides the initial weights and batches.

    Returns:
        Readers: frozen.
    """
    rng = np.random.default_rng(seed)
    members = []
    for number in range(n_readers):
        reader = Reader(latents.shape[1], shown.shape[1]).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(reader.parameters(), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=n_steps)
        for step in range(n_steps):
            rows = rng.choice(len(latents), _BATCH_SIZE, replace=False)
            shift = tuple(int(value) for value in rng.integers(-1, 2, 2))
            signal = torch.roll(latents[rows].float(), shift, dims=(2, 3))
            signal = signal + _NOISE * torch.rand(len(rows), 1, 1, 1) * torch.randn_like(signal)
            with torch.autocast("cpu", torch.bfloat16):
                logits, _ = reader(signal.contiguous(memory_format=torch.channels_last))
            truth = torch.from_numpy(shown[rows]).float()
            loss = functional.binary_cross_entropy_with_logits(logits.float(), truth, reduction="none").sum(1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 200 == 199:
                _logger.info("reader %d step %d loss %.3f", number, step, loss)
        optimizer.zero_grad(set_to_none=True)
        members.append(reader.eval().requires_grad_(False))
    return Readers(tuple(members))
