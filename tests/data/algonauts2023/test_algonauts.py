"""Algonauts 2023: its folders and names with tiny arrays on a small mask of fsaverage."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from mine_jax import data
from mine_jax.config import AlgonautsConfig
from mine_jax.errors import AlignmentError, DataError, GeometryError, MissingInputError

N_VERTICES, N = 163842, 12
LEFT, RIGHT = [5, 100, 163841], [0, 7, 9, 500]
NSD_IDS = [13, 27, 11, 900, 72999, 40, 41, 42, 43, 2, 3, 4]


class Algonauts:
    def __init__(self, root):
        rng = np.random.default_rng(0)
        self.root = root
        self.fmri = root / "subj01/training_split/training_fmri"
        self.masks = root / "subj01/roi_masks"
        self.photos = root / "subj01/training_split/training_images"
        for folder in (self.fmri, self.masks, self.photos):
            folder.mkdir(parents=True)
        self.values = {}
        for hemi, inside in (("lh", LEFT), ("rh", RIGHT)):
            values = rng.standard_normal((N, len(inside))).astype(np.float32)
            self.values[hemi] = values
            np.save(self.fmri / f"{hemi}_training_fmri.npy", values)
            self.save_mask(hemi, "all-vertices", dict.fromkeys(inside, 1))
        self.save_mask("lh", "floc-faces", {100: 2})
        self.save_mask("rh", "floc-faces", {7: 1, 500: 2})
        self.save_mask("lh", "streams", {100: 5})
        self.save_mask("rh", "streams", {})
        # a pickle, as the challenge ships it: it must never be opened
        np.save(self.masks / "mapping_floc-faces.npy", np.array({0: "Unknown"}, object), allow_pickle=True)
        for row, nsd in enumerate(NSD_IDS, start=1):
            image = Image.fromarray(np.full((8, 8, 3), row, np.uint8))
            image.save(self.photos / f"train-{row:04d}_nsd-{nsd:05d}.png")

    def save_mask(self, hemi, name, codes):
        values = np.zeros(N_VERTICES, np.float32)
        values[list(codes)] = list(codes.values())
        np.save(self.masks / f"{hemi}.{name}_fsaverage_space.npy", values)

    def config(self, **keys):
        return AlgonautsConfig(**{"root": str(self.root), "test": 0.2, **keys})


@pytest.fixture
def algonauts(tmp_path):
    return Algonauts(tmp_path)


def test_rows_and_vertices(algonauts):
    responses, stimuli = data.load(algonauts.config())
    order = np.argsort(NSD_IDS)
    whole = np.concatenate([algonauts.values["lh"], algonauts.values["rh"]], 1)
    np.testing.assert_array_equal(responses.responses, whole[order])
    assert responses.image_ids.tolist() == [str(NSD_IDS[k]) for k in order]
    assert responses.voxel_ids.tolist() == [*LEFT, *(N_VERTICES + v for v in RIGHT)]
    hemi, vertex = responses.surface.places(responses.voxel_ids)
    assert hemi.tolist() == ["lh"] * 3 + ["rh"] * 4 and vertex.tolist() == [*LEFT, *RIGHT]
    assert responses.rois.tolist() == ["", "FFA-1;ventral", "", "", "OFA", "", "FFA-1"]
    assert np.isnan(responses.noise_ceiling).all()
    greys = [int(image[0, 0, 0]) for image in stimuli.read(responses.image_ids.tolist())]
    assert greys == (order + 1).tolist()
    findings = data.check(algonauts.config())
    assert any("12 images, 7 vertices" in line for line in findings)
    assert any("set `data.sphere`" in line for line in findings)


def test_positions_of_vertices(algonauts, tmp_path):
    at = np.random.default_rng(1).standard_normal((2, N_VERTICES, 3))
    at *= 100 / np.linalg.norm(at, axis=2, keepdims=True)
    for hemi, part in zip(("lh", "rh"), at, strict=True):
        nibabel.freesurfer.write_geometry(tmp_path / f"{hemi}.sphere", part, np.array([[0, 1, 2]]))
    config = algonauts.config(sphere=str(tmp_path / "{hemi}.sphere"))
    responses, _ = data.load(config)
    np.testing.assert_allclose(responses.sphere, np.concatenate([at[0, LEFT], at[1, RIGHT]]), atol=1e-4)
    assert responses.places.part.tolist() == [0] * 3 + [1] * 4
    assert tmp_path / "lh.sphere" in data.inputs(config)
    nibabel.freesurfer.write_geometry(tmp_path / "lh.sphere", at[0, :100], np.array([[0, 1, 2]]))
    with pytest.raises(GeometryError, match="has 100 vertices, but the responses have 163842"):
        data.check(config)


def test_areas_select_vertices(algonauts):
    assert data.load(algonauts.config(roi=("FFA-1",)))[0].voxel_ids.tolist() == [100, N_VERTICES + 500]
    assert data.load(algonauts.config(roi=("floc-faces",)))[0].responses.shape == (N, 3)
    with pytest.raises(DataError, match="closest names: FFA-"):
        data.load(algonauts.config(roi=("FFA-12",)))


def test_what_does_not_belong_together(algonauts):
    photo = algonauts.photos / "train-0012_nsd-00004.png"
    content = photo.read_bytes()
    photo.unlink()
    with pytest.raises(AlignmentError, match=r"12 rows, but .* 11"):
        data.load(algonauts.config())
    photo.write_bytes(content)
    (algonauts.photos / "train-0003_nsd-00011.png").rename(algonauts.photos / "train-0013_nsd-00011.png")
    with pytest.raises(MissingInputError, match=r"train-0003_nsd"):
        data.load(algonauts.config())
    (algonauts.photos / "train-0013_nsd-00011.png").rename(algonauts.photos / "train-0003_nsd-00011.png")
    algonauts.save_mask("rh", "all-vertices", {1: 1})
    with pytest.raises(GeometryError, match=r"4 columns, but .* marks 1 vertices"):
        data.load(algonauts.config())


@pytest.mark.slow
def test_a_run_from_files_to_the_report(algonauts, reported):
    table = reported(algonauts.config())
    assert table["vertex"].tolist() == [*LEFT, *RIGHT]
    assert table["hemi"].tolist() == ["lh"] * len(LEFT) + ["rh"] * len(RIGHT)
