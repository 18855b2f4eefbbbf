"""F-72: every file that is read is an input; what changed is named, and nothing is made of another file."""

import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from mine_jax import artifacts, config, data, errors, features, run
from mine_jax.config import from_dict
from mine_jax.features import store
from mine_jax.phantom.write_nsd import write_phantom
from mine_jax.run import files, graph
from mine_jax.run.record import frozen, manifest
from mine_jax.types import ImageTokens
from mine_jax.validation.makers import diffusion

RNG = np.random.default_rng(0)


@pytest.fixture
def recordings(tmp_path):
    """Precomputed tokens, responses to their mean, and a configuration."""
    tokens = RNG.standard_normal((60, 4, 3)).astype(np.float32)
    np.save(tmp_path / "tokens.npy", tokens)
    np.save(tmp_path / "responses.npy", (tokens.mean(1) @ RNG.standard_normal((3, 2))).astype(np.float32))
    (tmp_path / "ids.txt").write_text("".join(f"im{i:03d}\n" for i in range(60)))
    return tmp_path


def configured(folder, **given):
    values = {
        "data": {"responses": "responses.npy", "image_ids": "ids.txt", "test": 0.25},
        "features": {"kind": "precomputed", "tokens": "tokens.npy", "token_image_ids": "ids.txt", **given},
    }
    return config.from_dict(values, base=folder)


def prepared(folder, out, *, resume=False, **given):
    return run.execute(configured(folder, **given), out, graph.STEPS, until="features", resume=resume)["ran"]


def test_a_moved_token_file_is_found_and_another_at_its_old_path_is_not_used(recordings, tmp_path):
    out, expected = tmp_path / "run", np.load(recordings / "tokens.npy")
    prepared(recordings, out)
    (recordings / "moved").mkdir()
    shutil.move(recordings / "tokens.npy", recordings / "moved" / "tokens.npy")
    np.save(recordings / "tokens.npy", expected[::-1])
    assert prepared(recordings, out, resume=True, tokens="moved/tokens.npy") == []
    np.testing.assert_array_equal(np.asarray(files.load_tokens(out).tokens), expected)


def test_an_exchanged_token_file_is_an_input_that_changed(recordings, tmp_path):
    """F-72: tokens that were exchanged."""
    out, expected = tmp_path / "run", np.load(recordings / "tokens.npy")
    prepared(recordings, out)
    np.save(recordings / "tokens.npy", expected[::-1])
    with pytest.raises(errors.CheckpointError, match=r"tokens\.npy is not the file"):
        files.load_tokens(out)
    assert "input tokens.npy changed" in run.stale(configured(recordings), out, graph.STEPS)["features"]
    assert prepared(recordings, out, resume=True) == ["features"]
    np.testing.assert_array_equal(np.asarray(files.load_tokens(out).tokens), expected[::-1])


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    root = tmp_path_factory.mktemp("brain") / "nsd"
    return write_phantom(root, subjects=("subj01",), n_images=30, n_shared=6, shape=(8, 8, 8))


@pytest.mark.parametrize("kind", ["nsd", "phantom"])
@pytest.mark.parametrize(
    "changed",
    [
        "nsddata/ppdata/subj01/func1pt8mm/roi/floc-faces.nii.gz",
        "nsddata/freesurfer/subj01/label/floc-faces.mgz.ctab",
        "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/ncsnr.nii.gz",
        "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session01.hdf5",
        "nsddata/experiments/nsd/nsd_expdesign.mat",
        "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5",
    ],
)
def test_every_file_of_nsd_is_an_input_by_name(brain, tmp_path, kind, changed):
    root = tmp_path / "nsd"
    shutil.copytree(brain, root)
    values = {"kind": kind, "root": str(root), "roi": []}
    settings = from_dict({"data": values, "features": {"model": "phantom"}})
    run.execute(settings, tmp_path / "run", graph.STEPS, until="data")
    before = data.inputs(settings.data) + data.image_inputs(settings.data)
    assert run.stale(settings, tmp_path / "run", graph.STEPS)["data"] is None
    with (root / changed).open("ab") as file:
        file.write(b"x")
    stage = "features" if "stimuli" in changed else "data"
    if stage == "data":
        assert changed.split("/")[-1] in run.stale(settings, tmp_path / "run", graph.STEPS)["data"]
    else:
        assert root / changed in before and root / changed in graph.STEPS["features"].inputs(settings)


