"""Images of the Natural Scenes Dataset: the design and the image file enter; ids and a reader leave.

Every id on disk counts from 1, but for `nsdId`; here all count from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mine_jax.data.containers import hdf5, matlab
from mine_jax.data.ids import Naming
from mine_jax.data.images import MAX_PIXELS
from mine_jax.data.nsd import layout
from mine_jax.data.nsd.betas import Sessions
from mine_jax.errors import AlignmentError, DataError, MissingInputError
from mine_jax.types import Stimuli


@dataclass(frozen=True)
class Design:
    """Which image a subject saw in each trial; everything 0-based.

    Attributes:
        images: [T] int, 73k id of each trial of the whole design.
        shared: 73k ids of the images that all subjects were to see, ascending.
    """

    images: np.ndarray
    shared: np.ndarray


def read_design(root: Path, *, subject: str) -> Design:
    """Reads which image a subject saw in each trial.

    Raises:
        MissingInputError: if `nsd_expdesign.mat` is not there.
        AlignmentError: if ids do not count from 1, or point outside the image file.
        IntegrityError: if it is damaged.
        DataError: if the subject is not in it.
    """
    path = layout.design_file(root)
    if not path.is_file():
        raise MissingInputError(f"no experimental design at {path}. It is part of NSD's nsddata folder.")
    names = ("masterordering", "subjectim", "sharedix")
    values = matlab.read(path, names)
    missing = [name for name in names if name not in values]
    if missing:
        raise DataError(f"{path} must hold masterordering, subjectim and sharedix, but lacks {', '.join(missing)}.")
    subjectim = np.atleast_2d(values["subjectim"])
    row = int(subject.removeprefix("subj")) - 1 if subject.removeprefix("subj").isdecimal() else -1
    if not 0 <= row < len(subjectim) or not np.any(subjectim[row]):
        known = [f"subj{n + 1:02d}" for n in range(len(subjectim)) if np.any(subjectim[n])]
        raise DataError(f"`subject` must be one of {', '.join(known)}, but is {subject!r}.")
    n_images = _n_images(root)
    order = _from_one(values["masterordering"], f"masterordering of {path}", subjectim.shape[1])
    images = _from_one(subjectim[row], f"subjectim of {path}", n_images)
    shared = _from_one(values["sharedix"], f"sharedix of {path}", n_images)
    return Design(images[order], np.sort(shared))


def trial_positions(sessions: Sessions) -> np.ndarray:
    """Returns the positions [T] in the design of the trials of some sessions."""
    per_session = layout.TRIALS_PER_SESSION
    parts = [(s - 1) * per_session + np.arange(n) for s, n in zip(sessions.numbers, sessions.n_trials, strict=True)]
    return np.concatenate(parts)


def stimuli(root: Path, image_ids: np.ndarray, design: Design) -> Stimuli:
    """Returns a reader of the image file for some images.

    Args:
        root: the data set.
        image_ids: [N] str, 0-based 73k ids.
        design: for the shared images.

    Raises:
        MissingInputError: if the image file is not there.
        AlignmentError: if an id lies outside it.
    """
    path = layout.stimuli_file(root)
    n_images = _n_images(root, needed=True)

    def read(ids: Sequence[str]) -> list[np.ndarray]:
        return _read_images(path, ids)

    shared = np.isin(image_ids.astype(np.int64), design.shared)
    return Stimuli(image_ids, read, np.full(len(image_ids), ""), shared, str(path), name=Naming(size=n_images))


def _read_images(path: Path, ids: Sequence[str]) -> list[np.ndarray]:
    """Images in the order asked for; every row of the file is read once, in ascending order."""
    wrong = [image_id for image_id in ids if not str(image_id).isdecimal()]
    if wrong:
        raise AlignmentError(f"image ids of NSD must be 0-based 73k ids, but are {', '.join(map(repr, wrong[:5]))}.")
    rows, inverse = np.unique(np.array([int(image_id) for image_id in ids], np.int64), return_inverse=True)
    with hdf5.opened(path, why="read NSD's images") as file:
        brick = file["imgBrick"]
        if len(rows) and rows[-1] >= len(brick):
            raise AlignmentError(
                f"image id {rows[-1]} is not in {path}, which has {len(brick)} images, counted from 0. "
                "Are the ids 1-based?"
            )
        images = [np.asarray(brick[row]) for row in rows]
    return [images[position] for position in inverse]


def _n_images(root: Path, *, needed: bool = False) -> int | None:
    """Rows of the image file; None where it is not there and not needed."""
    path = layout.stimuli_file(root)
    if not path.is_file():
        if needed:
            raise MissingInputError(f"no images at {path}. Download nsd_stimuli.hdf5 from the Natural Scenes Dataset.")
        return None
    with hdf5.opened(path, why="read NSD's images") as file:
        brick = hdf5.numbers(file, "imgBrick", path)
        shape, dtype = brick.shape, brick.dtype
    if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8:
        raise DataError(f"`imgBrick` of {path} must be uint8 [images, height, width, 3], but is {dtype} {shape}.")
    if shape[1] * shape[2] > MAX_PIXELS:
        raise DataError(f"images of {path} have {shape[1]} x {shape[2]} pixels; at most {MAX_PIXELS} are read.")
    return shape[0]


def _from_one(values: np.ndarray, name: str, n: int | None) -> np.ndarray:
    """Checks ids that count from 1 up to n and returns them counted from 0, [T] int64."""
    flat = np.asarray(values, np.float64).ravel()
    wrong = np.flatnonzero(~np.isfinite(flat) | (flat != np.rint(flat)) | (flat < 1))
    if len(wrong):
        hint = "Do they count from 0? NSD's files count from 1." if flat[wrong[0]] == 0 else "Is the file damaged?"
        raise AlignmentError(f"{name} must hold numbers from 1, but entry {wrong[0]} is {flat[wrong[0]]:g}. {hint}")
    if n is not None and flat.size and flat.max() > n:
        raise AlignmentError(
            f"{name} must hold numbers from 1 to {n}, but entry {int(flat.argmax())} is {flat.max():g}. "
            "Do the design and the images belong together?"
        )
    return flat.astype(np.int64) - 1
