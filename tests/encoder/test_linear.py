"""The linear term: its closed form against float64, who gets one, and what chunks, files and company do not change."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mine_jax import encoder
from mine_jax.config import QueryConfig
from mine_jax.encoder.linear import banded, components
from mine_jax.encoder.query import readout, train
from mine_jax.encoder.query.images import Examples
from mine_jax.errors import ConfigError

PLAIN = QueryConfig(width=6, position_order=2, batch_size=16, epochs=2, patience=2)
LINEAR = PLAIN.model_copy(update={"linear": True, "linear_width": 64})
MEMBERS = LINEAR.model_copy(update={"members": 3})


def fit(training, validation, config, **options):
    return encoder.fit(training, key=jax.random.key(0), validation=validation, config=config, **options)


def has_term(encoders):
    return (np.asarray(encoders.per_voxel["linear"]) != 0).any(1)


@pytest.fixture
def planted(make):
    """240 images; voxels 0 to 3 weigh every token of the grid, 4 to 9 are noise. Training, validation, test."""
    rng = np.random.default_rng(5)
    tokens = make.tokens(240)
    signal = np.zeros((240, 10))
    signal[:, :4] = tokens.tokens.reshape(240, -1) @ rng.standard_normal((96, 4))
    signal[:, :4] /= signal[:, :4].std(0)
    whole = make.split(tokens, signal + np.sqrt(0.3) * rng.standard_normal((240, 10)), voxel_ids=np.arange(10) * 3 + 2)
    part = np.digitize(np.arange(240), [140, 190])
    return [
        dataclasses.replace(whole, tokens=tokens.take_images(rows), responses=whole.responses.take_images(rows))
        for rows in (part == 0, part == 1, part == 2)
    ]


def direct(attended, grid, y, a, b):
    """Predictions of one banded ridge [N, F] in float64, intercept unpenalised."""
    x = np.concatenate([attended, grid], 1)
    x = x - x.mean(0)
    penalty = np.diag(np.r_[np.full(attended.shape[1], a), np.full(grid.shape[1], b)])
    return x @ np.linalg.solve(x.T @ x + penalty, x.T @ (y - y.mean())) + y.mean()


@pytest.mark.parametrize("masked", [False, True])
def test_matches_float64_banded_ridge(masked):
    """With components for every image, two penalties of readout and whole grid; more columns than images."""
    rng = np.random.default_rng(1)
    n_images, n_cells, width = 30, 9, 4
    keys = rng.standard_normal((n_images, n_cells, 1, width)).astype(np.float32)
    query, position = rng.standard_normal((2, 1, width)), rng.standard_normal((2, 1, n_cells))
    y = rng.standard_normal((n_images, 2)).astype(np.float32) + 0.5
    mask = rng.random((n_images, n_cells)) < 0.7 if masked else None
    real = np.ones((n_images, n_cells)) if mask is None else mask.astype(float)
    if masked:
        mask[:, 0] = True
        real[:, 0] = 1
    found = components.fit_components([Examples(jnp.asarray(keys), True, mask)], 1000)
    arrays = [jnp.asarray(x, jnp.float32) for x in (query, position, keys, y)]
    z = jnp.asarray(found.features)
    sums = readout.add(None, *arrays, jnp.ones(n_images), mask, None, z, image_chunk=7)
    readouts, weights, intercept = (np.asarray(x, np.float64) for x in banded.solved(sums, found.squares))
    grid = (keys[:, :, 0] * (real / real.sum(1, keepdims=True))[..., None]).reshape(n_images, -1).astype(np.float64)
    unit = ((grid - grid.mean(0)) ** 2).sum() / (n_images - 1)
    logits = np.einsum("vhe,nce->nvc", query, keys[:, :, 0]) + position[:, 0]
    attention = np.where(real[:, None] > 0, np.exp(logits), 0)
    attended = np.einsum("nvc,nce->nve", attention / attention.sum(-1, keepdims=True), keys[:, :, 0])
    pairs = [(a, b) for b in banded.LINEAR_PENALTIES for a in banded.READOUT_PENALTIES]
    assert len(pairs) == readouts.shape[1] == banded.N_CANDIDATES
    for v in range(2):
        for j in (0, 9, 20, len(pairs) - 1):
            a, b = pairs[j]
            expected = direct(attended[:, v], grid, y[:, v].astype(np.float64), a, b * unit)
            got = attended[:, v] @ readouts[v, j] + found.features @ weights[v, j] + intercept[v, j]
            np.testing.assert_allclose(got, expected, atol=2e-5)


def test_matches_scikit_learn():
    """One penalty for both bands after columns are scaled: ridge of scikit-learn."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(2)
    attended, z = rng.standard_normal((60, 5)), np.linalg.qr(rng.standard_normal((60, 8)))[0] * 3
    z -= z.mean(0)
    z = np.linalg.svd(z, full_matrices=False)[0] * 3
    y = attended @ rng.standard_normal(5) + z @ rng.standard_normal(8) + rng.standard_normal(60)
    sums = {
        "gram": attended.T @ attended,
        "cross": attended.T @ y,
        "total": attended.sum(0),
        "y_total": y.sum(),
        "linear_cross": z.T @ attended,
        "linear_y": z.T @ y,
    }
    squares = (z**2).sum(0)
    sums = {name: jnp.asarray(value, jnp.float32)[None] for name, value in sums.items()} | {"count": jnp.float32(60)}
    got = banded.solved(sums, jnp.asarray(squares, jnp.float32))
    share, penalty = banded.LINEAR_PENALTIES[2], banded.READOUT_PENALTIES[1]
    ratio = np.sqrt(penalty / (share * squares.sum() / 59))
    ridge = linear_model.Ridge(alpha=penalty).fit(np.concatenate([attended, z * ratio], 1), y)
    j = 2 * len(banded.READOUT_PENALTIES) + 1
    np.testing.assert_allclose(got[0][0, j], ridge.coef_[:5], atol=1e-5)
    np.testing.assert_allclose(got[1][0, j], ridge.coef_[5:] * ratio, atol=1e-5)
    np.testing.assert_allclose(got[2][0, j], ridge.intercept_, atol=1e-5)


