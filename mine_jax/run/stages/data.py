"""The data stage: reads responses and images, and splits the images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mine_jax import data, memory
from mine_jax._numbers import count
from mine_jax._progress import Progress
from mine_jax.config import Config, DataConfig, PhantomConfig
from mine_jax.run import files
from mine_jax.run.execute import Step

# Arguments of the writer that stand under their names in the section [data].
_PHANTOM_KEYS = ("n_images", "n_shared", "n_repeats", "n_repeats_shared", "ceiling")


def compute(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Reads responses and splits their images; a phantom is written first."""
    source = files.data_source(config, directory)
    if isinstance(source, PhantomConfig):
        _write_phantom(config, source, progress)
    responses, stimuli = data.load(source, directory=files.data_folder(directory), progress=progress)
    splits = data.assign_splits(responses, stimuli, test=source.test, val=source.val, seed=config.run.seed)
    if source.permute:
        order = _exchanged(splits, seed=config.run.seed)
        exchanged = responses.take_images(order)
        responses = replace(exchanged, image_ids=responses.image_ids)
    responses = data.with_noise_ceiling(responses, splits == "test")
    responses = data.with_low_ceiling(responses, min_noise_ceiling=source.min_noise_ceiling)
    files.save_data(directory, responses, splits)
    counts = {name: int((splits == name).sum()) for name in ("train", "val", "test")}
    usable = int((responses.status == "ok").sum())
    summary = {"voxels": len(responses.voxel_ids), "usable": usable, "images": len(responses.image_ids), **counts}
    warnings = list(filter(None, [data.warning_of_places(responses), data.warning_of_few(splits)]))
    return {**summary, **({"warning": "; ".join(warnings)} if warnings else {})}


def plan(config: Config, directory: Path) -> list[str]:
    """Says how many rows and voxels will be read."""
    del directory
    d = config.data
    if isinstance(d, PhantomConfig):
        return [f"phantom {d.subject}: {d.n_images} images x {d.n_repeats} repeats, written to disk where missing"]
    shape = files.responses_shape(config, None)
    if shape is None:
        why = data.why_not_read(d)
        return [*([f"would stop the run: {why}"] if why else []), _published(d)]
    return [
        f"responses at most [{shape[0]}, {shape[1]}]: {memory.readable(4 * shape[0] * shape[1])}; "
        "sessions and voxels that do not vary, and voxels with NaN, are left out when values are read"
    ]


def _published(d: DataConfig) -> str:
    """Says what is known of the sizes of a data set without its files."""
    n_images, n_voxels = data.published_sizes(d)
    if n_images is None:
        return f"{d.kind}: voxels and images are counted when the files are opened"
    published = f"{d.kind} {d.subject} as published: {count(n_images, 'image')}"
    if n_voxels is None:
        return f"{published}; voxels are counted when the files are opened"
    size = memory.readable(4 * n_images * n_voxels)
    return f"{published}, {count(n_voxels, 'voxel')}: responses at most {size}"


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


def _write_phantom(config: Config, source: PhantomConfig, progress: Progress) -> None:
    """Lets the writer make the phantom, or check that it is there and whole.

    In a folder of the user, keys that the configuration does not set are those of the phantom that is there, and
    one that differs is an error. In that of the run another phantom is replaced.
    """
    from mine_jax.phantom.write_nsd import read_parameters, remove_phantom, write_phantom

    root = Path(source.root or "")
    wanted: dict[str, Any] = {key: getattr(source, key) for key in _PHANTOM_KEYS} | {"seed": config.run.seed}
    wanted |= {"subjects": [source.subject], "shape": list(source.shape)}
    if isinstance(source.ceiling, tuple):
        wanted["ceiling"] = list(source.ceiling)
    there = read_parameters(root)
    is_of_user = getattr(config.data, "root", None) is not None
    if there is not None and is_of_user:
        is_set = config.data.model_fields_set | ({"seed"} if "seed" in config.run.model_fields_set else set())
        wanted |= {key: there[key] for key in there.keys() - is_set - {"subjects"}}
        if source.subject in there.get("subjects", ()):
            wanted["subjects"] = there["subjects"]
    elif there is not None:
        repeats = wanted["n_repeats_shared"] or wanted["n_repeats"]
        if there != {**wanted, "n_repeats_shared": repeats}:
            remove_phantom(root)
    write_phantom(root, progress=progress, **wanted)


STEP = Step(
    compute=compute,
    sections=("data", "run.seed"),
    outputs=files.OUTPUTS["data"],
    inputs=inputs,
    makes_inputs=lambda config: inputs(config) if isinstance(config.data, PhantomConfig) else [],
    partial=files.KEPT["data"],
    plan=plan,
    found=("{usable} of {voxels} {units} usable", "{images} images ({train} train, {val} val, {test} test)"),
)
