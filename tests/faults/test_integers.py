"""F-28: integers become floats before anything is added up."""

import h5py
import nibabel
import numpy as np
import pytest

from mine_jax import data
from mine_jax.config import from_dict
from mine_jax.data import trials
from mine_jax.phantom.write_nsd import write_phantom

N, REPEATS, SHAPE = 30, 3, (2, 2, 2)


def shown(rng):
    """Image of each trial, each image `REPEATS` times."""
    return rng.permutation(np.repeat(np.arange(N), REPEATS))


def means(stored, images):
    """Means of the trials of each image in exact arithmetic: whole numbers of Python."""
    return np.array(
        [[sum(int(v) for v in column[images == i]) / REPEATS for column in stored.T] for i in np.unique(images)]
    )


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.int32])
def test_averages_of_integers_near_their_limit(dtype):
    """F-28: the sum of three repeats is beyond the type, their mean is not."""
    rng, top = np.random.default_rng(0), np.iinfo(dtype).max
    images = shown(rng)
    stored = rng.integers(top - top // 8, top, (len(images), 8)).astype(dtype)
    rows = trials.Rows(images.astype(str), np.zeros(len(images), int), ("all",))
    found = trials.average(trials.Trials(lambda block: stored.T[block], np.arange(8), rows), is_scored=False)
    np.testing.assert_allclose(found.responses, means(stored, images), rtol=1e-6)


@pytest.mark.parametrize("suffix", [".npy", ".nii.gz", ".mgz"])
def test_files_of_integers_near_their_limit(tmp_path, suffix):
    """F-28: of one's own files, whatever their format."""
    rng = np.random.default_rng(1)
    images = shown(rng)
    stored = rng.integers(32000, 32767, (len(images), 8)).astype(np.int16)
    path = tmp_path / f"responses{suffix}"
    if suffix == ".npy":
        np.save(path, stored)
    else:
        kind = nibabel.Nifti1Image if suffix == ".nii.gz" else nibabel.MGHImage
        space = np.zeros((*SHAPE[:2], SHAPE[2] + 1, len(stored)), np.int16)
        space[:, :, : SHAPE[2]] = stored.T.reshape(*SHAPE, -1)
        nibabel.save(kind(space, np.eye(4)), path)
        nibabel.save(nibabel.Nifti1Image((space[..., 0] > 0).astype(np.uint8), np.eye(4)), tmp_path / "mask.nii.gz")
    lines = "".join(f"im{image:02d}\t1\n" for image in images)
    (tmp_path / "trials.tsv").write_text(f"image_id\tsession\n{lines}")
    values = {"responses": path.name, "trials": "trials.tsv", "zscore": "none", "beta_scale": 1.0}
    values |= {} if suffix == ".npy" else {"mask": "mask.nii.gz"}
    found, _ = data.load(from_dict({"data": values}, base=tmp_path).data)
    np.testing.assert_allclose(found.responses, means(stored, images), rtol=1e-6)


def test_betas_of_nsd_near_their_limit(tmp_path):
    """F-28: NSD's int16 betas, percent times 300."""
    root = write_phantom(tmp_path / "nsd", subjects=("subj01",), n_images=30, n_shared=6, shape=(8, 8, 8))
    (path,) = root.rglob("betas_session01.hdf5")
    rng = np.random.default_rng(2)
    with h5py.File(path, "r+") as file:
        assert file["betas"].dtype == np.int16
        file["betas"][...] = rng.integers(32000, 32767, file["betas"].shape)
        stored = file["betas"][...].transpose(0, 3, 2, 1).reshape(len(file["betas"]), -1)
    settings = from_dict({"data": {"kind": "nsd", "root": str(root), "roi": [], "zscore": "none"}}).data
    found, _ = data.load(settings)
    by_image = found.responses.astype(np.float64) * 300
    ok = found.status == "ok"
    assert ok.sum() > 50 and by_image[:, ok].min() >= 32000 and by_image[:, ok].max() <= 32767
    total = (by_image * found.n_repeats[:, None]).sum(0)[ok]
    np.testing.assert_allclose(total, stored.astype(np.int64).sum(0)[found.voxel_ids[ok]], rtol=1e-6)
