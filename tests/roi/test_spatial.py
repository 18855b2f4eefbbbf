"""Areas as maps: nulls that keep smoothness, patches, and contrasts, on planted fields."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from mine_jax import roi
from mine_jax.config import RoiConfig
from mine_jax.roi import surrogates
from mine_jax.types import Places
from tests.roi.planted import CATEGORIES, CORPUS, profiles

# A sheet of nine areas of 8 x 8 voxels.
SHAPE, SIDE = (24, 24), 8
INDICES = np.argwhere(np.ones((*SHAPE, 1)))
PLACES = Places.of_voxels(INDICES)
AREAS = np.array([f"A{i // SIDE}{j // SIDE}" for i, j, _ in INDICES])
SETTINGS = RoiConfig(n_surrogates=100, n_permutations=200)


def made(weights, seed=0):
    """Profiles whose shares of face, place and food follow weights [V, 3]."""
    shares = np.repeat(np.exp(weights), 2, axis=1) * np.exp(
        0.3 * np.random.default_rng(seed).standard_normal((len(weights), 6))
    )
    shares = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
    return replace(profiles([0] * len(weights)), distribution=shares)


def smooth(seed, width=3.0):
    fields = np.random.default_rng(seed).standard_normal((3, *SHAPE))
    fields = np.stack([gaussian_filter(field, width, mode="wrap").ravel() for field in fields], 1)
    return 1.5 * fields / fields.std(0)


def preferred(weights, **options):
    rows = roi.selectivity(made(weights), AREAS, corpus=CORPUS, categories=CATEGORIES, settings=SETTINGS, **options)
    return {row["roi"]: row["category"] for row in rows if row["preferred"]}


def test_variance_of_a_sum_is_that_of_surrogates():
    place = surrogates.space(PLACES, AREAS)
    mixture = np.zeros((1, 1 + len(place.widths)))
    mixture[0, [0, 3]] = 0.5, 1.0
    inside = AREAS == "A11"
    weights = inside / inside.sum() - ~inside / (~inside).sum()
    drawn = [float(maps[0] @ weights) for maps in surrogates.surrogates(place, mixture, n=600)]
    exact = float(mixture[0] @ surrogates.variance_of_weighted_sums(place, weights))
    # a variance of 600 draws has a standard error of 6 %
    assert np.var(drawn) == pytest.approx(exact, rel=0.2)


def test_variances_of_contrasts_are_those_of_each_pair_alone(monkeypatch):
    place = surrogates.space(PLACES, AREAS)
    areas = np.stack([AREAS == "A11", AREAS == "A12", (AREAS == "A11") & (np.arange(len(AREAS)) % 2 == 0)])
    # areas in two blocks, frequencies in many
    monkeypatch.setattr(surrogates, "BLOCK_BYTES", 16 * int(np.prod(place.shape[1:])))
    monkeypatch.setattr(surrogates, "_FREQUENCIES", 5000)
    together = surrogates.variances_of_contrasts(place, areas)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        weights = areas[a] / areas[a].sum() - areas[b] / areas[b].sum()
        alone = surrogates.variance_of_weighted_sums(place, weights)
        np.testing.assert_allclose(together[a, b], alone, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(together[b, a], alone, rtol=1e-4, atol=1e-7)


def test_part_of_a_space_is_where_its_voxels_are():
    place = surrogates.space(PLACES, AREAS)
    part = surrogates.part_of(place, AREAS == "A11")
    own = np.flatnonzero(AREAS == "A11")
    np.testing.assert_array_equal(part.at, place.at[own])
    np.testing.assert_array_equal(part.at[part.anchors], place.at[np.intersect1d(place.anchors, own)])
    distance = np.linalg.norm(part.at[part.anchors][:, None] - part.at, axis=2)
    groups = [distance[part.lag == lag] for lag in range(part.lag.max() + 1)]
    groups = [group for group in groups if len(group)]
    assert all(near.max() < far.min() for near, far in itertools.pairwise(groups)) and len(groups) > 5


def test_the_variogram_of_a_field_is_recovered():
    place = surrogates.space(PLACES, AREAS)
    mixture = np.zeros((1, 1 + len(place.widths)))
    mixture[0, [0, 3]] = 0.5, 1.0
    fields = np.concatenate(list(surrogates.surrogates(place, mixture, n=40))).T
    fitted = surrogates.components(place, np.asarray(fields, float), within=False)
    assert fitted.sum(1).mean() == pytest.approx(1.5, rel=0.15)
    assert fitted[:, 0].mean() == pytest.approx(0.5, rel=0.2)


def test_smooth_maps_that_ignore_areas_give_no_preference_where_exchanged_voxels_do():
    with_space = sum(len(preferred(smooth(seed), places=PLACES)) for seed in range(6))
    without = sum(len(preferred(smooth(seed))) for seed in range(6))
    # of 54 areas, at most 5 % against nearly all
    assert with_space <= 2 and without > 30


def test_planted_areas_are_found_among_smooth_ones():
    weights = smooth(1, 2.0) * 0.2 + np.random.default_rng(1).normal(0, 0.8, (len(AREAS), 3))
    weights[AREAS == "A11", 0] += 2
    weights[AREAS == "A02", 2] += 2
    assert preferred(weights, places=PLACES) == {"A11": "face", "A02": "food"}


def test_areas_with_few_worded_voxels_prefer_nothing():
    weights = np.zeros((len(AREAS), 3))
    weights[AREAS == "A11", 0] += 2
    fitted = np.concatenate([AREAS, np.repeat("A11", 400)])
    assert preferred(weights, places=PLACES) == {"A11": "face"}
    assert preferred(weights, places=PLACES, fitted=fitted) == {}


def test_structure_needs_patches():
    rng = np.random.default_rng(0)
    place = INDICES[AREAS == "A00"]
    left = (place[:, 0] < SIDE // 2).astype(int)
    for words, expected in ((left, True), (rng.permutation(left), False)):
        halves = profiles(words, noise=0.05)
        (row,) = roi.structure(
            halves, np.repeat("A", len(words)), corpus=CORPUS, places=Places.of_voxels(place), settings=SETTINGS
        )
        assert row["reproducible_q"] <= 0.05 and row["is_structured"] == expected
        assert row["n_clusters"] == 2


def test_contrasts_name_the_words_that_differ():
    weights = np.zeros((len(AREAS), 3))
    weights[AREAS == "A11", 0] += 1
    rows = roi.contrasts(made(weights), AREAS, places=PLACES)
    found = {tuple(sorted((row["roi"], row["other"]))) for row in rows if row["q"] <= 0.05}
    assert len(found) == 8 and all("A11" in pair for pair in found)
    row = next(row for row in rows if row["roi"] == "A00" and row["other"] == "A11" and row["word"] == "man")
    inside, outside = row["share"], row["share_other"]
    assert (
        row["log_odds"] == pytest.approx(np.log(inside / (1 - inside) * (1 - outside) / outside)) and inside < outside
    )


def test_subjects_are_the_unit():
    def table(values):
        return pd.DataFrame(
            {"roi": "FFA", "category": ["face", "food"], "enrichment": values, "preferred": [True, False]}
        )

    rows = roi.across_subjects([table([0.4 + 0.01 * i, 0.1 * (-1) ** i]) for i in range(8)])
    assert [row["n_subjects"] for row in rows] == [8, 8] and rows[0]["n_preferred"] == 8
    assert rows[0]["p"] == pytest.approx(2 / 2**8) and rows[1]["p"] > 0.5
    assert np.isnan(roi.across_subjects([table([0.4, 0.1])] * 2)[0]["p"])


def test_areas_without_a_pair_of_voxels_and_constant_maps_give_a_number():
    alone = np.array([f"A{i};B" for i in range(40)] + ["C"] * 40)
    flat = np.zeros((80, 3))
    rows = roi.selectivity(
        made(flat), alone, corpus=CORPUS, categories=CATEGORIES, places=PLACES.take(np.arange(80)), settings=SETTINGS
    )
    assert {row["roi"] for row in rows} == {"B", "C"} and all(np.isfinite(row["q"]) for row in rows)
    still = replace(made(flat), distribution=np.full((80, 6), 1 / 6))
    rows = roi.selectivity(
        still, alone, corpus=CORPUS, categories=CATEGORIES, places=PLACES.take(np.arange(80)), settings=SETTINGS
    )
    assert not any(row["preferred"] for row in rows)
