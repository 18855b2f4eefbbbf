"""Values, masks and labels of files that store scaled integers: what the header declares is what is read."""

import nibabel
import numpy as np
import pytest

from mine_jax import data
from mine_jax.config import FolderConfig
from mine_jax.data import masks
from mine_jax.data.containers import volumes
from mine_jax.data.nsd import areas as nsd_areas
from mine_jax.errors import DataError, GeometryError

SHAPE = (4, 5, 6)


def labels():
    codes = np.full(SHAPE, -1.0)
    codes[1:] = 0
    codes[1, :, 2], codes[2, :, 3] = 1, 2
    return codes


def save_scaled(path, values, dtype):
    """As a script does that gives float data to an image with an integer header."""
    empty = nibabel.Nifti1Image(np.zeros(SHAPE, dtype), np.eye(4))
    nibabel.save(nibabel.Nifti1Image(values, empty.affine, empty.header), path)
    assert nibabel.load(path).dataobj.slope != 1
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_masks(tmp_path, dtype):
    mask = labels() > 0
    found, _ = masks.read_mask(save_scaled(tmp_path / "m.nii.gz", mask.astype(float), dtype))
    np.testing.assert_array_equal(found, mask)


def test_mask_of_spm(tmp_path):
    image = nibabel.Nifti1Image((labels() > 0) * np.uint8(255), np.eye(4))
    nibabel.save(image, tmp_path / "plain.nii")
    with pytest.raises(GeometryError, match="holds 0, 255"):
        masks.read_mask(tmp_path / "plain.nii")
    image.header.set_slope_inter(1 / 255, 0)
    content = bytearray((tmp_path / "plain.nii").read_bytes())
    content[112:116] = np.float32(1 / 255).tobytes()
    (tmp_path / "spm.nii").write_bytes(content)
    np.testing.assert_array_equal(masks.read_mask(tmp_path / "spm.nii")[0], labels() > 0)


@pytest.mark.parametrize("name", ["m.mgz", "m.mgh"])
def test_masks_of_freesurfer(tmp_path, name):
    nibabel.save(nibabel.MGHImage((labels() > 0).astype("f4"), np.diag([2, 2, 2, 1.0])), tmp_path / name)
    found, header = masks.read_mask(tmp_path / name)
    np.testing.assert_array_equal(found, labels() > 0)
    np.testing.assert_allclose(header.affine, np.diag([2, 2, 2, 1.0]))


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32])
def test_labels(tmp_path, dtype):
    path = save_scaled(tmp_path / "r.nii.gz", labels(), dtype)
    np.testing.assert_array_equal(masks.read_labels(path)[0], labels())


@pytest.mark.parametrize(("value", "shown"), [(1e20, r"1e\+20 at \(3, 4, 5\)"), (np.nan, "nan at"), (0.4, "0.4 at")])
def test_labels_that_are_none(tmp_path, value, shown):
    codes = labels()
    codes[3, 4, 5] = value
    nibabel.save(nibabel.Nifti1Image(codes, np.eye(4)), tmp_path / "r.nii.gz")
    with pytest.raises(DataError, match=shown):
        masks.read_labels(tmp_path / "r.nii.gz")


def test_areas_of_a_scaled_volume(nsd):
    plain = data.load_nsd(nsd.root, roi="floc-faces")[0]
    path = nsd.rois / "floc-faces.nii.gz"
    codes = np.asarray(nibabel.load(path).dataobj)
    empty = nibabel.Nifti1Image(np.zeros(codes.shape, np.int16), nibabel.load(path).affine)
    nibabel.save(nibabel.Nifti1Image(codes.astype(float), empty.affine, empty.header), path)
    scaled = data.load_nsd(nsd.root, roi="floc-faces")[0]
    np.testing.assert_array_equal(plain.voxel_ids, scaled.voxel_ids)
    assert plain.rois.tolist() == scaled.rois.tolist() and set(plain.rois) == {"OFA", "FFA-1"}


