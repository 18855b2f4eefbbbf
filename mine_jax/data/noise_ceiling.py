"""Noise ceiling of a voxel from the repeats of images: trials enter, a share of variance leaves.

Source: NSD data manual and Allen et al. 2022, "Noise ceiling" (noise is what differs between
repeats of one image; trials are z-scored, so signal and noise variance add up to 1).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mine_jax.errors import DataError
from mine_jax.types import Responses


def ncsnr(trials: np.ndarray, image_index: np.ndarray) -> np.ndarray:
    """Estimates the noise-ceiling signal-to-noise ratio from repeated images.

    sigma_n = sqrt(mean over images of the n-1 variance over repeats),
    ncsnr = sqrt(max(0, 1 - sigma_n^2)) / sigma_n.

    Trials must have unit variance over all images, repeated or not, since the signal is what the noise
    leaves of 1. What z-scoring within sessions takes from an image in one session and not in another
    differs between its repeats, and so counts as the noise that it is.

    Args:
        trials: [T, V], betas z-scored within session.
        image_index: [T] int >= 0, image shown in each trial.

    Returns:
        np.ndarray: float64 [V]; NaN where no image was repeated or a trial is not finite.

    Source: NSD, export_noiseceiling.m.
    """
    # Voxels first: each sum runs along contiguous memory, so it is the same however many voxels come along.
    trials = np.ascontiguousarray(np.asarray(trials, np.float64).T)
    order = np.argsort(image_index, kind="stable")
    counts = np.bincount(image_index)
    starts = np.cumsum(counts) - counts
    wanted = np.flatnonzero(counts >= 2)
    if not len(wanted):
        return np.full(len(trials), np.nan)
    total = np.zeros(len(trials))
    for repeats in np.unique(counts[wanted]):
        first = starts[wanted[counts[wanted] == repeats]]
        repeated = np.ascontiguousarray(trials[:, order[first[:, None] + np.arange(repeats)]])
        total += repeated.var(-1, ddof=1).sum(-1)
    return from_noise_variance(total / len(wanted))


def from_noise_variance(variance: np.ndarray) -> np.ndarray:
    """Returns the ncsnr [V] of z-scored trials whose noise variance [V] is known."""
    variance = np.asarray(variance, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(np.maximum(1 - variance, 0)) / np.sqrt(variance)


def noise_ceiling(ncsnr: np.ndarray, n_repeats: int | np.ndarray) -> np.ndarray:
    """Computes the share of variance that a perfect model could explain.

    ncsnr^2 / (ncsnr^2 + mean of 1/n), which for equal n is ncsnr^2 / (ncsnr^2 + 1/n).

    Args:
        ncsnr: [V], NaN where unknown.
        n_repeats: repeats averaged in each scored row, one number or [N] int.

    Returns:
        np.ndarray: float64 [V], fraction of variance 0..1; NaN where ncsnr is.

    Raises:
        DataError: if a number of repeats is below 1, or ncsnr is negative.

    Source: NSD data manual; mixed repeats as in NSD's translatevmetric.m.
    """
    ncsnr = np.asarray(ncsnr, np.float64)
    repeats = np.atleast_1d(np.asarray(n_repeats))
    if not repeats.size or repeats.min() < 1:
        raise DataError(f"`n_repeats` must be numbers >= 1, but is {n_repeats!r}. Drop images without a trial first.")
    if np.any(ncsnr < 0):
        worst = int(np.nanargmin(ncsnr))
        raise DataError(
            f"`ncsnr` must not be negative, but is {ncsnr[worst]:g} at position {worst}. Is the file damaged?"
        )
    with np.errstate(invalid="ignore"):
        squared = ncsnr**2
        ceiling = squared / (squared + np.mean(1 / repeats))
    return np.where(np.isinf(ncsnr), 1.0, ceiling)


def with_noise_ceiling(responses: Responses, rows: np.ndarray) -> Responses:
    """Computes the noise ceiling of some rows from their own numbers of repeats.

    Args:
        responses: N images, V voxels with their ncsnr [V].
        rows: positions or mask [N] of the images that will be scored.

    Returns:
        Responses: the same with that `noise_ceiling` [V], fraction of variance; one that was given for
        a voxel without an ncsnr stays.
    """
    ceiling = noise_ceiling(responses.ncsnr, responses.n_repeats[rows])
    return replace(responses, noise_ceiling=np.where(np.isfinite(ceiling), ceiling, responses.noise_ceiling))
