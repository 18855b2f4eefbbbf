"""NSD on surfaces: files as the data set has them, values compared with NumPy, maps read back with nibabel."""

import h5py
import nibabel
import numpy as np
import pytest

from mine_jax import artifacts, data, roi
from mine_jax.config import NsdConfig
from mine_jax.convert import frames
from mine_jax.errors import AlignmentError, GeometryError, MissingInputError

VERTICES = (11, 9)
N = sum(VERTICES)
HEMIS = ("lh", "rh")


def read_mgh(path):
    return np.array(np.asarray(nibabel.MGHImage.from_bytes(path.read_bytes()).dataobj))


class Surfaces:
    """Betas of both surfaces with the trials of the tiny NSD: fsaverage in percent, native times 300."""

    def __init__(self, nsd):
        self.nsd = nsd
        rng = np.random.default_rng(3)
        n_images = len(set(nsd.images_of_trials.tolist()))
        signal = rng.standard_normal((n_images, N))
        which = np.unique(nsd.images_of_trials, return_inverse=True)[1]
        noisy = signal[which] + rng.standard_normal((len(which), N))
        # trials of each vertex around its own number: a planted pattern of places
        self.whole = np.rint((noisy + np.arange(N)) * 300).astype(np.int16)
        general = np.zeros(N, np.int32)
        general[[2, 3, 7, 8, 12, 19]] = 1
        faces = np.zeros(N, np.int32)
        faces[[3, 12]], faces[19] = 1, 2
        self.codes = {"nsdgeneral": general, "floc-faces": faces}

    def folder(self, space):
        path = self.nsd.root / f"nsddata_betas/ppdata/subj01/{space}/betas_fithrf_GLMdenoise_RR"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def split(self, values):
        return zip(HEMIS, np.split(values, [VERTICES[0]], -1), strict=True)

    def write(self, space, chunks=None, turned=False):
        name = "fsaverage" if space == "fsaverage" else "subj01"
        labels = self.nsd.root / f"nsddata/freesurfer/{name}/label"
        labels.mkdir(parents=True, exist_ok=True)
        for collection, codes in self.codes.items():
            for hemi, part in self.split(codes):
                nibabel.save(nibabel.MGHImage(part[:, None, None], np.eye(4)), labels / f"{hemi}.{collection}.mgz")
        nibabel.save(
            nibabel.MGHImage(np.ones((VERTICES[0], 1, 1), "f4") / 3, np.eye(4)), labels / "lh.flocfacestval.mgz"
        )
        (labels / "floc-faces.mgz.ctab").write_text("0 Unknown\n1 OFA\n2 FFA-1\n")
        for session, rows in ((1, slice(0, 750)), (2, slice(750, None))):
            for hemi, part in self.split(self.whole[rows]):
                path = self.folder(space) / f"{hemi}.betas_session{session:02d}"
                if space == "fsaverage":
                    values = (part / 300).astype(np.float32).T[:, None, None, :]
                    nibabel.save(nibabel.MGHImage(values, np.eye(4)), f"{path}.mgh")
                else:
                    with h5py.File(f"{path}.hdf5", "w") as file:
                        shape = None if chunks is None else (chunks(part) if callable(chunks) else chunks)
                        file.create_dataset("betas", data=part.T if turned else part, chunks=shape)

    def expected(self):
        voxels = np.flatnonzero(self.codes["nsdgeneral"])
        percent = self.whole[:, voxels] / 300
        scores = np.concatenate([(p - p.mean(0)) / p.std(0) for p in (percent[:750], percent[750:])])
        ids = sorted(set(self.nsd.images_of_trials.tolist()))
        return voxels, np.stack([scores[self.nsd.images_of_trials == i].mean(0) for i in ids])


@pytest.fixture
def surfaces(nsd):
    return Surfaces(nsd)


@pytest.mark.parametrize(
    ("space", "chunks", "turned"),
    [
        ("fsaverage", None, False),
        ("nativesurface", None, False),
        ("nativesurface", lambda part: (len(part), 1), False),
        ("nativesurface", None, True),
    ],
)
def test_matches_float64_numpy(surfaces, space, chunks, turned):
    surfaces.write(space, chunks, turned)
    responses, stimuli = data.load_nsd(surfaces.nsd.root, space=space)
    voxels, expected = surfaces.expected()
    np.testing.assert_array_equal(responses.voxel_ids, voxels)
    np.testing.assert_allclose(responses.responses, expected, atol=2e-5)
    assert responses.surface.n_vertices == VERTICES and responses.volume is None
    assert responses.rois.tolist() == ["", "OFA", "", "", "OFA", "FFA-1"]
    assert [int(i) for i in stimuli.image_ids] == sorted(set(surfaces.nsd.images_of_trials.tolist()))
    findings = data.check(NsdConfig(root=str(surfaces.nsd.root), space=space))
    assert any("6 voxels" in line for line in findings)


def test_percent_is_not_divided_again(surfaces):
    """Means show what z-scores hide: a vertex of number k has betas around k percent in both spaces."""
    means = {}
    for space in ("fsaverage", "nativesurface"):
        surfaces.write(space)
        responses, _ = data.load_nsd(surfaces.nsd.root, space=space, zscore="none", roi=())
        means[space] = responses.responses.mean(0)
    np.testing.assert_allclose(means["fsaverage"], np.arange(N), atol=0.2)
    np.testing.assert_allclose(means["fsaverage"], means["nativesurface"], atol=1e-4)


