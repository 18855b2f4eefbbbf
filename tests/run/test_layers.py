"""Further layers: each voxel's best one is chosen without a test image, and tabled by area."""

import numpy as np
import pytest

from mine_jax import artifacts, config, encoder, run
from mine_jax.run import files, graph
from mine_jax.types import ImageTokens, Scores

LAYERS = ("encoder/layers.tsv", "encoder/voxel_layers.tsv")


def scores_of(selection, *, r2=None, status=None):
    selection = np.asarray(selection, float)
    n, nothing = len(selection), np.full(len(selection), np.nan)
    r2 = selection if r2 is None else np.asarray(r2, float)
    status = np.array(["ok"] * n) if status is None else np.array(status)
    return Scores(np.arange(n), r2, nothing, nothing, nothing, 9, 9, status, selection)


def test_test_images_have_no_part_in_the_choice():
    first = scores_of([0.3, 0.1, 0.2, np.nan, 0.5], r2=[0, 1, 0, 0, 0], status=["ok"] * 4 + ["diverged"])
    second = scores_of([0.1, 0.4, 0.2, np.nan, 0.1], r2=[1, 0, 1, 1, 1])
    assert encoder.best_layers({7: first, 4: second}).tolist() == [7, 4, 7, -1, 4]


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    """Tokens of layer 9 in a file and of layer 3 beside it; voxels 0 to 2 (area A) read 9, 3 to 8 (B) read 3."""
    rng = np.random.default_rng(0)
    main, more = rng.standard_normal((2, 120, 16, 8)).astype(np.float32)
    signal = [tokens.mean(1) @ rng.standard_normal((8, n)) for tokens, n in ((main, 3), (more, 6))]
    responses = np.concatenate(signal, 1) + 0.1 * rng.standard_normal((120, 9))
    np.save(tmp_path / "tokens.npy", main)
    np.save(tmp_path / "responses.npy", responses.astype(np.float32))
    ids = [f"photo{i:03d}" for i in range(120)]
    (tmp_path / "ids.txt").write_text("\n".join(ids), encoding="utf-8")
    areas = "".join(f"{v}\t{'A' if v < 3 else 'B'}\n" for v in range(9))
    (tmp_path / "rois.tsv").write_text("voxel_id\troi\n" + areas, encoding="utf-8")
    values = {
        "data": {"kind": "folder", "responses": "responses.npy", "image_ids": "ids.txt", "rois": "rois.tsv"}
        | {"test": 0.25},
        "features": {"kind": "precomputed", "tokens": "tokens.npy", "token_image_ids": "ids.txt", "grid": [4, 4]}
        | {"layer": 9},
        "encoder": {"width": 8, "epochs": 2, "decoys": 0, "halves": False, "reference": False},
    }
    stored = {3: ImageTokens(more, np.array(ids), grid=(4, 4), layer=3)}
    monkeypatch.setattr(files, "load_more_layers", lambda *_: stored)
    return config.from_dict(values, base=tmp_path), tmp_path / "run", stored


def test_areas_are_predicted_by_the_layer_that_they_read(recordings):
    settings, out, stored = recordings
    run.execute(settings, out, graph.STEPS, until="encoder")
    table = artifacts.read_table(out / LAYERS[0]).set_index(["roi", "layer"])
    layers = sorted({layer for _, layer in table.index})
    main = next(layer for layer in layers if layer != 3)
    assert table.loc[("A", main), "share"] == 1 and table.loc[("B", 3), "share"] == 1
    assert table.loc[("all", main), "n_voxels"] == 3 and table.loc[("all", 3), "n_voxels"] == 6
    assert table.loc[("B", 3), "r2"] > 0.5 and np.isnan(table.loc[("B", main), "r2"])
    voxels = artifacts.read_table(out / LAYERS[1])
    assert voxels["layer"].tolist() == [main] * 3 + [3] * 6
    chosen = np.where(voxels["layer"] == 3, voxels["r2_selection_3"], voxels[f"r2_selection_{main}"])
    assert (chosen >= voxels[["r2_selection_3", f"r2_selection_{main}"]].to_numpy().max(1)).all()
    # one layer again: nothing is left of the comparison
    stored.clear()
    again = settings.encoder.model_copy(update={"epochs": 1})
    run.execute(settings.model_copy(update={"encoder": again}), out, graph.STEPS, until="encoder", resume=True)
    assert not any((out / name).exists() for name in LAYERS)
