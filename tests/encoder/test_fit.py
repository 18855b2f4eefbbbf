import dataclasses
import importlib

import jax
import numpy as np
import pytest

from mine_jax import artifacts, encoder
from mine_jax.config import QueryConfig, RidgeConfig
from mine_jax.encoder.query import model as query
from mine_jax.encoder.query import readout
from mine_jax.errors import ConfigError, DataError
from mine_jax.memory import ChosenRows
from mine_jax.types import STATUSES

QUICK = QueryConfig(width=4, heads=2, position_order=2, batch_size=16, epochs=2)
VOXEL_IDS = np.array([40, 7, 19, 3, 88])


@pytest.fixture
def split(make):
    """48 images, 5 voxels that read the mean token and something else, with noise."""
    tokens = make.tokens(48)
    rng = np.random.default_rng(2)
    signal = tokens.tokens.mean(1) @ rng.standard_normal((6, 5)) + np.tanh(tokens.tokens[:, 3, :5])
    return make.split(tokens, signal + 0.5 * rng.standard_normal((48, 5)), voxel_ids=VOXEL_IDS)


def fit(split, config=QUICK, **options):
    return encoder.fit(split, key=jax.random.key(0), config=config, **options)


def test_images_that_are_held_out_have_no_moved_rows_of_all(split):
    """Of a part of the images, moved rows of all would be those of other images."""
    moved = np.zeros((5, 48, 5), np.float32)
    rows = np.arange(48) % 6 == 5
    taken = importlib.import_module("mine_jax.encoder.fit")._chosen(
        dataclasses.replace(split.responses, moved=moved), rows
    )
    assert taken.moved is None and taken.image_ids.tolist() == split.responses.image_ids[rows].tolist()


def changed(split, **fields):
    return dataclasses.replace(split, responses=dataclasses.replace(split.responses, **fields))


def assert_close(got, expected, tokens, *, atol=1e-6):
    """Equal parameters, on the scale of what they do: predictions within a share of the response scale."""
    a, b = encoder.predict(got, tokens), encoder.predict(expected, tokens)
    np.testing.assert_allclose(a, b, atol=atol * max(1, np.abs(b).max()))


@pytest.fixture
def fitted(split):
    return fit(split)


def test_order_and_company_change_nothing(split, fitted):
    """F-66: a voxel's start depends on its id alone."""
    # products of other sizes round differently, on some processors by 2e-6 of the largest prediction
    for voxels, atol in (([4, 2, 0, 1, 3], 1e-6), ([3, 1], 1e-5)):
        alone = fit(dataclasses.replace(split, responses=split.responses.take(np.array(voxels))))
        np.testing.assert_array_equal(alone.voxel_ids, VOXEL_IDS[voxels])
        assert_close(alone, fitted.take(np.array(voxels)), split.tokens, atol=atol)


@pytest.mark.parametrize("options", [{"voxel_chunk": 1}, {"voxel_chunk": 3}], ids=str)
def test_chunks_of_voxels_change_rounding_only(split, fitted, options):
    """F-66: other chunks."""
    # matrix products of other sizes round differently, and Adam's first steps, of small gradients
    # divided by themselves, blow that up; with the default learning rate it stays below 1e-6
    assert_close(fit(split, **options), fitted, split.tokens, atol=1e-5)


def test_chunks_of_images_change_nothing(split, fitted):
    jax.tree.map(np.testing.assert_array_equal, fit(split, image_chunk=7), fitted)


def test_same_key_same_result(split, fitted):
    """F-66: the seed decides."""
    again = fit(split)
    jax.tree.map(np.testing.assert_array_equal, again, fitted)
    other = encoder.fit(split, key=jax.random.key(1), config=QUICK)
    assert (other.per_voxel["query"] != fitted.per_voxel["query"]).any()