def test_vertices_without_data_are_a_status(surfaces):
    surfaces.write("fsaverage")
    path = surfaces.folder("fsaverage") / "rh.betas_session02.mgh"
    values = read_mgh(path)
    values[1] = np.nan
    nibabel.save(nibabel.MGHImage(values, np.eye(4)), path)
    for hemi, part in surfaces.split(np.full(N, 0.5, np.float32)):
        nibabel.save(nibabel.MGHImage(part[:, None, None], np.eye(4)), path.with_name(f"{hemi}.ncsnr.mgh"))
    responses, _ = data.load_nsd(surfaces.nsd.root, space="fsaverage")
    assert dict(zip(responses.voxel_ids.tolist(), responses.status.tolist(), strict=True))[12] == "nonfinite"
    assert (responses.status == "ok").sum() == 5


def test_files_of_a_run(surfaces, tmp_path):
    """F-35: vertices without a value are NaN in the maps of both hemispheres."""
    surfaces.write("fsaverage")
    responses, _ = data.load_nsd(surfaces.nsd.root, space="fsaverage")
    again = artifacts.load(artifacts.save(responses, tmp_path / "data"))
    assert again.surface == responses.surface
    table = frames.voxels(responses, None, None)
    assert table["hemi"].tolist() == ["lh"] * 4 + ["rh"] * 2 and table["vertex"].tolist() == [2, 3, 7, 8, 1, 8]
    values = np.arange(6) / 7
    paths = roi.write_maps(tmp_path / "maps", again, {"r2": values, "top": np.array(list("aabbab"))})
    assert sorted(path.name for path in paths if "r2" in path.name) == [
        "lh.r2.func.gii", "lh.r2.mgh", "rh.r2.func.gii", "rh.r2.mgh",
    ]  # fmt: skip
    for suffix, read in (
        ("func.gii", lambda p: nibabel.load(p).darrays[0].data),
        ("mgh", lambda p: read_mgh(p).ravel()),
    ):
        whole = np.concatenate([read(tmp_path / "maps" / f"{hemi}.r2.{suffix}") for hemi in HEMIS])
        np.testing.assert_array_equal(whole[responses.voxel_ids], values.astype(np.float32))
        assert np.isnan(whole).sum() == N - 6
    assert (tmp_path / "maps/top.tsv").is_file()


@pytest.mark.parametrize(("space", "subject"), [("fsaverage", "fsaverage"), ("nativesurface", "subj01")])
def test_spheres_are_found_beside_the_labels(surfaces, tmp_path, space, subject):
    surfaces.write(space)
    config = NsdConfig(root=str(surfaces.nsd.root), space=space)
    bare, _ = data.load(config)
    assert bare.sphere is None and bare.places is None and "set `data.sphere`" in data.warning_of_places(bare)
    assert any("set `data.sphere`" in line for line in data.check(config))
    folder = surfaces.nsd.root / f"nsddata/freesurfer/{subject}/surf"
    folder.mkdir()
    at = np.random.default_rng(0).standard_normal((N, 3))
    at *= 100 / np.linalg.norm(at, axis=1, keepdims=True)
    triangle = np.array([[0, 1, 2]])
    for name, sign in (("sphere", 1), ("sphere.reg", -1)):
        for hemi, part in zip(HEMIS, np.split(sign * at, [VERTICES[0]]), strict=True):
            nibabel.freesurfer.write_geometry(folder / f"{hemi}.{name}", part, triangle)
    responses, _ = data.load(config)
    own = (
        nibabel.freesurfer.read_geometry(folder / "lh.sphere")[0],
        nibabel.freesurfer.read_geometry(folder / "rh.sphere")[0],
    )
    np.testing.assert_allclose(responses.sphere, np.concatenate(own)[responses.voxel_ids], atol=1e-4)
    assert responses.places.part.tolist() == [0] * 4 + [1] * 2 and data.warning_of_places(responses) == ""
    assert {folder / "lh.sphere", folder / "rh.sphere"} < set(data.inputs(config))
    assert f"positions of vertices: {folder}/{{hemi}}.sphere" in data.check(config)
    again = artifacts.load(artifacts.save(responses, tmp_path / "data"))
    np.testing.assert_array_equal(again.sphere, responses.sphere)
    np.testing.assert_array_equal(again.take([1, 5]).sphere, responses.sphere[[1, 5]])
    (folder / "rh.sphere").unlink()
    registered, _ = data.load(config)
    np.testing.assert_allclose(registered.sphere, -responses.sphere, atol=1e-4)
    nibabel.freesurfer.write_geometry(folder / "rh.sphere", at[:3], triangle)
    with pytest.raises(GeometryError, match=r"rh.sphere has 3 vertices, but the responses have 9"):
        data.check(config)


def test_hemispheres_and_labels_must_fit(surfaces):
    """F-35: a hemisphere of another length, or none."""
    surfaces.write("fsaverage")
    right = surfaces.folder("fsaverage") / "rh.betas_session02.mgh"
    values = read_mgh(right)
    nibabel.save(nibabel.MGHImage(values[:-1], np.eye(4)), right)
    with pytest.raises(GeometryError, match=r"session02.*on Surface"):
        data.load_nsd(surfaces.nsd.root, space="fsaverage")
    nibabel.save(nibabel.MGHImage(values[..., :-1], np.eye(4)), right)
    with pytest.raises((AlignmentError, ValueError), match=r"600 rows, but .* 599"):
        data.load_nsd(surfaces.nsd.root, space="fsaverage")
    right.unlink()
    with pytest.raises(MissingInputError, match=r"rh.betas_session02"):
        data.load_nsd(surfaces.nsd.root, space="fsaverage")
