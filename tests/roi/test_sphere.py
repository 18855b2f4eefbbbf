"""Areas of a surface: vertices on the spheres of two hemispheres, several in each cell of the grid of fields."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.icosphere import averaging, icosphere, sides
from mine_jax import roi
from mine_jax.config import RoiConfig
from mine_jax.roi import surrogates
from mine_jax.types import Places, Surface
from tests.roi.planted import CATEGORIES, CORPUS, profiles

RADIUS = 20.0  # units: neighbours of a sphere of 10,242 vertices are .75 apart
POINTS, TRIANGLES = icosphere(5)
CHOSEN = np.flatnonzero(POINTS[:, 2] > 0.85)
ONE = POINTS[CHOSEN]
N = len(ONE)
# the hemispheres lie on each other: only the part tells them apart
PLACES = Places(np.tile(RADIUS * ONE, (2, 1)), np.repeat([0, 1], N), is_resampled=True)
# six areas, each in both hemispheres
AREAS = np.tile([f"A{int(x > 0)}{int(y > 0.15) + int(y > -0.15)}" for x, y, _ in ONE], 2)
SETTINGS = RoiConfig(n_surrogates=60, n_permutations=100)
WIDTH = 2.7


def chords():
    """Distances [N, N] between vertices, from the angles between them."""
    return 2 * RADIUS * np.sin(np.arccos(np.clip(ONE @ ONE.T, -1, 1)) / 2)


def mixture(place, independent, smooth):
    variances = np.zeros((1, 1 + len(place.widths)))
    variances[0, 0], variances[0, 1 + list(place.widths).index(WIDTH)] = independent, smooth
    return variances


def test_vertices_share_cells_and_hemispheres_share_nothing():
    place = surrogates.space(PLACES, AREAS)
    assert (
        place.is_crowded
        and not surrogates.space(Places.of_voxels(np.argwhere(np.ones((3, 4, 5)))), AREAS[:60]).is_crowded
    )
    across = PLACES.part[place.anchors][:, None] != PLACES.part[None]
    assert (place.lag[across] == -1).all() and (place.lag[~across] >= 0).mean() > 0.3


def test_surrogates_have_the_covariance_of_their_distances():
    place = surrogates.space(PLACES, AREAS)
    drawn = np.concatenate(list(surrogates.surrogates(place, mixture(place, 0.3, 1.0), n=300)))
    assert drawn.var(0).mean() == pytest.approx(1.3, rel=0.05)
    left, right = drawn[:, :N], drawn[:, N:]
    some = np.arange(0, N, 10)
    covariance = left.T[some] @ left / len(left)
    distance = chords()[some]
    for low, high in ((0.1, 1), (1, 2), (2, 4), (4, 6), (6, 9), (12, 20)):
        pairs = (distance > low) & (distance <= high)
        expected = np.exp(-(distance[pairs] ** 2) / (4 * WIDTH**2)).mean()
        # what is independent is so also between vertices of one cell
        assert covariance[pairs].mean() == pytest.approx(expected, abs=0.05), (low, high)
    assert abs((left.T[some] @ right / len(left)).mean()) < 0.03


def test_variance_of_a_sum_is_the_closed_form_on_both_hemispheres():
    place = surrogates.space(PLACES, AREAS)
    inside = AREAS == "A11"
    weights = inside / inside.sum() - ~inside / (~inside).sum()
    exact = sum(half @ np.exp(-(chords() ** 2) / (4 * WIDTH**2)) @ half for half in np.split(weights, 2))
    unit = surrogates.variance_of_weighted_sums(place, weights)
    assert mixture(place, 0.0, 1.0)[0] @ unit == pytest.approx(exact, rel=0.05)
    assert unit[0] == pytest.approx((weights**2).sum())


def test_units_of_surfaces():
    """2 mm where vertices are closer, else their distance: 0.94 mm on fsaverage, 3.8 mm on fsaverage5."""
    sphere = 100 * POINTS[:2]
    for n, unit in ((163842, 2.0), (10242, 3.76)):
        places = Places.of_vertices(sphere, Surface("fsaverage", (n, n)), np.array([0, n + 1]))
        np.testing.assert_allclose(places.at, sphere / unit, rtol=2e-3)
        assert places.part.tolist() == [0, 1] and places.is_resampled
    ends = POINTS[sides(TRIANGLES)]
    assert np.median(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)) == pytest.approx(0.0376, rel=0.01)


def smooth(seed, width=2.0):
    """Weights [2 N, 3] that are smooth on each hemisphere, by averages of neighbours in the mesh."""
    average = averaging(TRIANGLES, CHOSEN, len(POINTS))
    spacing = RADIUS * 0.0376
    fields = np.random.default_rng(seed).standard_normal((N, 6))
    for _ in range(round((width / spacing) ** 2 * 7 / 3)):
        fields = average @ fields
    fields = np.concatenate(np.split(fields, 2, axis=1))
    return 1.5 * fields / fields.std(0)


def preferred(weights, **options):
    noise = np.exp(0.3 * np.random.default_rng(0).standard_normal((2 * N, 6)))
    shares = np.repeat(np.exp(weights), 2, axis=1) * noise
    made = replace(profiles([0] * (2 * N)), distribution=shares / shares.sum(1, keepdims=True))
    rows = roi.selectivity(made, AREAS, corpus=CORPUS, categories=CATEGORIES, settings=SETTINGS, **options)
    return {row["roi"]: row["category"] for row in rows if row["preferred"]}, {row["null"] for row in rows}


def test_smooth_maps_give_no_preference_where_exchanged_vertices_do():
    found = {"surrogates": 0, "permuted voxels": 0}
    for seed in range(2):
        for places in (PLACES, None):
            names, (null,) = preferred(smooth(seed), places=places)
            found[null] += len(names)
    # of 12 areas
    assert found["surrogates"] <= 1 and found["permuted voxels"] > 6


def test_planted_areas_are_found():
    weights = smooth(1) * 0.2 + np.random.default_rng(1).normal(0, 0.8, (2 * N, 3))
    weights[AREAS == "A11", 0] += 2
    assert preferred(weights, places=PLACES)[0] == {"A11": "face"}


def test_neighbours_are_of_one_hemisphere():
    """Vertices at one place of the two spheres prefer different things."""
    one = np.flatnonzero(AREAS == "A11")[::3]
    made = profiles(np.where(PLACES.part[one] == 0, 0, 4), noise=0.05)
    options = {"corpus": CORPUS, "settings": SETTINGS}
    (row,) = roi.structure(made, np.repeat("A", len(one)), places=PLACES.take(one), **options)
    together = replace(PLACES.take(one), part=np.zeros(len(one), int))
    (mixed,) = roi.structure(made, np.repeat("A", len(one)), places=together, **options)
    assert row["is_structured"] and row["patches"] > 0.9 > 0.2 > mixed["patches"]


def test_an_area_of_vertices_that_are_all_close_has_no_row():
    close = np.argsort(np.linalg.norm(PLACES.at[:N] - PLACES.at[0], axis=1))[:12]
    options = {"corpus": CORPUS, "settings": RoiConfig(min_voxels=4, n_permutations=100)}
    made, areas = profiles([0, 1] * 6), np.repeat("A", 12)
    assert roi.structure(made, areas, places=PLACES.take(close), **options) == []
    assert len(roi.structure(made, areas, places=replace(PLACES.take(close), is_resampled=False), **options)) == 1


def test_noise_that_resampled_vertices_share_makes_no_patches():
    """Voxels differ without any order; the noise of whole profiles and of each half is smooth."""
    one = np.flatnonzero(AREAS == "A11")
    found = {True: 0, False: 0}
    for seed in range(0, 12, 3):
        own = np.random.default_rng(seed).normal(0, 0.5, (len(one), 6))
        shares = [np.exp(own + np.repeat(smooth(seed + n, 1.0)[one], 2, axis=1)) for n in range(3)]
        whole, *halves = ((each / each.sum(1, keepdims=True)).astype(np.float32) for each in shares)
        made = replace(profiles([0] * len(one)), distribution=whole, halves=tuple(halves))
        for is_resampled in (True, False):
            options = {"places": replace(PLACES.take(one), is_resampled=is_resampled), "settings": SETTINGS}
            (row,) = roi.structure(made, np.repeat("A", len(one)), corpus=CORPUS, **options)
            found[is_resampled] += row["is_structured"]
    assert found[True] == 0 and found[False] == 4
