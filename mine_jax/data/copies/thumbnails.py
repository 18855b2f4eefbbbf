"""Small versions of photos, kept while the photos are read for something else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from mine_jax.types import Stimuli

SIDE = 64


class Thumbnails:
    """Reads photos as their stimuli do, and keeps a thumbnail of each.

    Attributes:
        kept: id -> uint8 [SIDE, SIDE, 3].
    """

    def __init__(self, stimuli: Stimuli) -> None:
        self.kept: dict[str, np.ndarray] = {}
        self._stimuli = stimuli

    def read(self, image_ids: Sequence[str]) -> list[np.ndarray]:
        """Reads photos by id as uint8 [height, width, 3]."""
        photos = self._stimuli.read(image_ids)
        for image_id, photo in zip(image_ids, photos, strict=True):
            if image_id not in self.kept:
                small = Image.fromarray(photo).resize((SIDE, SIDE), Image.Resampling.BOX)
                self.kept[str(image_id)] = np.asarray(small)
        return photos
