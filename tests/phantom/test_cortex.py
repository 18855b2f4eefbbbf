"""The planted cortex: contiguous areas, the stated response formula, the stated noise ceiling."""

import dataclasses

import numpy as np
import pytest
import scipy.ndimage

from mine_jax.data import noise_ceiling
from mine_jax.errors import DataError
from mine_jax.phantom import cortex, scenes


@pytest.fixture(scope="module")
def planted():
    return cortex.plant(3, shape=(16, 16, 12))


@pytest.fixture(scope="module")
def some_scenes():
    rng = np.random.default_rng(0)
    return [scenes.sample_scene(rng) for _ in range(60)]


@pytest.mark.parametrize("seed", range(3))
def test_default_size_and_contiguous_areas(seed):
    found = cortex.plant(seed)
    assert len(found.voxel_ids) == 515 and len(found.sheet) > 1000
    assert np.isin(found.voxel_ids, found.sheet).all() and (np.diff(found.voxel_ids) > 0).all()
    for name, (_, count) in cortex.AREAS.items():
        volume = np.zeros(found.shape, bool)
        volume.reshape(-1)[found.voxel_ids[found.area == name]] = True
        assert volume.sum() == count
        assert scipy.ndimage.label(volume, np.ones((3, 3, 3)))[1] == 1, name
    kinds = {kind: int((found.kind == kind).sum()) for kind in cortex.KINDS}
    assert (kinds["lowlevel"], kinds["noise"], kinds["constant"], kinds["invalid"]) == (60, 80, 10, 5)
    shares = np.array([kinds[k] for k in ("concept", "pair", "category", "attribute")]) / 360
    np.testing.assert_allclose(shares, [0.55, 0.2, 0.15, 0.1], atol=0.03)


def test_preferences_belong_to_the_area():
    found = cortex.plant(0)
    for area, category, kind, concepts in zip(found.area, found.category, found.kind, found.concepts, strict=True):
        words = [word for word in concepts.split(";") if word]
        assert len(words) == {"concept": 1, "pair": 2, "attribute": 1}.get(kind, 0)
        if kind in ("concept", "pair"):
            assert {scenes.CATEGORY_OF[word] for word in words} <= set(category.split(";"))
            assert tuple(category.split(";")) == cortex.AREAS[area][0]
        if kind == "attribute":
            assert words[0] in scenes.COLORS


def test_ceilings_spread_around_the_one_asked_for():
    for ceiling in (0.3, 0.6):
        found = cortex.plant(1, ceiling=ceiling).noise_ceiling
        found = found[found > 0]
        assert abs(found.mean() - ceiling) < 0.04
        assert found.min() < ceiling - 0.15 and found.max() > ceiling + 0.15


def test_small_volume_is_refused():
    with pytest.raises(DataError, match="too few"):
        cortex.plant(0, shape=(5, 5, 4))


def test_matches_the_formula_voxel_by_voxel(planted, some_scenes):
    found = cortex.true_response(planted, some_scenes)
    y, x = np.mgrid[:64, :64] + 0.5
    for v in (0, 30, 100, 200, 300, 390):
        field = np.exp(-((x - planted.rf_x[v]) ** 2 + (y - planted.rf_y[v]) ** 2) / (2 * planted.rf_sigma[v] ** 2))
        for row, scene in enumerate(some_scenes[:12]):
            image = scenes.render(scene) @ np.array([0.299, 0.587, 0.114]) / 255
            if planted.kind[v] == "lowlevel":
                mean = (image * field).sum() / field.sum()
                expected = np.sqrt((image**2 * field).sum() / field.sum() - mean**2)
            elif planted.kind[v] in ("noise", "constant", "invalid"):
                expected = 0.0
            else:
                masks = scenes.thing_masks(scene)
                items = [(t.concept, t.color, m) for t, m in zip(scene.things, masks, strict=True)]
                if scene.place is not None:
                    items.append((scene.place, None, ~masks.any(0)))
                expected = 0.0
                for concept, color, mask in items:
                    coverage = (mask * field).sum() / field.sum()
                    is_category = scenes.CATEGORY_OF[concept] in planted.category[v].split(";")
                    is_fine = bool({concept, color} & set(planted.concepts[v].split(";")))
                    weight = planted.weight_category[v] * is_category + planted.weight_fine[v] * is_fine
                    expected += weight * coverage**0.7
            np.testing.assert_allclose(found[row, v], expected, atol=2e-5)


def test_calibrated_responses_are_standardised(planted, some_scenes):
    calibrated = cortex.calibrate(planted, cortex.true_response(planted, some_scenes))
    images = [scenes.render(scene) for scene in some_scenes]
    found = cortex.true_response(calibrated, some_scenes, images)
    moves = found.std(0) > 0
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found[:, moves].std(0), 1, atol=1e-4)
    # Constants are kept: a few scenes alone give the same numbers.
    np.testing.assert_allclose(cortex.true_response(calibrated, some_scenes[5:9]), found[5:9], atol=1e-4)


def test_removing_the_preferred_thing_lowers_the_response(planted):
    rng = np.random.default_rng(5)
    voxel = int(np.flatnonzero(planted.kind == "concept")[0])
    with_it = scenes.sample_scene(rng, concepts=[str(planted.concepts[voxel]), "hammer"])
    if with_it.things[0].concept != planted.concepts[voxel]:
        pytest.skip("the preferred concept is a place")
    before, after = cortex.true_response(planted, [with_it, scenes.remove_thing(with_it, 0)])[:, voxel]
    assert before > 0.3 and after < 0.1 * before


def test_trials_reach_the_planted_ceiling():
    planted = cortex.plant(2, shape=(14, 14, 12))
    rng = np.random.default_rng(0)
    n = 1500
    # Any standardised signal will do.
    moves = planted.noise_ceiling > 0
    signal = np.where(moves, rng.standard_normal((n, len(moves))), 0).astype(np.float32)
    rows = rng.permutation(np.repeat(np.arange(n), 3))
    sessions = np.arange(3 * n) // 750
    betas = cortex.simulate_trials(planted, signal, rows=rows, sessions=sessions, seed=1)
    assert np.isnan(betas[:, planted.kind == "invalid"]).all()
    assert not betas[:, planted.kind == "constant"].std(0).any()
    scores = betas[:, moves].astype(np.float64)
    for session in range(6):
        part = scores[sessions == session]
        scores[sessions == session] = (part - part.mean(0)) / part.std(0)
    found = noise_ceiling.noise_ceiling(noise_ceiling.ncsnr(scores, rows), 3)
    error = found - planted.noise_ceiling[moves]
    assert abs(error.mean()) < 0.01 and error.std() < 0.04
    again = cortex.simulate_trials(planted, signal, rows=rows, sessions=sessions, seed=1)
    np.testing.assert_array_equal(again, betas)


def test_table_roundtrip(planted, some_scenes):
    table = cortex.to_table(planted, subject="subj01")
    back = cortex.from_table(table, shape=planted.shape)
    for field in dataclasses.fields(cortex.Cortex):
        if field.name != "sheet":
            np.testing.assert_array_equal(getattr(back, field.name), getattr(planted, field.name))
    np.testing.assert_array_equal(
        cortex.true_response(back, some_scenes[:3]), cortex.true_response(planted, some_scenes[:3])
    )


def test_progress_may_stop_the_work(planted, some_scenes):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cortex.true_response(planted, some_scenes[:2], progress=stop)
