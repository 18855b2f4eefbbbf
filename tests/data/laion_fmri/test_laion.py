"""LAION-fMRI: tiny files with its names, axes and traps; values compared with NumPy."""

import io
import json

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from mine_jax import data
from mine_jax.config import LaionConfig
from mine_jax.errors import AlignmentError, DataError, MissingInputError

SHAPE = (4, 3, 3)
V = 36
AFFINE = np.diag([1.8, 1.8, 1.8, 1.0])
LABELS = [
    *(f"shared_12rep_LAION_cluster_{k}_i0.jpg" for k in range(4)),
    *(f"unique_LAION_cluster_{k}_i1_p01.jpg" for k in range(6)),
    *(f"shared_4rep_OOD_shape_{k}.jpg" for k in range(2)),
]


class Laion:
    def __init__(self, root, repeats=2, dtype=np.int16):
        rng = np.random.default_rng(0)
        self.root = root
        self.glm = root / "derivatives/glmsingle-tedana/sub-01"
        order = rng.permutation(np.repeat(np.arange(len(LABELS)), repeats))
        self.order = np.array_split(order, 2)
        signal = rng.standard_normal((len(LABELS), V))
        self.betas = [signal[o] + 0.5 * rng.standard_normal((len(o), V)) + np.arange(V) for o in self.order]
        for number, (order, betas) in enumerate(zip(self.order, self.betas, strict=True), start=1):
            func = self.glm / f"ses-{number:02d}/func"
            func.mkdir(parents=True)
            base = f"sub-01_ses-{number:02d}_task-images"
            image = nibabel.Nifti1Image(betas.T.reshape(*SHAPE, -1), AFFINE)
            image.set_data_dtype(dtype)
            nibabel.save(image, func / f"{base}_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz")
            self.save(func / f"{base}_space-T1w_desc-Noiseceiling_statmap.nii.gz", np.zeros(V))
            rows = [f"ses-{number:02d}\t{1 + t // 5}\t{t}\t{LABELS[k]}" for t, k in enumerate(order)]
            # in any order: beta_index says which volume a row is
            text = "session\trun\tbeta_index\tlabel\n" + "\n".join(rng.permutation(rows)) + "\n"
            (func / f"{base}_desc-SingletrialBetas_trials.tsv").write_text(text)
        self.modelled = np.arange(V) >= 6
        self.save(
            self.glm / "sub-01_task-images_space-T1w_stat-rsquare_desc-R2mean_statmap.nii.gz", 4.0 * self.modelled
        )
        self.ceiling = np.linspace(0, 95, V)
        self.save(self.glm / "sub-01_task-images_space-T1w_desc-Noiseceiling12rep_statmap.nii.gz", self.ceiling)
        for category, name, where in (("face", "FFA1", [8, 9]), ("face", "OFA", [9, 20]), ("place", "PPA", [30])):
            path = root / f"derivatives/rois/sub-01/{category}/sub-01_space-T1w_res-1pt8_label-{name}_mask.nii.gz"
            self.save(path, np.isin(np.arange(V), where).astype(np.uint8))
        (root / "stimuli").mkdir()
        names = LABELS[::-1]
        text = "image_name,participant,note\n" + "".join(f'{name},sub-01,"a, b"\n' for name in names)
        (root / "stimuli/task-images_metadata.csv").write_text(text)
        with h5py.File(root / "stimuli/task-images_stimuli.h5", "w") as file:
            images = file.create_dataset("images", (len(names),), dtype=h5py.vlen_dtype(np.uint8))
            for row, name in enumerate(names):
                content = io.BytesIO()
                Image.fromarray(np.full((8, 8, 3), 9 * LABELS.index(name), np.uint8)).save(content, "JPEG", quality=100)
                images[row] = np.frombuffer(content.getvalue(), np.uint8)

    def save(self, path, values):
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(np.asarray(values).reshape(SHAPE), AFFINE), path)

    def config(self, **keys):
        return LaionConfig(**{"root": str(self.root), **keys})

    def expected(self, voxels):
        scores = np.concatenate([(b - b.mean(0)) / b.std(0) for b in self.betas])[:, voxels]
        order = np.concatenate(self.order)
        names = sorted(label.removesuffix(".jpg") for label in LABELS)
        at = {label.removesuffix(".jpg"): k for k, label in enumerate(LABELS)}
        return names, np.stack([scores[order == at[name]].mean(0) for name in names])


