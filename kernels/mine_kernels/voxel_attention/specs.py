"""Named shapes, used by the tests and by the benchmarks alike, and the sizes of tiles."""

from __future__ import annotations

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Tile:
    """What is held at once: all heads and tokens of some voxels and images.

    Attributes:
        voxels: of one chunk.
        images: of one block.
    """

    voxels: int
    images: int


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Sizes of the blocks of the Pallas kernels, powers of two.

    Attributes:
        voxels: of one program.
        tokens: read at once.
    """

    voxels: int = 64
    tokens: int = 64


BLOCKS = Blocks()


# Logits of one tile: four tensors of so many floats stay in the shared cache of the CPUs measured.
# For the case "roi" that is two images and 128 voxels, the fastest of the tiles tried on one CPU.
TILE_LOGITS = 13 << 15
_TILE_IMAGES = 2
_MIN_VOXELS = 16


def default_tile(n_voxels: int, batch: int, n_tokens: int, n_heads: int, *, chunk: int | None = None) -> Tile:
    """Chooses a tile whose logits fit the cache, in equal parts.

    Args:
        n_voxels: V.
        batch: B.
        n_tokens: P.
        n_heads: H.
        chunk: most voxels of a tile; None for no limit.

    Returns:
        The tile; at least one image and one voxel.
    """
    per_pair = n_tokens * n_heads
    images = max(1, min(batch, _TILE_IMAGES, TILE_LOGITS // (per_pair * _MIN_VOXELS)))
    wanted = max(_MIN_VOXELS, TILE_LOGITS // (per_pair * images) // _MIN_VOXELS * _MIN_VOXELS)
    wanted = min(wanted, chunk or wanted)
    n_chunks, n_blocks = -(-n_voxels // wanted), -(-batch // images)
    voxels = -(-n_voxels // n_chunks)
    if voxels > _MIN_VOXELS:
        # columns in whole vector registers: matrix products of odd sizes are slower
        voxels = min(n_voxels, -(-voxels // _MIN_VOXELS) * _MIN_VOXELS)
    return Tile(voxels=min(voxels, wanted), images=-(-batch // n_blocks))
