"""Responses with more repeats in the test images than in the others, from trials.tsv to the printed numbers."""

import numpy as np
import pytest

from mine_jax import artifacts, config, data, run
from mine_jax.run import files, graph

N_TRAIN, N_TEST, N_SESSIONS, V = 720, 100, 12, 40


def written(folder, *, n_repeats):
    """Writes tokens, trials and a list of test images; tokens hold all of the signal: a fit is nearly perfect."""
    rng = np.random.default_rng(0)
    ids = np.array([f"photo{i:04d}" for i in range(N_TRAIN + N_TEST)])
    tokens = rng.standard_normal((len(ids), 1, 4)).astype(np.float32)
    signal = tokens[:, 0] @ rng.standard_normal((4, V))
    signal /= signal.std(0)
    sd, rows, trials = rng.uniform(1.0, 3.0, V), [], []
    for session, part in enumerate(rng.permutation(N_TRAIN).reshape(N_SESSIONS, -1)):
        test = np.arange(N_TRAIN, N_TRAIN + N_TEST) if session < n_repeats else np.zeros(0, int)
        shown = np.concatenate([part, test])
        trials.append(signal[shown] + rng.standard_normal(V) + sd * rng.standard_normal((len(shown), V)))
        rows += [f"{ids[i]}\t{session}\n" for i in shown]
    np.save(folder / "tokens.npy", tokens)
    np.save(folder / "trials.npy", np.concatenate(trials).astype(np.float32))
    (folder / "trials.tsv").write_text("image_id\tsession\n" + "".join(rows), encoding="utf-8")
    (folder / "ids.txt").write_text("".join(f"{i}\n" for i in ids), encoding="utf-8")
    (folder / "test.txt").write_text("".join(f"{i}\n" for i in ids[N_TRAIN:]), encoding="utf-8")
    return config.from_dict(
        {
            "data": {"kind": "folder", "responses": "trials.npy", "trials": "trials.tsv", "test": "test.txt"},
            "features": {"kind": "precomputed", "tokens": "tokens.npy", "token_image_ids": "ids.txt"},
            "encoder": {"kind": "ridge", "decoys": 0, "halves": False},
        },
        base=folder,
    )


def test_a_perfect_model_prints_r2_of_the_ceiling(tmp_path):
    made = written(tmp_path, n_repeats=N_SESSIONS)
    record = run.execute(made, tmp_path / "run", graph.STEPS, until="encoder")
    assert 0.95 <= record["stages"]["encoder"]["summary"]["mean_r2_normalized"] <= 1.1
    voxels = artifacts.read_table(tmp_path / "run" / "voxels.tsv")
    ratio = voxels["ncsnr"] ** 2
    np.testing.assert_allclose(voxels["noise_ceiling"], ratio / (ratio + 1 / 12), rtol=1e-6)
    # a ceiling of the training rows, shown once, would make a perfect model look several times too good
    assert (voxels["r2"] / (ratio / (ratio + 1))).mean() > 2


def test_a_voxel_that_hardly_varies_in_the_test_images_does_not_decide_the_mean_r2(tmp_path):
    rng = np.random.default_rng(0)
    tokens, ids = rng.standard_normal((90, 1, 4)), [f"photo{i}" for i in range(90)]
    responses = tokens[:, 0] @ rng.standard_normal((4, 4)) + 0.1 * rng.standard_normal((90, 4))
    responses[60:, 0] = 0.1 + 1e-6 * rng.standard_normal(30)
    np.save(tmp_path / "tokens.npy", tokens.astype(np.float32))
    np.save(tmp_path / "responses.npy", responses)
    (tmp_path / "ids.txt").write_text("\n".join(ids), encoding="utf-8")
    (tmp_path / "test.txt").write_text("\n".join(ids[60:]), encoding="utf-8")
    made = config.from_dict(
        {
            "data": {"kind": "folder", "responses": "responses.npy", "image_ids": "ids.txt", "test": "test.txt"},
            "features": {"kind": "precomputed", "tokens": "tokens.npy", "token_image_ids": "ids.txt"},
            "encoder": {"kind": "ridge", "decoys": 0, "halves": False},
        },
        base=tmp_path,
    )
    summary = run.execute(made, tmp_path / "run", graph.STEPS, until="encoder")["stages"]["encoder"]["summary"]
    r2 = artifacts.read_table(tmp_path / "run" / "voxels.tsv")["r2"]
    assert r2[0] < -1e6 and summary["mean_r2"] == pytest.approx((r2[1:].sum() - 1) / 4, abs=1e-6)


def test_without_repeats_the_ceiling_is_unknown(tmp_path):
    made = written(tmp_path, n_repeats=1)
    run.execute(made, tmp_path / "run", graph.STEPS, until="data")
    assert artifacts.read_table(tmp_path / "run" / "voxels.tsv")["noise_ceiling"].isna().all()


def test_low_ceilings_are_those_of_the_test_images(tmp_path):
    made = written(tmp_path, n_repeats=N_SESSIONS)
    made = made.model_copy(update={"data": made.data.model_copy(update={"min_noise_ceiling": 0.6})})
    run.execute(made, tmp_path / "run", graph.STEPS, until="data")
    voxels = artifacts.read_table(tmp_path / "run" / "voxels.tsv")
    low = voxels["noise_ceiling"] < 0.6
    assert 0 < low.sum() < V and ((voxels["status"] == "low_ceiling") == low).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_permuted_responses_keep_their_split_and_repeats(tmp_path, seed):
    made = written(tmp_path, n_repeats=N_SESSIONS)
    run.execute(made, tmp_path / "plain", graph.STEPS, until="data")
    update = {"data": made.data.model_copy(update={"permute": True}), "run": made.run.model_copy(update={"seed": seed})}
    run.execute(made.model_copy(update=update), tmp_path / "permuted", graph.STEPS, until="data")
    plain, permuted = (files.load_responses(tmp_path / name) for name in ("plain", "permuted"))
    np.testing.assert_array_equal(plain.n_repeats, permuted.n_repeats)
    np.testing.assert_array_equal(plain.noise_ceiling, permuted.noise_ceiling)
    test = np.isin(plain.image_ids, data.ids.read(str(tmp_path / "test.txt")))
    for rows in (test, ~test):
        before, after = (np.asarray(one.responses[rows]) for one in (plain, permuted))
        assert (before == after).all(1).mean() < 0.05
        np.testing.assert_array_equal(np.sort(before, 0), np.sort(after, 0))