@pytest.mark.parametrize("config", [QUICK, RidgeConfig(width=4)], ids=lambda config: config.kind)
def test_responses_of_the_test_images_change_nothing(split, tmp_path, config):
    """All splits are rows of one file: only what is in the training and validation rows is seen (F-09)."""
    part, rng = np.arange(48) % 4, np.random.default_rng(7)  # 0: test, 1: validation
    original, tokens = split.responses.responses, split.tokens

    def fitted_with(rows):
        """Responses to these images are exchanged between them."""
        shuffled = original.copy()
        shuffled[rows] = original[rng.permutation(rows)]
        np.save(tmp_path / "responses.npy", shuffled)
        whole = dataclasses.replace(split.responses, responses=np.load(tmp_path / "responses.npy", mmap_mode="r"))
        training, validation = (
            dataclasses.replace(split, tokens=tokens.take_images(chosen), responses=whole.take_images(chosen))
            for chosen in (np.flatnonzero(part > 1), np.flatnonzero(part == 1))
        )
        assert isinstance(training.responses.responses, ChosenRows)
        return encoder.fit(training, key=jax.random.key(0), validation=validation, config=config)

    expected = fitted_with(np.flatnonzero(part > 4))
    jax.tree.map(np.testing.assert_array_equal, fitted_with(np.flatnonzero(part == 0)), expected)
    linear = "coef" if "coef" in expected.per_voxel else "readout"
    for rows in (part > 1, part == 1):
        difference = fitted_with(np.flatnonzero(rows)).per_voxel[linear] - expected.per_voxel[linear]
        assert np.abs(difference).reshape(5, -1).max(1).all()


def test_unusable_voxels_leave_the_others_alone(split, fitted):
    """F-16, F-18: NaN and constants stay in their voxel."""
    responses = split.responses.responses.copy()
    responses[5, 1], responses[:, 3] = np.nan, 4
    status = np.array(["ok", "ok", "low_ceiling", "ok", "ok"])
    got = fit(changed(split, responses=responses, status=status))
    names = [STATUSES[code] for code in got.status]
    assert names == ["ok", "nonfinite", "low_ceiling", "constant", "ok"]
    for value in got.per_voxel.values():
        assert np.isfinite(value).all() and not value[1:4].any()
    rest = np.array([0, 4])
    alone = fit(dataclasses.replace(split, responses=split.responses.take(rest)))
    jax.tree.map(np.testing.assert_array_equal, got.take(rest), alone)
    assert_close(got.take(rest), fitted.take(rest), split.tokens)


def test_wild_learning_rate_is_contained(split):
    """F-65: a rate of 1000."""
    for solver in ("varpro", "adam"):
        got = fit(split, QUICK.model_copy(update={"learning_rate": 1e3, "solver": solver}))
        diverged = got.status == STATUSES.index("diverged")
        assert ((got.status == 0) | diverged).all()
        assert np.isfinite(encoder.predict(got, split.tokens)).all()


MASKED = {
    "one head": QUICK.model_copy(update={"heads": 1}),
    "pooled": QUICK.model_copy(update={"pool": 2}),
    "ridge": RidgeConfig(width=4),
}


@pytest.mark.parametrize("config", MASKED.values(), ids=MASKED)
def test_masked_tokens_do_not_matter(split, config):
    mask = np.random.default_rng(0).random(split.tokens.tokens.shape[:2]) < 0.7
    mask[:, 3] = True
    junk = np.where(mask[..., None], split.tokens.tokens, np.nan)
    a, b = (
        fit(dataclasses.replace(split, tokens=dataclasses.replace(split.tokens, tokens=tokens, mask=mask)), config)
        for tokens in (split.tokens.tokens, junk.astype(np.float32))
    )
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert (a.status == 0).all()


@pytest.mark.parametrize("solver", ["varpro", "adam"])
def test_shared_trunk_learns(make, solver):
    data = make.planted(150)
    config = QueryConfig(
        width=6, heads=2, position_order=0, trunk="shared", solver=solver, epochs=4, batch_size=16, learning_rate=0.02
    )
    start, got = fit(data, config.model_copy(update={"epochs": 0})), fit(data, config)
    assert (got.status == 0).all() and set(got.shared) == {"key_weight", "key_bias", "value_weight", "value_bias"}
    assert np.abs(got.shared["value_weight"] - start.shared["value_weight"]).max() > 0.01
    assert encoder.score(got, data).r2.mean() > encoder.score(start, data).r2.mean() + 0.05


