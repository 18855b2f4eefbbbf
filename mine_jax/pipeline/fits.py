"""The fits of a chain: voxels with their decoys, the same on two halves of the images, and how well they predict."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import numpy as np

from mine_jax import encoder, sharding
from mine_jax._progress import Progress
from mine_jax.config import Config, EncoderConfig, RidgeConfig
from mine_jax.types import Encoders, Scores, Split


class Fitted(NamedTuple):
    """Encoders of V voxels or decoys, and how well they predict."""

    encoders: Encoders
    scores: Scores

    def take(self, voxels: np.ndarray) -> Fitted:
        """Returns those of some voxels (positions or mask [V])."""
        return Fitted(self.encoders.take(voxels), self.scores.take(voxels))


class Batches(NamedTuple):
    """What is fitted.

    Attributes:
        whole: training, validation and test images, voxels with decoys.
        halves: two disjoint parts of the training and validation images; none where none are wanted.
        moments: of the training tokens of `whole`; None where a fit needs none.
        half_moments: of those of each half.
    """

    whole: dict[str, Split]
    halves: list[dict[str, Split]]
    moments: encoder.TokenMoments | None
    half_moments: list[encoder.TokenMoments | None]


def batches(config: Config, splits: dict[str, Split]) -> Batches:
    """Puts decoys beside the voxels, divides the images in two, and reads the training tokens once for all fits.

    Args:
        config: of the chain.
        splits: "train", "val" and "test" of V voxels.

    Returns:
        What `fitted` takes. There are no halves of fewer than four training or validation images.
    """
    whole = with_decoys(config, splits)
    halves = []
    if config.encoder.halves and min(len(whole[name].responses.image_ids) for name in ("train", "val")) >= 4:
        both = encoder.halves(whole["train"], whole["val"], seed=config.run.seed)
        halves = [{"train": half.training, "val": half.validation} for half in both]
    if isinstance(config.encoder, RidgeConfig) and config.encoder.summary != "grid":
        return Batches(whole, halves, None, [None] * len(halves))
    # those of the halves add up to those of all
    parts = halves or [splits]
    own = [encoder.token_moments(part["train"].tokens, image_chunk=config.run.image_chunk) for part in parts]
    return Batches(whole, halves, functools.reduce(encoder.TokenMoments.merged, own), list(own) if halves else [])


def with_decoys(config: Config, splits: dict[str, Split]) -> dict[str, Split]:
    """Puts decoys beside the voxels of every split."""
    return {
        name: encoder.add_decoys(
            split, encoder.n_copies(len(split.responses.voxel_ids), config.encoder.decoys), seed=config.run.seed
        )
        for name, split in splits.items()
    }


def fitted(
    config: Config,
    settings: EncoderConfig,
    splits: dict[str, Split],
    progress: Progress,
    moments: encoder.TokenMoments | None = None,
) -> Encoders:
    """Fits encoders of one kind to "train" and "val" of some splits."""
    return encoder.fit(
        splits["train"],
        key=jax.random.key(config.run.seed),
        validation=splits["val"],
        config=settings,
        voxel_chunk=config.run.voxel_chunk,
        image_chunk=config.run.image_chunk,
        mesh=sharding.mesh(config.run.mesh),
        moments=moments,
        progress=progress,
    )


def scored(config: Config, encoders: Encoders, splits: dict[str, Split]) -> Scores:
    """Scores encoders on "test"."""
    return encoder.score(
        encoders,
        splits["test"],
        n_train=len(splits["train"].responses.image_ids) + len(splits["val"].responses.image_ids),
        voxel_chunk=config.run.voxel_chunk,
        mesh=sharding.local(sharding.mesh(config.run.mesh)),  # the other processes are at the next fit
    )
