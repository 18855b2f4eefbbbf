"""The feature stage: turns images into image-tokens and a lens; also one part of the images, beside other processes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mine_jax import data, features, memory
from mine_jax._numbers import count
from mine_jax._progress import Progress, at_the_end
from mine_jax.config import EMBEDDED_MODELS, Config, PrecomputedConfig
from mine_jax.errors import CheckpointError, MissingInputError
from mine_jax.run import files
from mine_jax.run.execute import Step, inputs_of, stale
from mine_jax.run.record import frozen, manifest
from mine_jax.run.record.manifest import input_hash
from mine_jax.run.reporter import Reporter
from mine_jax.types import ImageTokens, Lens, Stimuli

logger = logging.getLogger("mine_jax")


def compute(config: Config, directory: Path, progress: Progress) -> dict[str, Any]:
    """Extracts image-tokens, or refers to the precomputed ones."""
    shown = _shown(config, directory)

    def loaded() -> tuple[ImageTokens, Lens | None]:
        return features.load_features(
            config.features,
            shown,
            fitted_on=files.training_images(directory),
            directory=files.features_folder(directory),
            progress=progress,
            precision=config.run.precision,
            mesh=config.run.mesh,
        )

    try:
        tokens, lens = loaded()
    except CheckpointError as error:
        # the stage is stale, or it would not run: shards of another extraction are of no use
        logger.warning("features/ is extracted anew: %s", error)
        files.remove_features(directory)
        tokens, lens = loaded()
    warning = ""
    if config.features.low_level and config.data.has_photos:
        warning = _read_photos(directory, shown, at_the_end(progress))
    else:
        files.remove_low_level(directory)
    n_images, n_tokens, width = tokens.tokens.shape
    words = 0 if lens is None else len(lens.words)
    summary = {"images": n_images, "tokens": n_tokens, "width": width, "words": words, "model": tokens.model}
    return {**summary, **_of_hub(config), **({"warning": warning} if warning else {})}


def _read_photos(directory: Path, shown: Stimuli, progress: Progress) -> str:
    """Writes statistics of the photos, and says which test photos are copies of others; "" for none."""
    split, seen = files.split_of(directory), data.Thumbnails(shown)
    read = seen.read if len(split) <= data.MOST_PHOTOS else shown.read
    statistics = features.low_level_statistics(replace(shown, read=read), progress=progress)
    files.save_low_level(directory, statistics)
    found = data.warning_of_copies(data.find_copies(seen.kept, split, progress=progress))
    return "; ".join(filter(None, (data.not_searched(split), found)))


def _of_hub(config: Config) -> dict[str, Any]:
    """What stands in run.json of a model of the hub: id, commit, and sha256 of its files."""
    f = config.features
    folder = None if isinstance(f, PrecomputedConfig) else features.hub_folder(f)
    if folder is None or isinstance(f, PrecomputedConfig):
        return {}
    return {"hub": {"id": f.model, "revision": f.revision, "sha256": features.fetched_files(folder)}}


def extract_part(
    config: Config,
    directory: str | Path,
    steps: Mapping[str, Step],
    *,
    part: tuple[int, int],
    reporter: Reporter,
    source: Path | None = None,
) -> list[str]:
    """Writes the token shards of one part of a run.

    The processes that do the parts do not talk to each other. Each takes every n-th shard, and none
    takes the lock of the directory; the stage without a part records them when they are done.

    Args:
        config: the configuration of the run.
        directory: the run directory, shared by the processes; its data stage must be up to date.
        steps: the stages, in order.
        part: (i, n), i from 0 to n - 1.
        reporter: shows progress.
        source: the file of the configuration: inputs must be those of the list beside it, where there is one.

    Returns:
        Lines that say what was done and what comes next.

    Raises:
        IntegrityError: if an input is not the one that the list names.
        CheckpointError: if the data stage is not up to date, or the store is of another extraction.
        MineError: see `features.extract_part`.
    """
    directory = Path(directory)
    if source is not None:
        known = (manifest.read(directory) or {}).get("frozen")
        with reporter.task("inputs") as progress:
            frozen.verify(source, inputs_of(config, steps), known=known, progress=progress)
    reason = stale(config, directory, steps)["data"]
    if reason is not None:
        raise CheckpointError(
            f"a part of stage features needs stage data, which is not up to date: {reason}. "
            "Run it first: mine-jax data."
        )
    stimuli = _shown(config, directory)
    with reporter.task("features") as progress, jax.default_matmul_precision(config.run.precision):
        is_whole = features.extract_part(
            config.features,
            stimuli,
            directory=files.features_folder(directory),
            part=part,
            fitted_on=files.training_images(directory),
            progress=progress,
            precision=config.run.precision,
            mesh=config.run.mesh,
        )
    following = "all parts are there; mine-jax features without --shard completes the stage"
    return [
        f"features: part {part[0]} of {part[1]} done",
        following if is_whole else "other parts are still to be done",
    ]


def _shown(config: Config, directory: Path) -> Stimuli:
    """The images, marked with what their files hold now: a store of tokens of other photos is of no use."""
    stimuli = files.shown_stimuli(config, directory)
    if isinstance(config.features, PrecomputedConfig) or not config.data.has_photos:
        return stimuli
    state = " ".join(input_hash(path) for path in data.image_inputs(files.data_source(config, directory)))
    return replace(stimuli, hashes=np.full(len(stimuli.image_ids), state))


def check(config: Config, directory: Path) -> None:
    """Raises if files of the features, which the data stage does not read, are not there."""
    del directory
    f = config.features
    if not isinstance(f, PrecomputedConfig):
        features.check_folder(f)
    missing = [path for path in _named(config) if not path.exists()]
    if missing:
        raise MissingInputError(f"features: no file at {', '.join(map(str, missing))}.")


def plan(config: Config, directory: Path) -> list[str]:
    """Says how large the image-tokens are."""
    shape, f = files.tokens_shape(config, directory), config.features
    if isinstance(f, PrecomputedConfig):
        return ["image-tokens of a file" if shape is None else f"image-tokens {list(shape)} of a file"]
    each = 4 if f.dtype == "float32" else 2
    if shape is not None:
        return [
            f"image-tokens {list(shape)}, memory-mapped: {memory.readable(int(np.prod(shape)) * each)} in {f.dtype}"
        ]
    images, model = files.planned_images(config, directory), features.usual_model(f)
    size = memory.readable(each * images.n * model.n_tokens * model.width)
    return [
        f"{model.model}{'' if model.is_named else ', for instance,'} gives {count(model.n_tokens)} image-tokens x "
        f"{count(model.width)} for each image, {size} in {f.dtype} for {images.said}; its weights are "
        f"{memory.readable(model.weights_bytes)} in {f.weights}"
    ]


def inputs(config: Config) -> list[Path]:
    """Names the files of the user that the stage reads."""
    f = config.features
    of_hub = features.hub_files(f)
    own = isinstance(f, PrecomputedConfig) or of_hub or f.model is None or f.model in EMBEDDED_MODELS
    # Tokens and low-level statistics are of the photos that are there now.
    photos = data.image_inputs(config.data) if config.data.has_photos else []
    return [*photos, *_named(config), *of_hub, *([] if own else [Path(str(f.model))])]


def _named(config: Config) -> list[Path]:
    """Files that the section names, but for a model."""
    f = config.features
    named: tuple[str | None, ...] = (f.words,)
    if isinstance(f, PrecomputedConfig):
        named = (f.tokens, f.token_image_ids, f.mask, f.unembedding, f.unembedding_bias, f.words)
    return [Path(path) for path in named if path is not None]


def fetched(config: Config) -> list[Path]:
    """Names what the stage may bring into the hub's cache: the files that are there, or their folder."""
    f = config.features
    return [] if isinstance(f, PrecomputedConfig) or not f.allow_download else features.hub_files(f)


STEP = Step(
    compute=compute,
    needs=("data",),
    sections=("features", "run.precision"),
    outputs=files.OUTPUTS["features"],
    inputs=inputs,
    makes_inputs=fetched,
    partial=files.KEPT["features"],
    plan=plan,
    check=check,
    found=("{images} images x {tokens} image-tokens x {width}", "{words} words"),
)
