"""Areas on planted profiles: preference, null, structure."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from mine_jax import roi
from mine_jax.config import RoiConfig
from mine_jax.roi.clusters import adjusted_rand
from mine_jax.types import Places
from tests.roi.planted import CATEGORIES, CORPUS, profiles


def test_each_area_prefers_its_planted_category():
    words = [0, 1] * 10 + [2, 3] * 10 + [4] * 12
    rois = np.array(["FFA"] * 20 + ["PPA"] * 20 + [""] * 12)
    rows = roi.selectivity(profiles(words), rois, corpus=CORPUS, categories=CATEGORIES)
    assert {r["roi"]: r["category"] for r in rows if r["preferred"]} == {"FFA": "face", "PPA": "place"}
    row = next(r for r in rows if r["preferred"])
    assert row["low"] <= row["enrichment"] <= row["high"] and row["q"] < 0.05
    assert "tool" not in {r["category"] for r in rows}, "no word of it is in the vocabulary"


def test_exchanged_labels_rarely_show_a_preference():
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rois = np.where(rng.random(120) < 0.4, "FFA", "")
        made = profiles(rng.integers(6, size=120))
        settings = RoiConfig(n_permutations=200, min_enrichment=0)
        rows = roi.selectivity(made, rois, corpus=CORPUS, categories=CATEGORIES, settings=settings, seed=seed)
        found.append(any(r["preferred"] for r in rows))
    # the false discovery rate is held at 5 %; 3 of 20 or fewer with probability 0.98
    assert sum(found) <= 3


def test_a_voxel_may_belong_to_two_areas_and_unexplained_ones_do_not_count():
    members = roi.memberships(np.array(["A;B", "B", ""]))
    assert {k: v.tolist() for k, v in members.items()} == {"A": [True, False, False], "B": [True, True, False]}
    made = profiles([0] * 10 + [2] * 10)
    made = replace(made, claims=np.where(np.arange(20) >= 6, "words", "reliable"))
    rows = roi.selectivity(made, np.array(["A"] * 10 + [""] * 10), corpus=CORPUS, categories=CATEGORIES)
    assert rows == []


def test_planted_clusters_are_found_and_stable():
    made = profiles([0] * 10 + [3] * 10 + [5] * 10, noise=0.02)
    (row,) = roi.structure(made, np.array(["A"] * 30), corpus=CORPUS)
    assert row["n_clusters"] == 3 and row["cluster_stability"] == pytest.approx(1)
    assert row["between_distance"] > 5 * row["noise_distance"]


def test_noise_has_one_cluster_and_no_reproducible_differences():
    rng = np.random.default_rng(0)
    made = profiles([0] * 30)
    made = replace(made, halves=np.clip(made.halves + 0.1 * rng.standard_normal(made.halves.shape), 0, None))
    (row,) = roi.structure(
        made, np.array(["A"] * 30), corpus=CORPUS, places=Places.of_voxels(np.argwhere(np.ones((5, 6, 1))))
    )
    assert row["n_clusters"] == 1 and row["reproducible_p"] > 0.05 and not row["is_structured"]


def test_rand_matches_scikit_learn():
    rng = np.random.default_rng(0)
    a, b = rng.integers(1, 4, size=20), rng.integers(1, 4, size=20)
    assert adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b), abs=1e-9)


def test_built_in_categories_hold_words_once_each():
    for words in roi.CATEGORIES.values():
        assert len(set(words)) == len(words) > 5
