"""The phantom on disk: NSD's own names, codes and 1-based ids, read with the libraries alone."""

import hashlib
import json
import pathlib

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
import scipy.io

from mine_jax import data
from mine_jax.errors import ConfigError, DataError
from mine_jax.phantom import cortex, scenes, write_nsd

ARGUMENTS = {"subjects": ("subj01", "subj02"), "n_images": 280, "n_shared": 60, "shape": (12, 12, 10), "seed": 7}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_nsd.write_phantom(tmp_path_factory.mktemp("phantom") / "nsd", **ARGUMENTS)


def betas_folder(root, subject="subj01"):
    return root / f"nsddata_betas/ppdata/{subject}/func1pt8mm/betas_fithrf_GLMdenoise_RR"


def test_design_is_one_based(root):
    values = scipy.io.loadmat(root / "nsddata/experiments/nsd/nsd_expdesign.mat")
    order, subjectim, shared = values["masterordering"], values["subjectim"], values["sharedix"]
    assert order.shape == (1, 840) and subjectim.shape == (2, 280) and shared.shape == (1, 60)
    assert np.bincount(order.ravel().astype(int)).tolist() == [0] + [3] * 280
    np.testing.assert_array_equal(subjectim[:, :60], np.repeat(shared, 2, 0))
    assert len(set(subjectim.ravel())) == 60 + 2 * 220
    assert subjectim.min() == 1 and subjectim.max() == 500


def test_betas_in_both_formats(root):
    folder = betas_folder(root)
    for session, n_trials in ((1, 750), (2, 90)):
        with h5py.File(folder / f"betas_session{session:02d}.hdf5") as file:
            betas = file["betas"]
            assert betas.dtype == np.int16 and betas.shape == (n_trials, 10, 12, 12)
            assert betas.chunks == (n_trials, 1, 1, 1) and betas.fletcher32
            stored = betas[:]
        image = nibabel.load(folder / f"betas_session{session:02d}.nii.gz")
        assert image.get_data_dtype() == np.int16 and image.shape == (12, 12, 10, n_trials)
        np.testing.assert_array_equal(np.asarray(image.dataobj), stored.transpose(3, 2, 1, 0))
    assert not (folder / "betas_session03.hdf5").exists()


def test_roi_codes_and_names(root):
    folder = root / "nsddata/ppdata/subj01/func1pt8mm/roi"
    truth = write_nsd.read_truth(root)
    truth = truth[truth["subject"] == "subj01"]
    general = np.asarray(nibabel.load(folder / "nsdgeneral.nii.gz").dataobj)
    assert set(np.unique(general)) == {-1, 0, 1}
    np.testing.assert_array_equal(np.flatnonzero(general == 1), truth["voxel_id"])
    np.testing.assert_array_equal(np.argwhere(general == 1), truth[["i", "j", "k"]])
    expected = {
        "prf-visualrois": {1: "V1v", 2: "V1d"},
        "floc-faces": {1: "OFA", 2: "FFA-1", 3: "FFA-2"},
        "floc-bodies": {1: "EBA"},
        "floc-places": {1: "OPA", 2: "PPA"},
        "floc-words": {2: "VWFA-1"},
        "food": {1: "food"},
    }
    for name, labels in expected.items():
        codes = np.asarray(nibabel.load(folder / f"{name}.nii.gz").dataobj)
        np.testing.assert_array_equal(codes == -1, general == -1)
        assert set(np.unique(codes)) == {-1, 0, *labels}
        table = (root / f"nsddata/freesurfer/subj01/label/{name}.mgz.ctab").read_text().splitlines()
        names = dict(line.split() for line in table)
        for code, label in labels.items():
            assert names[str(code)] == label
            np.testing.assert_array_equal(np.flatnonzero(codes == code), truth["voxel_id"][truth["area"] == label])


def test_table_of_images(root):
    table = pd.read_csv(root / "nsddata/experiments/nsd/nsd_stim_info_merged.csv", index_col=0)
    assert len(table) == 500 and len(table.columns) == 40
    assert table["nsdId"].tolist() == list(range(500)) and table["shared1000"].sum() == 60
    values = scipy.io.loadmat(root / "nsddata/experiments/nsd/nsd_expdesign.mat")
    shown = values["subjectim"][1][values["masterordering"].ravel().astype(int) - 1] - 1
    image = int(table.index[table["subject2"] == 1][3])
    trials = table.loc[image, [f"subject2_rep{r}" for r in range(3)]].to_numpy(int)
    np.testing.assert_array_equal(np.flatnonzero(shown == image) + 1, trials)
    assert (table.loc[table["subject1"] == 0, "subject1_rep0"] == 0).all()


