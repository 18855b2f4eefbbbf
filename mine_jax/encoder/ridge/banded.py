"""Banded ridge: several feature spaces, each with its own penalty per voxel.

A candidate weights the bands; a band of weight g under penalty alpha is shrunk as if its own
penalty were alpha / g. Each candidate is one ordinary solve, shared by all voxels, and each
voxel keeps its best candidate and penalty.
Source: Nunez-Elizalde, Huth & Gallant 2019; the random search of Dupré la Tour et al. 2022.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mine_jax._progress import Progress, silent
from mine_jax.encoder.ridge.reading import READ_BYTES
from mine_jax.encoder.ridge.solve import Selection, solve_blocks
from mine_jax.memory.rows import release


class BandedSolution(NamedTuple):
    """Solved regressions on bands.

    Attributes:
        coef: [F, V] float32 on the features as given, bands one after the other; or `out`.
        intercept: [V] float32.
        penalty: [V] float32, before it is divided by the weight of a band.
        error: [V] float32 mean squared error of the cross-validation.
        candidate: [V] int32 row of the band weights.
    """

    coef: Any
    intercept: np.ndarray
    penalty: np.ndarray
    error: np.ndarray
    candidate: np.ndarray


def solve_banded(
    bands: list[np.ndarray],
    responses: Any,
    penalties: np.ndarray,
    *,
    band_weights: np.ndarray,
    selection: Selection = "kfold",
    folds: int | list[np.ndarray] = 5,
    weights: Any = None,
    mask_missing: bool = False,
    voxels_first: bool = False,
    voxel_chunk: int | None = None,
    read_bytes: int = READ_BYTES,
    out: Any = None,
    mesh: Mesh | None = None,
    progress: Progress = silent,
) -> BandedSolution:
    """Solves one ridge regression per voxel with a penalty for each feature space.

    Args:
        bands: feature spaces [N, F_b].
        responses: [N, V] as in `solve`; read once per candidate.
        penalties: [A] increasing.
        band_weights: [C, B] candidates, at least 0, one positive in each; see `random_band_weights`.
        selection: as in `solve`, and so are the following.
        folds: number of folds, or the rows of each.
        weights: [N] or [N, V].
        mask_missing: leaves out non-finite responses.
        voxels_first: responses are [V, N].
        voxel_chunk: voxels solved at once; None for as many as suit the device. Memory only, never the result.
        read_bytes: responses held in memory when they are in a file. Memory only, never the result.
        out: [F, V] that receives the coefficients, F over all bands.
        mesh: devices of this process, over which voxels are divided; None for one.
        progress: called with (done, total) voxels times candidates.

    Returns:
        The solution with the smallest error over candidates and penalties; the first of equals.

    Raises:
        ValueError: if the candidates do not fit the bands, or as `solve` does.
    """
    band_weights = np.asarray(band_weights, np.float64)
    fits = band_weights.ndim == 2 and band_weights.shape[1] == len(bands) and len(band_weights) > 0
    if not fits or not ((band_weights >= 0).all() and (band_weights.max(1) > 0).all()):
        raise ValueError(
            f"`band_weights` must be [C, {len(bands)}], at least 0 with a positive one in each row, "
            f"but is {band_weights.tolist()}."
        )
    features = np.concatenate(bands, 1)
    n_voxels = responses.shape[0 if voxels_first else 1]
    shape = (features.shape[1], n_voxels)
    if out is not None and tuple(out.shape) != shape:
        raise ValueError(f"`out` must have shape {shape}, but has shape {tuple(out.shape)}.")
    coef = np.zeros(shape, np.float32) if out is None else out
    intercept, penalty = np.full((2, n_voxels), np.nan, np.float32)
    error, candidate = np.full(n_voxels, np.inf, np.float32), np.zeros(n_voxels, np.int32)
    for i, row in enumerate(band_weights):
        scale = np.repeat(np.sqrt(row), [band.shape[1] for band in bands])
        for part in solve_blocks(
            features * scale,
            responses,
            penalties,
            selection=selection,
            folds=folds,
            weights=weights,
            mask_missing=mask_missing,
            voxels_first=voxels_first,
            voxel_chunk=voxel_chunk,
            read_bytes=read_bytes,
            mesh=mesh,
        ):
            better = part.error < error[part.columns]
            scaled = part.coef * scale.astype(np.float32)[:, None]
            coef[:, part.columns] = np.where(better, scaled, coef[:, part.columns])
            news = (part.intercept, part.penalty, part.error, np.int32(i))
            for array, new in zip((intercept, penalty, error, candidate), news, strict=True):
                array[part.columns] = np.where(better, new, array[part.columns])
            release(out)
            progress(i * n_voxels + part.done, len(band_weights) * n_voxels)
    return BandedSolution(coef, intercept, penalty, error, candidate)


def random_band_weights(n_bands: int, *, n: int = 20, key: jax.Array) -> np.ndarray:
    """Draws candidates: the equal one first, then sparse and dense ones in turn.

    Args:
        n_bands: B.
        n: number of candidates.
        key: random key.

    Returns:
        Weights [n, B] float64; each row sums to 1.
    """
    # Dirichlet concentrations 0.1 and 1 as in himalaya: few bands matter, or any mixture.
    concentration = np.where(np.arange(n) % 2, 0.1, 1.0)[:, None] * np.ones(n_bands)
    drawn = np.array(jax.random.dirichlet(key, concentration), np.float64)
    drawn[0] = 1 / n_bands
    return drawn / drawn.sum(1, keepdims=True)
