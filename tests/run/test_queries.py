"""Queries of finished runs: what is printed and written, and what is refused."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mine_jax import artifacts
from mine_jax.errors import ConfigError, DataError, GeometryError, MissingInputError
from mine_jax.run import files, queries
from mine_jax.types import Responses, Volume
from tests.roi.planted import CATEGORIES, CORPUS, profiles

N = 12


@pytest.fixture
def asked(monkeypatch):
    """A run of twelve profiled voxels beside four others; gives the responses, to be changed."""
    places = np.argwhere(np.ones((4, 4, 1)))
    responses = Responses(
        responses=np.zeros((1, 16)), image_ids=np.array(["0"]), n_repeats=np.ones(1, int), voxel_ids=np.arange(16),
        status=np.full(16, "ok"), ncsnr=np.ones(16), noise_ceiling=np.ones(16),
        rois=np.array(["FFA"] * 6 + ["PPA"] * 10), indices=places, volume=Volume((4, 4, 1), np.eye(4)),
    )  # fmt: skip
    found = profiles([0] * 6 + [2] * 6)
    found.p_values["words"] = np.full(N, 1e-4)
    settings = SimpleNamespace(roi=SimpleNamespace(categories=CATEGORIES, min_worded=0.2), run=SimpleNamespace(seed=0))
    nulls = replace(profiles([4] * 40), distribution=np.full((40, 6), 1 / 6))
    monkeypatch.setattr(files, "load_profiles", lambda directory, *, decoys=False: nulls if decoys else found)
    monkeypatch.setattr(files, "load_configuration", lambda directory: settings)
    monkeypatch.setattr(files, "corpus", lambda directory: CORPUS)
    held = {"responses": responses}
    monkeypatch.setattr(files, "load_responses", lambda directory: held["responses"])
    return held


def test_answer_as_a_table(asked, tmp_path):
    text = queries.query(Path("run"), "face", out=tmp_path / "face.tsv")
    table = artifacts.read_table(tmp_path / "face.tsv")
    assert list(table.columns) == ["voxel_id", "rois", "value", "q"] and len(table) == 16
    assert (table["value"][:6] > 0.9).all() and (table["value"][6:12] < 0.1).all() and table["value"][12:].isna().all()
    assert "words: man, woman" in text and text.index("FFA") < text.index("PPA")
    assert "6 of 6  found" in text and "0 of 10\n" in text + "\n"


def test_answer_as_a_map(asked, tmp_path):
    from mine_jax.roi.maps import read_map

    queries.query(Path("run"), "man", out=tmp_path / "man.nii.gz")
    values, _ = read_map(tmp_path / "man.nii.gz")
    q, _ = read_map(tmp_path / "man_q.nii.gz")
    assert values.shape == q.shape == (4, 4, 1) and np.isfinite(values).sum() == N


def test_what_is_refused(asked, tmp_path):
    with pytest.raises(ConfigError, match=r"\.tsv"):
        queries.query(Path("run"), "man", out=tmp_path / "man.csv")
    with pytest.raises(DataError, match="nearest: house"):
        queries.query(Path("run"), "hause")
    responses = asked["responses"]
    asked["responses"] = Responses(**{**vars(responses), "indices": None, "volume": None})
    with pytest.raises(GeometryError, match="no geometry"):
        queries.query(Path("run"), "man", out=tmp_path / "man.nii.gz")


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path):
    with pytest.raises(MissingInputError, match=r"is no run directory: it has no run\.json"):
        queries.query(tmp_path / "typo", "man")


def test_subjects_of_a_folder(monkeypatch, tmp_path):
    table = pd.DataFrame({"roi": "FFA", "category": ["face", "food"], "enrichment": [0.5, 0.1], "preferred": [1, 0]})
    table["preferred"] = table["preferred"] == 1
    monkeypatch.setattr(files, "run_directories", lambda directory: [directory / f"s{i}" for i in range(3)])
    monkeypatch.setattr(files, "selectivity_table", lambda directory: table)
    text = queries.subjects(tmp_path)
    written = artifacts.read_table(tmp_path / "roi_subjects.tsv")
    assert "3 of 3" in text and written["p"].tolist() == [0.25, 0.25]
    monkeypatch.setattr(files, "selectivity_table", lambda directory: table.head(0))
    assert queries.subjects(tmp_path) == "no area of s0, s1, s2 has a tested preference"
