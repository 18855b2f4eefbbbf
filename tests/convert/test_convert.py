"""Results in the forms of other software: tables, labelled arrays, volumes."""

import importlib
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from mine_jax.convert import frames
from mine_jax.errors import DataError, GeometryError, MissingExtraError
from mine_jax.memory.sparse import sparse_rows
from mine_jax.types import STATUSES, Profiles, Responses, Scores, Volume

IDS = np.array([3, 7, 20])
SHAPE, AFFINE = (2, 3, 4), np.diag([2.0, 2.0, 3.0, 1.0])
INDICES = np.stack(np.unravel_index(IDS, SHAPE), 1)


@pytest.fixture
def responses():
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    made = Responses.from_array(values, image_ids=list("abcd"), voxel_ids=IDS, rois=["V1", "", "FFA"], subject="s1")
    return replace(made, indices=INDICES, volume=Volume(SHAPE, AFFINE))


@pytest.fixture
def scores():
    r2 = np.array([0.5, np.nan, -0.25])
    return Scores(IDS, r2, r2 / 2, r2, np.ones(3), 9, 4, np.array(["ok", "constant", "ok"]), r2)


@pytest.fixture
def profiles():
    words, blank = np.array(["cat", "dog"]), np.zeros((3, 2), np.float32)
    table, one = sparse_rows(np.eye(3, 2)), np.array([0.1, 0.2, 0.3])
    return Profiles(
        *(IDS, words, np.array([[0, 1], [1, -1], [-1, -1]]), blank + 0.5, blank, blank + 1, blank, table),
        *((table, table), blank > 0, one, np.array([6, 6, 0]), one, one),
        *({"predicted": one}, {"predicted": one}, {"predicted": one}),
        *(np.array(["causal", "words", "none"]), np.array(["", "image-level", "too few"])),
    )


def test_tables(responses, scores, profiles):
    assert responses.to_pandas().loc["c", 20] == 8
    np.testing.assert_array_equal(scores.to_pandas().set_index("voxel_id")["r2"], scores.r2)
    table = profiles.to_pandas().set_index("voxel_id")
    assert table.loc[7, ["claim", "reason", "q_predicted"]].tolist() == ["words", "image-level", 0.2]


def test_volumes_are_where_the_ids_say(responses, scores, profiles, tmp_path):
    """With an image the ids are positions, with responses these say where; both agree here, as nibabel reads them."""
    mask = nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE)
    nibabel.save(mask, tmp_path / "mask.nii")
    likes = {"a.nii.gz": responses, "b.nii": mask, "c.nii.gz": str(tmp_path / "mask.nii")}
    for name, like in likes.items():
        image = nibabel.load(scores.to_nifti(str(tmp_path / name), "r2", like=like))
        drawn = image.get_fdata()
        np.testing.assert_array_equal(drawn[tuple(INDICES.T)], scores.r2)
        np.testing.assert_array_equal(image.affine, AFFINE)
        assert np.isnan(drawn).sum() == np.prod(SHAPE) - 2
    claims = nibabel.load(profiles.to_nifti(tmp_path / "claims.nii", "claims", like=mask)).get_fdata()
    assert claims[tuple(INDICES.T)].tolist() == [5, 3, 0]
    assert nibabel.load(responses.to_nifti(tmp_path / "n.nii", "noise_ceiling")).shape == SHAPE


def test_volume_messages(responses, scores, tmp_path):
    path = tmp_path / "x.nii"
    with pytest.raises(GeometryError, match="voxel 20 lies outside the image"):
        scores.to_nifti(path, "r2", like=nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), AFFINE))
    with pytest.raises(GeometryError, match="Scores knows no places"):
        scores.to_nifti(path, "r2")
    with pytest.raises(GeometryError, match="of other voxels"):
        scores.to_nifti(path, "r2", like=responses.take(np.array([0, 1])))
    with pytest.raises(DataError, match="no numbers \\[V\\] named 'status'"):
        scores.to_nifti(path, "status", like=responses)
    with pytest.raises(DataError, match=r"must be named .nii"):
        scores.to_nifti(tmp_path / "x.png", "r2", like=responses)


def test_labels_are_those_of_brain_score(responses, scores, profiles):
    pytest.importorskip("xarray")
    labelled = responses.to_xarray()
    assert labelled.dims == ("presentation", "neuroid") and labelled.shape == (4, 3)
    assert labelled["stimulus_id"].dims == ("presentation",) and labelled["region"].values.tolist() == ["V1", "", "FFA"]
    assert labelled.sel(neuroid=labelled["neuroid_id"] == 20).values.ravel().tolist() == [2, 5, 8, 11]
    assert scores.to_xarray()["r2"].dims == ("neuroid",) and scores.to_xarray().attrs["n_test"] == 4
    found = profiles.to_xarray()
    assert found["word"].values.tolist() == [["cat", "dog"], ["dog", ""], ["", ""]]
    assert found["q"].sel(rung="predicted").values.tolist() == [0.1, 0.2, 0.3]


def test_a_missing_xarray_is_named_with_its_extra(scores, monkeypatch):
    """F-86: a package that is not installed."""

    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"mine_jax\[xarray\]"):
        scores.to_xarray()


def test_a_voxel_that_was_not_fitted_has_its_reason_in_words(responses, scores):
    assert set(frames.UNFIT) == set(STATUSES) - {"ok"}
    table = frames.voxels(responses, scores, None)
    assert list(table["status"]) == ["ok", "constant", "ok"]
    assert list(table["reason"]) == ["not profiled", "responses do not vary", "not profiled"]
