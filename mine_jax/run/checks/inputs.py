"""Opens every input of every stage, for `mine-jax check`; nothing is fitted or encoded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mine_jax import attribution, data, encoder, features, phantom
from mine_jax._progress import Progress, silent
from mine_jax.config import Config, PhantomConfig, PrecomputedConfig, judging_features
from mine_jax.errors import MineError
from mine_jax.run.execute import inputs_of
from mine_jax.run.graph import STEPS
from mine_jax.run.record import frozen
from mine_jax.run.stages import validation
from mine_jax.types import Responses, Stimuli
from mine_jax.validation.makers import models

logger = logging.getLogger("mine_jax")


def check(
    config: Config, *, source: Path | None = None, freeze: bool = False, progress: Progress = silent
) -> list[str]:
    """Checks what all stages will read: data, features and words, models of the validation.

    Args:
        config: the configuration.
        source: its file: inputs must be those of the list beside it, where there is one.
        freeze: whether to write that list instead, once all is well.
        progress: called while images and tokens are read.

    Returns:
        Findings, one sentence each.

    Raises:
        MineError: the named error of what cannot be used; of several, the first, with the texts of all. What was found
            elsewhere is logged.
    """
    if source is not None and not freeze:
        frozen.verify(source, inputs_of(config, STEPS), progress=progress)
    findings: list[str] = []
    problems: list[MineError] = []
    parts: tuple[Callable[[Config, Progress], list[str]], ...] = (_data, _features, _validation)
    for part in parts:
        try:
            findings += part(config, progress)
        except MineError as error:
            problems.append(error)
    for finding in findings if problems else ():
        logger.info(finding)
    if len(problems) > 1:
        raise type(problems[0])("\n".join(str(problem) for problem in problems)) from problems[0]
    if problems:
        raise problems[0]
    if source is not None and freeze:
        path, n_files = frozen.freeze(source, inputs_of(config, STEPS), progress=progress)
        findings.append(f"{n_files} input files are frozen in {path}")
    return findings


def _data(config: Config, progress: Progress) -> list[str]:
    if _is_unwritten(config):
        return ["data: the phantom is not there yet; the data stage writes it"]

    def compare(responses: Responses, stimuli: Stimuli) -> list[str]:
        return _lags(config, responses, stimuli, progress)

    return data.check(config.data, seed=config.run.seed, compare=compare, progress=progress)


def _lags(config: Config, responses: Responses, stimuli: Stimuli, progress: Progress) -> list[str]:
    """Compares responses with image-tokens, or where they are still to be made with low-level statistics of photos."""
    settings, what = config.features, "mean image-tokens"
    if responses.moved is None:
        return []
    try:
        if isinstance(settings, PrecomputedConfig):
            tokens, _ = features.load_features(settings, stimuli, progress=progress)
        elif config.data.has_photos:
            what = "low-level statistics of the photos"
            some = responses.image_ids[: encoder.MOST_IMAGES]
            tokens = features.low_level_statistics(replace(stimuli, image_ids=some), progress=progress)
            responses = responses.take_images(np.arange(len(some)))
        else:
            return []
        lags = encoder.compare_lags(data.align(responses, tokens, on_missing=config.data.on_missing), progress=progress)
    except MineError:
        return []  # said where images and features are checked
    if lags is None:
        return []
    findings = [f"r of responses with {what}, rows moved by lags: {lags.said}"]
    return findings + ([f"warning: {lags.warning}"] if lags.warning else [])


def _features(config: Config, progress: Progress) -> list[str]:
    settings = config.features
    if isinstance(settings, PrecomputedConfig):
        stimuli = data.open_stimuli(config.data)
        tokens, lens = features.load_features(settings, stimuli, progress=progress)
        # the join reads ids alone
        shown = Responses.from_array(np.zeros((len(stimuli.image_ids), 0), np.float32), image_ids=stimuli.image_ids)
        without_values = replace(tokens, tokens=np.zeros((len(tokens.image_ids), 0, 0), np.float32), mask=None)
        data.align(shown, without_values, on_missing=config.data.on_missing)
        n_images, n_tokens, width = tokens.tokens.shape
        words = "no words" if lens is None else f"{len(lens.words)} words"
        findings = [f"precomputed features: {n_images} images x {n_tokens} tokens x {width}, {words}"]
    else:
        backbone = features.load_backbone(settings, precision=config.run.precision, mesh=config.run.mesh)
        for layer in (settings.layer, *settings.more_layers):
            features.resolve_layer(layer, backbone.layers)
        n_tokens = backbone.grid[0] * backbone.grid[1]
        findings = [f"{backbone.name}: {backbone.layers} layers, {n_tokens} tokens x {backbone.width}"]
        if settings.words is not None:
            findings.append(f"{len(features.read_words(settings.words))} words in {settings.words}")
        # a language model reads words with its head, whose size makes it no matter of a check
        templates = getattr(settings, "templates", None)
        why = None if templates is None else features.why_no_lens(backbone, settings.words, templates)
        if why is not None:
            findings.append(f"warning: no lens, so later stages find no words: {why}")
    attribution.n_critical(config.attribution.k, n_tokens)
    warning = attribution.warning_of_many(config.attribution.k, n_tokens)
    return [*findings, f"warning: {warning}"] if warning else findings


def _validation(config: Config, progress: Progress) -> list[str]:
    del progress
    validation.check(config, Path())
    chosen = models.choose(config.validation)
    findings = [f"{role}: {model.name}" for role, model in (chosen or {}).items()]
    if chosen and isinstance(config.features, PrecomputedConfig):
        findings.append(f"warning: not used: {validation.PRECOMPUTED}")
    judging = judging_features(config.validation.evaluator)
    if judging is not None:
        findings.append(f"evaluator: {features.load_backbone(judging).name}")
    return findings


def _is_unwritten(config: Config) -> bool:
    source = config.data
    if not isinstance(source, PhantomConfig):
        return False
    return source.root is None or not phantom.is_phantom(source.root)