def test_sessions_with_slopes_of_their_own(nsd):
    """Percent as int16 with a factor per file: not divided by 300, never mixed."""
    expected = data.load_nsd(nsd.root, beta_format="hdf5", zscore="none")[0]
    for number, factor in ((1, 2.0), (2, 5.0)):
        percent = nsd.session(number).transpose(1, 2, 3, 0) / 300 * factor
        image = nibabel.Nifti1Image(percent, nibabel.load(nsd.write_nifti(number)).affine)
        image.set_data_dtype(np.int16)
        path = nsd.folder / f"betas_session{number:02d}.nii.gz"
        nibabel.save(image, path)
        values, header = volumes.read_series(path)
        assert header.is_scaled and values.dtype == np.float32
        np.testing.assert_allclose(values, percent.reshape(-1, percent.shape[-1]), atol=np.ptp(percent) / 6e4)
    found = data.load_nsd(nsd.root, beta_format="nifti")[0]
    reference = data.load_nsd(nsd.root, beta_format="hdf5")[0]
    np.testing.assert_allclose(found.responses, reference.responses, atol=2e-3)
    plain = data.load_nsd(nsd.root, beta_format="nifti", zscore="none")[0]
    assert 2 < np.median(plain.responses / expected.responses) < 5


def test_series_of_one_s_own(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((*SHAPE, 30)) + 2
    series = nibabel.Nifti1Image(values, np.eye(4))
    series.set_data_dtype(np.int16)
    nibabel.save(series, tmp_path / "s.nii.gz")
    nibabel.save(nibabel.Nifti1Image((labels() > 0).astype(np.uint8), np.eye(4)), tmp_path / "m.nii.gz")
    (tmp_path / "ids.txt").write_text("\n".join(f"i{k}" for k in range(10, 40)))
    files = {"responses": "s.nii.gz", "mask": "m.nii.gz", "image_ids": "ids.txt"}
    found, _ = data.load(FolderConfig(**{key: str(tmp_path / name) for key, name in files.items()}, test=0.2))
    np.testing.assert_allclose(found.responses, values[labels() > 0].T, atol=2e-4)


def test_label_of_two_collections(nsd):
    codes = np.asarray(nibabel.load(nsd.rois / "floc-faces.nii.gz").dataobj)
    nsd.save(nsd.rois / "HCP_MMP1.nii.gz", np.roll(codes, 1, 1))
    folder = nsd.root / "nsddata/freesurfer/subj01/label"
    (folder / "HCP_MMP1.mgz.ctab").write_text("# made by hand\n0 Unknown\n1 OFA\n2 FFC 10 20 30 0\n")
    areas = nsd_areas.read_areas(nsd.root, subject="subj01", space="func1pt8mm")
    with pytest.raises(DataError, match="HCP_MMP1:OFA or floc-faces:OFA"):
        nsd_areas.select_voxels(areas, ["OFA"], None)
    drawn = nsd_areas.select_voxels(areas, ["floc-faces:OFA"], None)
    atlas = nsd_areas.select_voxels(areas, ["HCP_MMP1:OFA"], None)
    np.testing.assert_array_equal(drawn, np.flatnonzero(codes.ravel() == 1))
    assert nsd_areas.area_names(areas, drawn).tolist() == ["OFA"] * 3
    assert nsd_areas.area_names(areas, atlas).tolist() == ["HCP_MMP1:OFA"] * 3


@pytest.mark.parametrize(
    ("content", "message"), [("0 Unknown\n1 Hémisphère\n".encode("latin-1"), "UTF-8"), (b"0 U\n--5 a\n", "line 2")]
)
def test_tables_of_labels_that_cannot_be_read(nsd, content, message):
    (nsd.root / "nsddata/freesurfer/subj01/label/floc-faces.mgz.ctab").write_bytes(content)
    with pytest.raises((DataError, OSError), match=message):
        nsd_areas.read_areas(nsd.root, subject="subj01", space="func1pt8mm")
