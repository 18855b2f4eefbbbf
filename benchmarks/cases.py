"""Sizes of the benchmarks, from a laptop check to a whole brain."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """Sizes of one case.

    Attributes:
        voxels: V.
        images: N.
        tokens: P.
        width: E, attention width; also the number of ridge features.
        heads: H.
        batch: images of one training step.
        ig_voxels: voxels attributed.
        ig_images: images attributed for each of them.
        penalties: ridge grid.
        folds: of the cross-validation.
    """

    voxels: int
    images: int
    tokens: int
    width: int
    heads: int
    batch: int
    ig_voxels: int
    ig_images: int
    penalties: int = 20
    folds: int = 5


CASES = {
    "smoke": Case(200, 600, 36, 32, 2, 4, 16, 2),
    # the sizes for which performance goals on two CPU cores are stated
    "cpu": Case(8_000, 5_000, 196, 512, 8, 32, 256, 8),
    "roi": Case(1_000, 5_000, 196, 512, 8, 32, 256, 8),
    "subject": Case(15_000, 10_000, 256, 512, 8, 32, 15_000, 100),
    "whole_brain": Case(300_000, 10_000, 256, 512, 8, 32, 15_000, 100),
}
