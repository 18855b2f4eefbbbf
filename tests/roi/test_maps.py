"""Maps survive the way to disk and back, whatever the type of the values."""

import numpy as np
import pytest

from mine_jax import types
from mine_jax.errors import DataError, GeometryError, IntegrityError, MissingInputError
from mine_jax.roi import maps

AFFINE = np.array([[-1.8, 0, 0, 72.0], [0, 1.75, 0.125, -90.5], [0, -0.125, 1.75, -40.25], [0, 0, 0, 1]], np.float32)
SHAPE = (5, 6, 4)


def responses(indices=None, volume=True):
    n = 7
    if indices is None:
        flat = np.random.default_rng(0).choice(np.prod(SHAPE), n, replace=False)
        indices = np.stack(np.unravel_index(flat, SHAPE), axis=1)
    return types.Responses(
        responses=np.zeros((2, n), np.float32),
        image_ids=np.array(["0", "1"]),
        n_repeats=np.ones(2, int),
        voxel_ids=np.arange(n),
        status=np.full(n, "ok"),
        ncsnr=np.ones(n),
        noise_ceiling=np.ones(n),
        rois=np.full(n, ""),
        indices=indices,
        volume=types.Volume(SHAPE, AFFINE.astype(np.float64)) if volume else None,
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.bool_, np.uint8])
def test_roundtrip(tmp_path, dtype):
    """F-36: any type becomes float32 and returns."""
    like = responses()
    values = np.array([0, 1, 2, 0, 3, 1, 0]).astype(dtype)
    (path,) = maps.write_maps(tmp_path / "maps", like, {"r2": values})
    volume, affine = maps.read_map(path)
    assert path == tmp_path / "maps" / "r2.nii.gz"
    assert volume.dtype == np.float32 and volume.shape == SHAPE
    np.testing.assert_array_equal(volume[tuple(like.indices.T)], values.astype(np.float32))
    assert np.isnan(volume).sum() == np.prod(SHAPE) - len(values)
    np.testing.assert_array_equal(affine, AFFINE)


def test_nan_is_kept_and_units_are_set(tmp_path):
    """F-36: NaN and units."""
    import nibabel

    like = responses()
    values = np.array([np.nan, 1, -0.5, np.nan, 0, 1e-30, 0.1])
    (path,) = maps.write_maps(tmp_path, like, {"r2": values})
    np.testing.assert_array_equal(maps.read_map(path)[0][tuple(like.indices.T)], values.astype(np.float32))
    image = nibabel.load(path)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.get_data_dtype() == np.float32


def test_labels_have_a_legend(tmp_path):
    like = responses()
    labels = np.array(["face", "", "place", "face", "none", "food", "place"])
    (path,) = maps.write_maps(tmp_path, like, {"top_category": labels})
    legend = maps.read_legend(path)
    assert legend == {0: "none", 1: "face", 2: "food", 3: "place"}
    values = maps.read_map(path)[0][tuple(like.indices.T)]
    assert [legend[int(v)] for v in values] == ["face", "none", "place", "face", "none", "food", "place"]
    maps.write_maps(tmp_path, like, {"top_category": np.zeros(7)})
    assert maps.read_legend(path) == {}


def test_same_values_same_bytes_and_nothing_left_over(tmp_path):
    first = maps.write_maps(tmp_path / "a", responses(), {"r2": np.arange(7.0)})[0].read_bytes()
    second = maps.write_maps(tmp_path / "b", responses(), {"r2": np.arange(7.0)})[0].read_bytes()
    assert first == second
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["r2.nii.gz"]


def test_without_geometry_nothing_is_written(tmp_path):
    assert maps.write_maps(tmp_path / "maps", responses(volume=False), {"r2": np.zeros(7)}) == []
    assert not (tmp_path / "maps").exists()


def test_message(tmp_path):
    """F-36, F-37: values and ids that float32 does not hold."""
    like = responses()
    with pytest.raises(DataError, match=r"`r2` must have shape .* has shape .3,"):
        maps.write_maps(tmp_path, like, {"r2": np.zeros(3)})
    with pytest.raises(DataError, match="letters, digits"):
        maps.write_maps(tmp_path, like, {"../r2": np.zeros(7)})
    with pytest.raises(DataError, match=r"2\*\*24"):
        maps.write_maps(tmp_path, like, {"ids": np.arange(7) + 2**40 + 1})
    with pytest.raises(DataError, match="range of float32"):
        maps.write_maps(tmp_path, like, {"big": np.full(7, 1e300)})
    with pytest.raises(GeometryError, match="outside the volume"):
        maps.write_maps(tmp_path, responses(np.full((7, 3), 9)), {"r2": np.zeros(7)})
    with pytest.raises(GeometryError, match="share 1 places"):
        maps.write_maps(tmp_path, responses(np.ones((7, 3), int)), {"r2": np.zeros(7)})
    with pytest.raises(MissingInputError, match="no map"):
        maps.read_map(tmp_path / "x.nii.gz")


@pytest.mark.parametrize("content", [b"", b"not a volume", None])
def test_damaged_map(tmp_path, content):
    (path,) = maps.write_maps(tmp_path, responses(), {"r2": np.arange(7.0)})
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    with pytest.raises(IntegrityError, match=r"r2\.nii\.gz"):
        maps.read_map(path)
