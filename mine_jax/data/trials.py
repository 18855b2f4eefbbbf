"""Single trials to one response per image: tables of trials, z-scores within sessions, averages over repeats.

Arrays here are voxels first, [V, T], so that every sum runs along contiguous memory and a
voxel's result is the same however many others are processed with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mine_jax import memory
from mine_jax._progress import Progress, silent
from mine_jax.data import ids, noise_ceiling, tables
from mine_jax.errors import AlignmentError, ConfigError, DataError
from mine_jax.types import LAGS, Responses

_log = logging.getLogger(__name__)

# Responses above this are written to disk and memory-mapped, where a folder is given.
LARGE_BYTES = 256 << 20
# A voxel whose deviation is below this share of its mean does not vary.
_RELATIVE_SD = 1e-6
# Voxels whose responses are also averaged as if rows belonged to other images.
_N_MOVED = 64
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Rows:
    """What each row of `responses` belongs to.

    Attributes:
        image_ids: [T] str.
        groups: [T] int, session or run; None where rows are averages already.
        names: name of each group.
    """

    image_ids: np.ndarray
    groups: np.ndarray | None = None
    names: tuple[str, ...] = ()


def read_trials(path: str | Path, *, zscore: str, is_session: bool = False) -> Rows:
    """Reads `image_id`, `session` and `run` of each trial.

    Args:
        path: tab-separated, with a header.
        zscore: "session", "run" or "none": which columns make a group.
        is_session: whether the whole table is a session, where it has no such column.

    Returns:
        Rows: T trials.

    Raises:
        MissingInputError: if the file is not there.
        ConfigError: if a needed column is missing.
        AlignmentError: with the line of an empty cell.
    """
    table = tables.read_tsv(path)
    needed = {"session": ["session"], "run": ["run"], "none": []}[zscore]
    if is_session and "session" not in table:
        table["session"] = Path(path).name
    missing = [name for name in ("image_id", *needed) if name not in table]
    if missing:
        raise ConfigError(
            f"{path} must have the columns image_id{''.join(', ' + n for n in needed)} for `zscore` = {zscore!r}, "
            f"but lacks {', '.join(missing)}; it has {', '.join(table)}."
        )
    image_ids = ids.clean(table["image_id"].tolist(), str(path), first_line=table.index.tolist())
    # Runs are numbered anew in every session.
    columns = (["session"] if "session" in table else []) + (["run"] if zscore == "run" else [])
    if zscore == "none" or not columns:
        return Rows(image_ids, np.zeros(len(image_ids), np.int64), ("all",))
    for name in columns:
        empty = np.flatnonzero(table[name].str.strip().str.lower().isin(tables.NO_VALUE))
        if len(empty):
            raise AlignmentError(f"line {table.index[empty[0]]} of {path} has no {name}. Every trial belongs to one.")
        # "1", " 1" and "1.0" are one session.
        table[name] = [ids.plain_number(text) for text in table[name]]
    labels = table[columns].agg(" run ".join, axis=1)
    names, groups = np.unique(labels.to_numpy(str), return_inverse=True)
    return Rows(image_ids, groups.astype(np.int64), tuple(names.tolist()))


def joined(parts: Sequence[Rows]) -> Rows:
    """Puts the rows of several tables one after another; groups of one name are one group.

    Args:
        parts: of each table; all with groups, or none.

    Returns:
        Rows: of all tables.
    """
    image_ids = np.concatenate([part.image_ids for part in parts])
    if any(part.groups is None for part in parts):
        return Rows(image_ids)
    labels = [np.array(part.names, str)[part.groups] for part in parts]
    names, groups = np.unique(np.concatenate(labels), return_inverse=True)
    return Rows(image_ids, groups.astype(np.int64), tuple(names.tolist()))


@dataclass(frozen=True)
class Trials:
    """Values of T trials (or averages) of V voxels, read block by block.

    Attributes:
        read: takes a slice of voxels, returns their values [v, T] in the units of the data.
        voxel_ids: [V] int64.
        rows: what each trial belongs to.
        min_sd: a deviation up to this counts as none.
        source: name of the files, for messages.
    """

    read: Callable[[slice], np.ndarray]
    voxel_ids: np.ndarray
    rows: Rows
    min_sd: float = 0.0
    source: str = "`responses`"


def average(
    trials: Trials,
    *,
    is_scored: bool = True,
    voxel_block: int = 512,
    directory: Path | None = None,
    progress: Progress = silent,
) -> Responses:
    """Turns trials into one response per image: z-scored within groups, averaged over repeats.

    Groups in which no voxel varies (a scan that was stopped, a single trial) are left out with a warning.

    Args:
        trials: T trials of V voxels; averages where their rows have no groups.
        is_scored: whether z-scores are averaged; otherwise values as they are. Noise ceilings always come from
            z-scores.
        voxel_block: voxels held in memory at once. Memory only, never the result.
        directory: where large responses are kept on disk.
        progress: called after each block with (voxels done, V).

    Returns:
        Responses [N, V] float32, images by ascending id. Voxels whose status is not "ok" hold 0; `noise_ceiling` is
        that of all rows, NaN for averages and where no image was repeated. Areas and places are left empty.

    Raises:
        DataError: for values beyond float32.
    """
    groups = trials.rows.groups
    images, image_index, n_repeats = ids.distinct(trials.rows.image_ids)
    within = np.zeros(len(image_index), np.int64) if groups is None else groups
    numbers, sizes = np.unique(within, return_counts=True)
    out = allocate((len(images), len(trials.voxel_ids)), directory)
    is_finite, is_flat, ncsnr, moved, moments = _fill(
        out, trials, image_index, within, is_scored=is_scored, voxel_block=voxel_block, progress=progress
    )
    empty = np.atleast_1d(is_flat.all(0))
    names = [trials.rows.names[n] if n < len(trials.rows.names) else str(n) for n in numbers.tolist()]
    if empty.any() and not empty.all():
        left = ", ".join(name for name, gone in zip(names, empty, strict=True) if gone)
        _log.warning("sessions %s do not vary in any voxel and are left out", left)
        return average(
            _without(trials, np.isin(within, numbers[empty])),
            is_scored=is_scored,
            voxel_block=voxel_block,
            directory=directory,
            progress=progress,
        )
    if groups is not None:
        _warn_of_drift(moments / sizes, names)
    status = np.where(~is_finite, "nonfinite", np.where(is_flat.any(1), "constant", "ok"))
    ncsnr[status != "ok"] = np.nan
    return Responses(
        responses=finished(out),
        image_ids=images,
        n_repeats=n_repeats,
        voxel_ids=trials.voxel_ids,
        status=status,
        ncsnr=ncsnr,
        noise_ceiling=noise_ceiling.noise_ceiling(ncsnr, n_repeats),
        rois=np.full(len(status), ""),
        moved=moved,
    )


class _Filled(NamedTuple):
    """What is known of V voxels beside their responses, in G groups of trials.

    Attributes:
        is_finite: [V] bool.
        is_flat: [V, G] bool.
        ncsnr: [V].
        moved: [len(LAGS), N, v] float32, of some voxels.
        moments: [2, G], sums and sums of squares.
    """

    is_finite: np.ndarray
    is_flat: np.ndarray
    ncsnr: np.ndarray
    moved: np.ndarray
    moments: np.ndarray


def _fill(
    out: np.ndarray,
    trials: Trials,
    image_index: np.ndarray,
    within: np.ndarray,
    *,
    is_scored: bool,
    voxel_block: int,
    progress: Progress,
) -> _Filled:
    """Writes the averages of all voxels to `out` [N, V]; `image_index` and `within` (its group) are of each trial."""
    groups, numbers, n_voxels = trials.rows.groups, np.unique(within), out.shape[1]
    sampled = np.unique(np.linspace(0, n_voxels - 1, min(n_voxels, _N_MOVED)).astype(np.int64))
    moved = np.zeros((len(LAGS), len(out), len(sampled)), np.float32)
    is_finite, ncsnr = np.empty(n_voxels, bool), np.full(n_voxels, np.nan)
    is_flat, moments = np.empty((n_voxels, len(numbers)), bool), np.zeros((2, len(numbers)))
    for start in range(0, n_voxels, voxel_block):
        block = slice(start, min(start + voxel_block, n_voxels))
        values = np.asarray(trials.read(block), np.float64)
        _check_range(values, trials.voxel_ids[block], trials.source)
        scores, is_flat[block] = zscore(values, within, min_sd=trials.min_sd)
        is_finite[block] = np.isfinite(values).all(1)
        usable = is_finite[block] & ~is_flat[block].any(1)
        if groups is not None:
            ncsnr[block] = noise_ceiling.ncsnr(scores.T, image_index)
        given = scores if is_scored and groups is not None else values
        out[:, block] = np.where(usable[:, None], average_repeats(given, image_index), 0.0).T
        some = (block.start <= sampled) & (sampled < block.stop)
        moved[:, :, some] = _moved(given, usable, sampled[some] - block.start, image_index)
        moments += _sums(values[usable], within, numbers)
        progress(block.stop, n_voxels)
    return _Filled(is_finite, is_flat, ncsnr, moved, moments)


def _moved(given: np.ndarray, usable: np.ndarray, chosen: np.ndarray, image_index: np.ndarray) -> np.ndarray:
    """Averages of chosen voxels, each trial taken for one of the image so many rows further on.

    Args:
        given: [V, T].
        usable: [V] bool; the others are 0.
        chosen: [v] int.
        image_index: [T] int.

    Returns:
        [len(LAGS), N, v].
    """
    rows = np.where(usable[chosen, None], given[chosen], 0.0)
    return np.stack([average_repeats(rows, np.roll(image_index, -lag)).T for lag in LAGS])


def _without(trials: Trials, gone: np.ndarray) -> Trials:
    """The trials that are not gone [T]."""
    kept, rows = np.flatnonzero(~gone), trials.rows
    assert rows.groups is not None
    return replace(
        trials,
        read=lambda block: trials.read(block)[:, kept],
        rows=replace(rows, image_ids=rows.image_ids[kept], groups=rows.groups[kept]),
    )


def _check_range(values: np.ndarray, voxel_ids: np.ndarray, source: str) -> None:
    """Raises DataError for finite values [v, T] that float32 cannot hold."""
    with np.errstate(invalid="ignore"):
        too_large = np.isfinite(values) & (np.abs(values) > _FLOAT32_MAX)
    if too_large.any():
        voxel, row = (int(n) for n in np.argwhere(too_large)[0])
        raise DataError(
            f"{source} holds {values[voxel, row]:g} at voxel {voxel_ids[voxel]}, beyond float32. "
            "Is the file in another format?"
        )


def _sums(values: np.ndarray, groups: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Sums and sums of squares [2, G] over the voxels and trials of each group."""
    rows = [values[:, groups == number] for number in numbers]
    return np.array([[part.sum() for part in rows], [np.einsum("vt,vt->", part, part) for part in rows]])


def _warn_of_drift(moments: np.ndarray, names: list[str]) -> None:
    """Warns of groups whose mean or size is far from the others'; `moments` are means and mean squares."""
    if len(names) < 6:
        return
    for what, values in (("mean", moments[0]), ("size", np.sqrt(moments[1]))):
        for position in outlying(values):
            _log.warning("the %s of the betas of session %s is far from other sessions'", what, names[position])


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
    return memory.mapped_npy(directory / ".responses.partial.npy", shape, np.float32)


def finished(responses: np.ndarray) -> np.ndarray:
    """Gives responses on disk their final name, `responses.npy`, and opens them read-only."""
    if not isinstance(responses, np.memmap):
        return responses
    responses.flush()
    partial = Path(str(responses.filename))
    return np.load(partial.replace(partial.with_name("responses.npy")), mmap_mode="r")
