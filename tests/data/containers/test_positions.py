"""Masks, atlases and tables of labels in every form that the field uses."""

import nibabel
import numpy as np
import pytest

from mine_jax.data.containers import csv, grayordinates, positions, series
from mine_jax.errors import AlignmentError, DataError, GeometryError

LEFT, RIGHT = 4, 3


@pytest.fixture
def surface(tmp_path):
    """A series on seven vertices."""
    for name, n in (("lh", LEFT), ("rh", RIGHT)):
        values = np.zeros((n, 1, 1, 5), np.float32)
        nibabel.save(nibabel.MGHImage(values, np.eye(4)), tmp_path / f"{name}.y.mgh")
    return positions.open_path(str(tmp_path / "{hemi}.y.mgh"))


def test_annotations_of_freesurfer(tmp_path, surface):
    colours = np.array([[10, 0, 0, 0, 0], [0, 10, 0, 0, 0], [0, 0, 10, 0, 0]])
    names = ["unknown", "V1", "FFA"]
    for hemi, codes in (("lh", [0, 1, 1, 2]), ("rh", [2, 0, 1])):
        nibabel.freesurfer.write_annot(tmp_path / f"{hemi}.a.annot", np.array(codes), colours, names, fill_ctab=True)
    codes, labels = positions.read_atlas(str(tmp_path / "{hemi}.a.annot"), None, surface)
    assert positions.area_names(codes, labels).tolist() == ["", "V1", "V1", "FFA", "FFA", "", "V1"]


def test_label_grayordinates(tmp_path, surface):
    models = nibabel.cifti2.BrainModelAxis.from_mask(np.array([1, 1, 0, 1], bool), "CIFTI_STRUCTURE_CORTEX_LEFT")
    models += nibabel.cifti2.BrainModelAxis.from_mask(np.ones(RIGHT, bool), "CIFTI_STRUCTURE_CORTEX_RIGHT")
    table = {0: ("???", (0, 0, 0, 0)), 3: ("V1", (1, 0, 0, 1)), 8: ("PPA;x", (0, 1, 0, 1))}
    axis = nibabel.cifti2.LabelAxis(["areas"], [table])
    image = nibabel.Cifti2Image(np.array([[3, 8, 0, 8, 3, 0]], np.float32), header=(axis, models))
    nibabel.save(image, tmp_path / "a.dlabel.nii")
    codes, labels = positions.read_atlas(str(tmp_path / "a.dlabel.nii"), None, surface)
    assert positions.area_names(codes, labels).tolist() == ["V1", "PPA,x", "", "", "PPA,x", "V1", ""]
    found, names = grayordinates.read_cifti_labels(tmp_path / "a.dlabel.nii")
    assert found.tolist() == [3, 8, 0, 0, 8, 3, 0] and names[3] == "V1"


def test_masks_of_surfaces_and_columns(tmp_path, surface):
    for hemi, inside in (("lh", [0, 1, 0, 1]), ("rh", [1, 0, 0])):
        array = nibabel.gifti.GiftiDataArray(np.array(inside, np.int32), datatype="NIFTI_TYPE_INT32")
        nibabel.save(nibabel.gifti.GiftiImage(darrays=[array]), tmp_path / f"{hemi}.mask.gii")
    assert positions.read_mask(str(tmp_path / "{hemi}.mask.gii"), surface).tolist() == [1, 3, 4]
    np.save(tmp_path / "mask.npy", np.array([0, 1, 0, 0, 0, 0, 1], bool))
    assert positions.read_mask(str(tmp_path / "mask.npy"), surface).tolist() == [1, 6]
    np.save(tmp_path / "mask.npy", np.ones(6))
    with pytest.raises(GeometryError, match="must hold 7 numbers"):
        positions.read_mask(str(tmp_path / "mask.npy"), surface)
    np.save(tmp_path / "mask.npy", np.ones(7))
    with pytest.raises(GeometryError, match="selects every voxel"):
        positions.read_mask(str(tmp_path / "mask.npy"), surface)
    with pytest.raises(AlignmentError, match="must hold one map, but holds 5"):
        positions.read_mask(str(tmp_path / "{hemi}.y.mgh"), surface)


def test_spaces_must_be_equal(tmp_path):
    for name, affine in (("y", np.eye(4)), ("m", np.diag([1, 1, 1.01, 1]))):
        nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2, 3), np.float32), affine), tmp_path / f"{name}.nii")
    nibabel.save(
        nibabel.Nifti1Image(np.eye(8, dtype="f4")[0].reshape(2, 2, 2), np.diag([1, 1, 1.01, 1])), tmp_path / "m.nii"
    )
    with pytest.raises(GeometryError, match="affine"):
        positions.read_mask(str(tmp_path / "m.nii"), series.open_series(tmp_path / "y.nii"))


@pytest.mark.parametrize(
    "text",
    [
        "index\tname\tcolor\n1\tV1\t#ff0000\n2\tFFA 1\t#00ff00\n",
        "value\tlabel\n1\tV1\n2\tFFA 1\n",
        "0 Unknown 0 0 0 0\n1 V1 255 0 0 0\n2 FFA 0 255 0 0\n",
        "# Id Label R G B A\n\n1\tV1\t1\t2\t3\t0\n2\tFFA\t1\t2\t3\t0\n",
    ],
)
def test_tables_of_labels(tmp_path, text):
    (tmp_path / "t.tsv").write_text(text)
    found = positions.read_label_table(tmp_path / "t.tsv")
    assert found[1] == "V1" and found[2].startswith("FFA")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,c\n1,2,3\n4,5,6,7\n", "line 3 of .* has 4 fields, but the header has 3"),
        ("a,b,c\n1,2,3,0\n4,5,6,0\n", "line 2 of .* has 4 fields"),
        ("a,b,c\n1,x,3\n", "column b of .* must hold numbers"),
    ],
)
def test_comma_separated_numbers_that_cannot_be_read(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        csv.read_numbers(tmp_path / "t.csv", ["a", "b"])
