"""What `--dry-run` says before the files are there: what is missing, and sizes from what is known all the same."""

import numpy as np
import pytest

from mine_jax import config, encoder, run
from mine_jax.run.graph import STEPS


def plan(settings, directory):
    """Lines of each stage that has some."""
    stages = {}
    for line in run.plan(config.from_dict(settings), directory, STEPS):
        if not line.startswith(" "):
            said = stages[line.partition(":")[0]] = []
            continue
        said.append(line.strip())
    return stages


def test_sizes_of_a_published_data_set_and_a_usual_model(tmp_path):
    root = str(tmp_path / "nsd")
    found = plan(
        {"data": {"kind": "nsd", "root": root}, "features": {"model": str(tmp_path / "clip")}}, tmp_path / "out"
    )
    missing, published = found["data"]
    assert (
        missing.startswith("would stop the run: no experimental design at ") and f"Not there, either: {root}" in missing
    )
    assert published == (
        "nsd subj01 as published: 10,000 images, 15,724 voxels: responses at most "
        f"{4 * 10_000 * 15_724 / 2**20:.1f} MiB"
    )
    stops, tokens = found["features"]
    assert stops.startswith("would stop the run: no checkpoint directory at")
    assert tokens.startswith(
        "openai/clip-vit-large-patch14, for instance, gives 256 image-tokens x 1,024 for each image"
    )
    assert f"{2 * 10_000 * 256 * 1024 / 2**30:.1f} GiB in float16 for 10,000 images (published)" in tokens
    assert "its weights are 1.6 GiB in float32" in tokens
    assert found["encoder"][0] == (
        "sizes are known after the data and features stages; until then: 10,000 images (published), 15,724 voxels "
        "(published), 256 image-tokens x 1,024 (openai/clip-vit-large-patch14)"
    )
    assert any(line.startswith("run.voxel_chunk = 256 ") for line in found["encoder"])
    assert not any("grows" in line or "further" in line for line in found["encoder"])
    pairs = 15_724 * 48
    assert found["attribution"] == [
        f"at most {pairs:,} (voxel, image) pairs x 256 tokens: {6 * pairs * 256 / 2**30:.1f} GiB of scores on the "
        "host, with the sizes of stage encoder"
    ]


@pytest.mark.parametrize("kind", ["query", "ridge"])
def test_round_numbers_where_nothing_is_known_and_how_memory_grows(tmp_path, kind):
    names = {key: str(tmp_path / f"{key}.npy") for key in ("responses", "image_ids")}
    settings = {"data": {"kind": "folder", "test": 0.2, **names}, "encoder": {"kind": kind}}
    found = plan(settings, tmp_path / "out")
    assert all(path in found["data"][0] for path in names.values())
    assert "1,000 images (an example), 1,000 voxels (an example)" in found["encoder"][0]
    assert "work grows in proportion to images and voxels" in found["encoder"]
    planned = encoder.plan_query if kind == "query" else encoder.plan_ridge
    chosen = config.from_dict(settings).encoder
    # of two devices, as tests have: a share of the voxels of a ridge, or of a query encoder without a mesh all of them
    few, many = (
        planned(chosen, n_images=n, n_voxels=1000, token_shape=(256, 1024), wanted=256).bytes for n in (1000, 2000)
    )
    assert found["encoder"][-1] == f"every further 1,000 images hold about {(many - few) / 2**20:.1f} MiB more"


def test_what_is_there_counts(tmp_path):
    (tmp_path / "out" / "data").mkdir(parents=True)
    np.save(tmp_path / "out" / "data" / "responses.npy", np.zeros((90, 700), np.float32))
    settings = {"data": {"kind": "folder", "test": 0.2}, "features": {"kind": "siglip", "weights": "bfloat16"}}
    first = plan(settings, tmp_path / "out")["encoder"][0]
    assert first.endswith("until then: 90 images, 700 voxels, 196 image-tokens x 768 (google/siglip-base-patch16-224)")
    settings["features"] = {"kind": "precomputed", "grid": [14, 14]}
    first = plan(settings, tmp_path / "out")["encoder"][0]
    assert first.endswith("until then: 90 images, 700 voxels, 196 image-tokens x 96 or more (features.grid)")


def test_a_hub_model_that_is_not_in_the_cache_is_named(tmp_path):
    hub = {"kind": "llava", "model": "llava-hf/llava-1.5-7b-hf", "revision": "0" * 40, "reduce": 512}
    (line,) = plan({"data": {"test": 0.2}, "features": hub}, tmp_path / "out")["features"]
    assert line.startswith("llava-hf/llava-1.5-7b-hf gives 576 image-tokens x 512 for each image, ")
