"""The query part of the fit: trunk and position functions, images on devices, voxels chunk by chunk."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from mine_jax import sharding
from mine_jax._progress import Progress
from mine_jax._random import permutation
from mine_jax.config import QueryConfig
from mine_jax.encoder.cells import position_basis
from mine_jax.encoder.linear.choose import Grids, grids_of
from mine_jax.encoder.linear.model import BASIS
from mine_jax.encoder.needs import plan_query
from mine_jax.encoder.query import images, train
from mine_jax.encoder.query.images import Examples
from mine_jax.encoder.query.state import Arrays, Problem
from mine_jax.encoder.targets import FittedVoxels, Targets
from mine_jax.encoder.trunk import TokenMoments, fit_trunk, split_trunk, token_moments
from mine_jax.errors import ConfigError
from mine_jax.memory import Chunks, in_chunks
from mine_jax.types import Architecture, ImageTokens

logger = logging.getLogger("mine_jax")


class Member(NamedTuple):
    """Training and validation images [n] of one query of a voxel, without responses.

    Attributes:
        rows: their positions among the given training images and, below them, the given validation images.
        splits: their keys or tokens.
        grids: what linear terms read of them; None without such terms.
    """

    rows: tuple[np.ndarray, np.ndarray]
    splits: tuple[Examples, Examples]
    grids: Grids | None


# Arrays that have an axis of heads, and those of them that say where a head attends.
_OF_HEADS, _ATTENDING = ("query", "position", "readout"), ("query", "position")


@dataclass(frozen=True)
class QueryFit:
    """All of a fit that does not depend on voxels.

    Attributes:
        trunk: arrays of the projection, where the fit starts from.
        baseline: [D] mean token.
        architecture: static description.
        basis: [C, J] functions of the position term.
        members: of each member of the average, first that of the given validation images.
        token_shape: P and D.
        key: random key.
        config: settings.
        chunks: voxels and images held at once; devices that fit together.
        free_bytes: of a device, before there were images on it.
    """

    trunk: Arrays
    baseline: np.ndarray
    architecture: Architecture
    basis: np.ndarray
    members: tuple[Member, ...]
    token_shape: tuple[int, int]
    key: jax.Array
    config: QueryConfig
    chunks: Chunks
    free_bytes: int

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
        cls,
        training: ImageTokens,
        validation: ImageTokens,
        *,
        key: jax.Array,
        config: QueryConfig,
        chunks: Chunks,
        moments: TokenMoments | None = None,
    ) -> QueryFit:
        """Fits the projection and loads the images.

        Args:
            training: tokens [N, P, D] of the training images.
            validation: of the images for early stopping.
            key: random key.
            config: settings.
            chunks: voxels and images held at once, and all devices.
            moments: of the training tokens; None to compute what is needed of them.

        Returns:
            The fit of any voxels of these images.

        Raises:
            ConfigError: if pooling, positions or heads do not suit the tokens, or linear terms the solver.
        """
        if config.members > 1 and config.trunk != "fixed":
            raise ConfigError('encoder.members needs encoder.trunk = "fixed".')
        if config.linear and (config.trunk, config.solver) != ("fixed", "varpro"):
            raise ConfigError('encoder.linear needs encoder.trunk = "fixed" and encoder.solver = "varpro".')
        # without a shared trunk each process fits its share of the voxels alone
        mesh = chunks.mesh if config.trunk == "shared" else sharding.local(chunks.mesh)
        free_bytes = sharding.free_bytes()
        n_tokens, width = training.tokens.shape[1:]
        architecture = Architecture("query", training.grid, config.pool)
        order = config.position_order
        if order and training.grid is None:
            logger.info("the tokens have no grid (rows and columns): encoders do without the position term")
            order = 0
        basis = position_basis(architecture, n_tokens, order)
        if moments is None:
            moments = token_moments(training, image_chunk=chunks.images)
        trunk = fit_trunk(moments, width=config.width)
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
            members=_members((first, second), key, config),
            token_shape=(n_tokens, width),
            key=key,
            config=config,
            chunks=Chunks(chunks.voxels, chunks.images, mesh),
            free_bytes=free_bytes,
        )

    @property
    def shared(self) -> Arrays:
        """Arrays without a voxel axis: the projection, and the components of linear terms."""
        grids = self.members[0].grids
        return self.trunk if grids is None else self.trunk | {BASIS: grids.both.basis}

    @property
    def is_coupled(self) -> bool:
        """Whether all voxels must be fitted together."""
        return self.config.trunk == "shared"

    def problem(self, targets: Targets, voxels: np.ndarray, *, member: int = 0) -> Problem:
        """Returns what the training loop is given for some voxels.

        Args:
            targets: standardised responses [N, V].
            voxels: positions [v] in ascending order; the last may repeat.
            member: whose images.
        """
        responses = np.concatenate(targets.columns(voxels))
        rows, splits, grids = self.members[member]
        training, validation = (
            examples.with_responses(responses[chosen]) for examples, chosen in zip(splits, rows, strict=True)
        )
        voxel_ids = targets.voxel_ids[voxels]
        return Problem(self.trunk, self.basis, training, validation, voxel_ids, self.config, grids)

    def fit_voxels(self, targets: Targets, *, progress: Progress) -> FittedVoxels:
        """Fits voxels, as many at once as fit in memory.

        Args:
            targets: standardised responses [N, V] to the training and the validation images.
            progress: called with (done, total).

        Returns:
            Trunk and parameters [V, ...], for standardised responses.
        """
        n_images, n_voxels = targets.shape
        n_epochs, n_members = self.config.epochs + 1, len(self.members)
        n_shards = sharding.n_shards(self.chunks.mesh, sharding.VOXEL)
        planned = plan_query(
            self.config,
            n_images=n_images,
            n_voxels=-(-n_voxels // n_shards),
            token_shape=self.token_shape,
            wanted=self.chunks.voxels,
            available=self.free_bytes,
        )

        whole = n_voxels * n_epochs * n_members

        def fit_chunk(index: np.ndarray) -> train.Trained:
            n_valid = min(len(index), n_voxels - index[0])

            def fit_member(member: int) -> train.Trained:
                def advance(done: int, total: int) -> None:
                    progress(int(index[0]) * total * n_members + (member * total + done) * n_valid, whole)

                problem = self.problem(targets, index, member=member)
                key = jax.random.fold_in(self.key, member) if member else self.key
                return train.train(problem, key=key, progress=advance)

            return _averaged([fit_member(member) for member in range(n_members)])

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
            progress(done * n_epochs * n_members, whole)
        return FittedVoxels({**self.shared, **trunk}, per_voxel, diverged, selection_r2)


def _members(splits: tuple[Examples, Examples], key: jax.Array, config: QueryConfig) -> tuple[Member, ...]:
    """Divides the images for every member: the first as they are given, then with other validation images."""
    sizes = [len(examples.tokens) for examples in splits]
    n_images, n_held = sum(sizes), sizes[1]
    rows = (np.arange(sizes[0]), np.arange(sizes[0], n_images))
    members = [Member(rows, splits, grids_of(*splits, config.linear_width) if config.linear else None)]
    if config.members == 1:
        return tuple(members)
    order = permutation(jax.random.fold_in(key, n_images), n_images)
    for member in range(1, config.members):
        held = np.zeros(n_images, bool)
        held[np.take(order, np.arange((member - 1) * n_held, member * n_held), mode="wrap")] = True
        rows = (np.flatnonzero(~held), np.flatnonzero(held))
        drawn = (images.chosen_from(splits, rows[0]), images.chosen_from(splits, rows[1]))
        first = members[0].grids
        grids = None if first is None else first.divided_as(rows, drawn, config.linear_width)
        members.append(Member(rows, drawn, grids))
    return tuple(members)


def _averaged(members: list[train.Trained]) -> train.Trained:
    """Averages the predictions of members: their heads beside each other, readouts divided by their number.

    A member that diverged has no part in it, and a voxel diverged if all its members did.
    """
    if len(members) == 1:
        return members[0]
    sound = np.stack([~member.diverged for member in members])  # [M, V]
    shares = sound / np.maximum(sound.sum(0), 1)
    per_voxel = {}
    for name in members[0].per_voxel:
        values = np.stack([member.per_voxel[name] for member in members])  # [M, V, ...]
        here = sound.reshape(*sound.shape, *[1] * (values.ndim - 2))
        share = shares.astype(np.float32).reshape(here.shape)
        values = np.where(here, values if name in _ATTENDING else values * share, 0)
        by_heads = np.concatenate(list(values), 1) if name in _OF_HEADS else values.sum(0)
        per_voxel[name] = by_heads.astype(np.float32)
    r2 = np.stack([member.selection_r2 for member in members])
    selection_r2 = np.where(sound, r2 * shares, 0).sum(0).astype(np.float32)
    return train.Trained(members[0].trunk, per_voxel, np.asarray(~sound.any(0)), selection_r2)
