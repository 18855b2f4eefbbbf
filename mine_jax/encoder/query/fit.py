"""The query part of the fit: trunk and position functions, images on devices, voxels chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from mine_jax import sharding
from mine_jax._progress import Progress
from mine_jax.config import QueryConfig
from mine_jax.encoder.cells import position_basis
from mine_jax.encoder.linear.choose import Grids, grids_of
from mine_jax.encoder.linear.model import BASIS
from mine_jax.encoder.needs import plan_query
from mine_jax.encoder.query import images, train
from mine_jax.encoder.query.images import Examples
from mine_jax.encoder.query.state import Arrays, Problem
from mine_jax.encoder.targets import FittedVoxels, Targets
from mine_jax.encoder.trunk import fit_trunk, split_trunk
from mine_jax.errors import ConfigError
from mine_jax.memory import Chunks, in_chunks
from mine_jax.types import Architecture, ImageTokens


@dataclass(frozen=True)
class QueryFit:
    """All of a fit that does not depend on voxels.

    Attributes:
        trunk: arrays of the projection, where the fit starts from.
        baseline: [D] mean token.
        architecture: static description.
        basis: [C, J] functions of the position term.
        examples: training and validation images, without responses.
        token_shape: P and D.
        key: random key.
        config: settings.
        chunks: voxels and images held at once; devices that fit together.
        free_bytes: of a device, before there were images on it.
        grids: what linear terms read of the images; None without them.
    """

    trunk: Arrays
    baseline: np.ndarray
    architecture: Architecture
    basis: np.ndarray
    examples: tuple[Examples, Examples]
    token_shape: tuple[int, int]
    key: jax.Array
    config: QueryConfig
    chunks: Chunks
    free_bytes: int
    grids: Grids | None = None

    @staticmethod
    def is_masked(config: QueryConfig) -> bool:
        """Says that voxels with missing responses are left out.

        Args:
            config: settings, which have no other choice.
        """
        del config
        return False

    @classmethod
    def prepare(
        cls, training: ImageTokens, validation: ImageTokens, *, key: jax.Array, config: QueryConfig, chunks: Chunks
    ) -> QueryFit:
        """Fits the projection and loads the images.

        Args:
            training: tokens [N, P, D] of the training images.
            validation: of the images for early stopping.
            key: random key.
            config: settings.
            chunks: voxels and images held at once, and all devices.

        Returns:
            The fit of any voxels of these images.

        Raises:
            ConfigError: if pooling, positions or heads do not suit the tokens, or linear terms the solver.
        """
        if config.linear and (config.trunk, config.solver) != ("fixed", "varpro"):
            raise ConfigError('encoder.linear needs encoder.trunk = "fixed" and encoder.solver = "varpro".')
        # without a shared trunk each process fits its share of the voxels alone
        mesh = chunks.mesh if config.trunk == "shared" else sharding.local(chunks.mesh)
        free_bytes = sharding.free_bytes()
        n_tokens, width = training.tokens.shape[1:]
        architecture = Architecture("query", training.grid, config.pool)
        basis = position_basis(architecture, n_tokens, config.position_order)
        trunk = fit_trunk(training, np.arange(len(training.image_ids)), width=config.width)
        baseline = trunk.pop("mean")
        if config.trunk == "shared":
            trunk = split_trunk(trunk, config)
        first, second = (
            images.load(tokens, trunk, architecture, config, image_chunk=chunks.images, mesh=mesh)
            for tokens in (training, validation)
        )
        return cls(
            trunk=trunk,
            baseline=baseline,
            architecture=architecture,
            basis=basis,
            examples=(first, second),
            token_shape=(n_tokens, width),
            key=key,
            config=config,
            chunks=Chunks(chunks.voxels, chunks.images, mesh),
            free_bytes=free_bytes,
            grids=grids_of(first, second, config.linear_width) if config.linear else None,
        )

    @property
    def shared(self) -> Arrays:
        """Arrays without a voxel axis: the projection, and the components of linear terms."""
        return self.trunk if self.grids is None else self.trunk | {BASIS: self.grids.both.basis}

    @property
    def is_coupled(self) -> bool:
        """Whether all voxels must be fitted together."""
        return self.config.trunk == "shared"

    def problem(self, targets: Targets, voxels: np.ndarray) -> Problem:
        """Returns what the training loop is given for some voxels.

        Args:
            targets: standardised responses [N, V].
            voxels: positions [v] in ascending order; the last may repeat.
        """
        responses = targets.columns(voxels)
        training, validation = (
            examples.with_responses(y) for examples, y in zip(self.examples, responses, strict=True)
        )
        voxel_ids = targets.voxel_ids[voxels]
        return Problem(self.trunk, self.basis, training, validation, voxel_ids, self.config, self.grids)

    def fit_voxels(self, targets: Targets, *, progress: Progress) -> FittedVoxels:
        """Fits voxels, as many at once as fit in memory.

        Args:
            targets: standardised responses [N, V] to the training and the validation images.
            progress: called with (done, total).

        Returns:
            Trunk and parameters [V, ...], for standardised responses.
        """
        n_images, n_voxels = targets.shape
        n_epochs, n_shards = self.config.epochs + 1, sharding.n_shards(self.chunks.mesh, sharding.VOXEL)
        planned = plan_query(
            self.config,
            n_images=n_images,
            n_voxels=-(-n_voxels // n_shards),
            token_shape=self.token_shape,
            wanted=self.chunks.voxels,
            available=self.free_bytes,
        )

        def fit_chunk(index: np.ndarray) -> train.Trained:
            n_valid = min(len(index), n_voxels - index[0])

            def advance(done: int, total: int) -> None:
                progress(int(index[0]) * total + done * n_valid, n_voxels * total)

            return train.train(self.problem(targets, index), key=self.key, progress=advance)

        # voxels that share a trunk cannot be fitted in halves
        chunk, multiple = (n_voxels,) * 2 if self.is_coupled else (planned.chunk * n_shards, n_shards)
        trunk, per_voxel, diverged = self.trunk, {}, np.zeros(n_voxels, bool)
        selection_r2 = np.full(n_voxels, np.nan, np.float32)
        for trained, n_valid, done in in_chunks(
            fit_chunk, n_voxels, chunk, setting="run.voxel_chunk", multiple=multiple
        ):
            trunk, fitted = trained.trunk, slice(done - n_valid, done)
            for name, value in trained.per_voxel.items():
                if name not in per_voxel:
                    per_voxel[name] = np.empty((n_voxels, *value.shape[1:]), np.float32)
                per_voxel[name][fitted] = value[:n_valid]
            diverged[fitted] = trained.diverged[:n_valid]
            selection_r2[fitted] = trained.selection_r2[:n_valid]
            progress(done * n_epochs, n_voxels * n_epochs)
        return FittedVoxels({**self.shared, **trunk}, per_voxel, diverged, selection_r2)
