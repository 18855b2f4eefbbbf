"""The data stage: reads responses and images, and splits the images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mine_jax import data, memory
from mine_jax._progress import Progress
from mine_jax.config import Config, PhantomConfig
from mine_jax.run import files
from mine_jax.run.execute import Step


def compute(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Reads responses and splits their images; a phantom is written first."""
    source = files.data_source(config, directory)
    if isinstance(source, PhantomConfig) and not files.has_phantom(source):
        _write_phantom(source, seed=config.run.seed, progress=progress)
    responses, stimuli = data.load(source, directory=files.data_folder(directory), progress=progress)
    splits = data.assign_splits(responses, stimuli, test=source.test, val=source.val, seed=config.run.seed)
    if source.permute:
        order = _exchanged(splits, seed=config.run.seed)
        responses = replace(responses, responses=responses.responses[order], n_repeats=responses.n_repeats[order])
    responses = data.with_noise_ceiling(responses, splits == "test")
    responses = data.with_low_ceiling(responses, min_noise_ceiling=source.min_noise_ceiling)
    files.save_data(directory, responses, splits)
    counts = {name: int((splits == name).sum()) for name in ("train", "val", "test")}
    usable = int((responses.status == "ok").sum())
    return {"voxels": len(responses.voxel_ids), "usable": usable, "images": len(responses.image_ids), **counts}


def plan(config: Config, directory: Path) -> list[str]:
    """Says how many rows and voxels will be read."""
    del directory
    d = config.data
    if isinstance(d, PhantomConfig):
        return [f"phantom {d.subject}: {d.n_images} images x {d.n_repeats} repeats, written to disk where missing"]
    shape = files.responses_shape(config, None)
    if shape is None:
        return [f"{d.kind}: voxels and images are counted when the files are opened"]
    return [f"responses [{shape[0]}, {shape[1]}]: {memory.readable(4 * shape[0] * shape[1])}"]


def inputs(config: Config) -> list[Path]:
    """Names the files of the user that the stage reads."""
    return data.inputs(config.data)


def _exchanged(splits: np.ndarray, *, seed: int) -> np.ndarray:
    """Returns an order [N] that exchanges images within each split, so that test rows keep their repeats."""
    order, rng = np.arange(len(splits)), np.random.default_rng(seed)
    for name in np.unique(splits):
        rows = np.flatnonzero(splits == name)
        order[rows] = rng.permutation(rows)
    return order


def _write_phantom(source: PhantomConfig, *, seed: int, progress: Progress) -> None:
    from mine_jax.phantom.write_nsd import write_phantom

    write_phantom(
        Path(source.root or ""),
        subjects=(source.subject,),
        n_images=source.n_images,
        n_shared=source.n_shared,
        n_repeats=source.n_repeats,
        n_repeats_shared=source.n_repeats_shared,
        ceiling=source.ceiling,
        shape=source.shape,
        seed=seed,
        progress=progress,
    )


STEP = Step(
    compute=compute,
    sections=("data", "run.seed"),
    outputs=("data/*", "images.tsv", "voxels.tsv"),
    inputs=inputs,
    plan=plan,
)
