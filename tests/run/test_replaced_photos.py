"""Photos replaced by others of the same names: the feature stage is stale, and its store is of other images."""

import numpy as np
import pytest
from PIL import Image

from mine_jax import config, data
from mine_jax.run import files
from mine_jax.run.record.manifest import input_hash
from mine_jax.run.stages import features


def photos(folder, seed):
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for k in range(8):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"im{k}.png")


@pytest.fixture
def settings(tmp_path):
    photos(tmp_path / "p", 0)
    np.save(tmp_path / "y.npy", np.random.default_rng(5).standard_normal((8, 3)))
    (tmp_path / "ids.txt").write_text("\n".join(f"im{k}" for k in range(8)))
    keys = {"images": "p", "responses": "y.npy", "image_ids": "ids.txt", "test": 0.25}
    return config.from_dict({"data": keys, "features": {"model": "phantom"}}, base=tmp_path)


def test_state_of_the_photos_is_part_of_the_stage(settings, tmp_path):
    responses, stimuli = data.load(settings.data)
    splits = data.assign_splits(responses, stimuli, test=settings.data.test)
    files.save_data(tmp_path / "run", responses, splits)
    before = features._shown(settings, tmp_path / "run").hashes
    inputs = {path: input_hash(path) for path in features.inputs(settings)}
    assert tmp_path / "p" in inputs and len(set(before)) == 1
    photos(tmp_path / "p", 1)
    after = features._shown(settings, tmp_path / "run").hashes
    assert before[0] != after[0]
    assert {path: input_hash(path) for path in inputs} != inputs


def test_tokens_of_a_file_do_not_depend_on_photos(settings, tmp_path):
    precomputed = config.PrecomputedConfig(tokens=str(tmp_path / "t.npy"))
    other = settings.model_copy(update={"features": precomputed})
    assert tmp_path / "t.npy" in features.inputs(other)