def test_what_was_planted_and_its_record_are_inputs_of_the_validation(brain):
    settings = from_dict({"data": {"kind": "nsd", "root": str(brain)}, "features": {"model": "phantom"}})
    named = {path.name for path in graph.STEPS["validation"].inputs(settings)}
    assert {"phantom.json", "phantom_scenes.jsonl", "phantom_truth.tsv"} <= named


def test_atlas_and_the_table_beside_it_are_inputs(tmp_path):
    atlas = tmp_path / "atlas.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 2, 2), np.int16), np.eye(4)), atlas)
    (tmp_path / "atlas.tsv").write_text("index\tname\n1\tV1\n")
    settings = from_dict({"data": {"responses": str(tmp_path / "r.nii.gz"), "rois": str(atlas)}})
    assert {atlas, tmp_path / "atlas.tsv"} <= set(data.inputs(settings.data))


def test_files_in_folders_that_are_linked_are_inputs(tmp_path):
    """Photos, checkpoints and pipelines may lie elsewhere; a link in a circle ends the search."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "photos"
    elsewhere.mkdir()
    folder.mkdir()
    (elsewhere / "a.png").write_bytes(b"a")
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(folder)

    def seen():
        return manifest.input_state(folder), manifest.input_hash(folder), diffusion.identity(str(folder))

    before, source = seen(), tmp_path / "c.toml"
    assert list(before[0]) == ["linked/a.png"] and data.images.list_photos(folder).names == {"a": "linked/a.png"}
    frozen.freeze(source, [folder])
    (elsewhere / "a.png").write_bytes(b"b")
    assert all(now != then for now, then in zip(seen(), before, strict=True))
    with pytest.raises(errors.IntegrityError, match=r"elsewhere/a\.png changed"):
        frozen.verify(source, [folder])


def test_a_pipeline_is_known_by_every_byte(tmp_path):
    content = bytearray(4 << 20)
    (tmp_path / "model.safetensors").write_bytes(content)
    before = diffusion.identity(str(tmp_path))
    content[2 << 20] = 1
    (tmp_path / "model.safetensors").write_bytes(content)
    assert diffusion.identity(str(tmp_path)) != before


def test_shards_of_changed_images_without_hashes_are_not_used_again(brain, tmp_path):
    backbone = features.load_backbone(from_dict({"features": {"model": "phantom"}}).features)
    stimuli = data.open_stimuli(from_dict({"data": {"kind": "nsd", "root": str(brain), "roi": []}}).data)
    few = replace(stimuli, image_ids=stimuli.image_ids[:4], hashes=stimuli.hashes[:4], shared=stimuli.shared[:4])
    assert not few.hashes.any()
    first = features.extract(backbone, few, directory=tmp_path)
    again = features.extract(backbone, few, directory=tmp_path)
    np.testing.assert_array_equal(np.asarray(first.tokens), np.asarray(again.tokens))
    dark = replace(few, read=lambda ids: [image // 2 for image in few.read(ids)])
    with pytest.raises(errors.CheckpointError, match="image contents"):
        features.extract(backbone, dark, directory=tmp_path)


def test_reference_to_a_file_survives_a_new_time_of_change(tmp_path):
    tokens = RNG.standard_normal((5, 2, 3)).astype(np.float32)
    np.save(tmp_path / "tokens.npy", tokens)
    held = ImageTokens(store.ShardedTokens([tokens]), np.array(list("abcde")), None, None, -1, "precomputed")
    store.write_reference(tmp_path / "store", held, path=tmp_path / "tokens.npy", rows=None)
    (tmp_path / "tokens.npy").touch()
    np.testing.assert_array_equal(np.asarray(store.open_store(tmp_path / "store", verify=False).tokens), tokens)
    assert artifacts.read_json(tmp_path / "store" / "meta.json")["sha256"] == artifacts.sha256(tmp_path / "tokens.npy")
