"""Claims against the truth: who counts, what is false, and intervals over seeds."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from mine_jax.run.recovery import compare, study
from mine_jax.run.recovery.claims import claims_table, false_discovery_proportion
from mine_jax.run.recovery.voxels import _targets


def voxels():
    return pd.DataFrame(
        {
            "kind": ["concept"] * 4 + ["noise"] * 2 + ["lowlevel", "constant"],
            "true_ceiling": [0.5, 0.5, 0.5, 0.1, 0, 0, 0.5, 0],
            "claim": ["localised", "words", "reliable", "words", "none", "words", "predicted", "none"],
            "explained": [True, True, False, True, False, True, False, False],
            "hit1": [True, False, False, True, False, False, False, False],
            "hit5": [True, True, False, True, False, False, False, False],
            "q_predicted": [0.01, 0.01, 0.01, 0.01, 0.5, 0.01, 0.01, np.nan],
            "reliability": [0.9, 0.8, 0.7, 0.1, 0.1, 0.2, 0.5, np.nan],
        }
    )


def test_kinds_with_words_count_from_a_ceiling_on_and_others_all():
    table = claims_table(voxels(), None).set_index("kind")
    assert list(table.index) == ["concept", "noise", "lowlevel"]
    concept = table.loc["concept"]
    assert concept["n"] == 3 and concept["reliable"] == 1 and concept["words"] == pytest.approx(2 / 3)
    assert concept["localised"] == pytest.approx(1 / 3)
    assert concept["first"] == 0.5 and concept["first_five"] == 1 and concept["median_reliability"] == 0.8
    assert table.loc["noise", "n"] == 2 and table.loc["noise", "alone_predicted"] == 0.5


def test_false_discoveries_are_claims_of_voxels_without_words():
    table = voxels()
    assert false_discovery_proportion(table) == pytest.approx(1 / 4)
    assert false_discovery_proportion(table[~table["explained"]]) == 0


@pytest.mark.parametrize(
    ("kind", "category", "concepts", "some", "never"),
    [
        ("concept", "face", "man", {"man"}, {"woman"}),
        ("category", "face", "", {"face", "man", "woman"}, {"dog"}),
        ("conjunction", "face", "face;animal", {"face", "dog", "man"}, {"key"}),
        ("suppressed", "face", "animal", {"face", "man"}, {"dog"}),
        ("attribute", "face", "red", {"red"}, {"face"}),
    ],
)
def test_words_that_count_as_found(kind, category, concepts, some, never):
    (row,) = pd.DataFrame({"kind": [kind], "category": [category], "concepts": [concepts]}).itertuples()
    assert some <= _targets(row) and not never & _targets(row)


def test_intervals_over_seeds_are_students():
    values = np.array([0.9, 0.8, 0.95, 0.85, 0.9])
    table = pd.DataFrame({"model": "a", "metric": "m", "value": values})
    (row,) = study.over_seeds(table, value="value", by=["model", "metric"]).to_dict("records")
    interval = scipy.stats.t.interval(0.95, 4, values.mean(), scipy.stats.sem(values))
    assert (row["low"], row["high"]) == pytest.approx(interval) and row["seeds"] == 5
    assert (row["smallest"], row["largest"]) == (0.8, 0.95)


def test_points_of_a_study():
    points = study.points(seeds=2, models=("phantom", "phantom-captions"), images=(500, 1000, 2500))
    assert len({point.name for point in points}) == len(points) == 2 * 2 + 2 * 2
    assert {(p.n_images, p.n_test) for p in points if p.model == "phantom-captions"} == {(2500, 500)}
    assert {(p.n_images, p.n_test) for p in points} == {(2500, 500), (1000, 200), (500, 100)}


def test_every_maker_of_images_has_its_own_measures():
    """Exact edits, an upper bound, do not flatter those of a diffusion model; each pair counts alike over runs."""
    tests = pd.DataFrame(
        [
            ("insert minus no-op", "phantom", 0.7, 30),
            ("insert minus no-op", "exact", 1.0, 30),
            ("insert minus no-op", "exact", 0.9, 10),
            ("effect of dose", "exact", 0.1, 10),
        ],
        columns=["comparison", "maker", "share", "n_pairs"],
    ).assign(effect=np.nan)
    rows = compare._of_validation(tests, pd.DataFrame({"causal": [True, False]}))
    measured = {metric: (np.mean(values), len(values)) for metric, values, _, _ in rows}
    assert measured == {
        "inserted words raise the response: pairs (phantom)": (pytest.approx(0.7), 30),
        "inserted words raise the response: pairs (exact)": (pytest.approx(0.975), 40),
        "drawn voxels that their words move, by another judge": (0.5, 2),
    }
    assert not compare._of_validation(tests[:0], pd.DataFrame({"causal": np.zeros(0, bool)}))


def test_a_control_area_that_truly_prefers_faces_is_named_rightly():
    """A smooth map may prefer one category all over an area: naming it is no mistake, though it counts as named."""
    areas = pd.DataFrame(
        [
            # planted, found, own_found, named, own_asked
            ("", "face", 0.8, True, 0.8),
            ("", "face", 0.3, True, 0.5),
            ("", "", 0.0, False, 0.9),
            ("face", "face", 0.0, True, 0.0),
        ],
        columns=["planted", "found", "own_found", "named", "own_asked"],
    ).assign(has_patches=np.nan, structured=False)
    areas["right"] = areas["planted"] == areas["found"]
    named = {name: float(np.mean(values)) for name, values, _, _ in compare._of_areas(areas) if len(values)}
    assert named["control areas that prefer a category"] == pytest.approx(2 / 3)
    assert named["control areas that prefer one that most voxels do not"] == pytest.approx(1 / 3)
    assert named["control areas that it names"] == pytest.approx(2 / 3)
    assert named["control areas that it names wrongly"] == pytest.approx(1 / 3)
