"""Writes phantom subjects to disk exactly as the Natural Scenes Dataset is laid out.

Scenes and a planted cortex enter; int16 betas by session (HDF5 and NIfTI), ROI volumes, the
design and the images leave, beside `phantom_truth.tsv` and `phantom_scenes.jsonl`. Readers of
real NSD files read these without knowing.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mine_jax import artifacts
from mine_jax._optional import require
from mine_jax._progress import Progress, shown
from mine_jax.data import noise_ceiling
from mine_jax.data.nsd import layout
from mine_jax.data.nsd.areas import Areas, select_voxels
from mine_jax.errors import ConfigError, DataError, IntegrityError, MissingInputError
from mine_jax.phantom import cortex as cortex_module
from mine_jax.phantom import scenes as scene_module
from mine_jax.phantom.cortex import Cortex
from mine_jax.phantom.sampling import sample_correlated
from mine_jax.types import Volume

SCHEMA = 2
SPACE = "func1pt8mm"
BETA_VERSION = "betas_fithrf_GLMdenoise_RR"
# ROI collections of the phantom; NSD has no food area of its own, and no areas without preference.
ROIS = {**layout.ROI_LABELS, "food": ("food",), "control": ("control-1", "control-2")}
_VOXEL_MM = 1.8
# Every session is written in both.
_FORMS = ("hdf5", "nifti")
_INT16_MAX = 32767
_SUBJECT = "subj0[1-8]"
# A session's files take about as long as this many images.
_SESSION_WORK = 100


@dataclass(frozen=True)
class _Design:
    """Which image is shown when; all ids 0-based rows of the image file."""

    scenes: list[scene_module.Scene]
    shared: np.ndarray
    images_of: dict[str, np.ndarray]
    order: np.ndarray

    @property
    def sessions(self) -> np.ndarray:
        """Session [T] of each trial, counted from 0."""
        return np.arange(len(self.order)) // layout.TRIALS_PER_SESSION


def write_phantom(
    directory: str | Path,
    *,
    subjects: Sequence[str] = ("subj01", "subj02"),
    n_images: int = 2500,
    n_shared: int = 400,
    n_repeats: int = 3,
    n_repeats_shared: int | None = None,
    ceiling: float | Sequence[float] = 0.6,
    shape: tuple[int, int, int] = (24, 24, 18),
    seed: int = 0,
    progress: Progress | bool = True,
) -> Path:
    """Writes a phantom data set, or completes it; nothing if it is there.

    Args:
        directory: the data set's root, made if needed.
        subjects: names, "subj01" to "subj08".
        n_images: distinct images that each subject sees, shared ones included.
        n_shared: images that all subjects see.
        n_repeats: how often each subject sees each image, 1 to 3.
        n_repeats_shared: how often it sees the shared ones, up to 20, as data sets do that train on single
            trials and test on many; None for as often.
        ceiling: about the mean noise ceiling, fraction of variance for three repeats; or the two ends between
            which noise ceilings are spread evenly.
        shape: size of the volume in voxels.
        seed: decides everything; the same seed gives the same bytes.
        progress: called with work done and total. True shows a bar on a terminal, False nothing.

    Returns:
        Path: the data set's root.

    Raises:
        ConfigError: if an argument is out of range.
        DataError: if the folder holds another data set.
        MissingExtraError: without h5py.
    """
    root = Path(directory)
    parameters: dict[str, Any] = {
        **{"subjects": list(subjects), "n_images": n_images, "n_shared": n_shared, "n_repeats": n_repeats},
        **{"shape": list(shape), "seed": seed},
        "ceiling": ceiling if isinstance(ceiling, (int, float)) else list(ceiling),
        "n_repeats_shared": n_repeats if n_repeats_shared is None else n_repeats_shared,
    }
    _check(parameters)
    if _is_there(root, parameters):
        return root
    repeats = np.where(np.arange(n_images) < n_shared, parameters["n_repeats_shared"], n_repeats)
    design = _design(subjects, repeats, n_shared, seed)
    n_sessions = int(design.sessions[-1]) + 1
    files = _files(root, subjects, n_sessions)
    record = {"schema": SCHEMA, "parameters": parameters, "files": [str(f.relative_to(root)) for f in files]}
    artifacts.write_json(root / "phantom.json", {**record, "complete": False})

    total = len(design.scenes) + len(subjects) * n_sessions * _SESSION_WORK
    with shown("phantom", progress) as report:
        images = _render(design.scenes, lambda done: report(done, total))
        _write_stimuli(root, images, design)
        _write_design(root, design)
        tables = []
        for number, subject in enumerate(subjects):
            done = len(images) + number * n_sessions * _SESSION_WORK
            planted = _write_subject(
                root, subject, design, images, parameters, lambda s, done=done: report(done + s * _SESSION_WORK, total)
            )
            tables.append(cortex_module.to_table(planted, subject=subject))
    artifacts.write_table(root / "phantom_truth.tsv", pd.concat(tables, ignore_index=True))
    lines = (json.dumps(scene_module.to_dict(scene)) for scene in design.scenes)
    artifacts.write_text(root / "phantom_scenes.jsonl", "\n".join(lines) + "\n")
    artifacts.write_json(root / "phantom.json", {**record, "complete": True})
    return root


def planned_voxels(subject: str, *, shape: tuple[int, int, int], seed: int, roi: Sequence[str]) -> int:
    """Counts the voxels that the reader of NSD will select in a phantom that is still to be written.

    Args:
        subject: name of the subject.
        shape: as in `write_phantom`.
        seed: as in `write_phantom`.
        roi: areas, as in `nsd.areas.select_voxels`.

    Returns:
        Number V.

    Raises:
        MineError: as `write_phantom`, or for an area that it will not have.
    """
    if not re.fullmatch(_SUBJECT, subject):
        raise ConfigError(f"`subject` must be subj01..subj08, but is {subject!r}.")
    planted = cortex_module.plant([seed, int(subject[-1]), 1], shape=shape)
    valid = np.full(planted.shape, np.nan).reshape(-1)
    valid[np.setdiff1d(planted.sheet, planted.voxel_ids[planted.kind == "invalid"])] = 0
    labels = {name: dict(enumerate(known, start=1)) for name, known in ROIS.items()}
    codes = {name: _codes(planted, name).reshape(-1) for name in ROIS}
    areas = Areas(Volume(planted.shape, np.eye(4)), codes, labels)
    return len(select_voxels(areas, roi, valid))


def read_parameters(root: str | Path) -> dict[str, Any] | None:
    """Reads what a phantom was written with.

    Args:
        root: folder that `write_phantom` filled, perhaps not to the end.

    Returns:
        Arguments of `write_phantom` by name; None where there is no phantom.

    Raises:
        DataError: if its record is damaged.
    """
    record = _record(Path(root))
    return None if record is None else record.get("parameters")


def remove_phantom(root: str | Path) -> None:
    """Deletes the files that a phantom's record lists, and the record; other files stay.

    Args:
        root: folder that `write_phantom` filled, perhaps not to the end.

    Raises:
        DataError: if its record is damaged.
    """
    root = Path(root)
    record = _record(root)
    for name in [] if record is None else [*record["files"], "phantom.json"]:
        # Only what lies inside the folder: the list could have been edited.
        if (root / name).resolve().is_relative_to(root.resolve()):
            (root / name).unlink(missing_ok=True)
    folders = [path for path in root.rglob("*") if path.is_dir() and not path.is_symlink()]
    for folder in sorted(folders, reverse=True):
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()


def read_truth(root: str | Path) -> pd.DataFrame:
    """Reads the planted truth of all subjects.

    Args:
        root: folder that `write_phantom` filled.

    Returns:
        phantom_truth.tsv, one row per voxel; absent words are "".

    Raises:
        MissingInputError: if the folder holds no phantom.
    """
    kinds = dict.fromkeys(("subject", "area", "category", "kind", "concepts", "feature"), str)
    table = artifacts.read_table(Path(root) / "phantom_truth.tsv", **kinds)
    return table.fillna(dict.fromkeys(kinds, ""))


def read_cortex(root: str | Path, *, subject: str) -> Cortex:
    """Reads one subject's planted cortex, calibrated, for responses to new scenes.

    Args:
        root: folder that `write_phantom` filled.
        subject: name of the subject.

    Returns:
        The cortex, ready for `true_response` of new or edited scenes.

    Raises:
        MissingInputError: if the folder holds no phantom.
        DataError: if it does not hold the subject.
    """
    truth = read_truth(root)
    rows = truth[truth["subject"] == subject]
    if rows.empty:
        known = ", ".join(sorted(set(truth["subject"])))
        raise DataError(f"the phantom at {root} has no subject {subject!r}; it has {known}.")
    shape = artifacts.read_json(Path(root) / "phantom.json")["parameters"]["shape"]
    return cortex_module.from_table(rows, shape=tuple(shape))


def read_scenes(root: str | Path) -> list[scene_module.Scene]:
    """Reads the scenes of a phantom.

    Args:
        root: folder that `write_phantom` filled.

    Returns:
        The scene of every image, in the order of 0-based image ids.
    """
    path = Path(root) / "phantom_scenes.jsonl"
    try:
        return [scene_module.from_dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise MissingInputError(f"no scenes at {path}. Write the phantom again.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{path} does not hold scenes ({error!r:.300}). Write the phantom again.") from error


def _check(parameters: dict[str, Any]) -> None:
    """Raises ConfigError with every argument that is out of range."""
    names, n_images, n_shared = (parameters[name] for name in ("subjects", "n_images", "n_shared"))
    rules = (
        (bool(names) and all(re.fullmatch(_SUBJECT, name) for name in names), "subjects", "names subj01..subj08"),
        (len(set(names)) == len(names), "subjects", "different names"),
        (n_images >= 2, "n_images", "at least 2"),
        (0 <= n_shared <= n_images, "n_shared", "0..n_images"),
        (1 <= parameters["n_repeats"] <= 3, "n_repeats", "1, 2 or 3"),
        (1 <= parameters["n_repeats_shared"] <= 20, "n_repeats_shared", "1 to 20"),
        (_are_ceilings(parameters["ceiling"]), "ceiling", "between 0 and 1, or two such numbers, low before high"),
        (len(parameters["shape"]) == 3 and min(parameters["shape"]) >= 4, "shape", "three numbers of at least 4"),
        (parameters["seed"] >= 0, "seed", "at least 0"),
    )
    problems = [f"`{name}` must be {rule}, but is {parameters[name]!r}." for fits, name, rule in rules if not fits]
    if problems:
        raise ConfigError("\n".join(problems))


def _are_ceilings(value: float | list[float]) -> bool:
    ends = value if isinstance(value, list) else [value, value]
    return len(ends) == 2 and 0 < ends[0] <= ends[1] < 1


def _is_there(root: Path, parameters: dict[str, Any]) -> bool:
    """Whether this very phantom is complete on disk.

    Raises:
        DataError: if the folder holds anything else.
    """
    record = _record(root)
    if record is None:
        if (root / "nsddata").exists() or (root / "nsddata_betas").exists():
            raise DataError(f"{root} holds a data set that is not a phantom. Choose an empty folder.")
        return False
    there = record["parameters"]
    if record.get("schema") != SCHEMA:
        raise DataError(f"{root} holds a phantom of another version of mine_jax. Delete the folder or choose another.")
    differing = [
        f"{key} = {there.get(key)!r} there, {value!r} asked for"
        for key, value in parameters.items()
        if there.get(key) != value
    ]
    if differing:
        raise DataError(
            f"{root} holds another phantom: {'; '.join(differing)}. Ask for the one that is there, choose another "
            "folder, or delete this one."
        )
    return bool(record.get("complete")) and all((root / name).is_file() for name in record["files"])


def is_phantom(root: str | Path) -> bool:
    """Says whether a folder holds a phantom.

    Args:
        root: a data set in the layout of NSD.

    Returns:
        Whether `write_phantom` wrote it.
    """
    return (Path(root) / "phantom.json").is_file()


def _record(root: Path) -> dict[str, Any] | None:
    """Reads phantom.json; None where there is none."""
    if not is_phantom(root):
        return None
    record = artifacts.read_json(root / "phantom.json")
    kinds = {"files": list, "parameters": dict}
    if not isinstance(record, dict) or not all(isinstance(record.get(key), kind) for key, kind in kinds.items()):
        raise DataError(f"{root / 'phantom.json'} does not describe a phantom. Delete the folder or choose another.")
    return record


def _files(root: Path, subjects: Sequence[str], n_sessions: int) -> list[Path]:
    """Every file of the data set but `phantom.json`."""
    files = [layout.stimuli_file(root), layout.design_file(root), layout.stim_info_file(root)]
    for subject in subjects:
        folder = layout.betas_folder(root, subject, SPACE, BETA_VERSION)
        files += [layout.session_file(folder, session + 1, form) for session in range(n_sessions) for form in _FORMS]
        files.append(folder / "ncsnr.nii.gz")
        files += [layout.roi_file(root, subject, SPACE, name) for name in ROIS]
        files += [layout.ctab_file(root, subject, name) for name in ROIS]
    return [*files, root / "phantom_truth.tsv", root / "phantom_scenes.jsonl"]


def _design(subjects: Sequence[str], repeats: np.ndarray, n_shared: int, seed: int) -> _Design:
    """Samples scenes, gives them shuffled rows, and orders the trials; each image is shown `repeats` [n] times."""
    n_images = len(repeats)
    n_total = n_shared + len(subjects) * (n_images - n_shared)
    rows = np.random.default_rng([seed, 100]).permutation(n_total)
    shared, rest = np.sort(rows[:n_shared]), rows[n_shared:]
    scenes: list[Any] = [None] * n_total
    rng = np.random.default_rng([seed, 0])
    for row in shared:
        scenes[row] = sample_correlated(rng)
    images_of = {}
    for number, subject in enumerate(subjects):
        unshared = np.sort(rest[number * (n_images - n_shared) : (number + 1) * (n_images - n_shared)])
        rng = np.random.default_rng([seed, int(subject[-1])])
        for row in unshared:
            scenes[row] = sample_correlated(rng)
        images_of[subject] = np.concatenate([shared, unshared])
    order = np.random.default_rng([seed, 200]).permutation(np.repeat(np.arange(n_images), repeats))
    return _Design(scenes, shared, images_of, order)


def _render(scenes: list[scene_module.Scene], progress: Any) -> np.ndarray:
    """All images, uint8 [n, size, size, 3]."""
    images = np.empty((len(scenes), scenes[0].size, scenes[0].size, 3), np.uint8)
    for row, scene in enumerate(scenes):
        images[row] = scene_module.render(scene)
        if row % 50 == 49 or row == len(scenes) - 1:
            progress(row + 1)
    return images


def _write_stimuli(root: Path, images: np.ndarray, design: _Design) -> None:
    """The image file and the table of images."""
    h5py = require("h5py", extra="nsd", why="write NSD's image file")
    with artifacts.atomic(layout.stimuli_file(root)) as path, h5py.File(path, "w") as file:
        file.create_dataset(
            "imgBrick", data=images, chunks=(1, *images.shape[1:]), compression="gzip", compression_opts=1
        )
    n = len(images)
    columns: dict[str, Any] = {
        "cocoId": np.arange(n) + 1,
        "cocoSplit": "train2017",
        "cropBox": "(0.0, 0.0, 0.0, 0.0)",
        "loss": 0.0,
        "nsdId": np.arange(n),
        "flagged": False,
        "BOLD5000": False,
        "shared1000": np.isin(np.arange(n), design.shared),
    }
    repeats, most = {}, max(3, int(np.bincount(design.order).max()))
    for number in range(1, 9):
        images_of = design.images_of.get(f"subj{number:02d}", np.zeros(0, int))
        columns[f"subject{number}"] = np.isin(np.arange(n), images_of).astype(int)
        for repeat in range(most):
            repeats[f"subject{number}_rep{repeat}"] = np.zeros(n, int)
        if len(images_of):
            seen = np.zeros(n, int)
            for trial, image in enumerate(images_of[design.order]):
                repeats[f"subject{number}_rep{seen[image]}"][image] = trial + 1
                seen[image] += 1
    table = pd.DataFrame({**columns, **repeats})
    artifacts.write_text(layout.stim_info_file(root), table.to_csv())


def _write_design(root: Path, design: _Design) -> None:
    """`nsd_expdesign.mat`, all ids counted from 1."""
    import scipy.io

    n_rows = max(int(subject[-1]) for subject in design.images_of)
    n_images = len(next(iter(design.images_of.values())))
    subjectim = np.zeros((n_rows, n_images))
    for subject, images in design.images_of.items():
        subjectim[int(subject[-1]) - 1] = images + 1
    buffer = io.BytesIO()
    # MATLAB keeps numbers as doubles.
    values = {"masterordering": design.order[None] + 1.0, "subjectim": subjectim, "sharedix": design.shared[None] + 1.0}
    scipy.io.savemat(buffer, values, do_compression=True)
    # The first 116 bytes are free text with the date of writing.
    content = b"MATLAB 5.0 MAT-file, phantom".ljust(116) + buffer.getvalue()[116:]
    with artifacts.atomic(layout.design_file(root)) as path:
        path.write_bytes(content)


def _write_subject(
    root: Path, subject: str, design: _Design, images: np.ndarray, parameters: dict[str, Any], progress: Any
) -> Cortex:
    """Plants one subject's cortex and writes betas, noise ceiling and ROIs."""
    seed = [parameters["seed"], int(subject[-1])]
    planted = cortex_module.plant(
        [*seed, 1],
        shape=tuple(parameters["shape"]),
        ceiling=parameters["ceiling"],
    )
    rows = design.images_of[subject]
    scenes = [design.scenes[row] for row in rows]
    raw = cortex_module.true_response(planted, scenes, images[rows])
    planted = cortex_module.calibrate(planted, raw)
    responses = ((raw - planted.signal_mean) / planted.signal_sd).astype(np.float32)
    betas = cortex_module.simulate_trials(
        planted, responses, rows=design.order, sessions=design.sessions, seed=[*seed, 2]
    )
    # Cortex outside the planted areas: noise only.
    others = np.setdiff1d(planted.sheet, planted.voxel_ids)
    noise = 1 + 0.4 * np.random.default_rng([*seed, 3]).standard_normal((len(betas), len(others)), np.float32)
    voxel_ids = np.concatenate([planted.voxel_ids, others])
    scaled = np.rint(np.nan_to_num(np.concatenate([betas, noise], 1)) * layout.BETA_SCALE)
    integers = np.clip(scaled, -_INT16_MAX, _INT16_MAX).astype(np.int16)
    folder = layout.betas_folder(root, subject, SPACE, BETA_VERSION)
    for session in np.unique(design.sessions):
        _write_session(folder, int(session) + 1, integers[design.sessions == session], voxel_ids, planted.shape)
        progress(int(session) + 1)
    _write_ncsnr(folder, integers, design, voxel_ids, planted)
    _write_rois(root, subject, planted)
    return planted