def test_shared_trunk_readouts_belong_to_its_attention(split):
    """The last readouts are ridge solutions of what `predict` attends to, with keys apart from values."""
    config = QUICK.model_copy(update={"trunk": "shared", "learning_rate": 0.1})
    got = fit(split, config)
    keys, values = query.project(got.shared, split.tokens.tokens)
    logits = np.einsum("vhe,nphe->nvhp", got.per_voxel["query"], keys) / np.sqrt(2) + got.per_voxel["position"]
    weights = np.asarray(jax.nn.softmax(logits))
    features = np.einsum("nvhp,nphe->nvhe", weights, values).reshape(48, 5, -1)
    y = split.responses.responses
    for v in range(5):
        x = (features[:, v] - features[:, v].mean(0)).astype(np.float64)
        spread = y[np.arange(48) % 6 != 5, v].std()
        target = (y[:, v] - y[:, v].mean()) / spread
        solutions = [np.linalg.solve(x.T @ x + a * np.eye(4), x.T @ target) * spread for a in readout.PENALTIES]
        distance = min(np.abs(np.ravel(got.per_voxel["readout"][v]) - s).max() for s in solutions)
        assert distance < 1e-3


def test_roundtrip(split, fitted, tmp_path):
    artifacts.save(fitted, tmp_path / "encoder")
    loaded = artifacts.load(tmp_path / "encoder")
    np.testing.assert_array_equal(encoder.predict(loaded, split.tokens), encoder.predict(fitted, split.tokens))


def test_compiles_once(split, fitted, caplog):
    """A second fit, of other numbers in the same shapes, compiles nothing (F-67)."""
    other = changed(split, responses=split.responses.responses[::-1] * 2 + 1, voxel_ids=VOXEL_IDS + 1)
    fit(other, voxel_chunk=2)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        fit(other, voxel_chunk=2)
    compiled = {record.args[0] for record in caplog.records if record.msg.startswith("Compiling")}
    # one program that projects images closes over the trunk's numbers
    assert len(compiled) <= 1, compiled


def test_progress_reaches_the_end(split):
    done = []
    fit(split, voxel_chunk=2, progress=lambda *counts: done.append(counts))
    assert done[-1][0] == done[-1][1] and all(a <= b for a, b in done)
    assert [a for a, _ in done] == sorted(a for a, _ in done)


def test_progress_may_stop_the_work(split):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(split, progress=stop)


@pytest.mark.parametrize("summary", ["mean", "grid"])
def test_ridge_matches_sklearn(split, summary):
    """Features from the tokens, coefficients from scikit-learn at the penalty that was chosen."""
    from sklearn.linear_model import Ridge

    config = RidgeConfig(summary=summary, width=4)
    got = fit(split, config)
    if summary == "mean":
        features = split.tokens.tokens.mean(1)
    else:
        features = (split.tokens.tokens @ got.shared["key_weight"][:, 0] + got.shared["key_bias"]).reshape(48, -1)
    y = split.responses.responses
    predicted = encoder.predict(got, split.tokens)
    order = np.concatenate([np.flatnonzero(np.arange(48) % 6 != 5), np.flatnonzero(np.arange(48) % 6 == 5)])
    for v in range(5):
        # responses are scaled by their spread over the images that are not held out
        model = Ridge(alpha=float(got.per_voxel["penalty"][v])).fit(features.astype(np.float64)[order], y[order, v])
        np.testing.assert_allclose(predicted[:, v], model.predict(features), atol=1e-3)


