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
    """Tile sizes of the kernel, powers of two of at least 16; on TPUs 128 voxels or a multiple.

    Attributes:
        features: rows and columns of a tile of the factor.
        voxels: columns of a tile of the cross-products.
    """

    features: int = 64
    voxels: int = 128

    @property
    def shared_bytes(self) -> int:
        """Operands of the products of one program on a GPU, in float32."""
        return 4 * self.features * (self.features + 2 * self.voxels)

    def vector_bytes(self, rows: int, features: int) -> int:
        """Arrays of one fold in the memory of a TPU core, twice, as the next ones are read ahead; lanes are 128."""
        return 2 * 4 * features * (rows + 2 * self.voxels + 128)
