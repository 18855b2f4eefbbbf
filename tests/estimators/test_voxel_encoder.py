"""The estimator: any arrays in, predictions in their units out, and what scikit-learn expects of it."""

import io
import json
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score

import mine_jax
from mine_jax import _progress, data, encoder
from mine_jax.config import RidgeConfig
from mine_jax.errors import AlignmentError, ConfigError, DataError
from mine_jax.estimators import VoxelEncoder
from mine_jax.types import ImageTokens, Lens, Responses, Split

QUICK = {"epochs": 2, "width": 8}


def planted(n_images=120, n_voxels=5, seed=0):
    """Tokens [N, 9, 6], and voxels of mean 3 and spread 2 that follow their mean."""
    rng = np.random.default_rng(seed)
    tokens = rng.standard_normal((n_images, 9, 6)).astype(np.float32)
    signal = tokens.mean(1) @ np.random.default_rng(1).standard_normal((6, n_voxels))
    noise = 0.3 * signal.std(0) * rng.standard_normal(signal.shape)
    return tokens, (3 + 2 * (signal + noise) / signal.std(0)).astype(np.float32)


@pytest.mark.parametrize("kind", ["query", "ridge"])
def test_predicts_as_well_as_a_ridge_on_the_signal_and_in_its_units(kind):
    X, y = planted(400)
    X2, y2 = planted(200, seed=7)
    estimator = VoxelEncoder(kind, settings={"width": 6, "epochs": 4} if kind == "query" else None).fit(X, y)
    reference = RidgeCV(np.logspace(-2, 4, 13)).fit(X.mean(1), y)
    reached = r2_score(y2, reference.predict(X2.mean(1)))
    assert reached > 0.8 and estimator.score(X2, y2) > reached - 0.05
    np.testing.assert_allclose(
        estimator.r2_of(X2, y2), r2_score(y2, estimator.predict(X2), multioutput="raw_values"), atol=1e-6
    )
    np.testing.assert_allclose(estimator.predict(X2).mean(0), y2.mean(0), atol=0.5)


def test_arrays_of_any_library_give_the_same_numbers(tmp_path):
    torch = pytest.importorskip("torch")
    X, y = planted(60)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    mapped = [np.load(tmp_path / name, mmap_mode="r") for name in ("X.npy", "y.npy")]
    expected = VoxelEncoder("ridge").fit(X, y).predict(X)
    for a, b in ((jnp.asarray(X), jnp.asarray(y)), (torch.tensor(X), torch.tensor(y)), mapped):
        np.testing.assert_allclose(VoxelEncoder("ridge").fit(a, b).predict(a), expected, rtol=1e-6)


def test_it_is_the_fit_of_the_functions():
    X, y = planted(80)
    estimator = VoxelEncoder(settings=QUICK, random_state=3).fit(X, y)
    drawn = np.random.RandomState(3)
    order = drawn.permutation(80)
    held, rest = np.sort(order[:12]), np.sort(order[12:])
    whole = ImageTokens.from_array(X), Responses.from_array(y)
    training, validation = (Split(*(part.take_images(rows) for part in whole)) for rows in (rest, held))
    fitted = encoder.fit(training, key=int(drawn.randint(2**31 - 1)), validation=validation, config=estimator._config())
    np.testing.assert_array_equal(estimator.predict(X), encoder.predict(fitted, whole[0]))


def test_one_voxel_and_one_vector_per_image():
    X, y = planted(60)
    predicted = VoxelEncoder("ridge").fit(X.mean(1), y[:, 0]).predict(X.mean(1)[:7])
    assert predicted.shape == (7,)


def test_voxels_that_cannot_be_fitted_are_predicted_by_their_mean():
    X, y = planted(60)
    y[:, 2] = 4.5
    estimator = VoxelEncoder("ridge").fit(X, y)
    np.testing.assert_array_equal(estimator.fitted_, [True, True, False, True, True])
    np.testing.assert_allclose(estimator.predict(X)[:, 2], 4.5)
    assert estimator.r2_of(X, y)[2] == 0 and len(estimator.attribute(X[:3]).scores) == 4


