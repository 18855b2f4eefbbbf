"""How many images and voxels data sets say that they have, for what is planned before their files are there."""

from __future__ import annotations

from typing import NamedTuple

from mine_jax.config import AlgonautsConfig, Bold5000Config, DataConfig, NsdConfig, ThingsConfig
from mine_jax.data.nsd.layout import TRIALS_PER_SESSION

# Natural Scenes Dataset, data manual: distinct images of subjects 1 to 8. Voxels of nsdgeneral at 1.8 mm: counted in
# its volumes, as in public analyses of all subjects; vertices of both hemispheres of fsaverage.
_NSD_IMAGES = (10_000, 10_000, 9_411, 9_209, 10_000, 9_411, 10_000, 9_209)
_NSDGENERAL = (15_724, 14_278, 15_226, 13_153, 13_039, 17_907, 12_682, 14_386)
_NSDGENERAL_FSAVERAGE = 37_984
# Algonauts 2023, README of the challenge: training images, and vertices of both hemispheres; 6 and 8 lack some.
_ALGONAUTS_IMAGES = (9_841, 9_841, 9_082, 8_779, 9_841, 9_082, 9_841, 8_779)
_ALGONAUTS_VERTICES = (39_548, 39_548, 39_548, 39_548, 39_548, 39_198, 39_548, 39_511)
# THINGS-fMRI: 8,640 training and 100 test images; rows of the table of subject 01.
_THINGS_IMAGES, _THINGS_VOXELS = 8_740, {"01": 211_339}
# BOLD5000; subject 4 ended early.
_BOLD5000_IMAGES = dict.fromkeys(("CSI1", "CSI2", "CSI3"), 4_916)


class PublishedSizes(NamedTuple):
    """Images N and voxels V of a subject; None for what is not published, or is counted in files."""

    n_images: int | None = None
    n_voxels: int | None = None


def published_sizes(config: DataConfig) -> PublishedSizes:
    """Looks up how many images and voxels a data set says that it has; reads no file.

    Args:
        config: section [data].

    Returns:
        N and V of the subject, at most: sessions that are not there, and voxels without data, are left out later.
        Voxels of areas that are chosen among others are None.
    """
    if isinstance(config, NsdConfig):
        return _nsd(config)
    if isinstance(config, AlgonautsConfig):
        vertices = _of_subject(config.subject, _ALGONAUTS_VERTICES) if config.roi == () else None
        return PublishedSizes(_of_subject(config.subject, _ALGONAUTS_IMAGES), vertices)
    if isinstance(config, ThingsConfig):
        is_whole = config.format == "tables" and config.roi == ()
        return PublishedSizes(_THINGS_IMAGES, _THINGS_VOXELS.get(config.subject) if is_whole else None)
    if isinstance(config, Bold5000Config):
        return PublishedSizes(_BOLD5000_IMAGES.get(config.subject))
    return PublishedSizes()


def _nsd(config: NsdConfig) -> PublishedSizes:
    n_images, n_voxels = _of_subject(config.subject, _NSD_IMAGES), None
    if n_images is not None and config.sessions is not None:
        n_images = min(n_images, config.sessions * TRIALS_PER_SESSION)
    if config.roi == ("nsdgeneral",):
        known = {"func1pt8mm": _NSDGENERAL, "fsaverage": (_NSDGENERAL_FSAVERAGE,) * len(_NSDGENERAL)}
        n_voxels = _of_subject(config.subject, known.get(config.space, ()))
    return PublishedSizes(n_images, n_voxels)


def _of_subject(subject: str, sizes: tuple[int, ...]) -> int | None:
    """Returns the size of "subj01", ..., which are listed in order."""
    return {f"subj{number:02d}": size for number, size in enumerate(sizes, 1)}.get(subject)
