"""Fits all voxels: standardises responses, chooses the solver, walks over voxel chunks."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import Mesh

from mine_jax import sharding
from mine_jax._planner import in_chunks
from mine_jax._progress import Progress, silent
from mine_jax.config import EncoderConfig
from mine_jax.encoder import examples, query, train
from mine_jax.encoder.memory import plan_query
from mine_jax.encoder.ridge.fitting import fit_ridge
from mine_jax.errors import ConfigError, DataError
from mine_jax.types import STATUSES, Architecture, Encoders, Split

_OK, _CONSTANT, _NONFINITE, _DIVERGED = (STATUSES.index(s) for s in ("ok", "constant", "nonfinite", "diverged"))
# A voxel whose spread is below this share of its mean is float noise.
_MIN_RELATIVE_SD = 1e-6


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
    config = config or EncoderConfig()
    if validation is None:
        training, validation = _held_out(training)
    if len(training.responses.image_ids) < 2:
        raise DataError("need at least 2 training images; lower `data.test` or `data.val`, or add images.")
    if not len(validation.responses.image_ids):
        raise DataError("need at least 1 validation image (6 training images when none are given); add images.")
    responses = np.asarray(training.responses.responses, np.float32)
    held_out = np.asarray(validation.responses.responses, np.float32)
    masked = config.missing == "mask"
    if masked and config.kind != "ridge":
        raise ConfigError(f"encoder.missing = 'mask' needs encoder.kind = 'ridge', but it is {config.kind!r}.")
    status = _status(responses, held_out, training.responses.status, masked=masked)
    usable = np.flatnonzero(status == _OK)
    if not len(usable):
        counts = {STATUSES[code]: int((status == code).sum()) for code in np.unique(status)}
        raise DataError(f"0 of {len(status)} voxels can be fitted: {counts}.")
    average, deviation = (np.nanmean, np.nanstd) if masked else (np.mean, np.std)
    mean, spread = average(responses[:, usable], axis=0), deviation(responses[:, usable], axis=0)
    scaled = ((responses[:, usable] - mean) / spread, (held_out[:, usable] - mean) / spread)
    voxel_ids = training.responses.voxel_ids[usable]
    shared, per_voxel, baseline, diverged, architecture = _fitted(
        training, validation, scaled, voxel_ids, key, config, voxel_chunk, image_chunk, mesh, progress
    )
    status[usable[diverged]] = _DIVERGED
    return Encoders(
        shared=shared,
        per_voxel=_all_voxels(per_voxel, mean, spread, usable, diverged, len(status)),
        baseline=baseline,
        voxel_ids=np.asarray(training.responses.voxel_ids),
        status=status.astype(np.int8),
        architecture=architecture,
    )


def _fitted(training, validation, responses, voxel_ids, key, config, voxel_chunk, image_chunk, mesh, progress):
    """Fits all voxels together when they share a trunk; otherwise each process fits its share."""
    fit_kind = fit_ridge if config.kind == "ridge" else _fit_query
    options = (key, config, voxel_chunk, image_chunk)
    if config.kind == "query" and config.trunk == "shared":
        return fit_kind(training, validation, responses, voxel_ids, *options, mesh, progress)
    same = {}

    def some(voxels):
        chosen = (training, validation, [y[:, voxels] for y in responses], voxel_ids[voxels])
        shared, per_voxel, baseline, diverged, architecture = fit_kind(
            *chosen, *options, sharding.local(mesh), progress
        )
        same.update(shared=shared, baseline=baseline, architecture=architecture)
        return per_voxel, diverged

    per_voxel, diverged = sharding.divided(some, len(voxel_ids), mesh)
    return same["shared"], per_voxel, same["baseline"], diverged, same["architecture"]


def _fit_query(training, validation, responses, voxel_ids, key, config, voxel_chunk, image_chunk, mesh, progress):
    tokens = training.tokens
    n_tokens = tokens.tokens.shape[1]
    architecture = Architecture("query", tokens.grid, config.pool)
    basis = query.position_basis(architecture, n_tokens, config.position_order)
    rows = np.arange(len(tokens.image_ids))
    trunk = query.fit_trunk(tokens, rows, width=config.width)
    baseline = trunk.pop("mean")
    if config.trunk == "shared":
        trunk = _split_trunk(trunk, config)
    n_voxels, n_shards = len(voxel_ids), sharding.n_shards(mesh, sharding.VOXEL)
    planned = plan_query(
        config,
        n_images=sum(len(y) for y in responses),
        n_voxels=-(-n_voxels // n_shards),
        token_shape=tokens.tokens.shape[1:],
        wanted=voxel_chunk,
    )
    data = [
        examples.load(split.tokens, trunk, architecture, config, image_chunk=image_chunk, mesh=mesh)
        for split in (training, validation)
    ]

    def fit_chunk(index):
        n_valid = min(len(index), n_voxels - index[0])
        seen, held_out = (images.with_responses(y[:, index]) for images, y in zip(data, responses, strict=True))

        def advance(done, total):
            progress(int(index[0]) * total + done * n_valid, n_voxels * total)

        return train.train(trunk, seen, held_out, basis, voxel_ids[index], key=key, config=config, progress=advance)

    # voxels that share a trunk cannot be fitted in halves
    multiple = n_voxels if config.trunk == "shared" else n_shards
    chunk = n_voxels if config.trunk == "shared" else planned.chunk * n_shards
    parts, diverged = [], []
    for made, n_valid, done in in_chunks(fit_chunk, n_voxels, chunk, setting="run.voxel_chunk", multiple=multiple):
        learned, parameters, bad = made
        parts.append({name: value[:n_valid] for name, value in parameters.items()})
        diverged.append(bad[:n_valid])
        progress(done * (config.epochs + 1), n_voxels * (config.epochs + 1))
    per_voxel = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return learned, per_voxel, baseline, np.concatenate(diverged), architecture


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
        Split(training.tokens.take_images(rows), training.responses.take_images(rows), training.name)
        for rows in (~held, held)
    )
    return rest, taken


def _status(responses: np.ndarray, held_out: np.ndarray, given: np.ndarray, *, masked: bool) -> np.ndarray:
    status = np.array([STATUSES.index(name) for name in given])
    present = np.isfinite(responses)
    if masked:  # more than half of the images are more than one fold
        n_present = present.sum(0) + np.isfinite(held_out).sum(0)
        finite = (n_present > (len(responses) + len(held_out) + 1) // 2) & (present.sum(0) > 1)
    else:
        finite = present.all(0) & np.isfinite(held_out).all(0)
    counted = present | ~finite
    safe = np.where(present & finite, responses, 0.0)
    size = np.maximum(np.abs(safe.mean(0, dtype=np.float64, where=counted)), 1e-6)
    constant = safe.std(0, dtype=np.float64, where=counted) <= _MIN_RELATIVE_SD * size
    status[(status == _OK) & ~finite] = _NONFINITE
    status[(status == _OK) & constant] = _CONSTANT
    return status


def _all_voxels(per_voxel, mean, spread, usable, diverged, n_voxels):
    """Undoes the standardisation and puts the fitted voxels among all of them."""
    linear = "coef" if "coef" in per_voxel else "readout"
    out = {}
    for name, value in per_voxel.items():
        value = np.array(value, np.float32)
        if name == linear:
            value *= spread.reshape(-1, *[1] * (value.ndim - 1))
        if name == "intercept":
            value = value * spread + mean
        value[diverged] = 0
        full = np.zeros((n_voxels, *value.shape[1:]), np.float32)
        full[usable] = value
        out[name] = full
    return out
