"""The ridge part of the fit: image-level features, the grid of penalties, the folds."""

from __future__ import annotations

import jax
import numpy as np

from mine_jax import sharding
from mine_jax.encoder.needs import plan_ridge
from mine_jax.encoder.predict import summaries
from mine_jax.encoder.query import model as query
from mine_jax.encoder.ridge.solve import solve
from mine_jax.memory.plan import halving
from mine_jax.types import Architecture


def fit_ridge(training, validation, targets, key, config, voxel_chunk, image_chunk, mesh, progress):
    """Fits standardised responses of training and validation images, whose rows make the folds.

    Args:
        training: tokens [N, P, D] of the training images.
        validation: more images.
        targets: `Targets` [N, V] of both; NaN where missing.
        key: random key of the folds.
        config: `RidgeConfig`.
        voxel_chunk: voxels held at once on each device; None to plan it.
        image_chunk: images read at once.
        mesh: devices of this process, over which voxels are divided; None for one.
        progress: called with (done, total).

    Returns:
        Shared arrays, arrays of each voxel, the mean token [D], diverged [V] bool, architecture.
    """
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
    n_images, n_voxels = targets.shape
    order = np.asarray(jax.random.permutation(key, n_images))
    unit = float(features.var(0, dtype=np.float64).mean()) * n_images
    penalties = unit * np.logspace(config.penalty_low, config.penalty_high, config.penalties) / features.shape[1]
    planned = plan_ridge(
        config,
        n_images=n_images,
        n_voxels=-(-n_voxels // sharding.n_shards(mesh, *sharding.DEVICES)),
        token_shape=tokens.tokens.shape[1:],
        wanted=voxel_chunk,
    )
    coef = np.empty((n_voxels, width), np.float32)
    solution = halving(
        lambda chunk: solve(
            features - shared["center"],
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
    return shared, per_voxel, baseline, diverged, architecture
