"""Reads what the stage needs from a run directory: encoders, words, photos, model, truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mine_jax import artifacts, data, features
from mine_jax.config import Config, DataConfig, FolderConfig, ModelConfig, PrecomputedConfig
from mine_jax.features import Backbone
from mine_jax.types import Descriptions, Encoders, ImageTokens, Lens, Profiles, Scores, Split, Stimuli
from mine_jax.validation import simulated
from mine_jax.validation.simulated import Truth

# The independent evaluator is scored on at most this many images.
MAX_SCORED = 1000
_SCORED = ("voxel_ids", "r2", "r", "r2_normalized", "noise_ceiling", "status")


@dataclass(frozen=True)
class Inputs:
    """What earlier stages left; all per-voxel parts are of the V profiled voxels, in one order.

    Attributes:
        encoders: the describing encoders.
        scores: their accuracy.
        descriptions: of V x I pairs.
        profiles: of the voxels.
        areas: [V] str.
        heat: [V, I, P] integrated gradients, in the order of the descriptions; memory-mapped.
        tokens: all image-tokens [N, P, D].
        lens: W words.
        backbone: the frozen model.
        stimuli: the photos.
        unseen: tokens and responses of the test images.
        seen: the same of (at most 1000) training images.
        corpus: [C] mean share of each word.
        image_words: [T, C] shares of words in the test images.
        image_ids: [T] str, their ids.
        settings: how the image-tokens were computed.
        truth: of a phantom, else None.
    """

    encoders: Encoders
    scores: Scores
    descriptions: Descriptions
    profiles: Profiles
    areas: np.ndarray
    heat: np.ndarray
    tokens: ImageTokens
    lens: Lens
    backbone: Backbone
    stimuli: Stimuli
    unseen: Split
    seen: Split
    corpus: np.ndarray
    image_words: np.ndarray
    image_ids: np.ndarray
    settings: ModelConfig
    truth: Truth | None


def read_inputs(config: Config, directory: Path, *, source: DataConfig | None = None) -> Inputs | str:
    """Reads a run directory up to the profile stage.

    Args:
        config: of the run.
        directory: of the run.
        source: the data configuration with the phantom's folder filled in; None for `config.data`.

    Returns:
        The inputs, or why there is nothing to validate.
    """
    source = source or config.data
    if isinstance(config.features, PrecomputedConfig):
        return "precomputed features: no model here can read new images"
    for stage, file in (("description", "corpus.npy"), ("profile", "meta.json")):
        if not (directory / stage / file).exists():
            reason = directory / stage / "none.json"
            return artifacts.read_json(reason)["reason"] if reason.exists() else f"no {stage}s"
    heat_file = directory / "attribution" / "heat.npy"
    if not heat_file.exists():
        return "the scores of all tokens were not kept; set attribution.keep_scores = true"
    descriptions, profiles = artifacts.load(directory / "description"), artifacts.load(directory / "profile")
    responses = artifacts.load(directory / "data", verify=False)
    tokens = features.open_store(directory / "features", verify=False)
    rows = np.searchsorted(responses.voxel_ids, profiles.voxel_ids)
    aligned = data.align(responses, tokens, on_missing=config.data.on_missing)
    images = artifacts.read_table(directory / "images.tsv")
    split_of = dict(zip(images["image_id"], images["split"], strict=True))
    split = np.array([split_of[image_id] for image_id in aligned.responses.image_ids])
    scores = artifacts.load(directory / "scores")
    n_voxels, n_images = descriptions.image_ids.shape
    heat = artifacts.read_array(heat_file, mmap=True)
    return Inputs(
        encoders=artifacts.load(directory / "encoder").take(rows),
        scores=replace(scores, **{name: getattr(scores, name)[rows] for name in _SCORED}),
        descriptions=descriptions,
        profiles=profiles,
        areas=responses.rois[rows],
        heat=heat.reshape(n_voxels, n_images, -1),
        tokens=tokens,
        lens=artifacts.load(directory / "features" / "lens"),
        backbone=features.reduce_like(
            features.load_backbone(config.features, precision=config.run.precision, mesh=config.run.mesh),
            directory / "features",
            layer=config.features.layer,
        ),
        stimuli=data.open_stimuli(source),
        unseen=_part(aligned, np.flatnonzero(split == "test"), rows, "test"),
        seen=_part(aligned, _spaced(np.flatnonzero(split == "train"), MAX_SCORED), rows, "train"),
        corpus=artifacts.read_array(directory / "description" / "corpus.npy"),
        image_words=artifacts.read_array(directory / "description" / "test_words.npy"),
        image_ids=np.array(artifacts.read_json(directory / "description" / "test_images.json"), dtype=str),
        settings=config.features,
        truth=_truth(source),
    )


def _part(aligned: Split, images: np.ndarray, voxels: np.ndarray, name: str) -> Split:
    return Split(aligned.tokens.take_images(images), aligned.responses.take_images(images).take(voxels), name)


def _spaced(rows: np.ndarray, most: int) -> np.ndarray:
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _truth(source: DataConfig) -> Truth | None:
    """The planted truth, where the data set has one beside it."""
    root = None if isinstance(source, FolderConfig) else source.root
    if root is None or not (Path(root) / "phantom_scenes.jsonl").is_file():
        return None
    return simulated.read_truth(root, subject=source.subject)