def _write_session(folder: Path, session: int, betas: np.ndarray, voxel_ids: np.ndarray, shape: Any) -> None:
    """One session as HDF5, which h5py shows as [trials, Z, Y, X], and as NIfTI [X, Y, Z, trials]."""
    h5py = require("h5py", extra="nsd", why="write HDF5 betas")
    volume = np.zeros((len(betas), *shape[::-1]), np.int16)
    i, j, k = np.unravel_index(voxel_ids, shape)
    volume[:, k, j, i] = betas
    with artifacts.atomic(layout.session_file(folder, session, "hdf5")) as path, h5py.File(path, "w") as file:
        file.create_dataset(
            "betas",
            data=volume,
            chunks=(len(betas), 1, 1, 1),
            compression="gzip",
            compression_opts=1,
            shuffle=True,
            fletcher32=True,
        )
    _write_nifti(layout.session_file(folder, session, "nifti"), volume.transpose())


def _write_ncsnr(folder: Path, betas: np.ndarray, design: _Design, voxel_ids: np.ndarray, planted: Cortex) -> None:
    """`ncsnr.nii.gz` as NSD computes it; NaN where there is no valid voxel."""
    trials = betas / layout.BETA_SCALE
    for session in np.unique(design.sessions):
        here = design.sessions == session
        sd = trials[here].std(0)
        trials[here] = (trials[here] - trials[here].mean(0)) / np.where(sd > 0, sd, 1)
    ratio = noise_ceiling.ncsnr(trials, design.order)
    # A constant voxel has neither signal nor noise.
    ratio[np.isinf(ratio)] = 0
    ratio[np.isin(voxel_ids, planted.voxel_ids[planted.kind == "invalid"])] = np.nan
    volume = np.full(planted.shape, np.nan, np.float32)
    volume.reshape(-1)[voxel_ids] = ratio
    _write_nifti(folder / "ncsnr.nii.gz", volume)


