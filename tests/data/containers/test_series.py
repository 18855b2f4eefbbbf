"""Series of every container: written by nibabel, read here, compared value by value."""

import gzip
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from mine_jax._progress import silent
from mine_jax.data.containers import positions, series
from mine_jax.errors import DataError, GeometryError, IntegrityError, MissingInputError
from mine_jax.types import Surface, Volume

LEFT, RIGHT, T = 7, 6, 5


def maps(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, T)).astype(np.float32)


def save_gifti(path, values):
    arrays = [nibabel.gifti.GiftiDataArray(column, datatype="NIFTI_TYPE_FLOAT32") for column in values.T]
    nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), path)


def save_cifti(path, values, left, right):
    """Dense scalars on some vertices of both hemispheres, and two voxels of the brain stem."""
    models = nibabel.cifti2.BrainModelAxis.from_mask(np.isin(np.arange(LEFT), left), "CIFTI_STRUCTURE_CORTEX_LEFT")
    models += nibabel.cifti2.BrainModelAxis.from_mask(np.isin(np.arange(RIGHT), right), "CIFTI_STRUCTURE_CORTEX_RIGHT")
    stem = np.zeros((2, 2, 2), bool)
    stem[0, 0] = True
    models += nibabel.cifti2.BrainModelAxis.from_mask(stem, "CIFTI_STRUCTURE_BRAIN_STEM", affine=np.eye(4))
    scalars = nibabel.cifti2.ScalarAxis([f"trial{t}" for t in range(values.shape[0])])
    nibabel.save(nibabel.Cifti2Image(values, header=(scalars, models)), path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgh", ".mgz"])
@pytest.mark.parametrize("dtype", ["i2", ">i2", "f4"])
def test_volumes(tmp_path, suffix, dtype):
    planted = np.arange(4 * 5 * 6 * T).reshape(4, 5, 6, T).astype(dtype)
    kind = nibabel.Nifti1Image if "nii" in suffix else nibabel.MGHImage
    nibabel.save(kind(planted, np.diag([2, 2, 2, 1.0])), tmp_path / f"s{suffix}")
    found = series.open_series(tmp_path / f"s{suffix}")
    ids = np.array([0, 17, 60, 119])
    np.testing.assert_array_equal(found.read(ids, silent), planted.reshape(-1, T)[ids])
    assert (found.n_rows, found.n_positions) == (T, 120) and isinstance(found.space, Volume)
    assert found.dtype == np.dtype(dtype).newbyteorder("=")


def test_gifti_of_both_hemispheres(tmp_path):
    """F-35: one hemisphere alone is an error."""
    left, right = maps(LEFT), maps(RIGHT, 1)
    save_gifti(tmp_path / "hemi-L.func.gii", left)
    save_gifti(tmp_path / "hemi-R.func.gii", right)
    found = positions.open_path(str(tmp_path / "hemi-{hemi}.func.gii"), name="fsnative")
    ids = np.array([1, 6, 7, 12])
    np.testing.assert_array_equal(found.read(ids, silent), np.concatenate([left, right])[ids])
    assert found.space == Surface("fsnative", (LEFT, RIGHT))
    save_gifti(tmp_path / "hemi-R.func.gii", right[:, :3])
    with pytest.raises(DataError, match=r"5 rows, but .* 3"):
        positions.open_path(str(tmp_path / "hemi-{hemi}.func.gii"))
    (tmp_path / "hemi-R.func.gii").unlink()
    with pytest.raises(MissingInputError, match="both hemispheres are needed"):
        positions.open_path(str(tmp_path / "hemi-{hemi}.func.gii"))


def test_damaged_gifti_and_cifti(tmp_path):
    save_gifti(tmp_path / "a.func.gii", maps(LEFT))
    content = (tmp_path / "a.func.gii").read_bytes()
    (tmp_path / "a.func.gii").write_bytes(content[: len(content) // 2])
    with pytest.raises(IntegrityError, match=r"a.func.gii"):
        series.open_series(tmp_path / "a.func.gii")
    (tmp_path / "b.dscalar.nii").write_bytes(b"no cifti")
    with pytest.raises(IntegrityError, match=r"b.dscalar.nii"):
        series.open_series(tmp_path / "b.dscalar.nii")


@pytest.mark.parametrize("suffix", ["gii", "gii.gz"])
@pytest.mark.parametrize("as_one", [False, True])
def test_header_of_gifti_says_its_maps(tmp_path, suffix, as_one):
    """Values are read when they are asked for, and must be as many as the header says."""
    values, path = maps(LEFT), tmp_path / f"a.func.{suffix}"
    arrays = [values] if as_one else list(values.T)
    arrays = [nibabel.gifti.GiftiDataArray(part.astype("f4"), datatype="NIFTI_TYPE_FLOAT32") for part in arrays]
    content = nibabel.gifti.GiftiImage(darrays=arrays).to_bytes()
    opened = gzip.compress if suffix == "gii.gz" else bytes
    path.write_bytes(opened(content))
    found = series.open_series(path)
    assert (found.n_rows, found.n_positions, found.dtype) == (values.shape[1], LEFT, np.float32)
    np.testing.assert_array_equal(found.read(np.array([4, 1]), silent), values[[4, 1]].astype("f4"))
    # the last array damaged, or one less than there should be
    last = content.rindex(b"<Data>") + 6
    path.write_bytes(opened(content[:last] + b"?" + content[last + 1 :]))
    found = series.open_series(path)
    with pytest.raises(IntegrityError, match=r"a.func"):
        found.read(np.arange(LEFT), silent)
    first = content.index(b"<DataArray")
    path.write_bytes(opened(content[:first] + content[content.index(b"</DataArray>") + 12 :]))
    if as_one:
        with pytest.raises(DataError, match="holds none"):
            series.open_series(path)
        return
    with pytest.warns(UserWarning, match="data arrays"), pytest.raises(IntegrityError, match="declares 5 maps"):
        series.open_series(path).read(np.arange(LEFT), silent)


@pytest.mark.parametrize("suffix", [".dscalar.nii", ".dtseries.nii"])
def test_cifti_by_vertex(tmp_path, suffix):
    left, right = [0, 2, 5], [1, 4]
    values = np.random.default_rng(0).standard_normal((130, 7)).astype(np.float32)
    save_cifti(tmp_path / f"c{suffix}", values, left, right)
    found = series.open_series(tmp_path / f"c{suffix}")
    ids = np.array([0, 1, 5, LEFT + 1, LEFT + 4])
    expected = np.stack([values[:, 0], np.full(130, np.nan), values[:, 2], values[:, 3], values[:, 4]])
    np.testing.assert_array_equal(found.read(ids, silent), expected)
    assert found.n_rows == 130 and found.space.n_vertices == (LEFT, RIGHT)


def test_gathered_sessions(tmp_path):
    """Streamed and memory-mapped sessions one after another, in memory and in scratch files."""
    whole = maps(LEFT + RIGHT)
    np.save(tmp_path / "a.npy", whole.T)
    save_gifti(tmp_path / "L.func.gii", whole[:LEFT])
    save_gifti(tmp_path / "R.func.gii", whole[LEFT:])
    sessions = [series.open_series(tmp_path / "a.npy"), positions.open_path(str(tmp_path / "{hemi}.func.gii"))]
    ids = np.array([2, 3, 9])
    for scratch in (None, tmp_path / "scratch"):
        read = series.gather(sessions, ids, scratch=scratch)
        for block in (slice(0, 2), slice(2, 3), slice(None)):
            np.testing.assert_array_equal(read(block), np.tile(whole[ids], 2)[block])
    other = series.of_array(np.zeros((T, 4)), tmp_path / "b.npy")
    with pytest.raises(GeometryError, match="4 voxels or vertices"):
        series.gather([sessions[0], other], ids)


def test_files_of_a_pattern(tmp_path):
    for name in (
        "s2.nii.gz",
        "s10.nii.gz",
        "s1.nii.gz",
        "s1.txt",
        "lh.s2.mgh",
        "rh.s2.mgh",
        "lh.s11.mgh",
        "rh.s11.mgh",
    ):
        (tmp_path / name).touch()
    found = positions.expand(str(tmp_path / "s*.nii.gz"))
    assert [path.rpartition("/")[2] for path in found] == ["s1.nii.gz", "s2.nii.gz", "s10.nii.gz"]
    found = positions.expand(str(tmp_path / "{hemi}.s*.mgh"))
    assert [path.rpartition("/")[2] for path in found] == ["{hemi}.s2.mgh", "{hemi}.s11.mgh"]
    assert positions.expand("/a[1]/b.nii") == ["/a[1]/b.nii"]
    with pytest.raises(MissingInputError, match="no file fits"):
        positions.expand(str(tmp_path / "t*.nii.gz"))


def test_one_session_is_read_within_half_its_masked_block_more(tmp_path):
    """Peak memory of a process of its own, for a mask of a tenth of the voxels."""
    code = """
import re, sys, nibabel, numpy as np
from mine_jax.data.containers import series
from mine_jax._progress import silent
found = series.open_series(sys.argv[1])
ids = np.flatnonzero(np.arange(found.n_positions) % 10 < 5)
held = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
before = held()
values = found.read(ids, silent)
peak = held()
print((peak - before) / values.nbytes, values.nbytes)
"""
    shape, n = (83, 104, 81), 60
    image = nibabel.Nifti1Image(np.zeros((*shape, 1), np.int16), np.eye(4))
    header = image.header.copy()
    header.set_data_shape((*shape, n))
    path = tmp_path / "s.nii"
    with path.open("wb") as file:
        header.write_to(file)
        file.write(b"\0" * (352 - file.tell()))
        plane = np.arange(np.prod(shape), dtype=np.int16).tobytes()
        for _ in range(n):
            file.write(plane)
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    share, n_bytes = (float(word) for word in done.stdout.split())
    assert n_bytes > 4e7 and share < 1.5


def test_volumes_on_the_fifth_axis(tmp_path):
    planted = np.arange(24 * T, dtype=np.float32).reshape(2, 3, 4, 1, T)
    nibabel.save(nibabel.Nifti1Image(planted, np.eye(4)), tmp_path / "s.nii")
    found = series.open_series(tmp_path / "s.nii")
    np.testing.assert_array_equal(found.read(np.arange(24), silent), planted.reshape(24, T))
    assert found.n_rows == T


def test_nested_header_of_responses_is_named(tmp_path):
    """F-71: the parser of headers fails in its own ways."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {'(' * 60}, }}".ljust(117) + "\n"
    (tmp_path / "r.npy").write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + bytes(16))
    with pytest.raises(IntegrityError, match=r"r\.npy is not a readable"):
        series.open_rows(tmp_path / "r.npy")
