"""What the stage takes (encoders, words, photos, the backbone, the truth of a phantom) and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mine_jax.features import Backbone
from mine_jax.types import Descriptions, Encoders, ImageTokens, Lens, Profiles, Scores, Split, Stimuli
from mine_jax.validation.simulated import Truth


@dataclass(frozen=True)
class Reading:
    """How earlier stages read images and words, so that new images are read alike.

    Attributes:
        layer: of the backbone.
        dtype: of the image-tokens.
        batch_size: images that the backbone reads at once. Memory only.
        m: vocabulary-tokens per image-token.
        k: image-tokens that words are read from.
    """

    layer: int
    dtype: str
    batch_size: int
    m: int
    k: int


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
        reading: how it reads images.
        stimuli: the photos.
        unseen: tokens and responses of the test images.
        seen: the same of (at most 1000) training images.
        corpus: [C] mean share of each word.
        image_words: [T, C] shares of words in the test images.
        image_ids: [T] str, their ids.
        truth: of a phantom, else None.
        other_backbones: name of an evaluator -> the backbone that reads images for it; none of the run's own.
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
    reading: Reading
    stimuli: Stimuli
    unseen: Split
    seen: Split
    corpus: np.ndarray
    image_words: np.ndarray
    image_ids: np.ndarray
    truth: Truth | None
    other_backbones: Mapping[str, Backbone] = field(default_factory=dict)


@dataclass(frozen=True)
class Validation:
    """Results of the stage.

    Attributes:
        tables: "generation", "edits" and "voxels", where they were tested, and "summary"; empty if nothing was.
        meta: settings, models, evaluators and voxels, as JSON types.
        numbers: those that a reader wants first.
        reason: why nothing was tested; "" where something was.
    """

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
