"""Fits all voxels: standardises responses, chooses the solver, walks over voxel chunks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mine_jax._chunking import padded_chunks
from mine_jax._progress import Progress, silent
from mine_jax.config import EncoderConfig
from mine_jax.encoder import query, ridge, train
from mine_jax.encoder.predict import summaries
from mine_jax.errors import ConfigError, DataError
from mine_jax.types import STATUSES, Architecture, Encoders, Split

# Voxels trained together when nothing else is asked for: keeps their Gram matrices small.
VOXEL_CHUNK = 256
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
        voxel_chunk: voxels held in memory at once. Memory only, never the result.
        image_chunk: images read at once. Memory only, never the result.
        progress: called with (done, total).

    Returns:
        Encoders of V voxels in the order of `training.responses`; voxels that are constant,
        non-finite or diverged have zero parameters and say so in `status`.

    Raises:
        DataError: for fewer than two training images, no validation image or no usable voxel.
        ConfigError: if pooling or positions do not suit the token grid.
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
    status = _status(responses, held_out, training.responses.status)
    usable = np.flatnonzero(status == _OK)
    if not len(usable):
        counts = {STATUSES[code]: int((status == code).sum()) for code in np.unique(status)}
        raise DataError(f"0 of {len(status)} voxels can be fitted: {counts}.")
    mean, spread = responses[:, usable].mean(0), responses[:, usable].std(0)
    fit_kind = _fit_ridge if config.kind == "ridge" else _fit_query
    scaled = ((responses[:, usable] - mean) / spread, (held_out[:, usable] - mean) / spread)
    voxel_ids = training.responses.voxel_ids[usable]
    shared, per_voxel, baseline, diverged, architecture = fit_kind(
        training, validation, scaled, voxel_ids, key, config, voxel_chunk, image_chunk, progress
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


def _fit_query(training, validation, responses, voxel_ids, key, config, voxel_chunk, image_chunk, progress):
    tokens = training.tokens
    n_tokens = tokens.tokens.shape[1]
    architecture = Architecture("query", tokens.grid, config.pool)
    basis = query.position_basis(architecture, n_tokens, config.position_order)
    rows = np.arange(len(tokens.image_ids))
    trunk = query.fit_trunk(tokens, rows, width=config.width)
    baseline = trunk.pop("mean")
    if config.trunk == "shared":
        trunk = _split_trunk(trunk, config)
        voxel_chunk = None
    elif voxel_chunk is None:
        voxel_chunk = VOXEL_CHUNK
    data = [_examples(split.tokens, trunk, architecture, config, image_chunk or 64) for split in (training, validation)]
    n_voxels = len(voxel_ids)
    chunks = list(padded_chunks(n_voxels, voxel_chunk))
    parts, diverged = [], []
    for i, (index, n_valid) in enumerate(chunks):
        examples, held_out = (
            train.Examples(*arrays, jnp.asarray(y[:, index])) for arrays, y in zip(data, responses, strict=True)
        )

        def advance(done, total, i=i):
            progress(i * total + done, len(chunks) * total)

        trunk, parameters, bad = train.train(
            trunk, examples, held_out, basis, voxel_ids[index], key=key, config=config, progress=advance
        )
        parts.append({name: np.asarray(value)[:n_valid] for name, value in parameters.items()})
        diverged.append(bad[:n_valid])
        progress((i + 1) * (config.epochs + 1), len(chunks) * (config.epochs + 1))
    per_voxel = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return jax.tree.map(np.asarray, trunk), per_voxel, baseline, np.concatenate(diverged), architecture


def _fit_ridge(training, validation, responses, voxel_ids, key, config, voxel_chunk, image_chunk, progress):
    tokens = training.tokens
    grid = tokens.grid if config.summary == "grid" else None
    architecture = Architecture("ridge", grid, config.pool if config.summary == "grid" else 1, config.summary)
    trunk = query.fit_trunk(tokens, np.arange(len(tokens.image_ids)), width=config.width)
    baseline = trunk.pop("mean")
    shared = trunk if config.summary == "grid" else {}
    n_cells = query.n_cells(architecture, tokens.tokens.shape[1]) if config.summary == "grid" else 0
    width = n_cells * trunk["key_bias"].shape[1] if config.summary == "grid" else len(baseline)
    shared = {**shared, "center": np.zeros(width, np.float32)}
    features = np.concatenate(
        [summaries(shared, split.tokens, architecture, image_chunk=image_chunk) for split in (training, validation)]
    )
    shared["center"] = features.mean(0)
    y = np.concatenate(responses)
    order = np.asarray(jax.random.permutation(key, len(y)))
    unit = float(features.var(0, dtype=np.float64).mean()) * len(y)
    penalties = unit * np.logspace(config.penalty_low, config.penalty_high, config.penalties) / features.shape[1]
    solution = ridge.solve(
        features - shared["center"],
        y,
        penalties,
        folds=list(np.array_split(order, config.folds)),
        voxel_chunk=voxel_chunk or 512,
        progress=progress,
    )
    per_voxel = {"coef": solution.coef.T, "intercept": solution.intercept, "penalty": solution.penalty}
    diverged = ~np.isfinite(solution.coef).all(0)
    return shared, per_voxel, baseline, diverged, architecture


def _examples(tokens, trunk, architecture, config, image_chunk):
    """Keys for a fixed trunk, cell states for a learned one; with the cell mask."""
    if config.trunk == "fixed":
        keys, mask = query.project_all(trunk, tokens, architecture, image_chunk=image_chunk)
        keys = jnp.asarray(keys)[:, :, None]
        return None, keys, None if mask is None else jnp.asarray(mask)
    n_images = len(tokens.image_ids)
    blocks = [
        query.pooled_tokens(tokens, np.arange(a, min(a + image_chunk, n_images)), architecture)
        for a in range(0, n_images, image_chunk)
    ]
    masks = [mask for _, mask in blocks if mask is not None]
    return jnp.concatenate([states for states, _ in blocks]), None, jnp.concatenate(masks) if masks else None


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


def _status(responses: np.ndarray, held_out: np.ndarray, given: np.ndarray) -> np.ndarray:
    status = np.array([STATUSES.index(name) for name in given])
    finite = np.isfinite(responses).all(0) & np.isfinite(held_out).all(0)
    safe = np.where(finite, responses, 0.0)
    size = np.maximum(np.abs(safe.mean(0, dtype=np.float64)), 1e-6)
    constant = safe.std(0, dtype=np.float64) <= _MIN_RELATIVE_SD * size
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
