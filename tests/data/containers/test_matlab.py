import io

import h5py
import numpy as np
import pytest
import scipy.io

from mine_jax.data.containers import matlab
from mine_jax.errors import DataError, IntegrityError, MineError, MissingInputError

VALUES = {
    "whole": np.arange(6.0).reshape(2, 3),
    "real": np.random.default_rng(0).standard_normal((3, 2, 2)),
    "short": np.arange(4, dtype=np.int16)[None],
    "a_name_of_more_than_four": np.float32(2.5),
    "bytes": np.zeros((0, 3), np.uint8),
}


def save(path, values=VALUES, **options):
    scipy.io.savemat(path, values, **options)
    return path


@pytest.mark.parametrize("is_compressed", [False, True])
def test_matches_what_was_written(tmp_path, is_compressed):
    """SciPy writes; whole numbers of a double array are doubles, however they are stored."""
    path = save(tmp_path / "a.mat", do_compression=is_compressed)
    found = matlab.read(path, [*VALUES, "absent"])
    assert list(found) == list(VALUES)
    for name, values in VALUES.items():
        np.testing.assert_array_equal(found[name], np.atleast_2d(values))
        assert found[name].dtype == values.dtype
    assert matlab.shapes(path, VALUES) == {name: np.atleast_2d(values).shape for name, values in VALUES.items()}


def test_other_order_of_bytes_and_compact_storage(tmp_path):
    """Written by hand from the description of the format: a double array of shape 2 x 2, stored as bytes."""

    def tag(code, n):
        return np.array([code, n], ">u4").tobytes()

    array = tag(6, 8) + np.array([6, 0], ">u4").tobytes() + tag(5, 8) + np.array([2, 2], ">i4").tobytes()
    array += np.array([1 << 16 | 1], ">u4").tobytes() + b"x\0\0\0"
    array += np.array([4 << 16 | 2], ">u4").tobytes() + bytes([1, 2, 3, 250])
    content = b"MATLAB".ljust(124) + b"\x01\x00MI" + tag(14, len(array)) + array
    (tmp_path / "a.mat").write_bytes(content)
    found = matlab.read(tmp_path / "a.mat", ["x"])["x"]
    np.testing.assert_array_equal(found, [[1, 3], [2, 250]])
    assert found.dtype == np.float64


def test_version_7_3_has_axes_in_reverse(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["x"] = np.arange(6.0).reshape(3, 2)
    with (tmp_path / "a.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    np.testing.assert_array_equal(matlab.read(tmp_path / "a.mat", ["x"])["x"], np.arange(6.0).reshape(3, 2).T)
    assert matlab.shapes(tmp_path / "a.mat", ["x"]) == {"x": (2, 3)}


@pytest.mark.parametrize("values", [{"x": "text"}, {"x": {"a": 1}}, {"x": np.array([1, "a"], object)}, {"x": 1 + 2j}])
def test_what_is_no_number(tmp_path, values):
    path = save(tmp_path / "a.mat", {"y": 1.0, **values})
    with pytest.raises(DataError, match=r"`x` of .*a.mat must hold real numbers"):
        matlab.read(path, ["x", "y"])
    assert matlab.read(path, ["y"]) == {"y": 1.0}


@pytest.mark.parametrize("is_compressed", [False, True])
def test_damaged_files_have_a_name(tmp_path, is_compressed):
    """The reader of SciPy ends the process on some of these."""
    content, rng, ends = (
        save(tmp_path / "a.mat", do_compression=is_compressed).read_bytes(),
        np.random.default_rng(0),
        [],
    )
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        (tmp_path / "b.mat").write_bytes(damaged[: rng.integers(len(damaged))] if rng.random() < 0.2 else damaged)
        try:
            matlab.read(tmp_path / "b.mat", VALUES)
            ends.append("read")
        except MineError as error:
            assert "b.mat" in str(error)
            ends.append(type(error).__name__)
    assert ends.count("IntegrityError") > 50
    # of compressed values the checksum is compared
    assert not is_compressed or ends.count("IntegrityError") > 250


def test_files_that_are_none(tmp_path):
    with pytest.raises(MissingInputError, match=r"no file at .*a.mat"):
        matlab.read(tmp_path / "a.mat", ["x"])
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"x": 1.0}, format="4")
    for content in (b"", b"MATLAB", buffer.getvalue(), b"x" * 4000):
        (tmp_path / "a.mat").write_bytes(content)
        with pytest.raises(IntegrityError, match=r"a.mat is not a readable MATLAB file"):
            matlab.read(tmp_path / "a.mat", ["x"])
