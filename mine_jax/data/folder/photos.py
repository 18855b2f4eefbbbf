"""Rows of responses joined with the photos that they mean; readers with a folder of photos share it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mine_jax._progress import Progress
from mine_jax.config import PhotosConfig
from mine_jax.data import ids, images
from mine_jax.data.containers.series import Series
from mine_jax.data.containers.sessions import respond
from mine_jax.data.ids import Naming
from mine_jax.data.images import PhotoFiles
from mine_jax.data.trials import Rows
from mine_jax.errors import AlignmentError, MissingInputError
from mine_jax.types import Responses, Stimuli

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Joined:
    """Rows whose ids are those of photos.

    Attributes:
        rows: all T rows, ids as photos are named.
        keep: [K] positions of the rows that have a photo.
        photos: None where none are given.
        naming: what ids of other lists mean.
    """

    rows: Rows
    keep: np.ndarray
    photos: PhotoFiles | None
    naming: Naming

    @property
    def n_images(self) -> int:
        """Number of images that the rows show."""
        return len(np.unique(self.rows.image_ids[self.keep]))

    @property
    def repeated(self) -> list[str]:
        """Ids of the images that were shown more than once."""
        shown, counts = np.unique(self.rows.image_ids[self.keep], return_counts=True)
        return shown[counts > 1].tolist()

    def respond(
        self,
        sessions: Sequence[Series],
        positions: np.ndarray,
        config: PhotosConfig,
        *,
        rois: np.ndarray,
        directory: str | Path | None,
        progress: Progress,
    ) -> Responses:
        """Reads the responses of the rows that are kept.

        Args:
            sessions: S series of one space, whose rows follow one another.
            positions: [V] int64 of the voxels in them, ascending.
            config: subject, z-scores and scale.
            rois: [V] names of areas, joined with ";".
            directory: where large arrays are kept on disk.
            progress: called with (sessions streamed, S), then (voxels done, V).

        Returns:
            Responses [N, V]; voxel ids are the positions.

        Raises:
            MineError: as `sessions.respond`.
        """
        responses = respond(
            sessions,
            positions,
            self.rows,
            keep=self.keep,
            is_scored=config.zscore != "none",
            beta_scale=config.beta_scale,
            directory=directory,
            progress=progress,
        )
        return replace(responses, rois=rois, subject=config.subject)

    def stimuli(
        self,
        image_ids: np.ndarray | None = None,
        *,
        shared: Sequence[str] = (),
        parts: Mapping[str, np.ndarray] | None = None,
        progress: Progress | None = None,
    ) -> Stimuli:
        """Returns a reader of the photos.

        Args:
            image_ids: [N] str, those of the responses; None for all that are kept.
            shared: ids of the images that every subject saw.
            parts: named parts of the images -> ids.
            progress: called while photos are decoded once and hashed; None to decode none.

        Raises:
            DataError: naming every photo that cannot be used.
        """
        names = ids.distinct(self.rows.image_ids[self.keep])[0] if image_ids is None else image_ids
        hashes = np.full(len(names), "")
        if self.photos is not None and progress is not None:
            hashes = self.photos.scan(names.tolist(), progress=progress)
        return Stimuli(
            image_ids=names,
            read=_refuse if self.photos is None else self.photos.read,
            hashes=hashes,
            shared=np.isin(names, list(shared)),
            source="" if self.photos is None else str(self.photos.source),
            name=self.naming,
            parts=parts or {},
        )


def join(
    rows: Rows, source: str, config: PhotosConfig, *, among: np.ndarray | None = None, photos: PhotoFiles | None = None
) -> Joined:
    """Finds the photo of each row.

    Args:
        rows: T rows; ids as a list holds them.
        source: name of that list.
        config: which photos, and what the ids count from.
        among: [K] positions of the rows that show an image; None for all.
        photos: those of the data set itself, where the configuration names none.

    Returns:
        Joined: the rows with ids of photos.

    Raises:
        AlignmentError: if ids and photos do not belong together, or averages come twice.
    """
    if config.images is not None:
        photos = images.list_photos(config.images, max_pixels=config.max_pixels)
    among = np.arange(len(rows.image_ids)) if among is None else among
    naming = Naming(None if photos is None else tuple(photos.names), config.index_base)
    named = naming(rows.image_ids[among], source)
    image_ids = rows.image_ids.astype(object)
    image_ids[among] = named
    rows = replace(rows, image_ids=image_ids.astype(str))
    if rows.groups is None:
        names, counts = np.unique(named, return_counts=True)
        if counts.max() > 1:
            raise AlignmentError(
                f"{source} holds {int((counts > 1).sum())} ids more than once, first "
                f"{', '.join(names[counts > 1][:5])}. If rows are trials, list them in `trials` with their sessions."
            )
    keep = among if photos is None else among[_with_photo(named, photos, config.on_missing)]
    return Joined(rows, keep, photos, naming)


def _with_photo(image_ids: np.ndarray, photos: PhotoFiles, on_missing: str) -> np.ndarray:
    """Rows [K] whose photo is there; an error or a note for the others."""
    here = np.isin(image_ids, list(photos.names))
    missing = np.unique(image_ids[~here])
    if len(missing):
        ids.check_not_shifted(image_ids, photos.names, source="the responses", other="the photos")
        reason = ids.why_differ(missing, photos.names)
        if on_missing == "error" or not here.any():
            raise AlignmentError(
                f"{photos.source} has no photo for {len(missing)} image ids, first {', '.join(missing[:5])}. "
                + (reason or 'Add them, or set `on_missing` = "drop".')
            )
        _log.warning("%d rows of %d images are left out: they have no photo", int((~here).sum()), len(missing))
    unused = len(photos.names) - len(np.unique(image_ids[here]))
    if unused:
        _log.info("%d photos in %s were never shown and are left out", unused, photos.source)
    return np.flatnonzero(here)


def _refuse(_: Sequence[str]) -> list[np.ndarray]:
    raise MissingInputError("data: `images` is not set, so there are no photos to read. Give a folder or a zip.")
