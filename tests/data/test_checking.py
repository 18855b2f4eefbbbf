import nibabel
import numpy as np
import pytest
from PIL import Image

from mine_jax import data
from mine_jax.config import FolderConfig, NsdConfig, PhantomConfig
from mine_jax.errors import AlignmentError, ConfigError, IntegrityError


def test_nsd(nsd):
    config = NsdConfig(root=str(nsd.root))
    text = "\n".join(data.check(config))
    assert "2 sessions (hdf5), 27 voxels" in text
    assert "areas: FFA-1 3, OFA 3" in text
    assert "60 test" in text and "not compared" in text


@pytest.mark.parametrize("beta_format", ["hdf5", "nifti"])
def test_nsd_raises_what_loading_would(nsd, beta_format):
    write = nsd.write_hdf5 if beta_format == "hdf5" else nsd.write_nifti
    path = write(2, nsd.session(2)[:-1])
    config = NsdConfig(root=str(nsd.root), beta_format=beta_format)
    with pytest.raises(AlignmentError, match="599"):
        data.check(config)
    path.write_bytes(b"nothing")
    with pytest.raises(IntegrityError, match="session02"):
        data.check(config)


def test_table_of_images_is_compared_with_the_design(nsd):
    path = nsd.root / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
    trials = np.zeros((500, 3), int)
    seen = np.zeros(500, int)
    for trial, image in enumerate(nsd.images_of_trials):
        trials[image, seen[image]] = trial + 1
        seen[image] += 1

    def write():
        rows = [f"{i},{i},{','.join(map(str, trials[i]))}" for i in range(500)]
        path.write_text(",nsdId,subject1_rep0,subject1_rep1,subject1_rep2\n" + "\n".join(rows))

    write()
    config = NsdConfig(root=str(nsd.root))
    assert "disagree" not in "\n".join(data.check(config))
    trials = np.where(trials > 0, trials - 1, 0)
    write()
    assert "disagree" in "\n".join(data.check(config))


def test_folder_with_one_photo_under_two_names(tmp_path):
    """F-08: named before a run."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(20):
        if i % 2 == 0:
            pixels = rng.integers(0, 255, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"p{i:02d}.png")
    (tmp_path / "ids.txt").write_text("\n".join(f"p{i:02d}" for i in range(20)))
    values = rng.standard_normal((20, 3))
    values[:, 1] = 4
    np.save(tmp_path / "responses.npy", values)
    paths = {"images": "photos", "responses": "responses.npy", "image_ids": "ids.txt"}
    config = FolderConfig(test=0.5, **{key: str(tmp_path / value) for key, value in paths.items()})
    text = "\n".join(data.check(config))
    assert "1 constant, 2 ok" in text and "noise ceiling unknown" in text
    assert "test photos look like photos that encoders are fitted to" in text
    assert "warning: only 10 test images" in text and "areas" not in text
    (tmp_path / "rois.tsv").write_text("voxel_id\troi\n0\tV1v\n2\tV1v\n2\tFFA\n", encoding="utf-8")
    assert "areas: FFA 1, V1v 2" in data.check(config.model_copy(update={"rois": str(tmp_path / "rois.tsv")}))
    without = config.model_copy(update={"images": None})
    assert "only precomputed tokens" in data.check(without)[-1]


def test_shapes_come_from_headers(tmp_path):
    """Responses that are cut short, and so cannot be loaded, have the shape of their header; damaged headers none."""
    (tmp_path / "ids.txt").write_text("a\nb\na\nc\n", encoding="utf-8")
    (tmp_path / "trials.tsv").write_text("image_id\tsession\na\t1\nb\t1\na\t2\nc\t2\n", encoding="utf-8")
    mask = np.zeros((4, 3, 2), np.uint8)
    mask[1:3, 1, 0] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / "mask.nii")
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 3, 2, 4), np.float32), np.eye(4)), tmp_path / "series.nii")
    paths = {"responses": "series.nii", "trials": "trials.tsv", "mask": "mask.nii"}
    config = FolderConfig(test=0.5, **{key: str(tmp_path / value) for key, value in paths.items()})
    content = (tmp_path / "series.nii").read_bytes()
    for size, shape in ((len(content), (3, 2)), (400, (3, 2)), (100, None)):
        (tmp_path / "series.nii").write_bytes(content[:size])
        assert data.expected_shape(config) == shape
    with pytest.raises(IntegrityError):
        data.load(config)


def test_sessions_that_do_not_vary_count_until_values_are_read(tmp_path, caplog, monkeypatch):
    """The only images that are promised and do not come."""
    monkeypatch.undo()
    rng = np.random.default_rng(0)
    np.save(tmp_path / "responses.npy", np.concatenate([rng.standard_normal((4, 3)), np.ones((2, 3))]))
    rows = [f"{name}\t{session}" for name, session in zip("abcaxy", "111122", strict=True)]
    (tmp_path / "trials.tsv").write_text("\n".join(["image_id\tsession", *rows]), encoding="utf-8")
    paths = {"responses": "responses.npy", "trials": "trials.tsv"}
    config = FolderConfig(test=0.5, **{key: str(tmp_path / value) for key, value in paths.items()})
    assert data.expected_shape(config) == (5, 3) and not caplog.text
    assert data.load(config)[0].responses.shape == (3, 3)
    assert "do not vary in any voxel and are left out" in caplog.text


def test_root_is_needed():
    with pytest.raises(ConfigError, match="needs `root`"):
        data.check(NsdConfig())
    with pytest.raises(ConfigError, match="needs `root`"):
        data.load(PhantomConfig())
