"""Configurations for files that a user has: `check` opens them as they are, and what is unknown stands in comments."""

import tomllib
from pathlib import Path
from typing import get_args

import nibabel
import numpy as np
import pytest
from PIL import Image

from mine_jax import config, errors, phantom
from mine_jax.config import keys
from mine_jax.data import surveys
from mine_jax.run.checks import inputs
from mine_jax.run.checks.new import new

N, V = 30, 5
CLIP = Path(phantom.__file__).parent / "weights" / "clip"


def read(tmp_path, kind, *paths):
    path = tmp_path / "my.toml"
    path.write_text("\n".join(new(kind, paths)), encoding="utf-8")
    return config.read(path)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A folder with photos, responses and ids."""
    root, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    (root / "photos").mkdir()
    for i in range(N):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(root / "photos" / f"photo{i:02d}.png")
    np.save(root / "responses.npy", rng.standard_normal((N, V)).astype(np.float32))
    (root / "ids.txt").write_text("".join(f"photo{i:02d}.png\n" for i in range(N)))
    return root


def test_the_embedded_model_is_named_where_a_checkpoint_would_be(recordings, tmp_path):
    files = [recordings / name for name in ("photos", "responses.npy", "ids.txt")]
    assert read(tmp_path, "folder", *files, Path("phantom")).features.model == "phantom"
    lines = list(new("folder", files))
    first = lines.index("[features]")
    # what must be filled in comes before what may stay
    assert next(line for line in lines[first:] if line.startswith("# ") and " = " in line).startswith("# model = ")
    assert any("NEEDED" in line for line in lines[first : first + 6])


def test_kinds_are_those_of_the_configuration_but_the_phantom():
    wanted = {model.model_fields["kind"].default for model in get_args(get_args(config.DataConfig)[0])}
    assert set(surveys.SURVEYS) == wanted - {"phantom"}


@pytest.mark.parametrize("kind", surveys.SURVEYS)
def test_without_files_every_key_is_there_with_its_description(tmp_path, kind):
    lines = list(new(kind, []))
    assert tomllib.loads("\n".join(lines)) == {"data": {"kind": kind}, "features": {"kind": "clip"}}
    fields = keys.kinds("data")[kind].model_fields
    section = lines[: lines.index("[features]")]
    assert {line.split()[1] for line in section if line.startswith("# ") and " = " in line} == set(fields) - {"kind"}
    assert all(any(line.startswith(f"# {name} = ") for line in lines) for name in ("model", "layer"))
    assert max(map(len, lines)) <= 120


def test_the_phantom_is_opened_as_it_is(tmp_path):
    phantom.write_phantom(tmp_path / "nsd", subjects=("subj02",), n_images=60, n_shared=10, shape=(10, 10, 8))
    own = read(tmp_path, "nsd", tmp_path / "nsd")
    assert (own.data.subject, own.data.roi, own.features.model) == ("subj02", ("nsdgeneral",), "phantom")
    assert "60 images: " in "\n".join(inputs.check(own))


def test_own_files_are_opened_as_they_are(tmp_path, recordings):
    own = read(tmp_path, "folder", *(recordings / name for name in ("photos", "responses.npy", "ids.txt")), CLIP)
    assert own.data.responses == str(recordings / "responses.npy") and own.features.model == str(CLIP)
    findings = inputs.check(own)
    assert f"{V} voxels: {V} ok" in findings and any(finding.startswith(f"{N} images: ") for finding in findings)
    assert read(tmp_path, "folder", recordings).data == own.data


def test_a_model_that_is_not_given_is_an_error_with_the_command_that_brings_one(tmp_path, recordings):
    with pytest.raises(errors.ConfigError, match=r"hf download \S+ --local-dir clip"):
        inputs.check(read(tmp_path, "folder", recordings))


def test_sessions_have_one_name(tmp_path):
    for number in (1, 2, 11):
        nibabel.save(
            nibabel.Nifti1Image(np.ones((2, 2, 2, 3), np.float32), np.eye(4)), tmp_path / f"ses{number}.nii.gz"
        )
        (tmp_path / f"ses{number}.tsv").write_text("image_id\tsession\tonset\n")
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4)), tmp_path / "brain_mask.nii.gz")
    values = surveys.survey("folder", [tmp_path]).values
    assert values == {
        "responses": str(tmp_path / "ses*.nii.gz"),
        "trials": str(tmp_path / "ses*.tsv"),
        "mask": str(tmp_path / "brain_mask.nii.gz"),
        "test": 0.2,
    }


@pytest.mark.parametrize(
    ("kind", "files", "values"),
    [
        ("bids", ["sub-02/ses-1/a", "sub-10/b"], {"subject": "02", "test": 0.2}),
        ("laion_fmri", ["derivatives/glmsingle-tedana/sub-03/a"], {"subject": "sub-03", "test": "shared"}),
        ("things", ["betas_csv/sub-03_ResponseData.h5"], {"subject": "03", "format": "tables"}),
        ("things", ["betas_vol/sub-01/a"], {"subject": "01", "format": "volumes"}),
        ("algonauts2023", ["subj05/roi_masks/lh.floc-faces_fsaverage_space.npy"], {"subject": "subj05", "test": 0.2}),
        ("bold5000", ["x/CSI2_GLMbetas-TYPED_allses_LHPPA.npy"], {"subject": "CSI2", "release": 2, "format": "rois"}),
        ("bold5000", ["ROIs/CSI3_ROIs_TR34.h5"], {"subject": "CSI3", "release": 1, "format": "rois"}),
    ],
)
def test_published_data_sets(tmp_path, kind, files, values):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    own = read(tmp_path, kind, tmp_path).data.model_dump()
    assert {key: own[key] for key in values} == values and own["root"] == str(tmp_path)


@pytest.mark.parametrize(("shape", "said"), [((8, 5), False), ((5, 8), True), ((7, 5), True)])
def test_rows_without_an_id_are_odd(tmp_path, shape, said):
    np.save(tmp_path / "responses.npy", np.zeros(shape, np.float32))
    (tmp_path / "ids.txt").write_text("".join(f"p{i}\n" for i in range(8)))
    text = "\n".join(new("folder", [tmp_path / "responses.npy", tmp_path / "ids.txt"]))
    assert ("ODD: ids.txt names 8 images" in text) == said and ("transposed?" in text) == (shape == (5, 8))


def test_a_list_with_a_line_for_each_row_names_them_and_one_for_each_voxel_may_be_areas(tmp_path):
    np.save(tmp_path / "responses.npy", np.zeros((8, 5), np.float32))
    (tmp_path / "ids.txt").write_text("".join(f"p{i // 2}\n" for i in range(8)))
    (tmp_path / "notes.txt").write_text("a\nb\n")
    (tmp_path / "areas.txt").write_text("V1\n" * 5)
    given = [tmp_path / name for name in ("responses.npy", "notes.txt", "ids.txt")]
    assert surveys.survey("folder", given).values["image_ids"] == str(tmp_path / "ids.txt")
    text = " ".join("\n".join(new("folder", given)).replace("# ", "").split())
    assert "ODD: 4 images stand here more than once, so rows are trials: give a table `trials`" in text
    with pytest.raises(errors.ConfigError, match=r"areas\.txt has a line for each of the 5 voxels .* voxel_id"):
        surveys.survey("folder", [*given, tmp_path / "areas.txt"])


def test_an_array_of_three_axes_holds_image_tokens(tmp_path, recordings):
    np.save(tmp_path / "tokens.npy", np.zeros((N, 64, 3), np.float32))
    own = read(tmp_path, "folder", recordings / "responses.npy", recordings / "ids.txt", tmp_path / "tokens.npy")
    assert own.features.kind == "precomputed" and own.features.tokens == str(tmp_path / "tokens.npy")
    assert own.features.token_image_ids == own.data.image_ids == str(recordings / "ids.txt")
    assert f"precomputed features: {N} images x 64 tokens x 3, no words" in inputs.check(own)


def test_what_is_not_understood_is_named(tmp_path):
    (tmp_path / "notes.doc").touch()
    with pytest.raises(errors.MissingInputError, match="nsddata_betas/ppdata/subj01"):
        list(new("nsd", [tmp_path]))
    with pytest.raises(errors.ConfigError, match=r"cannot tell what .*notes\.doc is"):
        list(new("folder", [tmp_path / "notes.doc"]))
    (tmp_path / "responses.csv").write_text(f"image,{','.join(f'v{i}' for i in range(60))}\n")
    with pytest.raises(errors.ConfigError, match=r"columns are image, v0, v1, v2 and 57 more\. .*numpy\.save"):
        list(new("folder", [tmp_path / "responses.csv"]))
    with pytest.raises(errors.ConfigError, match="Kinds: folder, nsd"):
        list(new("phantom", []))
    with pytest.raises(errors.MissingInputError, match=r"no file or folder .*nothing"):
        list(new("nsd", [tmp_path / "nothing"]))
