"""Tiny data sets with the names, dtypes and 1-based ids of the real ones, written by hand here."""

import dataclasses
import pathlib
import sys

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io

from mine_jax import config, data, open_run, run
from mine_jax.run import graph

SHAPE = (5, 4, 3)
AFFINE = np.array([[1.8, 0, 0, -4], [0, 1.8, 0, -3], [0, 0, 1.8, -2], [0, 0, 0, 1.0]])
N_IMAGES, N_SHARED, N_STIMULI = 450, 60, 500


def save_nifti(path, values, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


@dataclasses.dataclass
class TinyNsd:
    """A subject of two sessions, 750 and 600 trials: 450 images three times."""

    root: pathlib.Path
    betas: np.ndarray  # int16 [1350, X, Y, Z]
    images_of_trials: np.ndarray  # 0-based 73k ids
    stimuli: np.ndarray

    save = staticmethod(save_nifti)

    @property
    def folder(self):
        return self.root / "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"

    @property
    def rois(self):
        return self.root / "nsddata/ppdata/subj01/func1pt8mm/roi"

    @property
    def design(self):
        return self.root / "nsddata/experiments/nsd/nsd_expdesign.mat"

    def session(self, number):
        return self.betas[(number - 1) * 750 : number * 750]

    def write_hdf5(self, number, values=None, **options):
        values = self.session(number) if values is None else values
        path = self.folder / f"betas_session{number:02d}.hdf5"
        with h5py.File(path, "w") as file:
            file.create_dataset("betas", data=values.transpose(0, 3, 2, 1), **options)
        return path

    def write_nifti(self, number, values=None, affine=AFFINE):
        values = self.session(number) if values is None else values
        return save_nifti(self.folder / f"betas_session{number:02d}.nii.gz", values.transpose(1, 2, 3, 0), affine)

    def expected(self, voxels):
        """Oracle: float64, percent, z-scored within session, mean over repeats; images ascending."""
        percent = self.betas.reshape(len(self.betas), -1)[:, voxels].astype(np.float64) / 300
        parts = [percent[:750], percent[750:]]
        scores = np.concatenate([(part - part.mean(0)) / part.std(0) for part in parts])
        ids = sorted(set(self.images_of_trials.tolist()))
        return scores, np.stack([scores[self.images_of_trials == i].mean(0) for i in ids]), ids


@pytest.fixture
def nsd(tmp_path):
    rng = np.random.default_rng(1)
    ids = rng.permutation(N_STIMULI)[:N_IMAGES]
    order = rng.permutation(np.repeat(np.arange(N_IMAGES), 3))
    signal = rng.standard_normal((N_IMAGES, *SHAPE))
    percent = 1.5 + signal[order] + 0.7 * rng.standard_normal((len(order), *SHAPE))
    tiny = TinyNsd(
        tmp_path / "nsd",
        np.rint(percent * 300).astype(np.int16),
        ids[order],
        rng.integers(0, 256, (N_STIMULI, 8, 8, 3), np.uint8),
    )
    for folder in (tiny.folder, tiny.rois, tiny.design.parent):
        folder.mkdir(parents=True)
    subjectim = np.zeros((2, N_IMAGES))
    subjectim[0] = ids + 1
    subjectim[1] = rng.permutation(N_STIMULI)[:N_IMAGES] + 1
    values = {
        "masterordering": order[None] + 1.0,
        "subjectim": subjectim,
        "sharedix": np.sort(ids[:N_SHARED])[None] + 1.0,
    }
    scipy.io.savemat(tiny.design, values)
    stimuli = tiny.root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    stimuli.parent.mkdir(parents=True)
    with h5py.File(stimuli, "w") as file:
        file["imgBrick"] = tiny.stimuli
    general = np.full(SHAPE, -1, np.int16)
    general[1:, :, :] = 0
    general[1:4, :3, :] = 1
    faces = np.where(general < 0, -1, 0).astype(np.int16)
    faces[1, 0, :] = 1
    faces[2, 0, :] = 2
    save_nifti(tiny.rois / "nsdgeneral.nii.gz", general)
    save_nifti(tiny.rois / "floc-faces.nii.gz", faces)
    save_nifti(tiny.rois / "lh.floc-faces.nii.gz", faces)
    label = tiny.root / "nsddata/freesurfer/subj01/label/floc-faces.mgz.ctab"
    label.parent.mkdir(parents=True)
    label.write_text("0 Unknown\n1 OFA\n2 FFA-1\n3 FFA-2\n")
    for number in (1, 2):
        tiny.write_hdf5(number)
        tiny.write_nifti(number)
    return tiny


@pytest.fixture
def reported(tmp_path, quickly_compiled):
    """Runs all stages on a section of data, with the phantom's small model; its voxels must be those of the reader."""

    def run_all(section):
        settings = config.from_dict(
            {
                "features": {"kind": "clip", "model": "phantom", "low_level": False},
                "encoder": {"kind": "ridge", "decoys": 0, "halves": False},
                "attribution": {"k": 8, "n_images": 4, "min_r2": -1e9},
                "profile": {"n_permutations": 50, "n_bootstrap": 20},
                "roi": {"n_permutations": 50, "n_bootstrap": 20},
            }
        )
        run.execute(settings.model_copy(update={"data": section}), tmp_path / "run", graph.STEPS)
        responses, table = data.load(section)[0], open_run(tmp_path / "run").table("voxels")
        assert table["voxel_id"].tolist() == responses.voxel_ids.tolist() and table["rois"].tolist() == list(
            responses.rois
        )
        assert table["r2"].notna().all() and "</html>" in (tmp_path / "run/report.html").read_text(encoding="utf-8")
        return table

    return run_all


@pytest.fixture
def voxels():
    """C-order positions of the voxels of `nsdgeneral`."""
    general = np.zeros(SHAPE, bool)
    general[1:4, :3, :] = True
    return np.flatnonzero(general)


@pytest.fixture(autouse=True)
def headers_say_the_shape(monkeypatch):
    """Every data set that any of these tests loads has the images and voxels that its headers had promised."""
    load = data.load

    def compared(config, **named):
        expected = data.expected_shape(config)
        responses, stimuli = load(config, **named)
        assert expected == responses.responses.shape
        return responses, stimuli

    monkeypatch.setattr(data, "load", compared)


# Files that were opened while the last of these was the last one.
_OPENED = []


def _hear(event, arguments):
    if _OPENED and event == "open" and isinstance(arguments[0], (str, pathlib.Path)):
        _OPENED[-1].add(pathlib.Path(arguments[0]))


sys.addaudithook(_hear)


@pytest.fixture(autouse=True)
def every_file_that_is_read_is_an_input(monkeypatch, tmp_path, headers_say_the_shape):
    """What any of these tests loads is made anew when any file changes that was opened on the way."""
    load, open_hdf5 = data.load, h5py.File.__init__

    def heard(file, name, *given, **named):
        _hear("open", [name])
        open_hdf5(file, name, *given, **named)

    def compared(config, **named):
        _OPENED.append(set())
        try:
            responses, stimuli = load(config, **named)
            stimuli.read(stimuli.image_ids.tolist()[:2]) if config.has_photos else None
        finally:
            opened = {path.resolve() for path in _OPENED.pop()}
        of_data = {path for path in opened if path.is_relative_to(tmp_path.resolve())}
        if (folder := named.get("directory")) is not None:
            of_data = {path for path in of_data if not path.is_relative_to(pathlib.Path(folder).resolve())}
        known = [path.resolve() for path in (*data.inputs(config), *data.image_inputs(config))]
        assert not {path for path in of_data if not any(path.is_relative_to(place) for place in known)}
        assert of_data
        return responses, stimuli

    monkeypatch.setattr(h5py.File, "__init__", heard)
    monkeypatch.setattr(data, "load", compared)
