"""The features stage: a configuration and images -> image-tokens and the lens that reads them."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mine_jax import artifacts
from mine_jax._progress import Progress, silent
from mine_jax.config import ClipConfig, FeaturesConfig, ModelConfig, PrecomputedConfig, SiglipConfig
from mine_jax.errors import ConfigError, WeightsError
from mine_jax.features import reduce, store
from mine_jax.features.backbone import Backbone, load_backbone, resolve_layer
from mine_jax.features.extract import batch_starts, check_ids, encoded, extract_into, fill_stores, layer_name
from mine_jax.features.lens import center_lens, read_words
from mine_jax.features.precomputed import load_precomputed
from mine_jax.features.words import visual_words
from mine_jax.types import ImageTokens, Lens, Stimuli

_log = logging.getLogger("mine_jax")

# Images on which a reduction is fitted; a few hundred tokens each.
REDUCE_IMAGES = 512


def load_features(
    config: FeaturesConfig,
    stimuli: Stimuli | None,
    *,
    directory: str | Path | None = None,
    progress: Progress = silent,
    precision: str = "highest",
    mesh: Mapping[str, int] | None = None,
) -> tuple[ImageTokens, Lens | None]:
    """Runs the features stage: image-tokens and the lens that reads them.

    Args:
        config: the `[features]` section.
        stimuli: the N images; not needed for precomputed tokens.
        directory: the token store, `DIR/features` of a run; the lens goes to `lens` in it.
            None keeps everything in memory.
        progress: called with (images done, N).
        precision: of matrix products on accelerators.
        mesh: `run.mesh`, see `load_backbone`.

    Returns:
        Tokens [N, P, D], and the lens over W words; None if there is no word list. The lens of a
        CLIP-type model is centered on these tokens. Further layers go to `layer-NN` in `directory`.

    Raises:
        ConfigError: if a key that the kind needs is missing.
        MineError: what `extract` and `load_precomputed` raise.
    """
    directory = None if directory is None else Path(directory)
    if isinstance(config, PrecomputedConfig):
        tokens, lens = _precomputed(config, directory, progress)
    else:
        if stimuli is None:
            raise ConfigError(
                f"`features.kind` {config.kind!r} needs images. Set `data.images`, or give precomputed tokens."
            )
        tokens, lens = _computed(
            config, stimuli, directory, progress, load_backbone(config, precision=precision, mesh=mesh)
        )
    if directory is not None:
        shutil.rmtree(directory / "lens", ignore_errors=True)
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
    directory = Path(directory)
    n_images = len(stimuli.image_ids)
    backbone, main, more = _reduced(config, stimuli, directory, lambda done, total: progress(0, n_images), backbone)
    places = {main: directory} | {n: directory / layer_name(n) for n in more}
    return fill_stores(backbone, stimuli, places, config.dtype, config.batch_size, progress, part)


def _computed(
    config: ModelConfig, stimuli: Stimuli, directory: Path | None, progress: Progress, backbone: Backbone
) -> tuple[ImageTokens, Lens | None]:
    """Returns tokens of the main layer and the lens; writes the stores of all layers."""
    n_images = len(stimuli.image_ids)

    # counts stay images, so that one bar serves the whole stage
    def wait(done: int, total: int) -> None:
        progress(0, n_images)

    backbone, main, more = _reduced(config, stimuli, directory, wait, backbone)
    lens = _lens(config, backbone, wait)
    places = {main: directory} | {n: directory / layer_name(n) for n in more if directory is not None}
    tokens = extract_into(backbone, stimuli, places, config.dtype, config.batch_size, progress)[main]
    if lens is not None and lens.normalize:
        lens = center_lens(lens, tokens, progress=lambda done, total: progress(n_images, n_images))
    return tokens, lens


def _reduced(
    config: ModelConfig, stimuli: Stimuli, directory: Path | None, wait: Progress, backbone: Backbone
) -> tuple[Backbone, int, list[int]]:
    """Returns the backbone with its reduction, the main layer and the further ones."""
    main = resolve_layer(config.layer, backbone.layers)
    more = sorted({resolve_layer(layer, backbone.layers) for layer in config.more_layers} - {main})
    if more and directory is None:
        raise ConfigError("`features.more_layers` needs a folder to write to.")
    if config.reduce is not None:
        sample = _sample(stimuli)
        batches = encoded(
            backbone, sample, *batch_starts(sample, config.batch_size), (main, *more), np.dtype(np.float32)
        )
        backbone = reduce.reduced(
            backbone, config.reduce, main=main, more=more, batches=batches, directory=directory, progress=wait
        )
    return backbone, main, more


def _lens(config: ModelConfig, backbone: Backbone, progress: Progress) -> Lens | None:
    """Builds the lens over the words asked for, the checkpoint's, or ours."""
    own_words, own_templates = backbone.lens_defaults()
    words = own_words if config.words is None else read_words(config.words)
    templates = own_templates or (config.templates if isinstance(config, ClipConfig | SiglipConfig) else ())
    if words is not None:
        return backbone.lens(words, templates, progress=progress)
    try:
        return backbone.lens(visual_words(), templates, progress=progress)
    except (ConfigError, WeightsError) as error:
        # nobody asked for words of this model, which may have no text tower or tokenizer
        _log.warning("no lens, so later stages find no words: %s", error)
        return None


def _sample(stimuli: Stimuli) -> Stimuli:
    """Returns evenly spaced images for the fit of a reduction."""
    n_images = len(stimuli.image_ids)
    check_ids(np.asarray(stimuli.image_ids, dtype=str))
    rows = np.unique(np.linspace(0, n_images - 1, min(n_images, REDUCE_IMAGES)).round().astype(np.int64))
    return dataclasses.replace(
        stimuli, image_ids=stimuli.image_ids[rows], hashes=stimuli.hashes[rows], shared=stimuli.shared[rows]
    )


def _precomputed(
    config: PrecomputedConfig, directory: Path | None, progress: Progress
) -> tuple[ImageTokens, Lens | None]:
    if config.tokens is None or config.token_image_ids is None:
        raise ConfigError('`features.kind` "precomputed" needs `features.tokens` and `features.token_image_ids`.')
    tokens, lens = load_precomputed(
        config.tokens,
        config.token_image_ids,
        mask=config.mask,
        unembedding=config.unembedding,
        unembedding_bias=config.unembedding_bias,
        words=config.words,
        grid=config.grid,
        layer=config.layer,
        progress=progress,
    )
    if directory is not None:
        store.write_reference(directory, tokens, path=Path(config.tokens), rows=tokens.tokens.rows)
    return tokens, lens
