"""BOLD5000: areas of both releases and volumes of the second, with images that are shown again."""

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io
from PIL import Image

from mine_jax import data
from mine_jax.config import Bold5000Config
from mine_jax.errors import AlignmentError, ConfigError, DataError, MissingInputError

SIZES = {"LHPPA": 3, "RHEarlyVis": 2, "LHLOC": 4, "RHRSC": 1}
ORDER = ("RHEarlyVis", "LHLOC", "LHPPA", "RHRSC")
SHAPE = (4, 3, 3)


class Bold:
    """Two sessions of 9 and 7 trials; image 3 is shown three times."""

    def __init__(self, root):
        self.rng = np.random.default_rng(0)
        self.root = root
        names = [f"COCO_{k}.jpg" for k in range(8)] + [f"n0{k}.JPEG" for k in range(6)]
        self.shown = [*names[:8], "rep_" + names[3], *names[8:], "rep_" + names[3]]
        self.sessions = np.repeat([0, 1], [9, 7])
        self.values = {name: self.rng.standard_normal((16, size)) + 5 for name, size in SIZES.items()}
        lists = root / "Stimuli_Presentation_Lists/CSI1"
        for session in (0, 1):
            folder = lists / f"CSI1_sess{session + 1:02d}"
            folder.mkdir(parents=True)
            part = [n for n, s in zip(self.shown, self.sessions, strict=True) if s == session]
            for run, chunk in enumerate((part[:4], part[4:]), start=1):
                (folder / f"CSI_sess{session + 1:02d}_run{run:02d}.txt").write_text("\n".join(chunk) + "\n")
        self.photos = root / "Presented_Stimuli"
        for k, name in enumerate(names):
            folder = self.photos / ("COCO" if "COCO" in name else "ImageNet")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), k, np.uint8)).save(folder / name, quality=100)
        self.ids = sorted({name.removeprefix("rep_").rpartition(".")[0] for name in self.shown})

    def write_first(self, suffix):
        folder = self.root / f"ROIs/CSI1/{suffix}"
        folder.mkdir(parents=True)
        if suffix == "h5":
            with h5py.File(folder / "CSI1_ROIs_TR34.h5", "w") as file:
                for name, values in self.values.items():
                    file[name] = values
        else:
            scipy.io.savemat(folder / "CSI1_ROIs_TR34.mat", self.values)
        (self.root / "ROIs/stim_lists").mkdir()
        (self.root / "ROIs/stim_lists/CSI01_stim_lists.txt").write_text("\n".join(self.shown) + "\n")

    def write_second(self):
        folder = self.root / "BOLD5000_GLMsingle_ROI_betas/py"
        folder.mkdir(parents=True)
        for name, values in self.values.items():
            np.save(folder / f"CSI1_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_allses_{name}.npy", values)
        (self.root / "CSI1_imgnames.txt").write_text("\n".join(self.shown) + "\n")

    def config(self, **keys):
        return Bold5000Config(**{"root": str(self.root), "images": str(self.photos), **keys})

    def expected(self, values):
        scores = np.concatenate([(p - p.mean(0)) / p.std(0) for p in (values[:9], values[9:])])
        names = np.array([name.removeprefix("rep_").rpartition(".")[0] for name in self.shown])
        return np.stack([scores[names == name].mean(0) for name in self.ids])


@pytest.fixture
def bold(tmp_path):
    return Bold(tmp_path)


@pytest.mark.parametrize("kind", ["h5", "mat", "npy"])
def test_areas_of_both_releases(bold, kind):
    if kind == "npy":
        bold.write_second()
    else:
        bold.write_first(kind)
    config = bold.config(release=2 if kind == "npy" else 1)
    responses, stimuli = data.load(config)
    whole = np.concatenate([bold.values[name] for name in ORDER], 1)
    np.testing.assert_allclose(responses.responses, bold.expected(whole), atol=1e-5)
    assert responses.image_ids.tolist() == bold.ids
    assert responses.rois.tolist() == [name for name in ORDER for _ in range(SIZES[name])]
    repeats = dict(zip(bold.ids, responses.n_repeats.tolist(), strict=True))
    assert repeats["COCO_3"] == 3 and sum(repeats.values()) == 16
    assert responses.image_ids[stimuli.shared].tolist() == ["COCO_3"]
    assert [int(image[0, 0, 0]) for image in stimuli.read(["COCO_3", "n01"])] == [3, 9]
    area, _ = data.load(config.model_copy(update={"roi": ("PPA", "RHRSC")}))
    np.testing.assert_array_equal(area.responses, responses.responses[:, 6:])
    assert area.voxel_ids.tolist() == [6, 7, 8, 9]
    with pytest.raises(DataError, match="the areas: RHEarlyVis, LHLOC"):
        data.load(config.model_copy(update={"roi": ("FFA",)}))
    assert any("16 trials, 10 voxels" in line for line in data.check(config.model_copy(update={"test": 0.2})))


def test_volumes(bold):
    mask = np.zeros(36, np.uint8)
    mask[[3, 4, 20]] = 1
    for session in (0, 1):
        values = np.zeros((36, int((bold.sessions == session).sum())), np.float32)
        values[mask == 1] = bold.values["LHPPA"][bold.sessions == session].T
        image = nibabel.Nifti1Image(values.reshape(*SHAPE, -1), np.eye(4))
        nibabel.save(image, bold.root / f"CSI1_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_ses-{session + 1:02d}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask.reshape(SHAPE), np.eye(4)), bold.root / "CSI1_brainmask.nii.gz")
    (bold.root / "CSI1_imgnames.txt").write_text("\n".join(bold.shown) + "\n")
    responses, _ = data.load(bold.config(format="volumes"))
    np.testing.assert_allclose(responses.responses, bold.expected(bold.values["LHPPA"]), atol=1e-5)
    assert responses.voxel_ids.tolist() == [3, 4, 20] and responses.volume.shape == SHAPE
    (bold.root / "CSI1_imgnames.txt").write_text("\n".join(bold.shown[:-1]) + "\n")
    with pytest.raises(AlignmentError, match="lists 15 trials, but 2 sessions have 16"):
        data.load(bold.config(format="volumes"))


def test_without_presentation_lists_all_trials_are_one_session(bold, caplog):
    bold.write_second()
    for file in bold.root.rglob("*run*.txt"):
        file.unlink()
    responses, _ = data.load(bold.config(roi=("RSC",)))
    values = bold.values["RHRSC"]
    scores = (values - values.mean(0)) / values.std(0)
    np.testing.assert_allclose(responses.responses[bold.ids.index("COCO_0")], scores[0], atol=1e-6)
    assert "as one session" in caplog.text


def test_what_is_not_there(bold):
    with pytest.raises(MissingInputError, match="Is `release` or `format` another one"):
        data.load(bold.config())
    with pytest.raises(ConfigError, match="release 1"):
        data.load(bold.config(release=1, format="volumes"))


@pytest.mark.slow
def test_a_run_from_files_to_the_report(bold, reported):
    bold.write_second()
    table = reported(bold.config(test=0.2))
    assert len(table) == sum(SIZES.values())