def test_attributions_add_up_and_words_are_read():
    X, y = planted(60)
    estimator = VoxelEncoder(grid=(3, 3), settings=QUICK).fit(X, y)
    found = estimator.attribute(X[:4], voxels=[1, 3])
    at_mean = encoder.predict(
        estimator.encoders_, ImageTokens.from_array(np.tile(estimator.encoders_.baseline, (1, 9, 1)), grid=(3, 3))
    )
    np.testing.assert_allclose(found.scores.sum(2), (estimator.predict(X[:4]) - at_mean)[:, [1, 3]].T, atol=1e-3)
    lens = Lens(np.array([f"word {i}" for i in range(6)]), np.eye(6, dtype=np.float32), np.zeros(6, np.float32))
    described = estimator.describe(X[:4], lens, voxels=[1, 3], k=2)
    assert described.word_ids.shape[:2] == (2, 4) and (described.word_ids[..., 0] >= 0).all()


@pytest.mark.parametrize("kind", ["query", "ridge"])
def test_saved_and_loaded(tmp_path, kind):
    X, y = planted(60)
    settings = QUICK if kind == "query" else {"folds": 3}
    estimator = VoxelEncoder(kind, grid=(3, 3), settings=settings, random_state=np.random.RandomState(0)).fit(X, y)
    loaded = VoxelEncoder.load(estimator.save(str(tmp_path / "model")))
    np.testing.assert_array_equal(loaded.predict(X), estimator.predict(X))
    assert loaded.kind == kind and loaded.grid == (3, 3) and loaded.settings == settings


@pytest.mark.parametrize("is_terminal", [True, False])
def test_long_work_is_silent_unless_it_is_asked_to_speak(monkeypatch, is_terminal):
    X, y = planted(40)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(_progress, "PLAIN_INTERVAL_S", 0.01)
    whole = encoder.fit
    monkeypatch.setattr(encoder, "fit", lambda *args, **more: (time.sleep(0.1), whole(*args, **more))[1])
    shown = {}
    for verbose in (0, 1):
        stream = io.StringIO()
        stream.isatty = lambda: is_terminal
        monkeypatch.setattr("sys.stderr", stream)
        model = VoxelEncoder("ridge", settings={"folds": 2}, verbose=verbose).fit(X, y)
        model.predict(X), model.attribute(X)
        shown[verbose] = stream.getvalue()
    assert shown[0] == "" and "fit" in shown[1] and (is_terminal or re.search(r"^fit: .* so far$", shown[1], re.M))


def test_an_estimator_saved_before_a_setting_came_is_read(tmp_path):
    X, y = planted(40)
    model = VoxelEncoder("ridge", settings={"folds": 3}).fit(X, y)
    file = model.save(tmp_path) / "estimator.json"
    state = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in state.items() if name != "verbose"}))
    loaded = VoxelEncoder.load(tmp_path)
    assert loaded.verbose is False
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_it_stands_beside_the_stages():
    assert mine_jax.VoxelEncoder is VoxelEncoder and "VoxelEncoder" in dir(mine_jax)


def test_clones_are_not_fitted_and_keep_the_settings():
    X, y = planted(40)
    estimator = VoxelEncoder("ridge", settings={"folds": 3}).fit(X, y)
    copy = clone(estimator)
    assert copy.get_params() == estimator.get_params()
    with pytest.raises(NotFittedError, match="not fitted yet"):
        copy.predict(X)


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"kind": "linear"}, ConfigError, '"query" or "ridge"'),
        ({"settings": {"epoch": 3}}, ConfigError, "Did you mean 'epochs'"),
        ({"validation": 1.5}, ConfigError, "between 0 and 1"),
        ({"grid": (2, 4)}, DataError, "must be .rows, columns. of the 9 tokens"),
    ],
)
def test_wrong_settings_are_named(changed, error, said):
    X, y = planted(40)
    with pytest.raises(error, match=said):
        VoxelEncoder(**changed).fit(X, y)


