"""Fits all voxels: judges and standardises responses, chooses the solver, walks over voxel chunks."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
from jax.sharding import Mesh

from mine_jax import sharding
from mine_jax._progress import Progress, silent
from mine_jax.config import EncoderConfig, QueryConfig, RidgeConfig
from mine_jax.encoder.needs import plan_query
from mine_jax.encoder.query import images as stored_images
from mine_jax.encoder.query import model as query
from mine_jax.encoder.query import train
from mine_jax.encoder.ridge.fit import fit_ridge
from mine_jax.encoder.targets import Survey, Targets, survey
from mine_jax.errors import ConfigError, DataError
from mine_jax.memory.plan import in_chunks
from mine_jax.memory.rows import ChosenRows
from mine_jax.types import STATUSES, Architecture, Encoders, Responses, Split

_OK, _CONSTANT, _NONFINITE, _DIVERGED = (STATUSES.index(s) for s in ("ok", "constant", "nonfinite", "diverged"))
# A voxel whose spread is below this share of its mean is float noise.
_MIN_RELATIVE_SD = 1e-6
# Voxels whose parameters are put in their places at once.
_BLOCK = 4096


def fit(
    training: Split,
    *,
    key: jax.Array,
    validation: Split | None = None,
    config: EncoderConfig | None = None,
    voxel_chunk: int | None = None,
    image_chunk: int | None = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
) -> Encoders:
    """Fits the encoders of all voxels at once.

    Responses are read block by block from where they are, in memory or in a file, and never copied
    as a whole, unless the encoders share a trunk: then all voxels are fitted together, and one
    float32 copy of their responses goes to the devices.

    Args:
        training: tokens [N, P, D] and responses [N, V] of the training images.
        key: random key; with a fixed trunk each voxel's result depends on the key and its
            voxel id only, not on the voxels fitted beside it.
        validation: images for early stopping (query) or more rows for the folds (ridge);
            None holds out every sixth training image.
        config: settings; None for the defaults.
        voxel_chunk: voxels held in memory at once on each device; None for as many as suit it.
            Memory only, never the result.
        image_chunk: images read at once. Memory only, never the result.
        mesh: devices of `sharding.mesh`; if they belong to several processes, all must call this.
            None for one device. Never the result.
        progress: called with (done, total).

    Returns:
        Encoders of V voxels in the order of `training.responses`; voxels that are constant,
        non-finite or diverged have zero parameters and say so in `status`.

    Raises:
        DataError: for fewer than two training images, no validation image or no usable voxel.
        ConfigError: if pooling or positions do not suit the token grid, or batches the mesh.
        ResourceError: if not even one voxel fits in memory.
    """
    config = config or QueryConfig()
    if validation is None:
        training, validation = _held_out(training)
    if len(training.responses.image_ids) < 2:
        raise DataError("need at least 2 training images; lower `data.test` or `data.val`, or add images.")
    if not len(validation.responses.image_ids):
        raise DataError("need at least 1 validation image (6 training images when none are given); add images.")
    masked = isinstance(config, RidgeConfig) and config.missing == "mask"
    sources = [split.responses.responses for split in (training, validation)]
    found = survey(*sources, masked=masked)
    status = _status(found, training.responses.status)
    usable = np.flatnonzero(status == _OK)
    if not len(usable):
        counts = {STATUSES[code]: int((status == code).sum()) for code in np.unique(status)}
        raise DataError(f"0 of {len(status)} voxels can be fitted: {counts}.")
    chosen = {"mean": found.mean[usable], "spread": found.spread[usable]}
    targets = Targets(sources, usable, voxel_ids=training.responses.voxel_ids[usable], **chosen)
    shared, per_voxel, baseline, diverged, architecture = _fitted(
        training, validation, targets, key, config, voxel_chunk, image_chunk, mesh, progress
    )
    status[usable[diverged]] = _DIVERGED
    return Encoders(
        shared=shared,
        per_voxel=_all_voxels(per_voxel, targets, usable, diverged, len(status)),
        baseline=baseline,
        voxel_ids=np.asarray(training.responses.voxel_ids),
        status=status.astype(np.int8),
        architecture=architecture,
    )


def _fitted(training, validation, targets, key, config, voxel_chunk, image_chunk, mesh, progress):
    """Fits all voxels together when they share a trunk; otherwise each process fits its share."""
    fit_kind = fit_ridge if config.kind == "ridge" else _fit_query
    options = (key, config, voxel_chunk, image_chunk)
    if config.kind == "query" and config.trunk == "shared":
        return fit_kind(training, validation, targets, *options, mesh, progress)
    same = {}

    def some(voxels):
        local = sharding.local(mesh)
        made = fit_kind(training, validation, targets.take(voxels), *options, local, progress)
        shared, per_voxel, baseline, diverged, architecture = made
        same.update(shared=shared, baseline=baseline, architecture=architecture)
        return per_voxel, diverged

    per_voxel, diverged = sharding.divided(some, len(targets.voxel_ids), mesh)
    return same["shared"], per_voxel, same["baseline"], diverged, same["architecture"]


def _fit_query(training, validation, targets, key, config, voxel_chunk, image_chunk, mesh, progress):
    tokens = training.tokens
    n_tokens = tokens.tokens.shape[1]
    architecture = Architecture("query", tokens.grid, config.pool)
    basis = query.position_basis(architecture, n_tokens, config.position_order)
    rows = np.arange(len(tokens.image_ids))
    trunk = query.fit_trunk(tokens, rows, width=config.width)
    baseline = trunk.pop("mean")
    if config.trunk == "shared":
        trunk = _split_trunk(trunk, config)
    n_shards = sharding.n_shards(mesh, sharding.VOXEL)
    n_images, n_voxels = targets.shape
    planned = plan_query(
        config,
        n_images=n_images,
        n_voxels=-(-n_voxels // n_shards),
        token_shape=tokens.tokens.shape[1:],
        wanted=voxel_chunk,
    )
    data = [
        stored_images.load(split.tokens, trunk, architecture, config, image_chunk=image_chunk, mesh=mesh)
        for split in (training, validation)
    ]

    def fit_chunk(index):
        n_valid = min(len(index), n_voxels - index[0])
        both = zip(data, targets.columns(index), strict=True)
        seen, held_out = (images.with_responses(y) for images, y in both)
        del both  # and what was read on the host

        def advance(done, total):
            progress(int(index[0]) * total + done * n_valid, n_voxels * total)

        voxel_ids = targets.voxel_ids[index]
        return train.train(trunk, seen, held_out, basis, voxel_ids, key=key, config=config, progress=advance)

    # voxels that share a trunk cannot be fitted in halves
    multiple = n_voxels if config.trunk == "shared" else n_shards
    chunk = n_voxels if config.trunk == "shared" else planned.chunk * n_shards
    per_voxel, diverged = {}, np.zeros(n_voxels, bool)
    for made, n_valid, done in in_chunks(fit_chunk, n_voxels, chunk, setting="run.voxel_chunk", multiple=multiple):
        learned, parameters, bad = made
        fitted = slice(done - n_valid, done)
        for name, value in parameters.items():
            if name not in per_voxel:
                per_voxel[name] = np.empty((n_voxels, *value.shape[1:]), np.float32)
            per_voxel[name][fitted] = value[:n_valid]
        diverged[fitted] = bad[:n_valid]
        progress(done * (config.epochs + 1), n_voxels * (config.epochs + 1))
    return learned, per_voxel, baseline, diverged, architecture


def _split_trunk(trunk, config):
    """Gives every head its own slice of the projection, for keys and values apart."""
    width = trunk["key_bias"].shape[1]
    if width % config.heads:
        raise ConfigError(
            f"encoder.heads = {config.heads} must divide the trunk's width {width} (encoder.width, at most D)."
        )
    per_head = width // config.heads
    # neighbouring components go to different heads, so that all heads see a like spectrum
    weight = trunk["key_weight"].reshape(-1, per_head, config.heads).swapaxes(1, 2)
    bias = trunk["key_bias"].reshape(per_head, config.heads).T
    return {"key_weight": weight, "key_bias": bias, "value_weight": weight.copy(), "value_bias": bias.copy()}


def _held_out(training: Split) -> tuple[Split, Split]:
    held = np.arange(len(training.responses.image_ids)) % 6 == 5
    rest, taken = (
        Split(training.tokens.take_images(rows), _chosen(training.responses, rows), training.name)
        for rows in (~held, held)
    )
    return rest, taken


def _chosen(responses: Responses, rows: np.ndarray) -> Responses:
    """Takes images without a copy of their responses, also where these are in memory."""
    ids, n_repeats = responses.image_ids[rows], responses.n_repeats[rows]
    return replace(responses, responses=ChosenRows(responses.responses, rows), image_ids=ids, n_repeats=n_repeats)


def _status(found: Survey, given: np.ndarray) -> np.ndarray:
    status = np.array([STATUSES.index(name) for name in given])
    constant = found.spread <= _MIN_RELATIVE_SD * np.maximum(np.abs(found.mean), 1e-6)
    status[(status == _OK) & ~found.is_complete] = _NONFINITE
    status[(status == _OK) & constant] = _CONSTANT
    return status


def _all_voxels(per_voxel, targets, usable, diverged, n_voxels):
    """Undoes the standardisation and puts the fitted voxels among all of them; empties `per_voxel`."""
    linear = "coef" if "coef" in per_voxel else "readout"
    out = {}
    for name in list(per_voxel):
        value = per_voxel.pop(name)
        out[name] = np.zeros((n_voxels, *value.shape[1:]), np.float32)
        for start in range(0, len(usable), _BLOCK):
            voxels = np.arange(start, min(start + _BLOCK, len(usable)))[~diverged[start : start + _BLOCK]]
            part = np.array(value[voxels], np.float32)
            if name == linear:
                part *= targets.spread[voxels].reshape(-1, *[1] * (part.ndim - 1))
            if name == "intercept":
                part = part * targets.spread[voxels] + targets.mean[voxels]
            out[name][usable[voxels]] = part
    return out
