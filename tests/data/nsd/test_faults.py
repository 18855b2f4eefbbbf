"""Damaged and mismatched NSD files: a named error that says which file, or a counted status."""

import gzip
import logging
import subprocess
import sys

import h5py
import numpy as np
import pytest
import scipy.io

from mine_jax import data
from mine_jax.config import NsdConfig
from mine_jax.data import trials
from mine_jax.data.nsd import betas as nsd_betas
from mine_jax.errors import (
    AlignmentError,
    ConfigError,
    DataError,
    GeometryError,
    IntegrityError,
    MissingInputError,
    ResourceError,
)
from mine_jax.types import Volume


def load(nsd, beta_format="hdf5", **options):
    return data.load_nsd(nsd.root, beta_format=beta_format, **options)[0]


def cut(path, share=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def test_truncated_hdf5(nsd):
    """F-22: an HDF5 file that is cut short."""
    cut(nsd.folder / "betas_session02.hdf5")
    with pytest.raises(IntegrityError, match=r"session02.*damaged or cut short"):
        load(nsd)


def test_truncated_nifti(nsd):
    """F-21: a compressed session that is cut short."""
    cut(nsd.folder / "betas_session02.nii.gz")
    with pytest.raises(IntegrityError, match="session02"):
        load(nsd, "nifti")


@pytest.mark.parametrize("seed", range(5))
def test_one_flipped_bit_in_a_gzip(nsd, seed):
    """F-21: one bit of a compressed session."""
    path = nsd.folder / "betas_session01.nii.gz"
    content = bytearray(path.read_bytes())
    at = np.random.default_rng(seed).integers(20, len(content) - 8)
    content[at] ^= 1 << int(at % 8)
    path.write_bytes(bytes(content))
    with pytest.raises((IntegrityError, GeometryError, AlignmentError)):
        load(nsd, "nifti")


def test_gzip_with_more_than_its_header_says(nsd):
    """F-100: more bytes than declared."""
    path = nsd.folder / "betas_session01.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"\0" * 9, 1))
    with pytest.raises(IntegrityError, match="more bytes than its header declares"):
        load(nsd, "nifti")


def test_flipped_bit_in_a_checksummed_hdf5(nsd):
    path = nsd.write_hdf5(1, chunks=(750, 1, 1, 1), fletcher32=True)
    with h5py.File(path) as file:
        offset = file["betas"].id.get_chunk_info_by_coord((0, 1, 1, 1)).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 11] ^= 4
    path.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match="session01"):
        load(nsd)