def test_images_are_the_scenes(root):
    planted = write_nsd.read_scenes(root)
    with h5py.File(root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5") as file:
        assert file["imgBrick"].shape == (500, 64, 64, 3) and file["imgBrick"].dtype == np.uint8
        for row in (0, 17, 499):
            np.testing.assert_array_equal(file["imgBrick"][row], scenes.render(planted[row]))


def test_noise_ceiling_file(root):
    ratio = np.asarray(nibabel.load(betas_folder(root) / "ncsnr.nii.gz").dataobj).ravel()
    truth = write_nsd.read_truth(root)
    truth = truth[truth["subject"] == "subj01"]
    assert np.isnan(ratio[truth["voxel_id"][truth["kind"] == "invalid"]]).all()
    has_signal = (truth["noise_ceiling"] > 0).to_numpy()
    found = ratio[truth["voxel_id"][has_signal]] ** 2
    found = found / (found + 1 / 3)
    assert np.corrcoef(found, truth["noise_ceiling"][has_signal])[0, 1] > 0.9
    responses, _ = data.load_nsd(root, subject="subj01")
    np.testing.assert_allclose(responses.ncsnr[has_signal], ratio[responses.voxel_ids][has_signal], rtol=1e-5)


def test_reader_finds_the_planted_signal(root):
    truth = write_nsd.read_truth(root)
    planted_scenes = write_nsd.read_scenes(root)
    for subject in ARGUMENTS["subjects"]:
        responses, stimuli = data.load_nsd(root, subject=subject)
        rows = truth[truth["subject"] == subject]
        np.testing.assert_array_equal(responses.voxel_ids, rows["voxel_id"])
        np.testing.assert_array_equal(responses.rois, rows["area"])
        status = rows["kind"].map({"constant": "constant", "invalid": "nonfinite"}).fillna("ok")
        np.testing.assert_array_equal(responses.status, status)
        planted = write_nsd.read_cortex(root, subject=subject)
        true = cortex.true_response(planted, [planted_scenes[int(i)] for i in responses.image_ids])
        moves = (rows["noise_ceiling"] > 0).to_numpy()
        r2 = np.array([np.corrcoef(true[:, v], responses.responses[:, v])[0, 1] ** 2 for v in np.flatnonzero(moves)])
        assert np.abs(r2 - rows["noise_ceiling"][moves]).max() < 0.2
        assert abs((r2 - rows["noise_ceiling"][moves]).mean()) < 0.02
        assert stimuli.shared.sum() == 60
    with pytest.raises(DataError, match="it has subj01, subj02"):
        write_nsd.read_cortex(root, subject="subj03")


def test_same_seed_same_bytes(root, tmp_path):
    again = write_nsd.write_phantom(tmp_path / "again", **ARGUMENTS)
    for file in sorted(root.rglob("*")):
        if file.is_file():
            other = again / file.relative_to(root)
            assert hashlib.sha256(other.read_bytes()).digest() == hashlib.sha256(file.read_bytes()).digest(), file.name


def test_written_once(root):
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*")}
    calls = []
    write_nsd.write_phantom(root, **ARGUMENTS, progress=lambda *a: calls.append(a))
    assert not calls and before == {file: file.stat().st_mtime_ns for file in root.rglob("*")}


def test_interrupted_phantoms_are_completed_and_others_refused(tmp_path):
    small = {"subjects": ("subj01",), "n_shared": 20, "shape": (12, 12, 10)}

    def stop(done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_nsd.write_phantom(tmp_path, n_images=260, **small, progress=stop)
    assert json.loads((tmp_path / "phantom.json").read_text())["complete"] is False
    assert (betas_folder(tmp_path) / "betas_session02.hdf5").exists()
    before = {file for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(DataError, match="another phantom: n_images = 260 there, 40 asked for"):
        write_nsd.write_phantom(tmp_path, n_images=40, **small)
    assert before == {file for file in tmp_path.rglob("*") if file.is_file()}
    calls = []
    write_nsd.write_phantom(tmp_path, n_images=260, **small, progress=lambda *a: calls.append(a))
    assert calls[-1][0] == calls[-1][1] and data.load_nsd(tmp_path)[0].responses.shape[0] == 260


def test_only_the_files_of_a_phantom_are_removed(tmp_path):
    write_nsd.write_phantom(tmp_path / "nsd", subjects=("subj01",), n_images=30, n_shared=6, shape=(8, 8, 8))
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "nsd" / "nsddata" / "note.txt").write_text("mine")
    record = json.loads((tmp_path / "nsd" / "phantom.json").read_text())
    (tmp_path / "nsd" / "phantom.json").write_text(json.dumps({**record, "files": [*record["files"], "../thesis.txt"]}))
    write_nsd.remove_phantom(tmp_path / "nsd")
    left = {file.name for file in tmp_path.rglob("*") if file.is_file()}
    assert left == {"thesis.txt", "note.txt"} and write_nsd.read_parameters(tmp_path / "nsd") is None


def test_another_data_set_is_not_touched(tmp_path):
    (tmp_path / "nsddata").mkdir()
    with pytest.raises(DataError, match="not a phantom"):
        write_nsd.write_phantom(tmp_path, n_images=30, n_shared=5)
    assert [path.name for path in tmp_path.iterdir()] == ["nsddata"]


def test_all_wrong_arguments_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"`subjects`[\s\S]*`n_shared`[\s\S]*`n_repeats`[\s\S]*`ceiling`"):
        write_nsd.write_phantom(tmp_path, subjects=("bert",), n_images=10, n_shared=20, n_repeats=4, ceiling=1.5)
    assert not list(pathlib.Path(tmp_path).iterdir())
