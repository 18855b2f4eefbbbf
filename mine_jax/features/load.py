"""The features stage: a configuration and images -> image-tokens and the lens that reads them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mine_jax import artifacts
from mine_jax._progress import Progress, shown, silent
from mine_jax.config import FeaturesConfig, ModelConfig, PrecomputedConfig
from mine_jax.errors import ConfigError
from mine_jax.features import store
from mine_jax.features.backbone import Backbone, load_backbone
from mine_jax.features.dense.denoise import denoise_like, denoised_on_sample
from mine_jax.features.dense.reduce import reduce_like, reduced_on_sample
from mine_jax.features.extract import Extraction, configured, extract_into, fill_stores
from mine_jax.features.lens import build_lens, center_lens
from mine_jax.features.precomputed import load_precomputed
from mine_jax.types import ImageTokens, Lens, Stimuli


def load_features(
    config: FeaturesConfig,
    stimuli: Stimuli | None,
    *,
    directory: str | Path | None = None,
    progress: Progress | bool = True,
    precision: str = "highest",
    mesh: Mapping[str, int] | None = None,
    fitted_on: np.ndarray | None = None,
) -> tuple[ImageTokens, Lens | None]:
    """Runs the features stage: image-tokens and the lens that reads them.

    Args:
        config: the `[features]` section.
        stimuli: the N images; not needed for precomputed tokens.
        directory: the token store, `DIR/features` of a run; the lens goes to `lens` in it.
            None keeps everything in memory.
        progress: called with (images done, N). True shows a bar on a terminal, False nothing.
        precision: of matrix products on accelerators.
        mesh: `run.mesh`, see `load_backbone`.
        fitted_on: [F] str ids of the images that denoising, reduction and the center of the lens are fitted on:
            those of training, so that no test image has a part in them. None for all N.

    Returns:
        Tokens [N, P, D], and the lens over W words; None if there is no word list. The lens of a
        CLIP-type model is centered. Further layers go to `layer-NN` in `directory`.

    Raises:
        ConfigError: if a key that the kind needs is missing.
        MineError: what `extract` and `load_precomputed` raise.
    """
    directory = None if directory is None else Path(directory)
    with shown("features", progress) as report:
        if isinstance(config, PrecomputedConfig):
            tokens, lens = _precomputed(config, stimuli, directory, report)
        else:
            if stimuli is None:
                raise ConfigError(
                    f"`features.kind` {config.kind!r} needs images. Set `data.images`, or give precomputed tokens."
                )
            waiting = _waiting(report, len(stimuli.image_ids))
            backbone = load_backbone(config, precision=precision, mesh=mesh)
            extraction = configured(config, backbone.layers, directory)
            backbone = _prepared(backbone, config, stimuli, extraction, waiting, fitted_on)
            # a language model reads words without a sentence around them
            templates = getattr(config, "templates", ())
            lens = build_lens(backbone, config.words, templates, waiting)
            tokens = extract_into(backbone, stimuli, extraction, report)[extraction.layers[0]]
            if lens is not None and lens.normalize:
                n_images = len(stimuli.image_ids)
                lens = center_lens(
                    lens, tokens, fitted_on=fitted_on, progress=lambda done, total: report(n_images, n_images)
                )
    if directory is not None:
        artifacts.delete(Lens, directory / "lens")
        if lens is not None:
            artifacts.save(lens, directory / "lens")
    return tokens, lens


def extract_part(
    config: FeaturesConfig,
    stimuli: Stimuli,
    *,
    directory: str | Path,
    part: tuple[int, int],
    progress: Progress = silent,
    precision: str = "highest",
    mesh: Mapping[str, int] | None = None,
    fitted_on: np.ndarray | None = None,
) -> bool:
    """Does one of n parts of the features stage, while other processes do the others.

    The parts together write the bytes that one process alone would. Each can be killed and started
    again; `load_features` on the same folder finishes what is missing, and makes the lens.

    Args:
        config: the `[features]` section, the same for all parts.
        stimuli: all N images, not only those of the part.
        directory: the token store, shared by the processes.
        part: (i, n) with i from 0 to n - 1.
        progress: called with (images done, images of the part).
        precision: of matrix products on accelerators.
        mesh: `run.mesh`, see `load_backbone`; the devices of this process.
        fitted_on: as in `load_features`.

    Returns:
        Whether the token store is whole now: all other parts were done before.

    Raises:
        ConfigError: if there is no such part, or tokens are precomputed.
        MineError: what `extract` raises.
    """
    if isinstance(config, PrecomputedConfig) or not 0 <= part[0] < part[1]:
        raise ConfigError(
            f"part {part[0]} of {part[1]} of kind {config.kind!r} cannot be computed; parts count from 0."
        )
    backbone = load_backbone(config, precision=precision, mesh=mesh)
    extraction = configured(config, backbone.layers, Path(directory))
    backbone = _prepared(backbone, config, stimuli, extraction, _waiting(progress, len(stimuli.image_ids)), fitted_on)
    return fill_stores(backbone, stimuli, extraction, progress, part)


def load_backbone_like(
    config: ModelConfig, directory: str | Path, *, precision: str = "highest", mesh: Mapping[str, int] | None = None
) -> Backbone:
    """Loads the model of a token store, to encode further images as its own were.

    Args:
        config: the `[features]` section.
        directory: the store, `DIR/features` of a run.
        precision: of matrix products on accelerators.
        mesh: `run.mesh`, see `load_backbone`.

    Returns:
        The backbone, denoised and reduced as the tokens of the store were.

    Raises:
        MissingInputError: if the model is not there.
        WeightsError: if the checkpoint cannot be trusted.
        CheckpointError: if what was fitted to the tokens is damaged or of another model.
    """
    backbone = denoise_like(load_backbone(config, precision=precision, mesh=mesh), directory)
    return reduce_like(backbone, directory, layer=config.layer)


def _prepared(
    backbone: Backbone,
    config: ModelConfig,
    stimuli: Stimuli,
    extraction: Extraction,
    progress: Progress,
    fitted_on: np.ndarray | None,
) -> Backbone:
    """Denoises the tokens of a model, then reduces them, where the configuration says so."""
    if config.denoise:
        backbone = denoised_on_sample(backbone, config.denoise, stimuli, extraction, fitted_on=fitted_on)
    if config.reduce is not None:
        backbone = reduced_on_sample(backbone, config.reduce, stimuli, extraction, progress, fitted_on=fitted_on)
    return backbone


def _waiting(progress: Progress, n_images: int) -> Progress:
    """Returns a callback for work before the first image; counts stay images, so one bar serves the stage."""

    def wait(done: int, total: int) -> None:
        progress(0, n_images)

    return wait


def _precomputed(
    config: PrecomputedConfig, stimuli: Stimuli | None, directory: Path | None, progress: Progress
) -> tuple[ImageTokens, Lens | None]:
    if config.tokens is None or config.token_image_ids is None:
        raise ConfigError('`features.kind` "precomputed" needs `features.tokens` and `features.token_image_ids`.')
    name = None
    if stimuli is not None and stimuli.name is not None:
        # tokens may be there for more images than were shown
        name = functools.partial(stimuli.name, index_base=config.index_base, key="features.index_base", part=False)
    tokens, lens = load_precomputed(
        config.tokens,
        config.token_image_ids,
        mask=config.mask,
        unembedding=config.unembedding,
        unembedding_bias=config.unembedding_bias,
        words=config.words,
        grid=config.grid,
        layer=config.layer,
        name=name,
        progress=progress,
    )
    if directory is not None:
        store.write_reference(directory, tokens, path=Path(config.tokens), rows=tokens.tokens.picked)
    return tokens, lens
