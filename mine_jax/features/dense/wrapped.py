"""A backbone around a backbone, whose tokens are changed on the fly, and the images that fit the change."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.features.backbone import Backbone
from mine_jax.features.extract import check_ids
from mine_jax.features.lens import spaced_rows
from mine_jax.types import Lens, Stimuli

# Images on which a change is fitted; a few hundred tokens each.
SAMPLE_IMAGES = 512


@dataclass(frozen=True, eq=False, repr=False)
class WrappedBackbone:
    """What is the model's own whatever is done to its tokens; see `backbone.Backbone`.

    Attributes:
        backbone: the model itself.
    """

    backbone: Backbone

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.backbone.name

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return self.backbone.layers

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image-tokens."""
        return self.backbone.grid

    @property
    def width(self) -> int:
        """Width D of an image-token."""
        return self.backbone.width

    @property
    def precision(self) -> str:
        """Precision of matrix products."""
        return self.backbone.precision

    @property
    def processor(self) -> dict[str, Any]:
        """The preprocessing, as plain values."""
        return self.backbone.processor

    def preprocess(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns pixels [B, rows, columns, 3] float32 of uint8 [height, width, 3] images."""
        return self.backbone.preprocess(images)

    def lens_defaults(self) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
        """Returns the model's own words and templates."""
        return self.backbone.lens_defaults()

    def lens(self, words: Sequence[str] | np.ndarray, templates: Sequence[str], *, progress: Progress = silent) -> Lens:
        """Builds the lens over W words."""
        return self.backbone.lens(words, templates, progress=progress)


def sampled(stimuli: Stimuli, fitted_on: np.ndarray | None) -> Stimuli:
    """Takes evenly spaced images for a fit.

    Args:
        stimuli: N images.
        fitted_on: [F] str ids of images that may take part, those of training; None for all.

    Returns:
        At most `SAMPLE_IMAGES` of them, in the order of `stimuli`.

    Raises:
        AlignmentError: if an image id occurs twice.
        DataError: if no image may take part.
    """
    image_ids = np.asarray(stimuli.image_ids, dtype=str)
    check_ids(image_ids)
    rows = spaced_rows(image_ids, fitted_on, SAMPLE_IMAGES)
    return dataclasses.replace(
        stimuli, image_ids=stimuli.image_ids[rows], hashes=stimuli.hashes[rows], shared=stimuli.shared[rows]
    )
