"""Named shapes, used by the tests and by the benchmarks alike."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How much is worked on at a time. Speed only, never the result.

    Attributes:
        cpu: numbers of one array in a block of `xla` on CPUs; ten arrays of 64 KiB fit a second-level cache.
        gpu: numbers of one array of a program of the GPU kernel, a power of two; six such arrays stay in registers.
        warps: of one program, which does all heads of one pair.
    """

    cpu: int = 16_384
    gpu: int = 4_096
    warps: int = 8

    def heads(self, n_tokens: int) -> int:
        """Returns how many heads of so many tokens a program of the GPU kernel does at once."""
        return max(1, self.gpu // n_tokens)


BLOCKS = Blocks()


class Spec(NamedTuple):
    """Sizes of one case: V voxels, N images, P tokens, H heads, S steps."""

    voxels: int
    images: int
    tokens: int
    heads: int
    steps: int


class TopTokens(NamedTuple):
    """The K best tokens of each pair.

    Attributes:
        indices: [..., K] int32, best first.
        scores: [..., K].
        total: [...], the sum of all P scores.
    """

    indices: jax.Array
    scores: jax.Array
    total: jax.Array


SPECS = {
    "smoke": Spec(5, 2, 9, 2, 16),
    "one": Spec(1, 1, 1, 1, 1),
    "roi": Spec(256, 8, 196, 8, 32),
    "subject": Spec(15_000, 10_000, 256, 8, 8),
    "whole_brain": Spec(300_000, 10_000, 256, 8, 8),
}