def test_planted_voxels_reach_the_ceiling(make):
    """Voxels that read known concept tokens; the mean token, which ridge sees, hides what they read."""
    data = make.planted(700, ceiling=0.6)
    rows = np.arange(700)
    training, validation, test = (
        dataclasses.replace(data, tokens=data.tokens.take_images(part), responses=data.responses.take_images(part))
        for part in (rows[:400], rows[400:500], rows[500:])
    )
    r2 = {}
    query = QueryConfig(width=6, position_order=0, epochs=20, patience=8, batch_size=32, learning_rate=0.3)
    for kind, config in {"query": query, "ridge": RidgeConfig(width=6)}.items():
        encoders = encoder.fit(training, key=jax.random.key(0), validation=validation, config=config)
        r2[kind] = encoder.score(encoders, test).r2
        r2[f"{kind} validation"] = encoder.score(encoders, validation).r2
    assert (r2["query"] >= 0.9 * 0.6).all(), r2
    assert (r2["query validation"] >= r2["ridge validation"]).all() and r2["ridge"].max() < 0.4


def test_messages(split):
    """F-12, F-29: too few images, and no voxel that can be fitted."""
    with pytest.raises(ConfigError, match=r"encoder.pool = 3 must divide the token grid"):
        fit(split, QUICK.model_copy(update={"pool": 3}))
    with pytest.raises(ConfigError, match=r"encoder.heads = 3 must divide the trunk's width 4"):
        fit(split, QUICK.model_copy(update={"trunk": "shared", "heads": 3}))
    with pytest.raises(DataError, match=r"0 of 5 voxels can be fitted: .*'constant': 5"):
        fit(changed(split, responses=np.ones((48, 5), np.float32)))
    one, five = (
        dataclasses.replace(split, tokens=split.tokens.take_images(rows), responses=split.responses.take_images(rows))
        for rows in (np.arange(1), np.arange(5))
    )
    with pytest.raises(DataError, match="at least 2 training images"):
        fit(one)
    for kind in ("query", "ridge"):
        with pytest.raises(DataError, match="at least 1 validation image"):
            fit(five, QUICK.model_copy(update={"kind": kind}))


@pytest.mark.parametrize("config", [QUICK, RidgeConfig(folds=4)], ids=["query", "ridge"])
def test_selection_r2_is_of_images_that_were_not_fitted(make, config):
    """Signal has a positive one; noise, which is fitted as closely, has none; no test image is needed."""
    tokens, rng = make.tokens(240), np.random.default_rng(5)
    signal = tokens.tokens.mean(1) @ rng.standard_normal((6, 5))
    found, nothing = (
        fit(make.split(tokens, responses), config).selection_r2 for responses in (signal, rng.standard_normal((240, 5)))
    )
    assert found.shape == (5,) and np.mean(found) > 0.5 and np.mean(nothing) < 0.05


def test_selection_r2_of_ridge_is_that_of_the_folds(split):
    """Scikit-learn's cross-validation at the chosen penalty gives the same error."""
    from sklearn.linear_model import Ridge

    config = RidgeConfig(folds=4)
    encoders = fit(split, config)
    order = np.asarray(jax.random.permutation(jax.random.key(0), 48))
    rows = np.r_[np.flatnonzero(np.arange(48) % 6 != 5), np.flatnonzero(np.arange(48) % 6 == 5)]
    features = split.tokens.tokens.mean(1)[rows].astype(np.float64)
    responses = split.responses.responses[rows].astype(np.float64)
    training = responses[:40]
    responses = (responses - training.mean(0)) / training.std(0)
    for voxel in range(5):
        errors = []
        for fold in np.array_split(order, 4):
            rest = np.setdiff1d(order, fold)
            model = Ridge(alpha=float(encoders.per_voxel["penalty"][voxel])).fit(features[rest], responses[rest, voxel])
            errors.append(np.mean((model.predict(features[fold]) - responses[fold, voxel]) ** 2))
        np.testing.assert_allclose(encoders.selection_r2[voxel], 1 - np.mean(errors), atol=1e-4)


def test_unfitted_voxels_have_no_selection_r2(split):
    responses = split.responses.responses.copy()
    responses[:, 2] = 1.0
    known = np.isfinite(fit(changed(split, responses=responses)).selection_r2)
    np.testing.assert_array_equal(known, [True, True, False, True, True])
