import h5py
import numpy as np
import pytest
import scipy.io

from mine_jax import data
from mine_jax.data.nsd import areas as nsd_areas
from mine_jax.data.nsd import design as nsd_design
from mine_jax.errors import AlignmentError, DataError, MissingInputError


def same(one, other):
    names = ("responses", "image_ids", "n_repeats", "voxel_ids", "status", "ncsnr", "noise_ceiling", "rois", "indices")
    for name in names:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("beta_format", ["hdf5", "nifti"])
def test_matches_float64_numpy(nsd, voxels, beta_format):
    responses, stimuli = data.load_nsd(nsd.root, subject="subj01", roi="nsdgeneral", beta_format=beta_format)
    scores, averaged, ids = nsd.expected(voxels)
    np.testing.assert_array_equal(responses.image_ids, [str(i) for i in ids])
    np.testing.assert_array_equal(responses.voxel_ids, voxels)
    np.testing.assert_allclose(responses.responses, averaged, atol=1e-6)
    assert responses.responses.dtype == np.float32
    assert set(responses.n_repeats) == {3} and set(responses.status) == {"ok"}
    # Noise ceiling, image by image.
    variances = np.mean([scores[nsd.images_of_trials == i].var(0, ddof=1) for i in ids], 0)
    ncsnr = np.sqrt(1 - variances) / np.sqrt(variances)
    np.testing.assert_allclose(responses.ncsnr, ncsnr, rtol=1e-10)
    np.testing.assert_allclose(responses.noise_ceiling, ncsnr**2 / (ncsnr**2 + 1 / 3), rtol=1e-10)
    np.testing.assert_array_equal(responses.indices, np.argwhere(np.isin(np.arange(60).reshape(5, 4, 3), voxels)))
    assert responses.volume.shape == (5, 4, 3) and responses.subject == "subj01"
    np.testing.assert_array_equal(stimuli.image_ids, responses.image_ids)


def test_hdf5_and_nifti_give_equal_responses(nsd):
    hdf5, _ = data.load_nsd(nsd.root, beta_format="hdf5")
    nifti, _ = data.load_nsd(nsd.root, beta_format="nifti")
    same(hdf5, nifti)


@pytest.mark.parametrize("voxel_block", [1, 7, 1000])
def test_block_size_changes_nothing(nsd, voxel_block):
    whole, _ = data.load_nsd(nsd.root, roi=())
    same(whole, data.load_nsd(nsd.root, roi=(), voxel_block=voxel_block)[0])


def test_large_responses_are_memory_mapped(nsd, tmp_path, monkeypatch):
    in_memory, _ = data.load_nsd(nsd.root)
    monkeypatch.setattr("mine_jax.data.trials.LARGE_BYTES", 10)
    for beta_format in ("hdf5", "nifti"):
        on_disk, _ = data.load_nsd(nsd.root, directory=tmp_path / "run", beta_format=beta_format)
        assert isinstance(on_disk.responses, np.memmap)
        same(in_memory, on_disk)
        assert [file.name for file in (tmp_path / "run").iterdir()] == ["responses.npy"]


def test_xyzt_hdf5_is_recognised(nsd):
    """F-22: the order of axes follows from their lengths."""
    expected, _ = data.load_nsd(nsd.root)
    for number in (1, 2):
        with h5py.File(nsd.folder / f"betas_session{number:02d}.hdf5", "w") as file:
            file["betas"] = nsd.session(number).transpose(1, 2, 3, 0)
    same(expected, data.load_nsd(nsd.root, beta_format="hdf5")[0])
    with pytest.raises(DataError, match="must have shape"):
        data.load_nsd(nsd.root, beta_format="hdf5", axis_order="tzyx")


def test_one_voxel_keeps_its_axis(nsd):
    """F-30: one voxel."""
    whole, _ = data.load_nsd(nsd.root, roi=())
    one = whole.take(np.array([7]))
    volume = np.full((5, 4, 3), -1, np.int16).ravel()
    volume[one.voxel_ids] = 1
    nsd.save(nsd.rois / "single.nii.gz", volume.reshape(5, 4, 3))
    single, _ = data.load_nsd(nsd.root, roi="single")
    assert single.responses.shape == (450, 1)
    np.testing.assert_array_equal(single.responses, one.responses)


def test_rois_are_named_by_the_table_of_the_subject(nsd, voxels):
    responses, _ = data.load_nsd(nsd.root)
    i, j, _ = np.unravel_index(voxels, (5, 4, 3))
    np.testing.assert_array_equal(
        responses.rois, np.where((j == 0) & (i == 1), "OFA", np.where((j == 0) & (i == 2), "FFA-1", ""))
    )
    faces, _ = data.load_nsd(nsd.root, roi=("floc-faces",))
    assert len(faces.voxel_ids) == 6
    assert set(data.load_nsd(nsd.root, roi="FFA-1")[0].rois) == {"FFA-1"}


def test_unknown_roi_names_the_closest(nsd):
    """F-34: an area that does not exist."""
    with pytest.raises(DataError, match="closest names: FFA-1"):
        data.load_nsd(nsd.root, roi="FFA1")


