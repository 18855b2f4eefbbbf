"""What patching curves say of voxels: relative performance, and how sure its mean over voxels is.

A voxel's curve is its response after patching as a share of h(x) - h(x'): 1 is the whole
image, 0 the baseline.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mine_jax import statistics
from mine_jax.types import Attributions, Faithfulness

# A voxel is localised where the median image needs at most this share of its tokens to reach the response.
LOCALISED_SHARE = 0.25
# Bootstrap over voxels for the bands of the curves.
N_BOOTSTRAP = 500


class MeanCurve(NamedTuple):
    """Mean over voxels of relative curves [C], its 95 % bootstrap interval, and the voxels in it."""

    kind: str
    order: str
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_voxels: int


def relative_curves(attributions: Attributions, faithfulness: Faithfulness) -> dict[tuple[str, str], np.ndarray]:
    """Computes each voxel's patching curves as shares of h(x) - h(x').

    Args:
        attributions: of V voxels.
        faithfulness: curves [V, I, C] of the same pairs.

    Returns:
        (kind, order) -> [V, C]: 1 is the whole image, 0 the baseline; means over images
        before the ratio, so that images with a small change do not dominate.
    """
    before = attributions.predicted_baseline.mean(1, keepdims=True)
    change = attributions.predicted.mean(1, keepdims=True) - before
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            (kind, order): (curve.mean(1) - before) / change
            for kind in ("necessity", "sufficiency")
            for order, curve in getattr(faithfulness, kind).items()
        }


def mean_curves(attributions: Attributions, faithfulness: Faithfulness, *, seed: int = 0) -> list[MeanCurve]:
    """Averages relative curves over voxels.

    Args:
        attributions: of V voxels.
        faithfulness: curves [V, I, C] of the same pairs.
        seed: of the bootstrap.

    Returns:
        Mean and interval [C] of every kind and order for which any voxel has finite numbers.
    """
    rng = np.random.default_rng(seed)
    means = []
    for (kind, order), curve in relative_curves(attributions, faithfulness).items():
        usable = curve[np.isfinite(curve).all(1)]
        if not len(usable):
            continue
        low, high = statistics.bootstrap_interval(
            lambda draws, usable=usable: usable[draws].mean(1), len(usable), n_bootstrap=N_BOOTSTRAP, rng=rng
        )
        mean = np.array([usable[:, c].mean() for c in range(usable.shape[1])])
        means.append(MeanCurve(kind, order, mean, low, high, len(usable)))
    return means


def left_without(attributions: Attributions, faithfulness: Faithfulness, *, k: int) -> dict[str, np.ndarray]:
    """Computes the share of h(x) - h(x') that is left without k tokens.

    Args:
        attributions: of V voxels.
        faithfulness: curves [V, I, C] of the same pairs; one of their points is `k`.
        k: tokens that are patched.

    Returns:
        Order in which they are patched -> [V].
    """
    at = int(np.flatnonzero(faithfulness.k_values == k)[0])
    relative = relative_curves(attributions, faithfulness)
    return {order: curve[:, at] for (kind, order), curve in relative.items() if kind == "necessity"}


def extent(faithfulness: Faithfulness) -> np.ndarray:
    """Says of each voxel whether a few tokens of an image carry its response, or many.

    Args:
        faithfulness: of V x I pairs, with adaptive K.

    Returns:
        [V] str: "localised" where the median adaptive K is at most a quarter of the tokens, else "distributed";
        "" where no image has one.
    """
    k = np.where(faithfulness.k_adaptive < 0, np.nan, faithfulness.k_adaptive)
    known, median = np.isfinite(k).any(1), np.full(len(k), np.nan)
    median[known] = np.nanmedian(k[known], axis=1)
    few = median <= LOCALISED_SHARE * faithfulness.k_values[-1]
    return np.where(known, np.where(few, "localised", "distributed"), "")


def median_faithfulness(faithfulness: Faithfulness) -> np.ndarray:
    """Returns each voxel's median faithfulness [V] over images, or NaN."""
    with np.errstate(invalid="ignore"):
        return np.array([np.nanmedian(f) if np.isfinite(f).any() else np.nan for f in faithfulness.faithfulness])
