"""Spheres of the cortex: positions compared with nibabel's own reading, and files that cannot be used."""

import nibabel
import numpy as np
import pytest

from benchmarks.icosphere import icosphere
from mine_jax.data.containers import spheres
from mine_jax.errors import ConfigError, DataError, GeometryError, IntegrityError, MissingInputError
from mine_jax.types import Surface, Volume

POINTS, TRIANGLES = icosphere(1)
N = len(POINTS)
SURFACE = Surface("fsaverage", (N, N))
RIGHT = POINTS @ np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]


def write_gifti(path, at, intent="NIFTI_INTENT_POINTSET"):
    arrays = [
        nibabel.gifti.GiftiDataArray(at.astype(np.float32), intent, "NIFTI_TYPE_FLOAT32"),
        nibabel.gifti.GiftiDataArray(TRIANGLES.astype(np.int32), "NIFTI_INTENT_TRIANGLE", "NIFTI_TYPE_INT32"),
    ]
    nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), path)


def write(folder, left=POINTS, right=RIGHT, radius=100.0):
    """Writes both spheres, returns the pattern of their names."""
    for hemi, at in (("lh", left), ("rh", right)):
        nibabel.freesurfer.write_geometry(folder / f"{hemi}.sphere", radius * at, TRIANGLES)
    return str(folder / "{hemi}.sphere")


def test_freesurfer(tmp_path):
    path = write(tmp_path)
    expected = np.concatenate([nibabel.freesurfer.read_geometry(path.format(hemi=hemi))[0] for hemi in ("lh", "rh")])
    found = spheres.read_spheres(path, SURFACE)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.dtype == np.float32 and spheres.files_of(path) == [tmp_path / "lh.sphere", tmp_path / "rh.sphere"]
    assert spheres.finding(path, SURFACE) == [f"positions of vertices: {path}"]


def test_gifti_of_another_radius(tmp_path):
    for hemi, at in (("L", POINTS), ("R", RIGHT)):
        write_gifti(tmp_path / f"fs_LR.{hemi}.sphere.surf.gii", at)
    path = str(tmp_path / "fs_LR.{hemi}.sphere.surf.gii")
    stored = [nibabel.load(path.format(hemi=hemi)).agg_data("pointset") for hemi in "LR"]
    np.testing.assert_allclose(spheres.read_spheres(path, SURFACE), 100 * np.concatenate(stored), atol=1e-4)


def test_without_a_path(tmp_path):
    assert spheres.read_spheres(None, SURFACE) is None and spheres.files_of(None) == []
    assert "set `data.sphere`" in spheres.finding(None, SURFACE)[0]
    assert spheres.finding(None, Volume((2, 2, 2), np.eye(4))) == spheres.finding(None, None) == []


def test_what_is_no_sphere(tmp_path):
    longer = np.concatenate([RIGHT, RIGHT[:1]])
    flat = RIGHT * [1, 1, 0.6]
    for right, message in (
        (longer, rf"rh.sphere has {N + 1} vertices, but the responses have {N}"),
        (flat, r"rh.sphere is not a sphere: its vertices are 6\d(\.\d+)? to .* mm"),
        (np.where(np.arange(N)[:, None] == 3, np.nan, RIGHT), "is not a sphere"),
        (np.zeros((N, 3)), "is not a sphere"),
    ):
        with pytest.raises(GeometryError, match=message):
            spheres.read_spheres(write(tmp_path, right=right), SURFACE)


def test_damaged_and_missing_files(tmp_path):
    path = write(tmp_path)
    right = tmp_path / "rh.sphere"
    whole = right.read_bytes()
    for bad in (b"", whole[:50], whole[: len(whole) // 2], b"not a surface at all"):
        right.write_bytes(bad)
        with pytest.raises(IntegrityError, match=r"rh.sphere is not a readable surface"):
            spheres.read_spheres(path, SURFACE)
    right.unlink()
    with pytest.raises(MissingInputError, match="both hemispheres are needed"):
        spheres.read_spheres(path, SURFACE)
    for hemi in ("lh", "rh"):
        write_gifti(tmp_path / f"{hemi}.sphere.gii", POINTS, "NIFTI_INTENT_SHAPE")
    with pytest.raises(DataError, match="one array of positions"):
        spheres.read_spheres(str(tmp_path / "{hemi}.sphere.gii"), SURFACE)


@pytest.mark.parametrize(
    ("path", "space", "message"),
    [
        ("{hemi}.sphere", Volume((2, 2, 2), np.eye(4)), "these are in a volume"),
        ("{hemi}.sphere", None, "these are plain columns or of one hemisphere"),
        ("lh.sphere", SURFACE, r"must hold \{hemi\}"),
    ],
)
def test_what_makes_no_sense(path, space, message):
    with pytest.raises(ConfigError, match=message):
        spheres.read_spheres(path, space)