def test_weights_are_exponential():
    errors = np.array([[10.0, 12, 40], [3, 3, 3]])
    got = np.asarray(banded.weights_of(jnp.asarray(errors), n_images=20))
    noise = errors.min(1, keepdims=True) / 20
    expected = np.exp(-errors / (8 * noise))
    np.testing.assert_allclose(got, expected / expected.sum(1, keepdims=True), rtol=1e-5)


def test_components_of_more_images_than_are_decomposed(monkeypatch):
    """Columns stay orthogonal over all images, and two directions that images have are found from a part of them."""
    monkeypatch.setattr(components, "MOST_IMAGES", 20)
    rng = np.random.default_rng(0)
    keys = rng.standard_normal((90, 2)) @ rng.standard_normal((2, 12)) + 3
    keys = jnp.asarray(keys.reshape(90, 4, 1, 3), jnp.float32)
    got = components.fit_components([Examples(keys[:50], True, None), Examples(keys[50:], True, None)], 8)
    large = got.squares > 1e-5 * got.squares[0]
    assert large.sum() == 2
    gram = got.features[:, large].T.astype(np.float64) @ got.features[:, large]
    np.testing.assert_allclose(gram, np.diag(got.squares[large]), atol=1e-5 * got.squares[0])
    grid = np.asarray(keys, np.float64).reshape(90, -1) / 4
    total = ((grid - grid.mean(0)) ** 2).sum()
    np.testing.assert_allclose(got.squares[large].sum(), total, rtol=1e-4)


def test_voxels_that_ask_for_it_get_one(planted):
    training, validation, test = planted
    plain, got = fit(training, validation, PLAIN), fit(training, validation, LINEAR)
    kept = has_term(got)
    assert kept[:4].all()
    before, after = (encoder.score(encoders, test).r2 for encoders in (plain, got))
    assert (after[:4] > before[:4] + 0.2).all(), (before, after)
    # a voxel without the term is what it is without the setting
    for name, value in plain.per_voxel.items():
        np.testing.assert_array_equal(got.per_voxel[name][~kept], value[~kept])
    np.testing.assert_array_equal(got.selection_r2[~kept], plain.selection_r2[~kept])
    assert (got.selection_r2[kept] > plain.selection_r2[kept]).all()