def _write_rois(root: Path, subject: str, planted: Cortex) -> None:
    """ROI volumes with NSD's codes, and the tables of their names."""
    for name, labels in ROIS.items():
        _write_nifti(layout.roi_file(root, subject, SPACE, name), _codes(planted, name))
        lines = [f"{code} {label}" for code, label in enumerate(("Unknown", *labels))]
        artifacts.write_text(layout.ctab_file(root, subject, name), "\n".join(lines) + "\n")


def _codes(planted: Cortex, name: str) -> np.ndarray:
    """NSD's codes [X, Y, Z] of a collection: -1 outside cortex, 0 unlabelled."""
    volume = np.full(planted.shape, -1, np.int16)
    flat = volume.reshape(-1)
    flat[planted.sheet] = 0
    if name == "nsdgeneral":
        flat[planted.voxel_ids] = 1
    for code, label in enumerate(ROIS[name], start=1):
        flat[planted.voxel_ids[planted.area == label]] = code
    return volume


def _write_nifti(path: Path, volume: np.ndarray) -> None:
    """A gzipped NIfTI whose bytes depend on the values only."""
    import nibabel

    affine = np.diag([_VOXEL_MM, _VOXEL_MM, _VOXEL_MM, 1.0])
    affine[:3, 3] = -_VOXEL_MM * (np.array(volume.shape[:3]) - 1) / 2
    image = nibabel.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm", "sec")
    with artifacts.atomic(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))
