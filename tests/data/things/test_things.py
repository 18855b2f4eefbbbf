"""THINGS-fMRI: tables as pandas lays them out in HDF5, and volumes of runs with catch trials."""

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mine_jax import data
from mine_jax.config import ThingsConfig
from mine_jax.errors import AlignmentError, DataError, GeometryError

SHAPE = (4, 3, 3)
TRAIN = [f"object{k}_{k:02d}b.jpg" for k in range(24)]
TEST = [f"test{k}_01s.jpg" for k in range(3)]
SESSIONS = 12


class Things:
    """Twelve sessions: two training images each, shown once, and all test images in every session."""

    def __init__(self, root):
        rng = np.random.default_rng(0)
        self.root = root
        self.mask = np.zeros(SHAPE, np.uint8)
        self.mask[1:3, :2, 1:] = 1
        places = np.argwhere(self.mask)
        n_voxels = len(places)
        names = TRAIN + TEST
        signal = rng.standard_normal((len(names), n_voxels))
        rows = []
        for session in range(1, SESSIONS + 1):
            shown = [*TRAIN[2 * session - 2 : 2 * session], *TEST]
            for trial, k in enumerate(rng.permutation(len(shown))):
                kind = "test" if shown[k] in TEST else "train"
                rows.append((kind, session, trial // 3 + 1, 1, len(rows), shown[k], "a, concept"))
        columns = ["trial_type", "session", "run", "subject_id", "trial_id", "stimulus", "concept"]
        self.stimuli = pd.DataFrame(rows, columns=columns)
        which = [names.index(name) for name in self.stimuli["stimulus"]]
        # around the number of the voxel: a planted pattern of places
        self.betas = signal[which] + 0.5 * rng.standard_normal((len(rows), n_voxels)) + np.arange(n_voxels)
        self.tables = root / "betas_csv"
        self.tables.mkdir()
        self.stimuli.to_csv(self.tables / "sub-01_StimulusMetadata.csv", index=False)
        voxels = pd.DataFrame(places, columns=["voxel_x", "voxel_y", "voxel_z"])
        voxels.insert(0, "voxel_id", np.arange(n_voxels))
        voxels["nc_testset"], voxels["prf-size"] = 40.0, 1.0
        voxels["V1"] = (np.arange(n_voxels) < 3).astype(int)
        voxels["lFFA"] = (np.arange(n_voxels) % 3 == 0).astype(int)
        voxels["glasser-V1"] = 1
        voxels.to_csv(self.tables / "sub-01_VoxelMetadata.csv", index=False)
        self.write_table()
        (root / "brainmasks").mkdir()
        image = nibabel.Nifti1Image(self.mask, np.diag([2, 2, 2, 1.0]))
        nibabel.save(image, root / "brainmasks/sub-01_space-T1w_brainmask.nii.gz")
        (root / "images").mkdir()
        for k, name in enumerate(names):
            folder = root / "images" / name.split("_")[0]
            folder.mkdir()
            Image.fromarray(np.full((8, 8, 3), k, np.uint8)).save(folder / name, quality=100)

    def write_table(self, order=None):
        """As `DataFrame.to_hdf(format="fixed")`: blocks by dtype, values [rows, items]; voxel_id has its own."""
        order = np.arange(len(self.betas)) if order is None else order
        with h5py.File(self.tables / "sub-01_ResponseData.h5", "w") as file:
            group = file.create_group("ResponseData")
            group["axis1"] = np.arange(self.betas.shape[1])
            group["block0_items"] = np.array([str(k).encode() for k in order])
            group["block0_values"] = self.betas[order].T
            group["block1_items"] = np.array([b"voxel_id"])
            group["block1_values"] = np.arange(self.betas.shape[1])[:, None]

    def config(self, **keys):
        paths = {"root": str(self.root), "images": str(self.root / "images")}
        return ThingsConfig(**{**paths, **keys})

    def expected(self, voxels, names):
        sessions = self.stimuli["session"].to_numpy()
        scores = np.empty_like(self.betas)
        for session in range(1, SESSIONS + 1):
            part = self.betas[sessions == session]
            scores[sessions == session] = (part - part.mean(0)) / part.std(0)
        shown = self.stimuli["stimulus"].str.removesuffix(".jpg").to_numpy()
        return np.stack([scores[shown == name][:, voxels].mean(0) for name in names])


@pytest.fixture
def things(tmp_path):
    return Things(tmp_path)


def test_tables(things):
    responses, stimuli = data.load(things.config())
    names = sorted(name.removesuffix(".jpg") for name in TRAIN + TEST)
    assert responses.image_ids.tolist() == names
    np.testing.assert_allclose(responses.responses, things.expected(np.arange(8), names), atol=1e-5)
    assert dict(zip(names, responses.n_repeats.tolist(), strict=True))["test1_01s"] == SESSIONS
    np.testing.assert_array_equal(responses.indices, np.argwhere(things.mask))
    np.testing.assert_array_equal(responses.voxel_ids, np.flatnonzero(things.mask))
    assert responses.rois[0] == "V1;lFFA" and responses.rois[1] == "V1" and responses.rois[4] == ""
    plain, _ = data.load(things.config(zscore="none"))
    np.testing.assert_allclose(plain.responses.mean(0), np.arange(8), atol=1.2)
    splits = data.assign_splits(responses, stimuli, test="shared")
    assert set(responses.image_ids[splits == "test"]) == {name.removesuffix(".jpg") for name in TEST}
    assert [int(image[0, 0, 0]) for image in stimuli.read(["test2_01s", "object3_03b"])] == [26, 3]
    assert any("60 trials, 8 voxels, 3 test images" in line for line in data.check(things.config()))


def test_ceiling_is_that_of_the_test_images(things):
    """Test images have 12 repeats, training images one: the ceiling of the scored rows, not of all."""
    responses, stimuli = data.load(things.config())
    splits = data.assign_splits(responses, stimuli, test="shared")
    scored = data.with_noise_ceiling(responses, splits == "test")
    squared = responses.ncsnr**2
    np.testing.assert_allclose(scored.noise_ceiling, squared / (squared + 1 / 12))


def test_columns_in_any_order_and_areas(things):
    expected, _ = data.load(things.config())
    things.write_table(np.random.default_rng(1).permutation(len(things.betas)))
    np.testing.assert_array_equal(data.load(things.config())[0].responses, expected.responses)
    area, _ = data.load(things.config(roi=("lFFA",)))
    np.testing.assert_array_equal(area.responses, expected.responses[:, [0, 3, 6]])
    np.testing.assert_array_equal(area.voxel_ids, expected.voxel_ids[[0, 3, 6]])
    with pytest.raises(DataError, match="closest names: lFFA"):
        data.load(things.config(roi=("FFA",)))


def test_volumes_of_runs_with_catch_trials(things):
    for (session, run), rows in things.stimuli.groupby(["session", "run"]).groups.items():
        folder = things.root / f"betas_vol/sub-01/ses-things{session:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        values = np.zeros((36, len(rows) + 1))
        values[things.mask.ravel() == 1, :-1] = things.betas[rows].T
        values[:, -1] = 1e3
        base = folder / f"sub-01_ses-things{session:02d}_run-{run:02d}"
        image = nibabel.Nifti1Image(values.reshape(*SHAPE, -1).astype("f4"), np.diag([2, 2, 2, 1.0]))
        nibabel.save(image, f"{base}_betas.nii.gz")
        names = [*things.stimuli["stimulus"][rows], "catch07.jpg"]
        (folder / f"{base.name}_conditions.tsv").write_text("stimulus\n" + "\n".join(names) + "\n")
    tables, shown = data.load(things.config())
    volumes, stimuli = data.load(things.config(format="volumes"))
    np.testing.assert_allclose(volumes.responses, tables.responses, atol=1e-4)
    np.testing.assert_array_equal(volumes.indices, tables.indices)
    np.testing.assert_array_equal(stimuli.shared, shown.shared)


def test_what_does_not_belong_together(things):
    path = things.tables / "sub-01_StimulusMetadata.csv"
    text = path.read_text()
    path.write_text(text.rsplit("\n", 2)[0] + "\n")
    with pytest.raises(AlignmentError, match=r"60 trials, but the table of stimuli lists 59"):
        data.load(things.config())
    path.write_text(text.replace('"a, concept"', "a, concept", 1))
    with pytest.raises(DataError, match=r"line 2 of .* has 8 fields, but the header has 7"):
        data.load(things.config())
    path.write_text(text)
    image = nibabel.Nifti1Image(np.roll(things.mask, 1, 0), np.diag([2, 2, 2, 1.0]))
    nibabel.save(image, things.root / "brainmasks/sub-01_space-T1w_brainmask.nii.gz")
    with pytest.raises(GeometryError, match="not in the brain mask"):
        data.load(things.config())


@pytest.mark.slow
def test_a_run_from_files_to_the_report(things, reported):
    table = reported(things.config())
    assert table[["i", "j", "k"]].to_numpy().tolist() == np.argwhere(things.mask).tolist()
