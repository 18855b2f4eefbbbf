"""The planted cortex: contiguous areas, the stated response formula, the stated noise ceiling."""

import dataclasses

import numpy as np
import pytest
import scipy.ndimage

from mine_jax.data import noise_ceiling
from mine_jax.errors import DataError
from mine_jax.phantom import areas, cortex, scenes, signals
from mine_jax.phantom.sampling import CORRELATED, sample_correlated


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
    assert len(found.voxel_ids) == 575 and len(found.sheet) > 1000
    assert np.isin(found.voxel_ids, found.sheet).all() and (np.diff(found.voxel_ids) > 0).all()
    for name, area in areas.AREAS.items():
        volume = np.zeros(found.shape, bool)
        volume.reshape(-1)[found.voxel_ids[found.area == name]] = True
        assert volume.sum() == area.n_voxels
        assert scipy.ndimage.label(volume, np.ones((3, 3, 3)))[1] == 1, name
    kinds = {kind: int((found.kind == kind).sum()) for kind in cortex.KINDS}
    silent = ("lowlevel", "smooth", "noise", "constant", "invalid")
    assert [kinds[kind] for kind in silent] == [60, 60, 80, 10, 5]
    least = {"concept": 120, "pair": 40, "category": 60, "attribute": 30, "place": 30, "conjunction": 18}
    assert all(kinds[kind] >= n for kind, n in {**least, "suppressed": 18}.items())


def test_preferences_belong_to_the_area():
    found = cortex.plant(0)
    n_words = {"concept": 1, "pair": 2, "attribute": 1, "place": 1, "conjunction": 2, "suppressed": 1}
    for area, category, kind, concepts in zip(found.area, found.category, found.kind, found.concepts, strict=True):
        words = [word for word in concepts.split(";") if word]
        assert len(words) == n_words.get(kind, 0)
        if kind in ("concept", "pair"):
            assert {scenes.CATEGORY_OF[word] for word in words} <= set(category.split(";"))
            assert tuple(category.split(";")) == areas.AREAS[area].categories
        if kind == "attribute":
            assert words[0] in scenes.COLORS
        if kind == "place":
            assert words[0] in scenes.PLACES
        if kind in ("conjunction", "suppressed"):
            assert words[-1] in scenes.CATEGORIES and words[-1] not in category


def test_patches_are_contiguous_and_share_a_concept():
    found = cortex.plant(0)
    for name in areas.STRUCTURED:
        liked = []
        for patch in range(areas.AREAS[name].n_patches):
            inside = (found.area == name) & (found.patch == patch)
            volume = np.zeros(found.shape, bool)
            volume.reshape(-1)[found.voxel_ids[inside]] = True
            assert scipy.ndimage.label(volume, np.ones((3, 3, 3)))[1] == 1
            liked.append(set(found.concepts[inside & (found.kind == "concept")]))
            assert len(liked[-1]) == 1
        assert len(set.union(*liked)) == len(liked)
    assert (found.patch[~np.isin(found.area, areas.STRUCTURED)] == -1).all()


def test_controls_vary_smoothly_without_regard_to_their_border():
    found = cortex.plant(0)
    smooth = found.kind == "smooth"
    assert set(found.area[smooth]) == {"control-1", "control-2"} and not found.smooth[~smooth].any()
    position = np.stack(np.unravel_index(found.voxel_ids[smooth], found.shape), 1)
    distance = np.linalg.norm(position[:, None] - position, axis=-1)
    weights = found.smooth[smooth][:, found.smooth[smooth].std(0) > 0]
    weights = (weights - weights.mean(0)) / weights.std(0)
    product = weights @ weights.T / weights.shape[1]
    near, far = (distance > 0) & (distance < 1.8), distance > 6
    assert product[near].mean() > 0.5 > 0.2 > product[far].mean()


def test_what_a_smooth_voxel_prefers_is_what_moves_its_response_most():
    """The oracle: of all categories, the share of a scene's tokens it covers correlates best with the response."""
    found = cortex.plant(3)
    preferred = cortex.smooth_preferences(cortex.to_table(found, subject="subj01"))
    is_smooth = found.kind == "smooth"
    assert set(preferred[~is_smooth]) == {""}
    shown = [scenes.sample_scene(np.random.default_rng([7, i])) for i in range(600)]
    fields = signals.receptive_fields(found.rf_x, found.rf_y, found.rf_sigma, shown[0].size)[:, is_smooth]
    rows, named, covered = signals.coverages(shown, fields, found.exponent)
    response = cortex.true_response(found, shown)[:, is_smooth]
    r = []
    for category in scenes.CATEGORIES:
        member = [scenes.CATEGORY_OF.get(name) == category for name in signals.NAMES]
        presence = signals.summed(len(shown), rows, covered * named[:, member].any(1)[:, None])
        r.append([np.corrcoef(one, other)[0, 1] for one, other in zip(presence.T, response.T, strict=True)])
    best = np.array(list(scenes.CATEGORIES))[np.argmax(r, axis=0)]
    known = preferred[is_smooth] != ""
    assert (best == preferred[is_smooth])[known].mean() > 0.8


def test_ceilings_spread_around_the_one_asked_for():
    for ceiling in (0.3, 0.6):
        found = cortex.plant(1, ceiling=ceiling).noise_ceiling
        found = found[found > 0]
        assert abs(found.mean() - ceiling) < 0.04
        assert found.min() < ceiling - 0.15 and found.max() > ceiling + 0.15
    spread = cortex.plant(1, ceiling=(0.05, 0.7)).noise_ceiling
    spread = spread[spread > 0]
    assert spread.min() < 0.08 and spread.max() > 0.67 and abs(spread.mean() - 0.375) < 0.03


