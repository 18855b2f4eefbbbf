"""Named shapes, used by the tests and by the benchmarks alike."""

from __future__ import annotations

from typing import NamedTuple


class Spec(NamedTuple):
    """Sizes of one case: V voxels, N images, P tokens, H heads, S steps."""

    voxels: int
    images: int
    tokens: int
    heads: int
    steps: int


SPECS = {
    "smoke": Spec(5, 2, 9, 2, 16),
    "one": Spec(1, 1, 1, 1, 1),
    "roi": Spec(256, 8, 196, 8, 32),
    "subject": Spec(15_000, 10_000, 256, 8, 8),
    "whole_brain": Spec(300_000, 10_000, 256, 8, 8),
}
