"""BIDS derivatives in volumes, on surfaces and in grayordinates: the names of the standard, values of NumPy."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from mine_jax import data
from mine_jax.config import BidsConfig
from mine_jax.data.bids import names
from mine_jax.errors import AlignmentError, ConfigError, GeometryError, MissingInputError

SHAPE, V = (3, 4, 2), 24
SESSIONS, N = ("01", "02", "10"), 8
AFFINE = np.diag([2, 2, 2, 1.0])


class Set:
    """A raw data set with events, and derivatives with betas of three sessions of two runs each."""

    def __init__(self, root):
        rng = np.random.default_rng(0)
        self.raw, self.root = root / "raw", root / "raw/derivatives/glmsingle"
        self.ids = [f"photo{k}" for k in range(N)]
        (root / "photos").mkdir()
        self.photos = root / "photos"
        for k, name in enumerate(self.ids):
            Image.fromarray(np.full((8, 8, 3), k, np.uint8)).save(self.photos / f"{name}.png")
        self.order = {session: rng.permutation(np.repeat(np.arange(N), 2)) for session in SESSIONS}
        signal = rng.standard_normal((N, V))
        # a planted pattern of places: voxel k is around k
        self.betas = {
            s: signal[o] + rng.standard_normal((2 * N, V)) + np.arange(V) for s, o in self.order.items()
        }  # fmt: skip
        for session in SESSIONS:
            self.func(self.raw, session).mkdir(parents=True)
            self.func(self.root, session).mkdir(parents=True)
            self.write_events(session)

    def func(self, root, session):
        return root / f"sub-01/ses-{session}/func"

    def write_events(self, session, catch="n/a"):
        for run, part in enumerate(np.split(self.order[session], 2), start=1):
            rows = [f"{2.5 * t}\t2\t{self.ids[k]}.png" for t, k in enumerate(part)]
            rows.insert(3, f"7\t2\t{catch}")
            path = self.func(self.raw, session) / f"sub-01_ses-{session}_task-photos_run-{run}_events.tsv"
            path.write_text("onset\tduration\tstim_file\n" + "\n".join(rows) + "\n")

    def base(self, session):
        return self.func(self.root, session) / f"sub-01_ses-{session}_task-photos"

    def write_volumes(self, space="T1w", suffix="betas", affine=AFFINE):
        for session in SESSIONS:
            volume = self.betas[session].T.reshape(*SHAPE, -1).astype(np.float32)
            path = f"{self.base(session)}_space-{space}_desc-typed_{suffix}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(volume, affine), path)

    def write_mask(self, where):
        mask = np.isin(np.arange(V), where).astype(np.uint8).reshape(SHAPE)
        path = self.root / "sub-01/anat/sub-01_space-T1w_desc-brain_mask.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(mask, AFFINE), path)

    def config(self, **keys):
        return BidsConfig(**{"root": str(self.root), "images": str(self.photos), "test": 0.25, **keys})

    def expected(self, voxels, by_run=False):
        scores, order = [], []
        for session in SESSIONS:
            parts = np.split(self.betas[session][:, voxels], 2 if by_run else 1)
            scores += [(part - part.mean(0)) / part.std(0) for part in parts]
            order.append(self.order[session])
        scores, order = np.concatenate(scores), np.concatenate(order)
        return np.stack([scores[order == k].mean(0) for k in range(N)])


@pytest.fixture
def bids(tmp_path):
    return Set(tmp_path)


def test_volumes_with_events_of_runs(bids):
    bids.write_volumes()
    where = [1, 5, 6, 20]
    bids.write_mask(where)
    responses, stimuli = data.load(bids.config())
    np.testing.assert_allclose(responses.responses, bids.expected(where), atol=1e-5)
    assert responses.image_ids.tolist() == bids.ids and set(responses.n_repeats) == {6}
    np.testing.assert_array_equal(responses.indices, np.stack(np.unravel_index(where, SHAPE), 1))
    assert [int(image[0, 0, 0]) for image in stimuli.read(["photo3", "photo1"])] == [3, 1]
    plain, _ = data.load(bids.config(zscore="none"))
    np.testing.assert_allclose(plain.responses.mean(0), where, atol=1.5)
    runs, _ = data.load(bids.config(zscore="run"))
    np.testing.assert_allclose(runs.responses, bids.expected(where, by_run=True), atol=1e-5)
    findings = data.check(bids.config())
    assert any("3 files of 48 betas, 4 of 24 voxels" in line for line in findings)
    assert data.open_stimuli(bids.config()).image_ids.tolist() == bids.ids


def test_only_some_sessions(bids):
    bids.write_volumes()
    bids.write_mask([2, 3])
    responses, _ = data.load(bids.config(sessions=2, subject="sub-01"))
    assert set(responses.n_repeats) == {4}
    files = {path.name for path in data.inputs(bids.config(sessions=1))}
    assert files == {
        "sub-01_ses-01_task-photos_space-T1w_desc-typed_betas.nii.gz",
        "sub-01_ses-01_task-photos_run-1_events.tsv",
        "sub-01_ses-01_task-photos_run-2_events.tsv",
        "sub-01_space-T1w_desc-brain_mask.nii.gz",
    }


def test_surfaces(bids):
    for session in SESSIONS:
        for hemi, part in zip("LR", np.split(bids.betas[session], [10], 1), strict=True):
            arrays = [nibabel.gifti.GiftiDataArray(row.astype("f4"), datatype="NIFTI_TYPE_FLOAT32") for row in part]
            path = f"{bids.base(session)}_hemi-{hemi}_space-fsnative_desc-typed_betas.func.gii"
            nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), path)
    responses, _ = data.load(bids.config())
    np.testing.assert_allclose(responses.responses, bids.expected(np.arange(V)), atol=1e-5)
    assert responses.surface.name == "fsnative" and responses.surface.n_vertices == (10, 14)
    at = np.random.default_rng(0).standard_normal((V, 3))
    at *= 100 / np.linalg.norm(at, axis=1, keepdims=True)
    for hemi, part in zip("LR", np.split(at, [10]), strict=True):
        nibabel.freesurfer.write_geometry(bids.root / f"{hemi}.sphere", part, np.array([[0, 1, 2]]))
    placed = bids.config(sphere=str(bids.root / "{hemi}.sphere"))
    np.testing.assert_allclose(data.load(placed)[0].sphere, at, atol=1e-4)
    assert bids.root / "R.sphere" in data.inputs(placed)
    assert any("set `data.sphere`" in line for line in data.check(bids.config()))
    assert any("positions of vertices" in line for line in data.check(placed))


def test_grayordinates(bids):
    models = nibabel.cifti2.BrainModelAxis.from_mask(np.ones(10, bool), "CIFTI_STRUCTURE_CORTEX_LEFT")
    models += nibabel.cifti2.BrainModelAxis.from_mask(np.ones(14, bool), "CIFTI_STRUCTURE_CORTEX_RIGHT")
    for session in SESSIONS:
        axis = nibabel.cifti2.ScalarAxis([f"trial{t}" for t in range(2 * N)])
        image = nibabel.Cifti2Image(bids.betas[session].astype("f4"), header=(axis, models))
        nibabel.save(image, f"{bids.base(session)}_space-fsLR_den-91k_betas.dscalar.nii")
    responses, _ = data.load(bids.config(space="fsLR"))
    np.testing.assert_allclose(responses.responses, bids.expected(np.arange(V)), atol=1e-5)


def test_betas_of_catch_trials_are_left_out(bids):
    """Betas for every row of the tables: the rows without an image have values that are not used."""
    for session in SESSIONS:
        rows = bids.betas[session]
        bids.betas[session] = np.insert(rows, [3, N + 3], 99.0, axis=0)
    bids.write_volumes()
    bids.write_mask([4, 7])
    responses, _ = data.load(bids.config())
    for session in SESSIONS:
        bids.betas[session] = np.delete(bids.betas[session], [3, N + 4], axis=0)
    np.testing.assert_allclose(responses.responses, bids.expected([4, 7]), atol=1e-5)


def test_a_table_beside_the_betas_and_its_order(bids):
    bids.write_volumes()
    bids.write_mask([0, 9])
    rng = np.random.default_rng(5)
    for session in SESSIONS:
        rows = [f"{t + 1}\tphoto{k}" for t, k in enumerate(bids.order[session])]
        text = "beta_index\tlabel\n" + "\n".join(rng.permutation(rows)) + "\n"
        bids.base(session).with_name(f"{bids.base(session).name}_desc-typed_trials.tsv").write_text(text)
    np.testing.assert_allclose(data.load(bids.config())[0].responses, bids.expected([0, 9]), atol=1e-5)


def test_files_that_could_be_meant(bids):
    bids.write_volumes()
    bids.write_volumes(space="MNI152NLin2009cAsym", suffix="statmap")
    bids.write_mask([0, 9])
    with pytest.raises(ConfigError, match=r"2 files .*`space` \(MNI152\w+, T1w\) or `suffix` \(betas, statmap"):
        data.load(bids.config())
    np.testing.assert_allclose(data.load(bids.config(space="T1w"))[0].responses, bids.expected([0, 9]), atol=1e-5)
    with pytest.raises(MissingInputError, match="desc-other"):
        data.load(bids.config(desc="other"))
    with pytest.raises(MissingInputError, match="Subjects that are there: sub-01"):
        data.load(bids.config(subject="02"))


def test_what_does_not_belong_together(bids):
    bids.write_volumes()
    bids.write_mask([0, 9])
    path = bids.func(bids.raw, "10") / "sub-01_ses-10_task-photos_run-2_events.tsv"
    path.write_text("onset\tstim_file\n1\tphoto1.png\n")
    with pytest.raises(AlignmentError, match=r"ses-10.* has 16 betas, but its tables .* have 10 rows, 9 of them"):
        data.load(bids.config())
    bids.write_events("10")
    with pytest.raises(ConfigError, match="Set `image_column`"):
        data.load(bids.config(image_column="picture"))
    for file in bids.func(bids.raw, "02").iterdir():
        file.unlink()
    with pytest.raises(MissingInputError, match=r"no table of trials for sub-01_ses-02"):
        data.load(bids.config())
    bids.write_events("02")
    other = nibabel.Nifti1Image(np.zeros((*SHAPE, 2 * N), np.float32), np.diag([3, 3, 3, 1.0]))
    nibabel.save(other, f"{bids.base('10')}_space-T1w_desc-typed_betas.nii.gz")
    with pytest.raises(GeometryError, match="affine"):
        data.load(bids.config())


@pytest.mark.parametrize(
    ("name", "entities", "suffix"),
    [
        (
            "sub-01_ses-2_task-x_run-03_desc-a_betas.nii.gz",
            {"sub": "01", "ses": "2", "task": "x", "run": "03"},
            "betas",
        ),
        ("sub-01_hemi-L_space-fsnative_statmap.func.gii", {"hemi": "L", "space": "fsnative"}, "statmap"),
    ],
)
def test_entities_of_names(tmp_path, name, entities, suffix):
    found = names.parse(tmp_path / name)
    assert entities.items() <= found.entities.items() and found.suffix == suffix
    assert ("{hemi}" in found.path) == ("hemi" in entities)
    assert names.parse(tmp_path / "README.md") is None and names.parse(tmp_path / "a_b.nii") is None


@pytest.mark.slow
def test_a_run_from_files_to_the_report(bids, reported):
    bids.write_volumes()
    bids.write_mask([1, 5, 6, 20])
    table = reported(bids.config())
    assert table[["i", "j", "k"]].to_numpy().tolist() == np.stack(np.unravel_index([1, 5, 6, 20], SHAPE), 1).tolist()