def test_noise_is_not_hurt(make):
    """Of 200 voxels without signal few keep a term, and it costs next to nothing on test images."""
    rng = np.random.default_rng(3)
    whole = make.split(make.tokens(200), rng.standard_normal((200, 200)))
    parts = [
        dataclasses.replace(whole, tokens=whole.tokens.take_images(rows), responses=whole.responses.take_images(rows))
        for rows in (np.arange(0, 110), np.arange(110, 150), np.arange(150, 200))
    ]
    plain, got = (fit(*parts[:2], config) for config in (PLAIN, LINEAR))
    assert has_term(got).mean() < 0.35
    change = encoder.score(got, parts[2]).r2 - encoder.score(plain, parts[2]).r2
    assert change.mean() > -0.02, change.mean()


def test_company_and_chunks_change_nothing(planted):
    """The first of the members is a fit without more of them."""
    training, validation, test = planted
    config = MEMBERS
    expected = fit(training, validation, config)
    some = np.array([7, 0, 3])
    alone = fit(*(dataclasses.replace(s, responses=s.responses.take(some)) for s in planted[:2]), config)
    scale = np.abs(encoder.predict(expected, test.tokens)).max()
    for got, wanted in (
        (alone, expected.take(some)),
        (fit(training, validation, config, voxel_chunk=3), expected),
    ):
        predicted = [encoder.predict(one, test.tokens) for one in (got, wanted)]
        np.testing.assert_allclose(*predicted, atol=2e-5 * scale)


def test_streamed_equals_resident(planted):
    training, validation, test = planted
    streamed = MEMBERS.model_copy(update={"resident_bytes": 20 * 16 * 6 * 4})
    expected, got = (fit(training, validation, one) for one in (MEMBERS, streamed))
    predicted = [encoder.predict(one, test.tokens) for one in (got, expected)]
    np.testing.assert_allclose(*predicted, atol=2e-5 * np.abs(predicted[1]).max())


def test_members_are_averaged(planted):
    """Three heads: the first is the fit without more members, with a third of its readout."""
    training, validation, _ = planted
    one = fit(training, validation, PLAIN)
    three = fit(training, validation, PLAIN.model_copy(update={"members": 3}))
    for name in ("query", "position"):
        assert three.per_voxel[name].shape[1] == 3
        np.testing.assert_array_equal(three.per_voxel[name][:, :1], one.per_voxel[name])
    np.testing.assert_allclose(three.per_voxel["readout"][:, :1], one.per_voxel["readout"] / 3, rtol=1e-5)
    others = np.abs(three.per_voxel["query"] - one.per_voxel["query"])[:, 1:]
    assert (others.max((1, 2)) > 1e-3).all()


def test_members_that_diverged_are_left_out(planted, monkeypatch):
    training, validation, _ = planted
    trained = []

    def with_failures(*given, **options):
        member = train_as_it_is(*given, **options)
        failed = member.diverged.copy()
        failed[[[0], [0, 1], [0]][len(trained)]] = True  # voxel 0 in all members, voxel 1 in one
        member.per_voxel["readout"] = np.where(failed[:, None, None], np.nan, member.per_voxel["readout"])
        trained.append(member._replace(diverged=failed))
        return trained[-1]

    train_as_it_is = train.train
    monkeypatch.setattr(train, "train", with_failures)
    got = fit(training, validation, PLAIN.model_copy(update={"members": 3}))
    assert got.status.tolist() == [4] + [0] * 9
    assert all(np.isfinite(value).all() for value in got.per_voxel.values())
    spread = training.responses.responses.std(0)[1]
    np.testing.assert_allclose(
        got.per_voxel["readout"][1, 0], trained[0].per_voxel["readout"][1, 0] / 2 * spread, rtol=1e-5
    )
    assert not got.per_voxel["readout"][1, 1].any()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"linear": True, "trunk": "shared"}, "encoder.linear needs"),
        ({"linear": True, "solver": "adam"}, "encoder.linear needs"),
        ({"members": 2, "trunk": "shared"}, "encoder.members needs"),
    ],
)
def test_settings_that_do_not_go_together(planted, settings, match):
    with pytest.raises(ConfigError, match=match):
        fit(*planted[:2], PLAIN.model_copy(update=settings))
