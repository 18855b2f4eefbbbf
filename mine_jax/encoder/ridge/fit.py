"""The ridge part of the fit: image-level features, the grid of penalties, the folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import numpy as np

from mine_jax import sharding
from mine_jax._progress import Progress
from mine_jax._random import permutation
from mine_jax.config import RidgeConfig
from mine_jax.encoder.cells import n_cells
from mine_jax.encoder.needs import plan_ridge
from mine_jax.encoder.ridge.model import summaries
from mine_jax.encoder.ridge.solve import solve
from mine_jax.encoder.targets import FittedVoxels, Targets
from mine_jax.encoder.trunk import TokenMoments, fit_trunk, token_mean, token_moments
from mine_jax.errors import ConfigError
from mine_jax.memory import Chunks, halving
from mine_jax.types import Architecture, Array, ImageTokens


@dataclass(frozen=True)
class RidgeFit:
    """All of a fit that does not depend on voxels.

    Attributes:
        shared: arrays that make image-level features.
        baseline: [D] mean token.
        architecture: static description.
        features: [N, F] of training and validation images, whose rows make the folds.
        token_shape: P and D.
        key: random key of the folds.
        config: settings.
        chunks: voxels and images held at once; devices of this process.
        is_coupled: whether all voxels must be fitted together; never here.
    """

    shared: dict[str, Array]
    baseline: np.ndarray
    architecture: Architecture
    features: np.ndarray
    token_shape: tuple[int, int]
    key: jax.Array
    config: RidgeConfig
    chunks: Chunks
    is_coupled: ClassVar[bool] = False

    @staticmethod
    def is_masked(config: RidgeConfig) -> bool:
        """Says whether missing responses are left out, not the voxels that have them.

        Args:
            config: settings.
        """
        return config.missing == "mask"

    @classmethod
    def prepare(
        cls,
        training: ImageTokens,
        validation: ImageTokens,
        *,
        key: jax.Array,
        config: RidgeConfig,
        chunks: Chunks,
        moments: TokenMoments | None = None,
    ) -> RidgeFit:
        """Computes image-level features.

        Args:
            training: tokens [N, P, D] of the training images.
            validation: of more images.
            key: random key of the folds.
            config: settings.
            chunks: voxels and images held at once, and all devices.
            moments: of the training tokens; None to compute what is needed of them.

        Returns:
            The fit of any voxels to these images.
        """
        is_grid = config.summary == "grid"
        architecture = Architecture(
            "ridge", training.grid if is_grid else None, config.pool if is_grid else 1, config.summary
        )
        shared: dict[str, Array] = {}
        if is_grid:
            moments = token_moments(training, image_chunk=chunks.images) if moments is None else moments
            shared = dict(fit_trunk(moments, width=config.width))
            baseline = np.asarray(shared.pop("mean"))
            width = n_cells(architecture, training.tokens.shape[1]) * shared["key_bias"].shape[1]
        else:
            mean = token_mean(training, image_chunk=chunks.images) if moments is None else moments.mean
            baseline, width = mean.astype(np.float32), len(mean)
        shared = {**shared, "center": np.zeros(width, np.float32)}
        features = np.concatenate(
            [summaries(shared, tokens, architecture, image_chunk=chunks.images) for tokens in (training, validation)]
        )
        shared["center"] = features.mean(0)
        local = Chunks(chunks.voxels, chunks.images, sharding.local(chunks.mesh))
        n_tokens, token_width = training.tokens.shape[1:]
        return cls(shared, baseline, architecture, features, (n_tokens, token_width), key, config, local)

    def fit_voxels(self, targets: Targets, *, progress: Progress) -> FittedVoxels:
        """Fits voxels, as many at once as fit in memory.

        Args:
            targets: standardised responses [N, V] to the training and the validation images; NaN where missing.
            progress: called with (done, total).

        Returns:
            Parameters [V, ...], for standardised responses.
        """
        config, features, mesh = self.config, self.features, self.chunks.mesh
        n_images, n_voxels = targets.shape
        if config.selection == "kfold" and config.folds > n_images:
            raise ConfigError(f"encoder.folds = {config.folds}, but there are {n_images} images to share among folds.")
        order = permutation(self.key, n_images)
        # features that never vary explain nothing at any penalty
        unit = (float(features.var(0, dtype=np.float64).mean()) or 1.0) * n_images
        penalties = unit * np.logspace(config.penalty_low, config.penalty_high, config.penalties) / features.shape[1]
        planned = plan_ridge(
            config,
            n_images=n_images,
            n_voxels=-(-n_voxels // sharding.n_shards(mesh, *sharding.DEVICES)),
            token_shape=self.token_shape,
            wanted=self.chunks.voxels,
        )
        coef = np.empty((n_voxels, features.shape[1]), np.float32)
        solution = halving(
            lambda chunk: solve(
                features - self.shared["center"],
                targets,
                penalties,
                selection=config.selection,
                folds=list(np.array_split(order, config.folds)),
                mask_missing=config.missing == "mask",
                voxel_chunk=chunk,
                read_bytes=targets.read_bytes,
                out=coef.T,
                mesh=mesh,
                progress=progress,
            ),
            planned.chunk,
            setting="run.voxel_chunk",
        )
        diverged = np.array([not np.isfinite(one).all() for one in coef])
        per_voxel = {"coef": coef, "intercept": solution.intercept, "penalty": solution.penalty}
        # responses have variance 1: the error is the share of it that is left
        return FittedVoxels(self.shared, per_voxel, diverged, 1 - solution.error)
