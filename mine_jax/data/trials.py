"""Single trials to one response per image: z-scores within sessions, averages over repeats.

Arrays here are voxels first, [V, T], so that every sum runs along contiguous memory and a
voxel's result is the same however many others are processed with it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

# Responses above this are written to disk and memory-mapped, where a folder is given.
LARGE_BYTES = 256 << 20
# A voxel whose deviation is below this share of its mean does not vary.
_RELATIVE_SD = 1e-6


def zscore(trials: np.ndarray, groups: np.ndarray, *, min_sd: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Centers and scales each voxel within each group of trials.

    Args:
        trials: [V, T] float64.
        groups: [T] int, session (or run) of each trial, in any order.
        min_sd: a deviation up to this counts as none.

    Returns:
        Pair of z-scores [V, T] float64 (population deviation; 0 where a voxel does not vary) and
        is_flat [V, G] bool, groups ascending. Voxels with a non-finite trial become NaN there.
    """
    names = np.unique(groups)
    scores = np.empty(trials.shape)
    is_flat = np.zeros((len(trials), len(names)), bool)
    for column, name in enumerate(names):
        where = np.flatnonzero(groups == name)
        values = np.ascontiguousarray(trials[:, where])
        with np.errstate(invalid="ignore", over="ignore"):
            mean = values.mean(-1, keepdims=True)
            centered = values - mean
            sd = np.sqrt((centered**2).mean(-1, keepdims=True))
        flat = sd <= np.maximum(min_sd, _RELATIVE_SD * np.abs(mean))
        is_flat[:, column] = flat[:, 0]
        with np.errstate(invalid="ignore"):
            scores[:, where] = np.where(flat, 0.0, centered / np.where(flat, 1.0, sd))
    return scores, is_flat


def average_repeats(trials: np.ndarray, image_index: np.ndarray) -> np.ndarray:
    """Averages the trials of each image.

    Args:
        trials: [V, T] float64.
        image_index: [T] int, image 0..N-1 of each trial; every image at least once.

    Returns:
        np.ndarray: float64 [V, N].
    """
    counts = np.bincount(image_index)
    order = np.argsort(image_index, kind="stable")
    starts = np.cumsum(counts) - counts
    means = np.empty((len(trials), len(counts)))
    for repeats in np.unique(counts):
        images = np.flatnonzero(counts == repeats)
        chosen = np.ascontiguousarray(trials[:, order[starts[images][:, None] + np.arange(repeats)]])
        with np.errstate(invalid="ignore", over="ignore"):
            means[:, images] = chosen.mean(-1)
    return means


def outlying(values: np.ndarray, *, limit: float = 5.0) -> np.ndarray:
    """Returns positions of values further than `limit` median absolute deviations from the median."""
    deviation = np.abs(values - np.median(values))
    # Where most values agree closely, a small difference would be very many deviations.
    spread = max(float(np.median(deviation)), 0.05 * abs(float(np.median(values))), 1e-12)
    return np.flatnonzero(deviation > limit * spread)


def allocate(shape: tuple[int, int], directory: Path | None) -> np.ndarray:
    """Makes room for responses [N, V] float32, on disk where they are large and a folder is given."""
    if directory is None or shape[0] * shape[1] * 4 <= LARGE_BYTES:
        return np.empty(shape, np.float32)
    directory.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(directory / ".responses.partial.npy", mode="w+", dtype=np.float32, shape=shape)


def finished(responses: np.ndarray) -> np.ndarray:
    """Gives responses on disk their final name, `responses.npy`, and opens them read-only."""
    if not isinstance(responses, np.memmap):
        return responses
    responses.flush()
    partial = Path(str(responses.filename))
    return np.load(partial.replace(partial.with_name("responses.npy")), mmap_mode="r")
