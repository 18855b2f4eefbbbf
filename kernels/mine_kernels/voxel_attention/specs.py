"""Named shapes, used by the tests and by the benchmarks alike, and the sizes of tiles."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from mine_kernels.devices import Device, default_device


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

    def trips(self, n_voxels: int, batch: int) -> int:
        """Returns how many tiles, one after the other, a batch takes."""
        return -(-n_voxels // self.voxels) * -(-batch // self.images)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Sizes of the blocks of the Pallas kernels, powers of two; on GPUs at least 16.

    Attributes:
        rows: voxels (or tokens) of one program at most, whose results it holds in registers.
        step: tokens (or voxels) read at once.
        columns: of queries and keys, read at once.
        held: numbers of the results of one program at most, where that leaves `least` rows.
        least: rows of one program at least.
    """

    rows: int = 64
    step: int = 64
    columns: int = 64
    held: int = 1 << 14
    least: int = 16

    def rows_of(self, columns: int) -> int:
        """Returns the rows of a program whose results have so many columns."""
        rows = self.rows
        while rows > self.least and rows * columns > self.held:
            rows //= 2
        return rows

    def warps(self, columns: int) -> int:
        """Returns the warps of such a program: twice as many where its results need more registers."""
        return 4 if self.rows_of(columns) * columns <= self.held // 2 else 8

    @property
    def shared_bytes(self) -> int:
        """Operands of the products of one program, in float32, if none shares its place with another."""
        return 4 * (2 * (self.rows + self.step) * self.columns + 2 * self.rows * self.step)


BLOCKS = Blocks()


# Logits of one tile on CPUs: four tensors of so many floats stay in the shared cache of those measured.
# For the case "roi" that is two images and 128 voxels, the fastest of the tiles tried on one CPU.
CPU_LOGITS = 13 << 15
_CPU_IMAGES = 2
# Logits of one tile elsewhere at most: products as large as these occupy any accelerator.
MOST_LOGITS = 1 << 26
# Share of a device's memory that a tile may take; whoever calls holds tokens, parameters and their moments.
_SHARE = 1 / 8
# Tensors of a tile's size that a step has, in float32: logits, weights, scalars, their gradients, and room to copy.
_BYTES_PER_LOGIT = 4 * 8
# Queries and readouts of a voxel, and their gradients.
_BYTES_PER_COLUMN = 4 * 4
# Columns of a tile are multiples of it: matrix products of odd sizes are slower.
_CPU_COLUMNS, _COLUMNS = 16, 128


def default_tile(
    n_voxels: int,
    batch: int,
    n_tokens: int,
    n_heads: int,
    width: int,
    *,
    chunk: int | None = None,
    device: Device | None = None,
) -> Tile:
    """Chooses a tile in equal parts: what fits the cache of CPUs, and what fits the memory of other devices.

    Args:
        n_voxels: V.
        batch: B.
        n_tokens: P.
        n_heads: H.
        width: E.
        chunk: most voxels of a tile; None for no limit.
        device: what it is chosen for; None for the default device.

    Returns:
        The tile; at least one image and one voxel.
    """
    device = device or default_device()
    per_pair = n_tokens * n_heads
    if device.platform == "cpu":
        multiple, logits = _CPU_COLUMNS, CPU_LOGITS
        images = max(1, min(batch, _CPU_IMAGES, logits // (per_pair * multiple)))
        wanted = logits // (per_pair * images)
    else:
        # all images of a batch at once where that leaves enough voxels: these are then read once
        multiple, room = _COLUMNS, int(_SHARE * device.memory)
        logits = min(MOST_LOGITS, room // _BYTES_PER_LOGIT)
        images = max(1, min(batch, logits // (per_pair * multiple)))
        each = _BYTES_PER_LOGIT * per_pair * images + _BYTES_PER_COLUMN * n_heads * width
        wanted = min(logits // (per_pair * images), room // each)
    wanted = max(multiple, wanted // multiple * multiple)
    wanted = min(wanted, chunk or wanted)
    n_chunks, n_blocks = -(-n_voxels // wanted), -(-batch // images)
    voxels = -(-n_voxels // n_chunks)
    if voxels > multiple:
        voxels = min(n_voxels, -(-voxels // multiple) * multiple)
    return Tile(voxels=min(voxels, wanted), images=-(-batch // n_blocks))
