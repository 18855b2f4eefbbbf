"""Algonauts 2023: responses of both hemispheres and photos of a subject enter; responses and images leave.

Rows are averages over repeats, in the order of the training images, whose names hold the 0-based 73k id of NSD; image
ids here are these, as in the reader of NSD. Columns are the vertices of fsaverage that a mask marks. Names of areas
are NSD's: the tables beside the masks are pickles, which are never opened. Responses to the test images are not public.

Source: README of the challenge data; github.com/gifale95/algonauts_2023.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from mine_jax import artifacts
from mine_jax._progress import Progress, silent
from mine_jax.config import AlgonautsConfig
from mine_jax.data import ids
from mine_jax.data.containers import spheres
from mine_jax.data.containers.series import Series, open_rows
from mine_jax.data.containers.sessions import check_rows, respond
from mine_jax.data.images import PhotoFiles, list_photos
from mine_jax.data.nsd import layout
from mine_jax.data.nsd.areas import Areas, area_names, select_voxels
from mine_jax.data.trials import Rows
from mine_jax.errors import AlignmentError, ConfigError, DataError, GeometryError, MissingInputError
from mine_jax.types import Responses, Stimuli, Surface

_N_VERTICES = 163842
# Images of NSD.
_N_IMAGES = 73_000
_HEMIS = ("lh", "rh")
_PHOTO = re.compile(r"train-(\d+)_nsd-(\d+)")


def load_algonauts(
    config: AlgonautsConfig, *, directory: str | Path | None = None, progress: Progress = silent
) -> tuple[Responses, Stimuli]:
    """Reads one subject's responses and training images.

    Args:
        config: section [data] with kind "algonauts2023".
        directory: where large arrays are kept on disk.
        progress: called after each block of voxels, then after each photo.

    Returns:
        Responses [N, V] float32, images by ascending 73k id, without a noise ceiling, which is known for the
        challenge's own test images only; and the Stimuli.

    Raises:
        MissingInputError: with the full path of a file that is not there.
        AlignmentError: if responses and photos differ in number.
        GeometryError: if responses, masks and spheres differ in their vertices.
        DataError: if a name is not that of a photo, or no vertex is selected.
    """
    photos, rows = _photos(config)
    series, vertices = _open(config)
    sphere = spheres.read_spheres(config.sphere, series.space)
    areas = _areas(config, vertices)
    voxel_ids = _chosen(config, areas, vertices)
    responses = respond([series], voxel_ids, rows, is_scored=False, directory=directory, progress=progress)
    responses = replace(responses, rois=area_names(areas, voxel_ids), subject=config.subject)
    return spheres.placed(responses, sphere), _stimuli(responses.image_ids, photos, progress)


def open_algonauts_stimuli(config: AlgonautsConfig) -> Stimuli:
    """Opens the images that `load_algonauts` would give, without reading responses.

    Args:
        config: section [data] with kind "algonauts2023".

    Returns:
        Stimuli [N]; hashes are empty.

    Raises:
        MineError: as `load_algonauts`, for photos.
    """
    photos, rows = _photos(config)
    return _stimuli(ids.distinct(rows.image_ids)[0], photos, None)


def expected_shape(config: AlgonautsConfig) -> tuple[int, int]:
    """Counts images and voxels from headers, tables and areas; reads no responses.

    Args:
        config: section [data] with kind "algonauts2023".

    Returns:
        Images N and voxels V as `load_algonauts` gives them; it gives fewer images only where a session does not vary.

    Raises:
        MineError: as `load_algonauts`.
    """
    _, rows = _photos(config)
    series, vertices = _open(config)
    check_rows([series], rows)
    return len(rows.image_ids), len(_chosen(config, _areas(config, vertices), vertices))


def inputs(config: AlgonautsConfig) -> list[Path]:
    """Names the files and folders whose change makes responses stale.

    Args:
        config: section [data] with kind "algonauts2023".

    Returns:
        Responses, masks and spheres.
    """
    sphere = spheres.files_of(config.sphere)
    if config.root is None:
        return sphere
    folder = Path(config.root) / config.subject
    return [folder / "training_split" / "training_fmri", folder / "roi_masks", *sphere]


def images_of(config: AlgonautsConfig) -> list[Path]:
    """Names the folder of the training images.

    Args:
        config: section [data] with kind "algonauts2023".

    Returns:
        It.
    """
    return [] if config.root is None else [_split(config) / "training_images"]


def probe(config: AlgonautsConfig) -> list[str]:
    """Opens everything but values, for `mine-jax check`.

    Args:
        config: section [data] with kind "algonauts2023".

    Returns:
        Findings, one sentence each.

    Raises:
        MineError: as `load_algonauts`.
    """
    _, rows = _photos(config)
    series, vertices = _open(config)
    if series.n_rows != len(rows.image_ids):
        raise AlignmentError(f"{series.path} has {series.n_rows} rows, but there are {len(rows.image_ids)} photos.")
    found = f"{config.subject}: {series.n_rows} images, {len(vertices)} vertices"
    return [found, *spheres.finding(config.sphere, series.space)]


def _split(config: AlgonautsConfig) -> Path:
    if config.root is None:
        raise ConfigError('data: kind = "algonauts2023" needs `root`, the folder that holds subj01 to subj08.')
    return Path(config.root) / config.subject / "training_split"


def _photos(config: AlgonautsConfig) -> tuple[PhotoFiles, Rows]:
    """Training images by 73k id, and the id of each row of responses."""
    found = list_photos(_split(config) / "training_images")
    named = {}
    for name in found.names:
        match = _PHOTO.fullmatch(name)
        if match is None:
            raise DataError(f"{found.source}/{found.names[name]} is not named like train-0001_nsd-00013.png.")
        named[int(match[1])] = (str(int(match[2])), found.names[name])
    order = sorted(named)
    if order != list(range(1, len(order) + 1)):
        gap = next(number for number, there in enumerate(order, start=1) if number != there)
        raise MissingInputError(
            f"no photo train-{gap:04d}_nsd-*.png in {found.source}: later rows would be misaligned."
        )
    image_ids = np.array([named[number][0] for number in order], str)
    if len(set(image_ids.tolist())) != len(image_ids):
        raise DataError(f"{found.source} names one 73k id in several photos.")
    return replace(found, names=dict(named.values())), Rows(image_ids)


def _open(config: AlgonautsConfig) -> tuple[Series, np.ndarray]:
    """Responses of both hemispheres by vertex of fsaverage, and the vertices [V] that have any."""
    sides, vertices = [], []
    masks = Path(str(config.root)) / config.subject / "roi_masks"
    for number, hemi in enumerate(_HEMIS):
        side = open_rows(_split(config) / "training_fmri" / f"{hemi}_training_fmri.npy")
        where = _mask(masks / f"{hemi}.all-vertices_fsaverage_space.npy")
        inside = np.flatnonzero(where)
        if len(inside) != side.n_positions:
            raise GeometryError(
                f"{side.path} has {side.n_positions} columns, but {hemi}.all-vertices_fsaverage_space.npy marks "
                f"{len(inside)} vertices."
            )
        sides.append(side)
        vertices.append(inside + number * _N_VERTICES)
    if sides[0].n_rows != sides[1].n_rows:
        raise AlignmentError(f"{sides[0].path} has {sides[0].n_rows} rows, but the right has {sides[1].n_rows}.")

    def read(voxel_ids: np.ndarray, progress: Progress) -> np.ndarray:
        values = np.empty((len(voxel_ids), sides[0].n_rows), sides[0].dtype)
        for number, side in enumerate(sides):
            of_side = voxel_ids // _N_VERTICES == number
            if of_side.any():
                values[of_side] = side.read(np.searchsorted(vertices[number], voxel_ids[of_side]), progress)
        return values

    space = Surface("fsaverage", (_N_VERTICES, _N_VERTICES))
    series = replace(sides[0], n_positions=2 * _N_VERTICES, space=space, read=read)
    return series, np.concatenate(vertices)


def _mask(path: Path) -> np.ndarray:
    """Codes [163842] of one hemisphere."""
    if not path.is_file():
        raise MissingInputError(f"no file at {path}. It is part of the challenge's roi_masks.")
    values = artifacts.read_array(path)
    if values.shape != (_N_VERTICES,) or values.dtype.kind not in "biuf":
        raise GeometryError(f"{path} must be [{_N_VERTICES}] numbers, but is {values.dtype}{list(values.shape)}.")
    return values.astype(np.int64)


def _areas(config: AlgonautsConfig, vertices: np.ndarray) -> Areas:
    """Areas of fsaverage whose names NSD gives."""
    folder = Path(str(config.root)) / config.subject / "roi_masks"
    codes, labels = {}, {}
    for name, known in layout.ALL_LABELS.items():
        files = [folder / f"{hemi}.{name}_fsaverage_space.npy" for hemi in _HEMIS]
        if name != "nsdgeneral" and all(file.is_file() for file in files):
            codes[name] = np.concatenate([_mask(file) for file in files])
            labels[name] = dict(enumerate(known, start=1))
    everywhere = np.zeros(2 * _N_VERTICES, np.int64)
    everywhere[vertices] = 1
    space = Surface("fsaverage", (_N_VERTICES, _N_VERTICES))
    return Areas(space, {"nsdgeneral": everywhere, **codes}, {"nsdgeneral": {1: "nsdgeneral"}, **labels})


def _chosen(config: AlgonautsConfig, areas: Areas, vertices: np.ndarray) -> np.ndarray:
    """The vertices of the areas that are asked for, which have responses; all of them where none are."""
    return np.intersect1d(select_voxels(areas, config.roi, None), vertices) if config.roi else vertices


def _stimuli(image_ids: np.ndarray, photos: PhotoFiles, progress: Progress | None) -> Stimuli:
    hashes = np.full(len(image_ids), "") if progress is None else photos.scan(image_ids.tolist(), progress=progress)
    return Stimuli(
        image_ids,
        photos.read,
        hashes,
        np.zeros(len(image_ids), bool),
        str(photos.source),
        name=ids.Naming(size=_N_IMAGES),
    )
