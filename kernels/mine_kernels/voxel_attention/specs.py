"""Named shapes, used by the tests and by the benchmarks alike."""

from __future__ import annotations

from typing import NamedTuple


class Spec(NamedTuple):
    """Sizes of one case: V voxels, B images, P tokens, H heads, G key heads, E head width."""

    voxels: int
    batch: int
    tokens: int
    heads: int
    key_heads: int
    width: int


SPECS = {
    "smoke": Spec(7, 3, 10, 2, 2, 8),
    "smoke_shared_keys": Spec(13, 2, 9, 3, 1, 4),
    "one": Spec(1, 1, 1, 1, 1, 1),
    "roi": Spec(1_000, 8, 196, 8, 8, 64),
    "subject": Spec(15_000, 32, 256, 8, 8, 64),
    "whole_brain": Spec(300_000, 32, 256, 8, 8, 64),
}
