"""Fits all voxels: judges and standardises responses, chooses the solver, walks over voxel chunks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from mine_jax import sharding
from mine_jax._checks import check_type, takes
from mine_jax._progress import Progress, silent
from mine_jax._random import random_key
from mine_jax.config import EncoderConfig, QueryConfig
from mine_jax.encoder.query.fit import QueryFit
from mine_jax.encoder.query.state import Problem
from mine_jax.encoder.ridge.fit import RidgeFit
from mine_jax.encoder.targets import FittedVoxels, Survey, Targets, survey
from mine_jax.encoder.trunk import TokenMoments
from mine_jax.errors import ConfigError, DataError
from mine_jax.memory import ChosenRows, Chunks
from mine_jax.types import STATUSES, Architecture, Array, Encoders, ImageTokens, Responses, Split


class KindFit(Protocol):
    """How one kind is fitted: what voxels share is prepared once, then voxels are fitted in any shares."""

    @property
    def baseline(self) -> np.ndarray:
        """Mean training token [D]."""
        ...

    @property
    def architecture(self) -> Architecture:
        """Static description."""
        ...

    @property
    def shared(self) -> dict[str, Any]:
        """Arrays without a voxel axis, where the fit starts from."""
        ...

    @property
    def is_coupled(self) -> bool:
        """Whether all voxels must be fitted together."""
        ...

    @staticmethod
    def is_masked(config: Any) -> bool:
        """Says whether missing responses are left out, not the voxels that have them."""
        ...

    @classmethod
    def prepare(
        cls,
        training: ImageTokens,
        validation: ImageTokens,
        *,
        key: jax.Array,
        config: Any,
        chunks: Chunks,
        moments: TokenMoments | None = None,
    ) -> KindFit:
        """Reads the tokens [N, P, D] and makes what all voxels share."""
        ...

    def fit_voxels(self, targets: Targets, *, progress: Progress) -> FittedVoxels:
        """Fits voxels to standardised responses [N, V]."""
        ...


_KINDS: dict[str, type[KindFit]] = {"query": QueryFit, "ridge": RidgeFit}
_OK, _CONSTANT, _NONFINITE, _DIVERGED = (STATUSES.index(s) for s in ("ok", "constant", "nonfinite", "diverged"))
# A voxel whose spread is below this share of its mean is float noise.
_MIN_RELATIVE_SD = 1e-6
# Parameters that predictions are linear in, besides the intercept.
_LINEAR = ("coef", "readout", "linear")
# Voxels whose parameters are put in their places at once.
_BLOCK = 4096
_OF_ARRAYS = (
    "Arrays X and Y are fitted by mine_jax.estimators.VoxelEncoder().fit(X, Y), and described by "
    "mine_jax.pipeline.describe(X, Y, lens). Tokens and responses become one Split by "
    "mine_jax.data.align(responses, tokens)."
)


@takes(_OF_ARRAYS, training=Split)
def fit(
    training: Split,
    *,
    key: jax.Array | int,
    validation: Split | None = None,
    config: EncoderConfig | None = None,
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    mesh: Mesh | None = None,
    moments: TokenMoments | None = None,
    progress: Progress = silent,
) -> Encoders:
    """Fits the encoders of all voxels at once.

    Responses are read block by block from where they are, in memory or in a file, and never copied
    as a whole, unless the encoders share a trunk: then all voxels are fitted together, and one
    float32 copy of their responses goes to the devices.

    Args:
        training: tokens [N, P, D] and responses [N, V] of the training images.
        key: random key, or a whole number; with a fixed trunk each voxel's result depends on the key and its
            voxel id only, not on the voxels fitted beside it.
        validation: images for early stopping (query) or more rows for the folds (ridge);
            None holds out every sixth training image.
        config: settings; None for the defaults.
        voxel_chunk: voxels held in memory at once on each device; None for as many as suit it.
            Memory only, never the result.
        image_chunk: images read at once. Memory only, never the result.
        mesh: devices of `sharding.mesh`; if they belong to several processes, all must call this.
            None for one device. Never the result.
        moments: of all tokens of `training` by `token_moments`, for several fits of the same images, with
            `validation` given; None to compute what is needed of them.
        progress: called with (done, total).

    Returns:
        Encoders of V voxels in the order of `training.responses`; voxels that are constant,
        non-finite or diverged have zero parameters and say so in `status`.

    Raises:
        DataError: for bare arrays, fewer than two training images, no validation image or no usable voxel.
        ConfigError: if pooling or positions do not suit the token grid, or batches the mesh.
        ResourceError: if not even one voxel fits in memory.
    """
    if validation is not None:
        check_type("validation", validation, Split, remedy=_OF_ARRAYS)
    config, key = config or QueryConfig(), random_key(key)
    if validation is None:
        moments = None  # some of these images are taken away
        training, validation = _held_out(training)
    if len(training.responses.image_ids) < 2:
        raise DataError("need at least 2 training images; lower `data.test` or `data.val`, or add images.")
    if not len(validation.responses.image_ids):
        raise DataError("need at least 1 validation image (6 training images when none are given); add images.")
    kind = _KINDS[config.kind]
    masked = kind.is_masked(config)
    sources = [split.responses.responses for split in (training, validation)]
    surveyed = survey(*sources, masked=masked)
    status = _status(surveyed, training.responses.status)
    usable = np.flatnonzero(status == _OK)
    if not len(usable):
        counts = {STATUSES[code]: int((status == code).sum()) for code in np.unique(status)}
        raise DataError(f"0 of {len(status)} voxels can be fitted: {counts}.")
    targets = _targets(sources, usable, surveyed, training.responses.voxel_ids)
    chunks = Chunks(voxel_chunk, image_chunk, mesh)
    with sharding.own_cores():
        prepared = kind.prepare(
            training.tokens, validation.tokens, key=key, config=config, chunks=chunks, moments=moments
        )
        fitted = _fitted(prepared, targets, mesh, progress)
    status[usable[fitted.diverged]] = _DIVERGED
    selection_r2 = np.full(len(status), np.nan, np.float32)
    selection_r2[usable] = np.where(fitted.diverged, np.nan, fitted.selection_r2)
    return Encoders(
        shared=fitted.shared,
        per_voxel=_all_voxels(fitted.per_voxel, targets, usable, fitted.diverged, len(status)),
        baseline=prepared.baseline,
        voxel_ids=np.asarray(training.responses.voxel_ids),
        status=status.astype(np.int8),
        architecture=prepared.architecture,
        selection_r2=selection_r2,
    )


def fit_problem(
    training: Split, validation: Split, *, config: QueryConfig | None = None, mesh: Mesh | None = None
) -> Problem:
    """Prepares a fit of query encoders for those who own the training loop.

    Args:
        training: tokens [N, P, D] and responses [N, V] of the training images.
        validation: images for early stopping.
        config: settings of query encoders; None for the defaults.
        mesh: devices of this process; None for one.

    Returns:
        What `init_fit`, `solve_readouts` and `fit_step` take, with responses standardised voxel by voxel.

    Raises:
        DataError: if a voxel cannot be fitted.
        ConfigError: for another kind of encoder, or if pooling, positions or heads do not suit the tokens.
    """
    config = config or QueryConfig()
    if not isinstance(config, QueryConfig):
        raise ConfigError("only query encoders have a training loop; `fit` does the others.")
    sources = [split.responses.responses for split in (training, validation)]
    surveyed = survey(*sources, masked=False)
    status = _status(surveyed, training.responses.status)
    if (status != _OK).any():
        counts = {STATUSES[code]: int((status == code).sum()) for code in np.unique(status[status != _OK])}
        raise DataError(
            f"{int((status != _OK).sum())} of {len(status)} voxels cannot be fitted: {counts}. Leave them out of both "
            "splits: `split.responses.take(split.responses.status == 'ok')`."
        )
    voxels = np.arange(len(status))
    targets = _targets(sources, voxels, surveyed, training.responses.voxel_ids)
    chunks, key = Chunks(mesh=mesh), jax.random.key(0)  # of the loop, which has its own
    prepared = QueryFit.prepare(training.tokens, validation.tokens, key=key, config=config, chunks=chunks)
    return prepared.problem(targets, voxels)


def _fitted(prepared: KindFit, targets: Targets, mesh: Mesh | None, progress: Progress) -> FittedVoxels:
    """Fits all voxels together when they share a trunk; otherwise each process fits its share."""
    if prepared.is_coupled:
        return prepared.fit_voxels(targets, progress=progress)

    def fit_share(voxels: np.ndarray) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        fitted = prepared.fit_voxels(targets.take(voxels), progress=progress)
        return fitted.per_voxel, fitted.diverged, fitted.selection_r2

    return FittedVoxels(prepared.shared, *sharding.divided(fit_share, len(targets.voxel_ids), mesh))


def _targets(sources: list[Any], voxels: np.ndarray, surveyed: Survey, voxel_ids: np.ndarray) -> Targets:
    mean, spread = surveyed.mean[voxels], surveyed.spread[voxels]
    return Targets(sources, voxels, voxel_ids=voxel_ids[voxels], mean=mean, spread=spread)


def _held_out(training: Split) -> tuple[Split, Split]:
    held = np.arange(len(training.responses.image_ids)) % 6 == 5
    rest, taken = (
        Split(training.tokens.take_images(rows), _chosen(training.responses, rows), training.name)
        for rows in (~held, held)
    )
    return rest, taken


def _chosen(responses: Responses, rows: np.ndarray) -> Responses:
    """Takes images without a copy of their responses, also where these are in memory; none are moved."""
    ids, n_repeats = responses.image_ids[rows], responses.n_repeats[rows]
    chosen = ChosenRows(responses.responses, rows)
    return replace(responses, responses=chosen, image_ids=ids, n_repeats=n_repeats, moved=None)


def _status(surveyed: Survey, names: np.ndarray) -> np.ndarray:
    status = np.array([STATUSES.index(name) for name in names])
    constant = surveyed.spread <= _MIN_RELATIVE_SD * np.maximum(np.abs(surveyed.mean), 1e-6)
    status[(status == _OK) & ~surveyed.is_complete] = _NONFINITE
    status[(status == _OK) & constant] = _CONSTANT
    return status


def _all_voxels(
    per_voxel: dict[str, Any], targets: Targets, usable: np.ndarray, diverged: np.ndarray, n_voxels: int
) -> dict[str, Array]:
    """Undoes the standardisation and puts the fitted voxels among all of them; empties `per_voxel`."""
    out: dict[str, Array] = {}
    for name in list(per_voxel):
        value = per_voxel.pop(name)
        out[name] = np.zeros((n_voxels, *value.shape[1:]), np.float32)
        for start in range(0, len(usable), _BLOCK):
            voxels = np.arange(start, min(start + _BLOCK, len(usable)))[~diverged[start : start + _BLOCK]]
            part = np.array(value[voxels], np.float32)
            if name in _LINEAR:
                part *= targets.spread[voxels].reshape(-1, *[1] * (part.ndim - 1))
            if name == "intercept":
                part = part * targets.spread[voxels] + targets.mean[voxels]
            out[name][usable[voxels]] = part
    return out