def test_wrong_arrays_are_named_in_the_words_of_the_call():
    X, y = planted(40)
    with pytest.raises(DataError, match=r"`y` must have shape \[N, V\] with N = 40 images"):
        VoxelEncoder("ridge").fit(X, y[:39])
    with pytest.raises(DataError, match="is expecting 6 features"):
        VoxelEncoder("ridge").fit(X, y).predict(X[..., :5])


def test_voxels_are_positions_or_a_mask():
    X, y = planted(40)
    model = VoxelEncoder("ridge").fit(X, y)
    mask = np.array([False, True, False, True, False])
    np.testing.assert_array_equal(model.attribute(X, voxels=mask).scores, model.attribute(X, voxels=[1, 3]).scores)
    for voxels in ([], 2, [5], [-1], [0.5], mask[:3]):
        with pytest.raises(DataError, match="`voxels` must list positions from 0 to 4, or be a mask of 5"):
            model.attribute(X, voxels=voxels)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda split, encoders, X, y: encoder.fit(X, y), "but is ndarray. Arrays X and Y are fitted by"),
        (lambda split, encoders, X, y: encoder.fit(X, y, key=0), "VoxelEncoder().fit(X, Y)"),
        (lambda split, encoders, X, y: encoder.fit(split.tokens, split.responses), "data.align(responses, tokens)"),
        (lambda split, encoders, X, y: encoder.fit(training=X), "`training` must be Split, but is ndarray"),
        (lambda split, encoders, X, y: encoder.predict(encoders, X), "ImageTokens.from_array(X)"),
        (lambda split, encoders, X, y: encoder.predict(split.tokens, encoders), "`encoders` must be Encoders"),
        (lambda split, encoders, X, y: encoder.score(encoders, X, y), "scored by score(X, Y)"),
        (lambda split, encoders, X, y: encoder.score(encoders, split.tokens), "`test` must be Split"),
        (lambda split, encoders, X, y: data.align(y, X), "`responses` must be Responses, but is ndarray"),
        (
            lambda split, encoders, X, y: data.align(split.tokens, split.responses),
            "must be Responses, but is ImageTokens",
        ),
        (lambda split, encoders, X, y: data.assign_splits(y, None, test=0.2), "Responses.from_array(Y)"),
        (lambda split, encoders, X, y: Split(X, y), "`tokens` must be ImageTokens, but is ndarray"),
        (lambda split, encoders, X, y: Split(split.responses, split.tokens), "but is Responses"),
        (lambda split, encoders, X, y: VoxelEncoder("ridge").fit(X, y).describe(X, None), "`lens` must be Lens"),
        (
            lambda split, encoders, X, y: VoxelEncoder("ridge").fit(X[None], y),
            "[N, P, D], or [N, F], but has shape (1, ",
        ),
        (lambda split, encoders, X, y: VoxelEncoder("ridge").fit(X, y).r2_of(X, y[:, 1:]), "must have shape (40, 5)"),
        (lambda split, encoders, X, y: ImageTokens.from_array(X, grid=3), "`grid` must be (rows, columns)"),
        (lambda split, encoders, X, y: ImageTokens.from_array(X + 0j), "must be real numbers, but are of type complex"),
        (lambda split, encoders, X, y: Responses.from_array(y.astype(str)), "must be real numbers, but are of type <U"),
        (lambda split, encoders, X, y: Responses.from_array([[1, 2], [3]]), "`responses` cannot be read as an array"),
    ],
)
def test_bare_arrays_and_other_things_are_answered_with_what_to_call(call, said):
    X, y = planted(40)
    split = Split(ImageTokens.from_array(X), Responses.from_array(y))
    encoders = encoder.fit(split, key=0, config=RidgeConfig())
    with pytest.raises(DataError, match=re.escape(said)):
        call(split, encoders, X, y)


