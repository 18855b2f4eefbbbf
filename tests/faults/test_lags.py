"""F-15: responses that belong to the image a row before or after are found, and warned of."""

import numpy as np
import pytest

from mine_jax import config, run
from mine_jax.run import graph
from mine_jax.run.checks import inputs

N, REPEATS, VOXELS = 90, 2, 5


@pytest.fixture
def recordings(tmp_path):
    """Trials in random order, whose responses follow the mean token of their image; returns what to write."""
    rng = np.random.default_rng(4)
    tokens = rng.standard_normal((N, 4, 6)).astype(np.float32)
    shown = rng.permutation(np.repeat(np.arange(N), REPEATS))
    signal = tokens.mean(1) @ rng.standard_normal((6, VOXELS))
    trials = (signal[shown] + 0.5 * rng.standard_normal((len(shown), VOXELS))).astype(np.float32)
    np.save(tmp_path / "tokens.npy", tokens)
    np.save(tmp_path / "responses.npy", trials)
    (tmp_path / "ids.txt").write_text("".join(f"im{i:03d}\n" for i in range(N)))
    rows = "".join(f"im{image:03d}\t1\n" for image in shown)
    (tmp_path / "trials.tsv").write_text(f"image_id\tsession\n{rows}")
    return tmp_path


def configured(folder):
    values = {
        "data": {"responses": "responses.npy", "trials": "trials.tsv", "test": 0.25},
        "features": {"kind": "precomputed", "tokens": "tokens.npy", "token_image_ids": "ids.txt", "grid": [2, 2]},
        "encoder": {"kind": "ridge", "folds": 2, "decoys": 0, "halves": False},
        "attribution": {"k": 2},
    }
    return config.from_dict(values, base=folder)


def rolled(folder, name, by):
    np.save(folder / name, np.roll(np.load(folder / name), by, axis=0))


def said(folder):
    """What `check` says of lags, and whether it warns."""
    findings = inputs.check(configured(folder))
    warnings = [f for f in findings if "may be shifted" in f or "fit their images" in f]
    return "".join(f for f in findings if "by lags" in f), warnings


def test_rows_as_they_belong_give_no_warning(recordings):
    """F-15: the r of every lag is said, that of lag 0 is the one of the planted signal."""
    text, warnings = said(recordings)
    at = {part.split(" at ")[1]: float(part.split(" at ")[0]) for part in text.split("lags: ")[1].split(", ")}
    assert set(at) == {"-2", "-1", "0", "+1", "+2"} and not warnings
    assert at["0"] > 0.8 and max(abs(at[lag]) for lag in at if lag != "0") < 0.3


@pytest.mark.parametrize("by", [1, -2])
def test_shifted_trials_are_warned_of(recordings, by):
    """F-15: rows of responses that moved by `by` belong to the image that many rows before."""
    rolled(recordings, "responses.npy", by)
    _, warnings = said(recordings)
    assert len(warnings) == 1 and f"rows of the responses moved by {-by:+d}" in warnings[0]


def test_shifted_tokens_are_warned_of(recordings):
    """F-15: the order of ids, where trials come in any order."""
    rolled(recordings, "tokens.npy", 1)
    _, warnings = said(recordings)
    assert len(warnings) == 1 and "in the order of their ids moved by +1" in warnings[0]


def test_rows_in_another_order_are_warned_of(recordings):
    """Nothing fits at any lag."""
    np.save(recordings / "responses.npy", np.load(recordings / "responses.npy")[::-1])
    _, warnings = said(recordings)
    assert len(warnings) == 1 and "are rows and image ids in one order" in warnings[0]


def test_a_run_warns_as_check_does(recordings, tmp_path):
    """F-15: in `run.json`, which the report shows."""
    rolled(recordings, "responses.npy", 1)
    record = run.execute(configured(recordings), tmp_path / "run", graph.STEPS, until="encoder")
    summary = record["stages"]["encoder"]["summary"]
    assert "moved by -1" in summary["warning"] and summary["r_by_lag"]["-1"] > 0.8 > summary["r_by_lag"]["+0"] + 0.4
