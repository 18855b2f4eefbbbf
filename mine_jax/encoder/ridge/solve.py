"""One ridge regression per voxel, each with its own penalty, block by block."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from mine_jax import sharding
from mine_jax._progress import Progress, silent
from mine_jax.encoder.ridge import closed, kfold
from mine_jax.encoder.ridge.reading import READ_BYTES, slabs
from mine_jax.memory.chunks import chunk_size, voxels_at_once
from mine_jax.memory.rows import release

Selection = Literal["kfold", "gcv", "loo"]
# Groups of voxels with their own rows or weights whose Gram matrices are kept at once.
_GROUPS_KEPT = 4


class Solution(NamedTuple):
    """Solved regressions.

    Attributes:
        coef: [F, V] float32, or the array given as `out`.
        intercept: [V] float32.
        penalty: [V] float32.
        error: [V] float32 mean squared error of the cross-validation at that penalty.
    """

    coef: Any
    intercept: np.ndarray
    penalty: np.ndarray
    error: np.ndarray


class Part(NamedTuple):
    """A `Solution` of some columns; `done` counts columns so far."""

    columns: Any
    done: int
    coef: np.ndarray
    intercept: np.ndarray
    penalty: np.ndarray
    error: np.ndarray


def solve(
    features: np.ndarray,
    responses: Any,
    penalties: np.ndarray,
    *,
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
) -> Solution:
    """Solves one ridge regression per voxel, each with its own penalty.

    Args:
        features: [N, F], any float dtype; computed in float32 after centring in float64.
        responses: [N, V] array, memory-mapped file or h5py data set; read by blocks of columns.
        penalties: [A] increasing, A at least 3, in units of summed squares.
        selection: "kfold" for exact K-fold cross-validation, "loo" for exact leave-one-out, "gcv"
            for generalised cross-validation.
        folds: number of consecutive folds, or the validation rows of each fold; K-fold only.
        weights: weights of squared errors, at least 0: [N], or [N, V] of each voxel in the order
            of the responses. Voxels with identical weights share their Gram matrices.
        mask_missing: leaves out a voxel's non-finite responses; else they make its results NaN.
        voxels_first: responses (and weights of each voxel) are [V, N].
        voxel_chunk: voxels solved at once on each device; None for as many as suit it. Memory only, never the result.
        read_bytes: responses held in memory when they are in a file. Memory only, never the result.
        out: [F, V] array, memory-mapped or h5py data set that receives the coefficients.
        mesh: devices of this process, over which voxels are divided; None for one.
        progress: called after each chunk.

    Returns:
        The solution; the penalty minimises the mean squared error of the cross-validation
        (K-fold: mean over folds) over the grid, wherever that curve has one valley.

    Raises:
        ValueError: for fewer than three penalties, fewer rows than folds, folds that do not hold
            each row once, shapes that do not fit, or a voxel with too few rows.
    """
    n_features = features.shape[1]
    n_voxels = responses.shape[0 if voxels_first else 1]
    if out is not None and tuple(out.shape) != (n_features, n_voxels):
        raise ValueError(f"`out` must have shape {(n_features, n_voxels)}, but has shape {tuple(out.shape)}.")
    coef = np.empty((n_features, n_voxels), np.float32) if out is None else out
    per_voxel = [np.empty(n_voxels, np.float32) for _ in range(3)]
    for part in solve_blocks(
        features,
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
        coef[:, part.columns] = part.coef
        for array, values in zip(per_voxel, part[3:], strict=True):
            array[part.columns] = values
        release(out)
        progress(part.done, n_voxels)
    return Solution(coef, *per_voxel)


def solve_blocks(
    features: np.ndarray,
    responses: Any,
    penalties: np.ndarray,
    *,
    selection: Selection,
    folds: int | list[np.ndarray],
    weights: Any,
    mask_missing: bool,
    voxels_first: bool,
    voxel_chunk: int | None,
    read_bytes: int,
    mesh: Mesh | None = None,
) -> Iterator[Part]:
    """Solves as `solve` does, and yields each block of voxels instead of keeping it.

    Args:
        features: [N, F]; this and the others as in `solve`.
        responses: [N, V] or [V, N].
        penalties: [A].
        selection: criterion.
        folds: number, or rows of each.
        weights: [N], [N, V] or None.
        mask_missing: whether non-finite responses are left out.
        voxels_first: order of the axes.
        voxel_chunk: voxels solved at once.
        read_bytes: responses of a file held in memory.
        mesh: devices of this process, or None.

    Yields:
        The parts, in the order of the columns up to groups with the same weights.
    """
    n, n_voxels = responses.shape[::-1] if voxels_first else responses.shape
    rows = _rows_of_folds(n, folds) if selection == "kfold" else [np.arange(n)]
    per_voxel = weights is not None and len(weights.shape) == 2
    _check(features, n, penalties, selection)
    if weights is not None and tuple(weights.shape) not in ((n,), tuple(responses.shape)):
        raise ValueError(
            f"`weights` must have shape {(n,)} or {tuple(responses.shape)}, but has {tuple(weights.shape)}."
        )
    order = np.concatenate(rows)
    position = np.argsort(order)
    n_devices = sharding.n_shards(mesh, *sharding.DEVICES)
    chunk = n_devices * _rounded(chunk_size(-(-n_voxels // n_devices), voxel_chunk or voxels_at_once()))
    common = np.ones(n, np.float32) if weights is None or per_voxel else np.asarray(weights, np.float32)[order]
    read = functools.partial(
        slabs, position=position, voxel_chunk=chunk, read_bytes=read_bytes, voxels_first=voxels_first
    )
    weight_slabs = read(weights) if per_voxel else None

    @functools.lru_cache(maxsize=_GROUPS_KEPT)
    def solver(row_weights: bytes) -> tuple[Callable, np.ndarray]:
        in_file_order = np.frombuffer(row_weights, np.float32)[position].astype(np.float64)
        return _solver(features, rows, in_file_order, np.asarray(penalties, np.float64), selection, mesh)

    done = 0
    for start, slab in read(responses):
        row_weights = common if weight_slabs is None else next(weight_slabs)[1]
        for columns, shared_weights in _groups(slab, row_weights, mask_missing):
            _check_weights(shared_weights, rows, selection, start + columns[0])
            solve_block, mean = solver(shared_weights.tobytes())
            width = chunk if len(columns) >= chunk else min(chunk, max(16, 1 << (len(columns) - 1).bit_length()))
            width = sharding.padded(width, mesh, *sharding.DEVICES)
            for first in range(0, len(columns), width):
                part = columns[first : first + width]
                coef, y_mean, penalty, error = solve_block(_padded(slab, part, width))
                coef = coef[:, : len(part)]
                done += len(part)
                intercept = y_mean[: len(part)] - mean @ coef.astype(np.float64)
                yield Part(_as_slice(start + part), done, coef, intercept, penalty[: len(part)], error[: len(part)])
        del slab, row_weights  # before the next ones are read


def _solver(
    features: np.ndarray,
    rows: list[np.ndarray],
    weights: np.ndarray,
    penalties: np.ndarray,
    selection: Selection,
    mesh: Mesh | None,
) -> tuple[Callable, np.ndarray]:
    """Returns block [N, v] -> its solution as arrays, and the mean of the features [F]."""
    alphas = penalties.astype(np.float32)
    if selection == "kfold":
        shared, mean = kfold.prepare(features, weights, rows)
    else:
        shared, mean = closed.prepare(features, weights, penalties, leave_one_out=selection == "loo")
    compute = _solve_block(selection, mesh)
    shared, alphas = jax.tree.map(lambda x: sharding.placed(x, mesh), (shared, alphas))

    def solved(block: np.ndarray) -> list[np.ndarray]:
        block = sharding.placed(block, mesh, None, sharding.DEVICES)
        return [np.asarray(x) for x in compute(block, shared, alphas)]

    return solved, mean


@functools.lru_cache(maxsize=8)
def _solve_block(selection: Selection, mesh: Mesh | None) -> Callable:
    """Returns the jitted solver of a block [N, v], whose voxels are divided over the devices."""
    compute = kfold.solve_block
    if selection != "kfold":
        compute = functools.partial(closed.solve_block, leave_one_out=selection == "loo")
    if mesh is None:
        return compute
    all_voxels, voxels, everywhere = (
        PartitionSpec(*axes) for axes in ((None, sharding.DEVICES), (sharding.DEVICES,), ())
    )
    specs = ((all_voxels, everywhere, everywhere), (all_voxels, voxels, voxels, voxels))
    return jax.jit(sharding.mapped(compute, mesh, *specs))


def _rows_of_folds(n: int, folds: int | list[np.ndarray]) -> list[np.ndarray]:
    if isinstance(folds, int):
        if not 2 <= folds <= n:
            raise ValueError(f"need 2 to {n} folds, one row each at least, but got {folds}.")
        return np.array_split(np.arange(n), folds)
    if len(folds) < 2 or not np.array_equal(np.sort(np.concatenate(folds)), np.arange(n)):
        raise ValueError(f"`folds` must be at least 2 and hold each of the {n} rows once.")
    return [np.asarray(fold) for fold in folds if len(fold)]


def _check(features: np.ndarray, n: int, penalties: np.ndarray, selection: Selection) -> None:
    if selection not in get_args(Selection):
        raise ValueError(f"`selection` must be one of {get_args(Selection)}, but is {selection!r}.")
    if len(penalties) < 3 or np.any(np.diff(penalties) <= 0) or penalties[0] <= 0:
        raise ValueError(f"need at least 3 penalties, positive and increasing, but got {list(penalties)}.")
    if len(features) != n:
        raise ValueError(f"`features` must have the {n} rows of the responses, but has {len(features)}.")


def _check_weights(weights: np.ndarray, rows: list[np.ndarray], selection: Selection, column: int) -> None:
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(f"`weights` must be finite and at least 0, but those of voxel {column} are not.")
    bounds = np.cumsum([0, *map(len, rows)])[:-1]
    n_used = (np.add.reduceat(weights, bounds) > 0).sum() if selection == "kfold" else (weights > 0).sum() - 1
    if n_used < 2:
        what = "folds" if selection == "kfold" else "rows but one"
        raise ValueError(f"voxel {column} has responses with a weight in {n_used} {what}; at least 2 are needed.")


def _groups(slab: np.ndarray, weights: np.ndarray, mask_missing: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields columns with the same row weights, and the weights [N]; zeroes masked responses."""
    every = np.arange(slab.shape[1])
    if mask_missing:
        missing = ~np.isfinite(slab)
        if missing.any():
            slab[missing] = 0
            weights = np.where(missing, 0, weights.reshape(len(slab), -1)).astype(np.float32)
    if weights.ndim == 1:
        yield every, weights
        return
    members: dict[bytes, list[int]] = {}
    for column in every:
        members.setdefault(weights[:, column].tobytes(), []).append(column)
    for columns in members.values():
        yield np.array(columns), weights[:, columns[0]]


def _padded(slab: np.ndarray, columns: np.ndarray, width: int) -> np.ndarray:
    """Returns columns of the slab, and zeros up to a width for which the solver is compiled."""
    if len(columns) == width == slab.shape[1]:
        return slab
    block = np.zeros((len(slab), width), np.float32)
    block[:, : len(columns)] = slab[:, _as_slice(columns)]
    return block


def _as_slice(columns: np.ndarray) -> Any:
    """Returns a slice where columns are consecutive: files read and write those at once."""
    first, last = int(columns[0]), int(columns[-1])
    return slice(first, last + 1) if last - first + 1 == len(columns) else columns


def _rounded(size: int) -> int:
    """Rounds up by at most an eighth, to a size that vector units like."""
    step = max(1, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step
