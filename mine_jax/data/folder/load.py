"""Anyone's own data: photos and responses on disk enter; responses and images leave.

Responses are a `.npy` of averages or trials, or a NIfTI series with a mask. Averages are taken
as they are; trials are z-scored within session or run and averaged over the repeats of an image.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mine_jax import artifacts
from mine_jax._progress import Progress, silent
from mine_jax.config import FolderConfig
from mine_jax.data import ids, images, masks, trials
from mine_jax.data.containers import volumes
from mine_jax.data.folder import rois
from mine_jax.data.ids import Naming
from mine_jax.data.images import PhotoFiles
from mine_jax.data.nsd import layout
from mine_jax.data.trials import Rows, Trials, average
from mine_jax.errors import AlignmentError, ConfigError, DataError, IntegrityError, MissingInputError
from mine_jax.types import Responses, Stimuli, Volume

_log = logging.getLogger(__name__)
# A deviation below this share of the median voxel's is rounding, not signal.
_MIN_SD_SHARE = 1e-5


class _Values(NamedTuple):
    """Values [T, V] (memory-mapped where possible), voxel ids [V], and the space of a series."""

    values: np.ndarray
    voxel_ids: np.ndarray
    volume: Volume | None


def load_folder(
    config: FolderConfig, *, directory: str | Path | None = None, progress: Progress = silent
) -> tuple[Responses, Stimuli]:
    """Reads responses and photos that the configuration names.

    Args:
        config: section [data] with kind "folder".
        directory: where large responses are kept on disk, memory-mapped.
        progress: called after each block of voxels, then after each photo.

    Returns:
        Responses [N, V] float32, rows by ascending image id; voxels whose status is not "ok" hold 0.
        `noise_ceiling` is that of all rows (`with_noise_ceiling` gives it for chosen ones); NaN for averages,
        and where no image was repeated. And the Stimuli of the same images.

    Raises:
        ConfigError: if a key is missing.
        MissingInputError: if a file is not there.
        IntegrityError: if a file is damaged.
        AlignmentError: if rows, ids and photos do not belong together.
        GeometryError: if series and mask differ in space.
        DataError: for unusable dtypes, values or photos.
    """
    rows, photos, naming = _rows(config)
    values, voxel_ids, volume = _open_responses(config)
    if len(rows.image_ids) != values.shape[0]:
        source = config.image_ids or config.trials
        raise AlignmentError(
            f"`responses` has {values.shape[0]} rows, but {source} has {len(rows.image_ids)} ids. "
            "One id per row is needed."
        )
    keep = np.flatnonzero(_has_photo(rows, photos, config))
    responses = average(
        _trials(values, voxel_ids, rows, keep, config),
        is_scored=config.zscore != "none",
        directory=None if directory is None else Path(directory),
        progress=progress,
    )
    names, indices = np.full(len(voxel_ids), ""), None
    if config.rois is not None:
        names, indices = rois.read_rois(config.rois, voxel_ids)
    if volume is not None:
        indices = np.stack(np.unravel_index(voxel_ids, volume.shape), 1)
    responses = replace(
        responses,
        rois=names,
        indices=indices,
        volume=volume,
        subject=config.subject,
    )
    hashes = None if photos is None else photos.scan(responses.image_ids.tolist(), progress=progress)
    return responses, _stimuli(responses.image_ids, photos, hashes, naming)


def open_folder_stimuli(config: FolderConfig) -> Stimuli:
    """Opens the photos that `load_folder` would give, without decoding any.

    Args:
        config: section [data] with kind "folder".

    Returns:
        Stimuli [N]; hashes are empty.

    Raises:
        MineError: as `load_folder`, for ids and photos.
    """
    rows, photos, naming = _rows(config)
    return _stimuli(ids.distinct(rows.image_ids[_has_photo(rows, photos, config)])[0], photos, None, naming)


def inputs(config: FolderConfig) -> list[Path]:
    """Names the files whose change makes responses stale.

    Args:
        config: section [data] with kind "folder".

    Returns:
        Those that are given.
    """
    named = (config.images, config.responses, config.image_ids, config.trials, config.mask, config.rois)
    return [Path(path) for path in named if path is not None]


def images_of(config: FolderConfig) -> list[Path]:
    """Names the folder or zip of the photos.

    Args:
        config: section [data] with kind "folder".

    Returns:
        It, or nothing.
    """
    return [] if config.images is None else [Path(config.images)]


def _rows(config: FolderConfig) -> tuple[Rows, PhotoFiles | None, Naming]:
    """Image (and session) of each row of responses, the photos, and what ids of other lists mean."""
    if (config.image_ids is None) == (config.trials is None):
        raise ConfigError(
            "data: give either `image_ids` (rows of responses are averages) or `trials` (rows are trials), not both."
        )
    if config.trials is not None:
        rows, source = trials.read_trials(config.trials, zscore=config.zscore), config.trials
    else:
        rows, source = Rows(ids.read(str(config.image_ids))), str(config.image_ids)
    photos = None if config.images is None else images.list_photos(config.images, max_pixels=config.max_pixels)
    naming = Naming(None if photos is None else tuple(photos.names), config.index_base)
    rows = replace(rows, image_ids=naming(rows.image_ids, source))
    if rows.groups is None:
        names, counts = np.unique(rows.image_ids, return_counts=True)
        if counts.max() > 1:
            raise AlignmentError(
                f"{source} holds {int((counts > 1).sum())} ids more than once, first "
                f"{', '.join(names[counts > 1][:5])}. If rows are trials, list them in `trials` with their sessions."
            )
    return rows, photos, naming


def _has_photo(rows: Rows, photos: PhotoFiles | None, config: FolderConfig) -> np.ndarray:
    """Rows [T] whose photo is there; an error or a note for the others."""
    if photos is None:
        return np.ones(len(rows.image_ids), bool)
    here = np.isin(rows.image_ids, list(photos.names))
    missing = np.unique(rows.image_ids[~here])
    if len(missing):
        ids.check_not_shifted(rows.image_ids, photos.names, source="the responses", other="the photos")
        reason = ids.why_differ(missing, photos.names)
        if config.on_missing == "error" or not here.any():
            raise AlignmentError(
                f"{photos.source} has no photo for {len(missing)} image ids, first {', '.join(missing[:5])}. "
                + (reason or 'Add them, or set `on_missing` = "drop".')
            )
        _log.warning("%d rows of %d images are left out: they have no photo", int((~here).sum()), len(missing))
    unused = len(photos.names) - len(np.unique(rows.image_ids[here]))
    if unused:
        _log.info("%d photos in %s were never shown and are left out", unused, photos.source)
    return here


def _open_responses(config: FolderConfig) -> _Values:
    if config.responses is None:
        raise ConfigError(
            "data: `responses` is needed: a .npy [images or trials, voxels], or a NIfTI series with `mask`."
        )
    path = Path(config.responses)
    if not path.name.endswith((".nii", ".nii.gz")):
        values = _open_npy(path)
        return _Values(values, np.arange(values.shape[1], dtype=np.int64), None)
    if config.mask is None:
        raise ConfigError("data: a NIfTI series of responses needs `mask`, a volume of 0 and 1.")
    mask, header = masks.read_mask(Path(config.mask))
    series = volumes.read_header(path)
    masks.check_geometry(str(path), series.volume, reference=f"the mask {config.mask}", expected=header.volume)
    voxel_ids = np.flatnonzero(mask)
    return _Values(volumes.read_series(path, voxel_ids=voxel_ids)[0].T, voxel_ids, header.volume)


def _open_npy(path: Path) -> np.ndarray:
    """A two-dimensional .npy of real numbers, memory-mapped."""
    if path.suffix != ".npy":
        raise ConfigError(f"`responses` must be a .npy or NIfTI file, but is {path}.")
    if not path.is_file():
        raise MissingInputError(f"no file at {path}.")
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            _, _, dtype = read(file)
    except (ValueError, EOFError, SyntaxError) as error:
        raise IntegrityError(f"{path} is not a readable .npy array ({error}). Was the copy cut short?") from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise DataError(f"`responses` must hold real numbers of at most 64 bits, but {path} holds {dtype}.")
    values = artifacts.read_array(path, mmap=True)
    if values.ndim != 2:
        raise DataError(f"`responses` must have axes [images or trials, voxels], but {path} has shape {values.shape}.")
    if 0 in values.shape:
        raise DataError(f"`responses` of {path} is empty: shape {values.shape}, so 0 voxels or rows are selected.")
    return values


def _trials(values: np.ndarray, voxel_ids: np.ndarray, rows: Rows, keep: np.ndarray, config: FolderConfig) -> Trials:
    """The rows that are kept, ready to be read block by block."""
    divisor = _divisor(values.dtype, config)
    return Trials(
        # [v, T], contiguous along trials.
        read=lambda block: np.ascontiguousarray(np.asarray(values[:, block]).T[:, keep], np.float64) / divisor,
        voxel_ids=voxel_ids,
        rows=replace(rows, image_ids=rows.image_ids[keep], groups=None if rows.groups is None else rows.groups[keep]),
        min_sd=_MIN_SD_SHARE * _typical_sd(values, keep) / divisor,
    )


def _divisor(dtype: np.dtype, config: FolderConfig) -> float:
    """What values are divided by; int16 is how betas are stored times 300."""
    if config.beta_scale != "auto":
        return float(config.beta_scale)
    if dtype != np.int16:
        return 1.0
    _log.info("responses are 16-bit integers and are divided by %g once", layout.BETA_SCALE)
    return layout.BETA_SCALE


def _typical_sd(values: Any, keep: np.ndarray) -> float:
    """Median deviation over a sample of voxels."""
    columns = np.unique(np.linspace(0, values.shape[1] - 1, 256).astype(int))
    with np.errstate(all="ignore"):
        sample = np.asarray(values[:, columns])[keep].astype(np.float64)
        sd = sample.std(0)
    sd = sd[np.isfinite(sd) & (sd > 0)]
    return float(np.median(sd)) if len(sd) else 0.0


def _stimuli(image_ids: np.ndarray, photos: PhotoFiles | None, hashes: np.ndarray | None, naming: Naming) -> Stimuli:
    """Reader of some photos; without photos it says so when used."""

    def refuse(_: Sequence[str]) -> list[np.ndarray]:
        raise MissingInputError("data: `images` is not set, so there are no photos to read. Give a folder or a zip.")

    return Stimuli(
        image_ids=image_ids,
        read=refuse if photos is None else photos.read,
        hashes=np.full(len(image_ids), "") if hashes is None else hashes,
        shared=np.zeros(len(image_ids), bool),
        source="" if photos is None else str(photos.source),
        name=naming,
    )
