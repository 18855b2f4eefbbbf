import gzip

import nibabel
import nilearn.masking
import numpy as np
import pytest

from mine_jax import data
from mine_jax.data import masks
from mine_jax.data.containers import volumes
from mine_jax.data.containers.series import check_volumes
from mine_jax.errors import DataError, GeometryError, IntegrityError, MissingInputError
from mine_jax.types import Volume

AFFINE = np.diag([2.0, 2.0, 2.5, 1.0])


@pytest.fixture
def series(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((4, 5, 3, 7)).astype(np.float32)
    values[1, 1, 1, 2] = np.nan
    where = rng.random((4, 5, 3)) > 0.5
    where[1, 1, 1] = True
    for name, content in (("bold.nii.gz", values), ("bold.nii", values), ("mask.nii.gz", where.astype(np.uint8))):
        nibabel.save(nibabel.Nifti1Image(content, AFFINE), tmp_path / name)
    return tmp_path, values, where


@pytest.mark.parametrize("name", ["bold.nii.gz", "bold.nii"])
def test_matches_nilearn_apply_mask(series, name):
    folder, _, where = series
    expected = nilearn.masking.apply_mask(str(folder / name), str(folder / "mask.nii.gz"), ensure_finite=False)
    found, _ = volumes.read_series(folder / name, voxel_ids=np.flatnonzero(where))
    # Both in C order of the voxels; the NaN must stay.
    np.testing.assert_array_equal(found.T, expected)
    assert np.isnan(found).sum() == 1


def test_mask_and_unmask_are_inverse(series):
    """F-32: every voxel returns to its place."""
    _, _, where = series
    planted = np.arange(60.0).reshape(4, 5, 3)
    for planes in (planted, np.stack([planted, -planted], -1)):
        back = data.unmask(data.mask(planes, where), where)
        np.testing.assert_array_equal(back[where], planes[where])
        assert np.isnan(back[~where]).all()
    assert data.unmask(np.arange(int(where.sum())), where, fill=-1).dtype == np.int64
    with pytest.raises(GeometryError, match="boolean volume"):
        data.mask(planted, where.astype(int))
    with pytest.raises(GeometryError, match="boolean volume"):
        data.mask(planted.transpose(2, 1, 0), where)
    with pytest.raises(GeometryError, match="one column per voxel"):
        data.unmask(np.zeros(3), where)


def test_axes_keep_their_order(series):
    folder, values, _ = series
    found, header = volumes.read_series(folder / "bold.nii.gz")
    np.testing.assert_array_equal(found.reshape(values.shape), values)
    assert header.volume.shape == (4, 5, 3)


def test_labels_of_8_bits_are_whole_in_double_precision():
    """Half precision, which NumPy rounds them in, cannot hold the bound that labels are compared with."""
    labels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    found = masks.whole_labels(labels, "labels")
    assert found.dtype == np.int64 and found.ravel().tolist() == list(range(256))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[[0, 1, 2]]], np.uint8), "only 0 and 1, but holds 0, 1, 2"),
        (np.array([[[0, 1, 0.5]]], np.float32), "only 0 and 1"),
        (np.array([[[0, 1, np.nan]]], np.float32), "only 0 and 1"),
        (np.zeros((2, 2, 2), np.uint8), "selects no voxel"),
        (np.ones((2, 2, 2), np.uint8), "selects every voxel"),
        (np.zeros((2, 2, 2, 3), np.uint8), "axes X, Y, Z"),
    ],
)
def test_misused_masks(tmp_path, values, message):
    """F-33: not binary, NaN, empty, or everything."""
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), tmp_path / "mask.nii")
    with pytest.raises(GeometryError, match=message):
        masks.read_mask(tmp_path / "mask.nii")


def test_geometry_is_compared_exactly_enough():
    """F-31, F-32: affines up to rounding, shapes also transposed."""
    one = Volume((2, 3, 4), AFFINE)
    check_volumes("a", Volume((2, 3, 4), AFFINE + 1e-5), reference="b", expected=one)
    with pytest.raises(GeometryError, match="affine"):
        check_volumes("a", Volume((2, 3, 4), AFFINE + 1e-3), reference="b", expected=one)
    with pytest.raises(GeometryError, match="transposed"):
        check_volumes("a", Volume((4, 3, 2), AFFINE), reference="b", expected=one)


def test_big_endian_and_scaled_files(tmp_path):
    """F-23: big-endian volumes."""
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE, header), tmp_path / "big.nii.gz")
    found, _ = masks.read_volume(tmp_path / "big.nii.gz")
    np.testing.assert_array_equal(found, values)
    assert found.dtype.isnative


@pytest.mark.parametrize("name", ["bold.nii.gz", "bold.nii"])
def test_damaged_files(series, name):
    """F-21: cut short, empty, or another format."""
    folder, _, _ = series
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(IntegrityError, match=r"bold\.nii"):
        volumes.read_series(path)
    path.write_bytes(b"")
    with pytest.raises(IntegrityError, match="not a readable NIfTI"):
        volumes.read_series(path)
    path.write_bytes(b"<html>not found</html>" * 40)
    with pytest.raises(IntegrityError, match="not a readable NIfTI"):
        volumes.read_series(path)
    path.unlink()
    with pytest.raises(MissingInputError, match="no file at"):
        volumes.read_series(path)


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bits_never_pass(series, seed):
    """F-21: any bit of a compressed volume."""
    folder, _, _ = series
    path = folder / "bold.nii.gz"
    content = bytearray(path.read_bytes())
    bit = int(np.random.default_rng(seed).integers(8 * 12, 8 * len(content)))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(content))
    with pytest.raises((IntegrityError, GeometryError, DataError)):
        volumes.read_series(path)


def test_a_bomb_is_refused_by_its_header(series):
    """F-100: a declared size beyond the limit."""
    folder, _, _ = series
    with pytest.raises(DataError, match="max_bytes"):
        volumes.read_series(folder / "bold.nii.gz", max_bytes=1000)
    content = bytearray(gzip.decompress((folder / "bold.nii.gz").read_bytes()))
    content[42:50] = np.array([30000] * 4, "<i2").tobytes()
    (folder / "bold.nii.gz").write_bytes(gzip.compress(bytes(content)))
    with pytest.raises((DataError, IntegrityError)):
        volumes.read_series(folder / "bold.nii.gz")
