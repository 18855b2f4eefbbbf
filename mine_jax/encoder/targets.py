"""What encoders are fitted to: responses of the voxels that can be fitted, standardised as they are read.

Responses are read twice from where they are: once for mean and spread, once for the fit. No copy
of all of them is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mine_jax.encoder.ridge.reading import READ_BYTES
from mine_jax.memory.rows import is_in_memory, read_columns, release

# Rows and columns that are surveyed at once. Fixed, so that sums do not depend on what is fitted beside.
_ROWS, COLUMNS = 64, 1 << 16
# First column, and columns that were read ahead.
_NOTHING = (0, np.empty((0, 0), np.float32))


class FittedVoxels(NamedTuple):
    """What a kind's fit gives for standardised responses.

    Attributes:
        shared: arrays without a voxel axis.
        per_voxel: arrays [V, ...].
        diverged: [V] bool.
        selection_r2: [V] float32, on the images that chose epoch or penalty.
    """

    shared: dict[str, Any]
    per_voxel: dict[str, Any]
    diverged: np.ndarray
    selection_r2: np.ndarray


class Survey(NamedTuple):
    """What the responses to the training images are like, voxel by voxel.

    Attributes:
        mean: [V] float64, of the finite ones.
        spread: [V] float64, their standard deviation.
        is_complete: [V] bool, whether enough of them are there, and of the validation images.
    """

    mean: np.ndarray
    spread: np.ndarray
    is_complete: np.ndarray


def survey(training: Any, validation: Any, *, masked: bool) -> Survey:
    """Reads all responses once, block by block.

    Args:
        training: [N, V] responses to the training images, in memory or not.
        validation: [n, V].
        masked: whether missing responses are allowed, up to half of them; else none is.

    Returns:
        The survey.
    """
    n_voxels, n_images = training.shape[1], len(training) + len(validation)
    count, mean, square = np.zeros((3, n_voxels))
    for columns, block in _blocks(training):
        present = np.isfinite(block)
        values = np.where(present, block, 0).astype(np.float64)
        n = present.sum(0)
        center = values.sum(0) / np.maximum(n, 1)
        values -= center
        if (n < len(block)).any():
            values *= present
        # sums of two sets of rows joined: Chan, Golub & LeVeque 1983
        before, total = count[columns], np.maximum(count[columns] + n, 1)
        shift = center - mean[columns]
        square[columns] += np.square(values, out=values).sum(0) + shift**2 * before * n / total
        mean[columns] += shift * n / total
        count[columns] += n
    n_present = count.copy()
    for columns, block in _blocks(validation):
        n_present[columns] += np.isfinite(block).sum(0)
    if masked:  # more than half of the images are more than one fold
        is_complete = (n_present > (n_images + 1) // 2) & (count > 1)
    else:
        is_complete = n_present == n_images
    return Survey(mean, np.sqrt(square / np.maximum(count, 1)), is_complete)


class Targets:
    """Standardised responses [N, V] of training and validation images, one below the other.

    Gives arrays in memory for two slices, so `ridge.solve` reads it like a file.

    Attributes:
        shape: N over both, and V.
        voxel_ids: [V].
        mean: [V] float32, of the training images, in the units of the responses.
        spread: [V] float32.
        read_bytes: what should be read at once: nothing more than is asked for from memory.
    """

    def __init__(
        self,
        sources: Sequence[Any],
        columns: np.ndarray,
        *,
        voxel_ids: np.ndarray,
        mean: np.ndarray,
        spread: np.ndarray,
    ) -> None:
        """Chooses voxels.

        Args:
            sources: responses [n, W] of each split, in memory or not.
            columns: [V] ascending columns of the sources.
            voxel_ids: [V].
            mean: [V].
            spread: [V], above 0.
        """
        self._sources, self._columns = tuple(sources), columns
        self._stops = np.cumsum([len(source) for source in sources])
        self._held = _NOTHING
        self.shape = (int(self._stops[-1]), len(columns))
        self.voxel_ids, self.mean, self.spread = voxel_ids, mean.astype(np.float32), spread.astype(np.float32)
        self.dtype = self.mean.dtype
        self.read_bytes = 0 if all(map(is_in_memory, sources)) else READ_BYTES

    def take(self, voxels: np.ndarray) -> Targets:
        """Returns the targets of some voxels, positions [v] in ascending order."""
        chosen = {name: getattr(self, name)[voxels] for name in ("voxel_ids", "mean", "spread")}
        return Targets(self._sources, self._columns[voxels], **chosen)

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        """Reads rows and columns [n, v] float32."""
        rows, voxels = (range(size)[part] for size, part in zip(self.shape, key, strict=True))
        block = np.empty((len(rows), len(voxels)), np.float32)
        columns = self._columns[voxels.start : voxels.stop]
        for source, stop in zip(self._sources, self._stops, strict=True):
            start = stop - len(source)
            first, last = (min(max(row, start), stop) for row in (rows.start, rows.stop))
            if first < last:
                here = slice(first - rows.start, last - rows.start)
                block[here] = _picked(source, slice(first - start, last - start), columns)
                release(source)
        block -= self.mean[None, key[1]]
        block /= self.spread[None, key[1]]
        return block

    def columns(self, voxels: np.ndarray) -> list[np.ndarray]:
        """Reads some voxels of all images; of a file also those that follow, and keeps them for the next call.

        Args:
            voxels: [v] positions in ascending order; the last may repeat.

        Returns:
            Responses [n, v] float32 of each split.
        """
        first, stop = int(voxels[0]), int(voxels[-1]) + 1
        start, slab = self._held
        if not start <= first <= stop <= start + slab.shape[1]:
            self._held, slab = _NOTHING, None  # before the next one is made
            n_chunks = max(1, self.read_bytes // (4 * self.shape[0] * (stop - first)))
            last = min(first + n_chunks * (stop - first), self.shape[1])
            start, slab = first, read_columns(self, slice(first, last))
            self._held = (start, slab) if last > stop else _NOTHING
        chosen = slab[:, first - start : stop - start]
        if len(voxels) > stop - first:
            chosen = chosen[:, voxels - first]
        return np.split(chosen, self._stops[:-1])


def _blocks(responses: Any) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields columns and the responses [n, v] of some images to them, in the order of a file with a row per image."""
    n_images, n_voxels = responses.shape
    for first in range(0, n_images, _ROWS):
        for start in range(0, n_voxels, COLUMNS):
            columns = slice(start, start + COLUMNS)
            yield columns, np.asarray(responses[first : first + _ROWS, columns], np.float32)
            release(responses)


def _picked(source: Any, rows: slice, columns: np.ndarray) -> np.ndarray:
    """Reads columns, ascending, maybe repeated: all from the first to the last where most of them are wanted."""
    first, span = int(columns[0]), int(columns[-1]) + 1 - int(columns[0])
    if span > 2 * len(columns):
        return source[rows, columns]
    block = source[rows, first : first + span]
    return block if (np.diff(columns) == 1).all() else np.take(block, columns - first, axis=1)