@pytest.fixture
def laion(tmp_path):
    return Laion(tmp_path)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_matches_float64_numpy(tmp_path, dtype):
    laion = Laion(tmp_path, dtype=dtype)
    responses, stimuli = data.load(laion.config())
    voxels = np.flatnonzero(laion.modelled)
    names, expected = laion.expected(voxels)
    np.testing.assert_allclose(responses.responses, expected, atol=2e-3 if dtype == np.int16 else 1e-5)
    assert responses.image_ids.tolist() == names
    np.testing.assert_array_equal(responses.voxel_ids, voxels)
    rois = dict(zip(voxels.tolist(), responses.rois.tolist(), strict=True))
    assert (rois[8], rois[9], rois[20], rois[30], rois[10]) == ("FFA1", "FFA1;OFA", "OFA", "PPA", "")
    np.testing.assert_array_equal(responses.indices, np.stack(np.unravel_index(voxels, SHAPE), 1))
    greys = [image.mean() for image in stimuli.read(names)]
    at = [LABELS.index(f"{name}.jpg") for name in names]
    np.testing.assert_allclose(greys, 9 * np.array(at), atol=1.5)
    assert stimuli.shared.sum() == 4


def test_areas_and_categories_select_voxels(laion):
    assert data.load(laion.config(roi=("FFA1",)))[0].voxel_ids.tolist() == [8, 9]
    assert data.load(laion.config(roi=("face", "PPA")))[0].voxel_ids.tolist() == [8, 9, 20, 30]
    with pytest.raises(DataError, match="closest names: FFA1"):
        data.load(laion.config(roi=("FFA-1",)))
    findings = data.check(laion.config(roi=("face",), test=0.2))
    assert any("2 sessions of 24 betas, 3 voxels" in line for line in findings)


def test_ceiling_of_the_maps_where_nothing_was_repeated(tmp_path):
    laion = Laion(tmp_path, repeats=1)
    responses, _ = data.load(laion.config())
    share = laion.ceiling[laion.modelled] / 100
    # 12 repeats give this share; one gives s2 / (s2 + 1)
    squared = share / (12 * (1 - share))
    np.testing.assert_allclose(responses.noise_ceiling, squared / (squared + 1), rtol=1e-6)


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_predefined_splits(laion, tmp_path, is_wrapped):
    held_out = [label for label in LABELS if "_OOD_" in label]
    split = {"train_ids": LABELS[:10], "test_ids": held_out}
    wrapped = {"name": "ood", "variants": [{"variant_id": 0, **split}]}
    (tmp_path / "ood.json").write_text(json.dumps(wrapped if is_wrapped else split))
    responses, stimuli = data.load(laion.config())
    assigned = data.assign_splits(responses, stimuli, test=str(tmp_path / "ood.json"))
    assert sorted(responses.image_ids[assigned == "test"]) == sorted(name.removesuffix(".jpg") for name in held_out)
    shared = data.assign_splits(responses, stimuli, test="shared")
    assert all(name.startswith("shared_12rep") for name in responses.image_ids[shared == "test"])
    (tmp_path / "empty.json").write_text("{}")
    with pytest.raises(DataError, match="test_ids"):
        data.assign_splits(responses, stimuli, test=str(tmp_path / "empty.json"))


def test_what_is_missing_or_does_not_fit(laion):
    table = laion.glm / "ses-02/func/sub-01_ses-02_task-images_desc-SingletrialBetas_trials.tsv"
    text = table.read_text()
    table.write_text(text.replace("\t11\t", "\t12\t"))
    with pytest.raises(AlignmentError, match="beta_index"):
        data.load(laion.config())
    table.write_text(text)
    (laion.root / "stimuli/task-images_stimuli.h5").unlink()
    with pytest.raises(MissingInputError, match=r"task-images_stimuli.h5"):
        data.load(laion.config())


def test_photos_come_from_the_data_set_or_a_folder(laion, tmp_path):
    assert laion.config().has_photos and data.image_inputs(laion.config())[0].name == "task-images_stimuli.h5"
    folder = tmp_path / "photos"
    folder.mkdir()
    for k, label in enumerate(LABELS):
        Image.fromarray(np.full((8, 8, 3), k, np.uint8)).save(folder / label, quality=100)
    _, stimuli = data.load(laion.config(images=str(folder)))
    assert [int(image[0, 0, 0]) for image in stimuli.read([LABELS[5].removesuffix(".jpg")])] == [5]


@pytest.mark.slow
def test_a_run_from_files_to_the_report(laion, reported):
    table = reported(laion.config(roi=("face", "PPA"), test=0.25))
    assert table[["i", "j", "k"]].to_numpy().tolist() == np.stack(np.unravel_index([8, 9, 20, 30], SHAPE), 1).tolist()
