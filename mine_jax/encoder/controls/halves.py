"""Two disjoint halves of the training images: what is found in both does not come from the noise of one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax.types import Split


class Half(NamedTuple):
    """Half of the training images and half of the validation images."""

    training: Split
    validation: Split


def halves(training: Split, validation: Split, *, seed: int = 0) -> tuple[Half, Half]:
    """Divides the images of both splits at random.

    Args:
        training: tokens and responses of the training images.
        validation: of the validation images.
        seed: of the division, which is the same for all voxels.

    Returns:
        Two halves without a common image; what is in files stays there.
    """
    parts = [_divided(split, [seed, *split.name.encode()]) for split in (training, validation)]
    return Half(parts[0][0], parts[1][0]), Half(parts[0][1], parts[1][1])


def _divided(split: Split, seed: list[int]) -> tuple[Split, Split]:
    n_images = len(split.responses.image_ids)
    is_first = np.random.default_rng(seed).permutation(n_images) < n_images // 2
    first, second = (
        Split(split.tokens.take_images(rows), split.responses.take_images(rows), split.name)
        for rows in (np.flatnonzero(is_first), np.flatnonzero(~is_first))
    )
    return first, second