def test_tensors_that_numpy_cannot_read_are_named():
    torch = pytest.importorskip("torch")
    for tensor in (torch.zeros(4, 2, 3, requires_grad=True), torch.zeros(4, 2, 3, dtype=torch.bfloat16)):
        with pytest.raises(DataError, match="`tokens` cannot be read as an array"):
            ImageTokens.from_array(tensor)


@pytest.mark.parametrize("kind", ["query", "ridge"])
def test_an_image_whose_tokens_are_not_finite_is_named(kind):
    X, y = planted(40)
    X[:, 2, 1] = np.where(np.arange(40) == 17, np.nan, X[:, 2, 1])
    split = Split(ImageTokens.from_array(X), Responses.from_array(y))
    rows = np.arange(20, 40)
    held = Split(split.tokens.take_images(rows), split.responses.take_images(rows))
    with pytest.raises(DataError, match=r"tokens of image 17 \(row 17\) are not all finite"):
        encoder.fit(split, key=0, validation=held, config=VoxelEncoder(kind)._config())
    mask = np.ones(X.shape[:2], bool)
    mask[17, 2] = False
    masked = Split(ImageTokens.from_array(X, mask=mask), split.responses)
    found = encoder.fit(
        masked, key=0, validation=held, config=VoxelEncoder(kind, settings=QUICK if kind == "query" else None)._config()
    )
    assert (np.asarray(found.status) == 0).all()


def test_tokens_without_a_grid_are_fitted_without_positions(caplog):
    X, y = planted(40)
    with caplog.at_level("INFO", "mine_jax"):
        VoxelEncoder(settings=QUICK).fit(X, y)
    assert caplog.text.count("no grid") == 1


def test_a_whole_number_is_a_random_key_and_other_things_are_named():
    X, y = planted(40)
    split = Split(ImageTokens.from_array(X), Responses.from_array(y))
    config = VoxelEncoder("ridge")._config()
    a, b = (encoder.fit(split, key=key, config=config) for key in (5, jax.random.key(5)))
    np.testing.assert_array_equal(a.per_voxel["coef"], b.per_voxel["coef"])
    with pytest.raises(ConfigError, match="`key` must be a whole number"):
        encoder.fit(split, key="five", config=config)


def test_arrays_become_responses_and_tokens_or_say_what_is_wrong():
    X, y = planted(40)
    responses = Responses.from_array(y, rois=["FFA"] * 5, noise_ceiling=[0.5] * 5)
    assert list(responses.image_ids[:2]) == ["0", "1"] and set(responses.rois) == {"FFA"}
    with pytest.raises(DataError, match="`rois` must have 5 entries"):
        Responses.from_array(y, rois=["FFA"])
    with pytest.raises(DataError, match="`image_ids` must name each once"):
        Responses.from_array(y, image_ids=["a"] * 40)
    with pytest.raises(DataError, match=r"`tokens` must have shape \[N, P, D\]"):
        ImageTokens.from_array(X[0, 0])
    assert ImageTokens.from_array(X[:, 0]).tokens.shape == (40, 1, 6)


def test_a_split_checks_that_its_rows_are_the_same_images():
    X, y = planted(40)
    reversed_ids = [str(i) for i in range(40)][::-1]
    with pytest.raises(AlignmentError, match=r"40 of 40 images.*row 0 is 0 there and 39 here"):
        Split(ImageTokens.from_array(X), Responses.from_array(y, image_ids=reversed_ids))
    with pytest.raises(AlignmentError, match="39 images, but responses to 40"):
        Split(ImageTokens.from_array(X[:39]), Responses.from_array(y))
