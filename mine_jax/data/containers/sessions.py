"""Sessions of single trials in any container -> one response per image: the last step of most readers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.data.containers.series import Series, chosen_space, gather
from mine_jax.data.nsd import layout
from mine_jax.data.trials import LARGE_BYTES, Rows, Trials, average
from mine_jax.errors import AlignmentError, DataError
from mine_jax.types import Responses

_log = logging.getLogger(__name__)
# A deviation below this share of the median voxel's is rounding, not signal.
_MIN_SD_SHARE = 1e-5
_N_PROBED = 256


def respond(
    sessions: Sequence[Series],
    voxel_ids: np.ndarray,
    rows: Rows,
    *,
    keep: np.ndarray | None = None,
    is_scored: bool = True,
    beta_scale: float | str = "auto",
    directory: str | Path | None = None,
    progress: Progress = silent,
) -> Responses:
    """Reads the chosen voxels of all sessions and averages their trials by image.

    Args:
        sessions: S series of one space, whose rows follow one another.
        voxel_ids: [V] int64, ascending.
        rows: what each of the T rows belongs to.
        keep: [K] positions of the rows that are used; None for all.
        is_scored: whether z-scores are averaged.
        beta_scale: divisor of values; "auto" is 300 for 16-bit integers without a scale factor, else 1.
        directory: where large arrays are kept on disk.
        progress: called with (sessions streamed, S), then (voxels done, V).

    Returns:
        Responses [N, V] with the places of their voxels.

    Raises:
        AlignmentError: if rows of files and of tables differ in number.
        DataError: if no voxel is selected.
        MineError: what damaged files raise.
    """
    n_rows = check_rows(sessions, rows)
    if sessions[0].space is None and len(sessions) == 1 and sessions[0].n_positions == n_rows:
        _log.warning(
            "%s is square, [%d, %d]: rows are taken for images, columns for voxels; nothing tells a transposed one",
            sessions[0].path,
            n_rows,
            n_rows,
        )
    if not len(voxel_ids):
        raise DataError(f"0 voxels of {sessions[0].path} are selected.")
    disk = None if directory is None else Path(directory)
    n_bytes = n_rows * len(voxel_ids) * max(session.dtype.itemsize for session in sessions)
    read = gather(sessions, voxel_ids, scratch=disk if n_bytes > LARGE_BYTES else None, progress=progress)
    divisor = _divisor(sessions, beta_scale)
    kept = np.arange(n_rows) if keep is None else keep
    responses = average(
        Trials(
            # [v, T], contiguous along trials.
            read=lambda block: np.ascontiguousarray(read(block)[:, kept]) / divisor,
            voxel_ids=voxel_ids,
            rows=replace(
                rows, image_ids=rows.image_ids[kept], groups=None if rows.groups is None else rows.groups[kept]
            ),
            min_sd=_MIN_SD_SHARE * _typical_sd(read(_some(len(voxel_ids)))[:, kept]) / divisor,
        ),
        is_scored=is_scored,
        directory=disk,
        progress=progress,
    )
    return replace(responses, **chosen_space(sessions[0].space, voxel_ids))


def check_rows(sessions: Sequence[Series], rows: Rows) -> int:
    """Checks that there is an id for each row of all sessions.

    Args:
        sessions: S series.
        rows: what their rows belong to.

    Returns:
        Rows T of all sessions.

    Raises:
        AlignmentError: if rows of files and of tables differ in number.
    """
    n_rows = sum(session.n_rows for session in sessions)
    if n_rows != len(rows.image_ids):
        raise AlignmentError(
            f"`responses` has {n_rows} rows, but there are {len(rows.image_ids)} ids. One id per row is needed."
            + _transposed(sessions, len(rows.image_ids))
        )
    return n_rows


def _divisor(sessions: Sequence[Series], beta_scale: float | str) -> float:
    """What values are divided by; plain int16 is how betas are stored times 300."""
    if beta_scale != "auto":
        return float(beta_scale)
    plain = [session for session in sessions if session.dtype == np.int16]
    if plain and len(plain) < len(sessions):
        raise DataError(
            f"{len(plain)} of {len(sessions)} sessions, first {plain[0].path}, hold 16-bit integers without a scale "
            "factor, the others do not. Set `beta_scale` to what all are to be divided by (1 for nothing)."
        )
    if not plain:
        return 1.0
    _log.info("responses are 16-bit integers and are divided by %g once", layout.BETA_SCALE)
    return layout.BETA_SCALE


def _some(n_voxels: int) -> slice:
    return slice(None, None, max(1, n_voxels // _N_PROBED))


def _typical_sd(values: np.ndarray) -> float:
    """Median deviation of voxels [v, T]."""
    with np.errstate(all="ignore"):
        sd = values.astype(np.float64).std(1)
    sd = sd[np.isfinite(sd) & (sd > 0)]
    return float(np.median(sd)) if len(sd) else 0.0


def _transposed(sessions: Sequence[Series], n_ids: int) -> str:
    if len(sessions) == 1 and sessions[0].n_positions == n_ids:
        return " There are as many columns as ids: is it transposed? Save `responses.T`."
    return ""