def test_other_dataset_name(nsd):
    """F-22: no dataset of the right name."""
    with h5py.File(nsd.folder / "betas_session01.hdf5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(DataError, match="must hold a dataset `betas`, but holds data"):
        load(nsd)


def test_wrong_axes(nsd):
    """F-22: axes that fit no order."""
    with h5py.File(nsd.folder / "betas_session01.hdf5", "w") as file:
        file["betas"] = np.zeros((750, 5, 4, 3), np.int16)
    with pytest.raises(GeometryError, match="axis_order"):
        load(nsd)


def test_axes_that_cannot_be_told_apart(tmp_path):
    """F-22, F-32: a cube fits several orders, and one must be given."""
    betas = np.arange(6**4, dtype=np.int16).reshape(6, 6, 6, 6)
    with h5py.File(tmp_path / "betas_session01.hdf5", "w") as file:
        file["betas"] = betas
    sessions = nsd_betas.find_sessions(tmp_path, n_design_trials=6)
    volume = Volume((6, 6, 6), np.eye(4))
    read = {
        order: nsd_betas.column_reader(sessions, voxel_ids=np.arange(216), volume=volume, axis_order=order)
        for order in ("auto", "tzyx", "xyzt")
    }
    with pytest.raises(GeometryError, match="more than one order"):
        read["auto"](0, slice(None))
    np.testing.assert_array_equal(read["xyzt"](0, slice(None)), betas.reshape(216, 6))
    np.testing.assert_array_equal(read["tzyx"](0, slice(None)), betas.transpose().reshape(216, 6))


@pytest.mark.parametrize("beta_format", ["hdf5", "nifti"])
def test_missing_trials(nsd, beta_format):
    """F-04: a session that lacks a trial."""
    write = nsd.write_hdf5 if beta_format == "hdf5" else nsd.write_nifti
    write(1, nsd.session(1)[:-1])
    with pytest.raises(AlignmentError, match=r"749.*750"):
        load(nsd, beta_format)


def test_session_beyond_the_design(nsd):
    nsd.write_hdf5(3, nsd.session(1))
    with pytest.raises(AlignmentError, match="session 3, but the design ends after 1350"):
        load(nsd)


def test_other_affine(nsd):
    """F-31: betas in another place than the mask."""
    affine = np.diag([1.8, 1.8, 1.8, 1.0])
    nsd.write_nifti(1, affine=affine)
    with pytest.raises(GeometryError, match="affine"):
        load(nsd, "nifti")


def test_rounding_of_an_affine_is_accepted(nsd):
    """F-31: a difference of 1e-6 is rounding."""
    affine = np.array([[1.8, 0, 0, -4], [0, 1.8, 0, -3], [0, 0, 1.8, -2], [0, 0, 0, 1.0]])
    nsd.write_nifti(1, affine=affine + 1e-6 * np.array([[1, 0, 0, 1]] * 3 + [[0, 0, 0, 0]]))
    load(nsd, "nifti")


def test_roi_of_another_space(nsd):
    """F-31: areas of another shape."""
    nsd.save(nsd.rois / "other.nii.gz", np.zeros((4, 5, 3), np.int16))
    with pytest.raises(GeometryError, match=r"other.nii.gz has shape \(4, 5, 3\)"):
        load(nsd)


def test_statistic_map_among_rois(nsd):
    nsd.save(nsd.rois / "tval.nii.gz", np.full((5, 4, 3), 1.5, np.float32))
    with pytest.raises(DataError, match="whole numbers"):
        load(nsd)


def test_noise_ceiling_of_another_subject(nsd):
    """F-27: a map of another shape."""
    nsd.save(nsd.folder / "ncsnr.nii.gz", np.zeros((5, 4, 4), np.float32))
    with pytest.raises(GeometryError, match="ncsnr"):
        load(nsd)


def test_negative_noise_ceiling(nsd):
    """F-27: a ratio below 0."""
    nsd.save(nsd.folder / "ncsnr.nii.gz", np.full((5, 4, 3), -0.1, np.float32))
    with pytest.raises(DataError, match="no negative ratio"):
        load(nsd)


def rewrite_design(nsd, **changes):
    values = scipy.io.loadmat(nsd.design)
    values = {name: values[name].astype(float) for name in ("masterordering", "subjectim", "sharedix")}
    for name, change in changes.items():
        values[name] = change(values[name])
    scipy.io.savemat(nsd.design, {name: value for name, value in values.items() if value is not None})


def test_design_that_counts_from_zero(nsd):
    """F-01: ids that count from 0 where the data set counts from 1."""
    rewrite_design(nsd, masterordering=lambda ids: ids - 1)
    with pytest.raises(AlignmentError, match=r"masterordering.*is 0.*count from 1"):
        load(nsd)


def test_design_beyond_the_images(nsd):
    """F-01: ids beyond the last image."""
    rewrite_design(nsd, subjectim=lambda ids: ids + 200)
    with pytest.raises(AlignmentError, match="from 1 to 500"):
        load(nsd)


def test_nan_id(nsd):
    """F-02: an id that is NaN."""

    def spoil(ids):
        ids[0, 7] = np.nan
        return ids

    rewrite_design(nsd, masterordering=spoil)
    with pytest.raises(AlignmentError, match="entry 7 is nan"):
        load(nsd)


def test_design_without_a_key(nsd):
    rewrite_design(nsd, sharedix=lambda ids: None)
    with pytest.raises(DataError, match="lacks sharedix"):
        load(nsd)


def test_damaged_design(nsd):
    cut(nsd.design, 0.3)
    with pytest.raises(IntegrityError, match="expdesign"):
        load(nsd)


@pytest.mark.parametrize(
    "name",
    [
        "nsddata/experiments/nsd/nsd_expdesign.mat",
        "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5",
        "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session01.hdf5",
    ],
)
def test_missing_file_is_named_in_full(nsd, name):
    for file in nsd.folder.glob("*.hdf5") if "betas" in name else [nsd.root / name]:
        file.unlink()
    with pytest.raises(MissingInputError) as error:
        load(nsd)
    assert str(nsd.root / name) in str(error.value)
    with pytest.raises(FileNotFoundError):
        load(nsd)


def test_missing_rois(nsd):
    for file in nsd.rois.iterdir():
        file.unlink()
    with pytest.raises(MissingInputError, match=r"nsdgeneral.nii.gz"):
        load(nsd)


def test_truncated_images(nsd):
    cut(nsd.root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5")
    with pytest.raises(IntegrityError, match="nsd_stimuli"):
        load(nsd)


def test_surface_without_labels(nsd):
    with pytest.raises(MissingInputError, match=r"fsaverage/label/lh\.\*\.mgz"):
        load(nsd, space="fsaverage")
    with pytest.raises(ConfigError, match="must be one of func1pt8mm, func1mm, fsaverage, nativesurface"):
        load(nsd, space="MNI")


def test_run_scores_are_not_possible(nsd):
    with pytest.raises(ConfigError, match="no run numbers"):
        load(nsd, zscore="run")


def test_nan_voxel_leaves_the_others_bit_equal(nsd):
    """F-16: NaN and infinity stay in their voxel."""
    nsd.betas = nsd.betas.astype(np.float32) / 300
    for number in (1, 2):
        nsd.write_hdf5(number)
    clean = load(nsd)
    nsd.betas[100:110, 2, 1, 1] = np.nan
    nsd.betas[3, 2, 2, 1] = np.inf
    for number in (1, 2):
        nsd.write_hdf5(number)
    dirty = load(nsd)
    bad = dirty.status == "nonfinite"
    assert bad.sum() == 2
    np.testing.assert_array_equal(dirty.responses[:, ~bad], clean.responses[:, ~bad])
    np.testing.assert_array_equal(dirty.ncsnr[~bad], clean.ncsnr[~bad])
    assert np.isnan(dirty.noise_ceiling[bad]).all() and np.isfinite(dirty.responses).all()


def test_constant_voxels(nsd):
    """F-18: voxels that do not vary."""
    nsd.betas[:, 1, 0, 0] = 7
    nsd.betas[750:, 1, 0, 1] = 0
    for number in (1, 2):
        nsd.write_hdf5(number)
    responses = load(nsd)
    assert responses.status[:3].tolist() == ["constant", "constant", "ok"]
    assert not responses.responses[:, :2].any()


def test_empty_session_is_left_out(nsd, caplog):
    """F-26: a session of zeros."""
    nsd.write_hdf5(2, np.zeros_like(nsd.session(2)))
    responses = load(nsd)
    first = load(nsd, sessions=1)
    np.testing.assert_array_equal(responses.responses, first.responses)
    assert "sessions 2 do not vary in any voxel" in caplog.text


def test_session_drift_is_reported():
    """F-26: a session far from the others."""
    assert trials.outlying(np.array([1.0, 1.1, 0.9, 1.0, 1.05, 9.0])).tolist() == [5]
    assert trials.outlying(np.ones(6)).tolist() == []


def test_integer_betas_are_divided_once(nsd, voxels):
    """F-20: neither not at all nor twice."""
    integers = load(nsd, zscore="none")
    nsd.betas = nsd.betas.astype(np.float32) / np.float32(300)
    for number in (1, 2):
        nsd.write_hdf5(number)
    np.testing.assert_allclose(load(nsd, zscore="none").responses, integers.responses, atol=1e-6)
    for factor in (300, 1 / 300):
        for number in (1, 2):
            nsd.write_hdf5(number, nsd.session(number) * factor)
        with pytest.raises(DataError, match="Set `beta_scale`"):
            load(nsd, zscore="none")
        rescued = load(nsd, zscore="none", beta_scale=float(factor))
        np.testing.assert_allclose(rescued.responses, integers.responses, atol=1e-5)


def test_scaled_nifti_is_not_divided_again(nsd):
    """F-20: a header that divides already."""
    integers = load(nsd, "nifti", zscore="none")
    for number in (1, 2):
        path = nsd.write_nifti(number)
        content = bytearray(gzip.decompress(path.read_bytes()))
        # scl_slope and scl_inter of the NIfTI header.
        content[112:120] = np.array([1 / 300, 0], "<f4").tobytes()
        path.write_bytes(gzip.compress(bytes(content), 1))
    np.testing.assert_allclose(load(nsd, "nifti", zscore="none").responses, integers.responses, atol=1e-5)


def test_logging_is_quiet_about_good_data(nsd, caplog):
    with caplog.at_level(logging.WARNING):
        load(nsd)
    assert not caplog.records


def test_hdf5_that_another_process_holds(nsd):
    path = nsd.folder / "betas_session01.hdf5"
    held = f"import h5py, time; f = h5py.File({str(path)!r}, 'r+'); print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE, text=True) as holder:
        holder.stdout.readline()
        try:
            with pytest.raises(ResourceError, match=r"session01.hdf5 is in use"):
                load(nsd)
        finally:
            holder.kill()


def test_design_of_matlab_7_3(nsd):
    expected = load(nsd)
    values = scipy.io.loadmat(nsd.design)
    nsd.design.unlink()
    with h5py.File(nsd.design, "w", userblock_size=512) as file:
        for key in ("masterordering", "subjectim", "sharedix"):
            file[key] = values[key].T
    with nsd.design.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    found = load(nsd)
    np.testing.assert_array_equal(found.responses, expected.responses)
    assert found.image_ids.tolist() == expected.image_ids.tolist()


@pytest.mark.parametrize("voxel_block", [4, 512])
def test_a_few_extreme_voxels_are_no_wrong_scale(nsd, voxels, voxel_block):
    values = nsd.session(1) / 300
    values[:, *np.unravel_index(voxels[[3, 4, 20]], nsd.betas.shape[1:])] *= 60
    nsd.write_hdf5(1, values.astype(np.float32))
    assert set(load(nsd, voxel_block=voxel_block).status) == {"ok"}
    nsd.write_hdf5(1, (values * 300).astype(np.float32))
    with pytest.raises(DataError, match=r"session01.*not percent signal change"):
        load(nsd, voxel_block=voxel_block)


def test_inputs_of_the_stage(nsd):
    config = NsdConfig(root=str(nsd.root), roi=("floc-faces",))
    found = {path.relative_to(nsd.root).as_posix() for path in data.inputs(config)}
    assert found == {
        "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR",
        "nsddata/ppdata/subj01/func1pt8mm/roi",
        "nsddata/freesurfer/subj01/label/floc-faces.mgz.ctab",
        "nsddata/experiments/nsd/nsd_expdesign.mat",
    }
    assert [path.name for path in data.image_inputs(config)] == ["nsd_stimuli.hdf5"]