def test_no_voxel_is_an_error(nsd):
    """F-29: an area without voxels."""
    with pytest.raises(DataError, match="0 voxels selected"):
        data.load_nsd(nsd.root, roi="FFA-2")


def test_stimuli_come_in_the_order_asked_for(nsd):
    """F-82, F-01, F-02: unsorted and repeated ids, one past the end, and -1."""
    stimuli = data.open_nsd_stimuli(nsd.root)
    ids = [stimuli.image_ids[k] for k in (5, 3, 5, 200)]
    for image, image_id in zip(stimuli.read(ids), ids, strict=True):
        np.testing.assert_array_equal(image, nsd.stimuli[int(image_id)])
    assert stimuli.shared.sum() == 60
    assert stimuli.read([]) == []
    with pytest.raises(AlignmentError, match="Are the ids 1-based"):
        stimuli.read(["500"])
    with pytest.raises(AlignmentError, match="'-1'"):
        stimuli.read(["-1"])


def test_first_session_only(nsd, voxels):
    responses, stimuli = data.load_nsd(nsd.root, sessions=1)
    percent = nsd.betas[:750].reshape(750, -1)[:, voxels] / 300.0
    scores = (percent - percent.mean(0)) / percent.std(0)
    ids = np.unique(nsd.images_of_trials[:750])
    expected = [scores[nsd.images_of_trials[:750] == i].mean(0) for i in ids]
    np.testing.assert_allclose(responses.responses, expected, atol=1e-6)
    np.testing.assert_array_equal(responses.n_repeats, [(nsd.images_of_trials[:750] == i).sum() for i in ids])
    np.testing.assert_array_equal(stimuli.image_ids, data.open_nsd_stimuli(nsd.root, sessions=1).image_ids)


def test_a_missing_session_is_left_out_and_named(nsd, caplog):
    for file in nsd.folder.glob("betas_session01*"):
        file.unlink()
    responses, _ = data.load_nsd(nsd.root)
    assert set(responses.image_ids) == set(np.unique(nsd.images_of_trials[750:]).astype(str))
    assert "sessions not found" in caplog.text
    with pytest.raises(MissingInputError, match="betas_session01"):
        data.load_nsd(nsd.root, sessions=2, beta_format="hdf5")


def test_percent_signal_change_without_zscore(nsd, voxels):
    responses, _ = data.load_nsd(nsd.root, zscore="none")
    percent = nsd.betas.reshape(1350, -1)[:, voxels] / 300.0
    ids = np.unique(nsd.images_of_trials)
    np.testing.assert_allclose(
        responses.responses, [percent[nsd.images_of_trials == i].mean(0) for i in ids], atol=1e-6
    )


def test_progress_is_called_and_may_stop_the_work(nsd):
    calls = []
    data.load_nsd(nsd.root, voxel_block=10, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(10, 27), (20, 27), (27, 27)]

    def stop(done, total):
        raise KeyboardInterrupt

    for beta_format in ("hdf5", "nifti"):
        with pytest.raises(KeyboardInterrupt):
            data.load_nsd(nsd.root, beta_format=beta_format, progress=stop)


def test_ncsnr_file_marks_invalid_voxels(nsd, voxels):
    nsd.betas[:, 1, 0, 0] = 0
    nsd.betas[:, 1, 0, 1] = 0
    for number in (1, 2):
        nsd.write_hdf5(number)
    ratio = np.full((5, 4, 3), 0.4, np.float32)
    ratio[1, 0, 0] = np.nan
    nsd.save(nsd.folder / "ncsnr.nii.gz", ratio)
    responses, _ = data.load_nsd(nsd.root, beta_format="hdf5")
    assert responses.status[:3].tolist() == ["nonfinite", "constant", "ok"]
    assert np.isnan(responses.ncsnr[:2]).all() and not responses.responses[:, :2].any()


def test_shipped_noise_ceiling_where_nothing_was_repeated(nsd):
    nsd.save(nsd.folder / "ncsnr.nii.gz", np.full((5, 4, 3), 0.5, np.float32))
    values = scipy.io.loadmat(nsd.design)
    values = {name: values[name] for name in ("masterordering", "subjectim", "sharedix")}
    values["subjectim"] = np.zeros((2, 500))
    values["subjectim"][:] = np.arange(500) + 1
    values["masterordering"] = np.arange(1, 501)[None]
    scipy.io.savemat(nsd.design, values)
    nsd.write_hdf5(1, nsd.session(1)[:500])
    responses, _ = data.load_nsd(nsd.root, sessions=1, beta_format="hdf5")
    np.testing.assert_allclose(responses.noise_ceiling, 0.25 / (0.25 + 1))


def test_voxel_selection_without_roi_is_all_cortex(nsd):
    areas = nsd_areas.read_areas(nsd.root, subject="subj01", space="func1pt8mm")
    assert len(nsd_areas.select_voxels(areas, (), None)) == 48
    assert "lh.floc-faces" not in areas.codes


def test_design_is_zero_based(nsd):
    design = nsd_design.read_design(nsd.root, subject="subj01")
    np.testing.assert_array_equal(design.images, nsd.images_of_trials)
    with pytest.raises(DataError, match="one of subj01, subj02"):
        nsd_design.read_design(nsd.root, subject="subj05")