def test_small_volume_is_refused():
    with pytest.raises(DataError, match="too few"):
        cortex.plant(0, shape=(5, 5, 4))


def things(scene):
    """Concept, colour and mask of everything shown."""
    masks = scenes.thing_masks(scene)
    items = [(thing.concept, thing.color, mask) for thing, mask in zip(scene.things, masks, strict=True)]
    return items if scene.place is None else [*items, (scene.place, None, ~masks.any(0))]


def expected_of_things(planted, v, scene, field):
    def seen(wanted):
        total = 0.0
        for concept, color, mask in things(scene):
            if wanted & {concept, color, scenes.CATEGORY_OF[concept]}:
                total += ((mask * field).sum() / field.sum()) ** 0.7
        return total

    kind, words = planted.kind[v], [word for word in planted.concepts[v].split(";") if word]
    signal = planted.weight_category[v] * seen(set(planted.category[v].split(";")) - {""})
    signal += sum(w * seen({c}) for c, w in zip(scenes.CATEGORIES, planted.smooth[v], strict=True))
    if kind == "conjunction":
        return signal + 3 * planted.weight_fine[v] * min(seen({words[0]}), seen({words[1]}))
    fine = sum(seen({word}) for word in words)
    return signal + (-1 if kind == "suppressed" else 1) * planted.weight_fine[v] * fine


@pytest.mark.parametrize("kind", [*cortex.THING_KINDS, "noise", "constant", "invalid"])
def test_matches_the_formula_voxel_by_voxel(planted, some_scenes, kind):
    found = cortex.true_response(planted, some_scenes[:12])
    y, x = np.mgrid[:64, :64] + 0.5
    for v in np.flatnonzero(planted.kind == kind)[:3]:
        field = np.exp(-((x - planted.rf_x[v]) ** 2 + (y - planted.rf_y[v]) ** 2) / (2 * planted.rf_sigma[v] ** 2))
        for row, scene in enumerate(some_scenes[:12]):
            expected = expected_of_things(planted, v, scene, field) if kind in cortex.THING_KINDS else 0.0
            np.testing.assert_allclose(found[row, v], expected, atol=2e-5)


def test_contrast_voxels_see_the_deviation_of_luminance(some_scenes):
    images = np.stack([scenes.render(scene) for scene in some_scenes[:12]])
    fields = signals.receptive_fields(np.array([20.0]), np.array([40.0]), np.array([6.0]), 64)
    found = signals.low_level(images, fields, np.array(["contrast"]), np.zeros(1))
    luminance = (images @ np.array([0.299, 0.587, 0.114]) / 255).reshape(12, -1)
    weights = fields[:, 0].astype(float)
    mean = luminance @ weights
    expected = np.sqrt(((luminance - mean[:, None]) ** 2) @ weights)
    np.testing.assert_allclose(found[:, 0], expected, atol=2e-4)


def grating(angle, frequency):
    y, x = np.mgrid[:64, :64] / 64
    wave = np.sin(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)))
    return np.repeat(np.rint(127.5 + 100 * wave)[..., None], 3, -1).astype(np.uint8)


def test_orientation_and_frequency_voxels_are_tuned():
    fields = signals.receptive_fields(*np.full((3, 6), [[32.0], [32.0], [8.0]]), 64)
    images = np.stack([grating(angle, signals.ORIENTED_FREQUENCY) for angle in signals.ANGLES])
    found = signals.low_level(images, fields, np.full(6, "orientation"), np.array(signals.ANGLES))
    assert found.argmax(0).tolist() == list(range(6))
    assert (np.sort(found, 0)[-1] > 1.5 * np.sort(found, 0)[-2]).all()
    images = np.stack([grating(0.4, frequency) for frequency in signals.FREQUENCIES])
    found = signals.low_level(images, fields[:, :3], np.full(3, "frequency"), np.array(signals.FREQUENCIES))
    assert found.argmax(0).tolist() == [0, 1, 2]
    turned = np.stack([grating(angle, 10) for angle in signals.ANGLES])
    energy = signals.low_level(turned, fields[:, :1], np.array(["frequency"]), np.array([10.0]))
    assert energy.min() > 0.85 * energy.max()


def test_colour_voxels_see_their_opponent_axis_and_no_grey():
    patches = np.array([[200, 200, 200], [220, 40, 40], [40, 40, 220]], np.uint8)
    images = np.broadcast_to(patches[:, None, None], (3, 64, 64, 3))
    fields = signals.receptive_fields(*np.full((3, 2), [[32.0], [32.0], [8.0]]), 64)
    found = signals.low_level(images, fields, np.full(2, "color"), np.array(signals.COLOR_AXES))
    np.testing.assert_allclose(found[:, 0], [0, 180 / 255, 0], atol=1e-3)
    np.testing.assert_allclose(found[:, 1], [0, 90 / 255, 180 / 255], atol=1e-3)


def test_correlated_things_have_their_place():
    rng = np.random.default_rng(0)
    drawn = [sample_correlated(rng) for _ in range(1500)]
    for concept, place in CORRELATED.items():
        places = [scene.place for scene in drawn if concept in {thing.concept for thing in scene.things}]
        assert len(places) > 30 and 0.8 < np.mean([one == place for one in places]) < 0.99
    others = [scene.place for scene in drawn if not {thing.concept for thing in scene.things} & set(CORRELATED)]
    assert np.mean([place == "beach" for place in others]) < 0.15


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
