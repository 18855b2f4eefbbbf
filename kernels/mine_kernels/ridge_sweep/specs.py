"""Named shapes, used by the tests and by the benchmarks alike; block sizes of the kernel."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple


class Spec(NamedTuple):
    """Sizes of one case: V voxels, K folds, R rows of the factor, F features, C candidates."""

    voxels: int
    folds: int
    rows: int
    features: int
    candidates: int


SPECS = {
    "smoke": Spec(40, 3, 24, 24, 3),
    "one": Spec(1, 1, 1, 1, 1),
    "wide": Spec(17, 2, 9, 33, 2),
    "roi": Spec(1_000, 5, 512, 512, 3),
    "subject": Spec(15_000, 5, 512, 512, 3),
    "whole_brain": Spec(300_000, 5, 512, 512, 3),
}


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Tile sizes of the kernel, powers of two of at least 16.

    Attributes:
        features: rows and columns of a tile of the factor.
        voxels: columns of a tile of the cross-products.
    """

    features: int = 64
    voxels: int = 64
