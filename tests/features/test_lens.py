import dataclasses

import jax
import numpy as np
import pytest

from mine_jax.errors import DataError, MissingInputError
from mine_jax.features import center_lens, lens_scores, project_tokens
from mine_jax.features.lens import read_words, text_lens_vectors
from mine_jax.types import ImageTokens, Lens

W, D, J = 7, 12, 5


def make_lens(norm="layer", *, projection=True, normalize=True, centered=True, seed=0):
    rng = np.random.default_rng(seed)
    width = J if projection else D
    return Lens(
        words=np.array([f"w{i}" for i in range(W)]),
        unembedding=rng.standard_normal((W, width)).astype(np.float32),
        bias=rng.standard_normal(W).astype(np.float32),
        norm=norm,
        norm_scale=rng.standard_normal(D).astype(np.float32) if norm != "none" else None,
        norm_bias=rng.standard_normal(D).astype(np.float32) if norm == "layer" else None,
        norm_epsilon=1e-3,
        projection=rng.standard_normal((D, J)).astype(np.float32) if projection else None,
        center=rng.standard_normal(width).astype(np.float32) if centered else None,
        normalize=normalize,
        scale=3.0,
    )


def float64_scores(lens, tokens):
    x = np.asarray(tokens, np.float64)
    if lens.norm == "layer":
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + lens.norm_epsilon)
        x = x * lens.norm_scale + lens.norm_bias
    if lens.norm == "rms":
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + lens.norm_epsilon) * lens.norm_scale
    z = x if lens.projection is None else x @ lens.projection.astype(np.float64)
    if lens.normalize:
        z = z / np.linalg.norm(z, axis=-1, keepdims=True)
    if lens.center is not None:
        z = z - lens.center
    return lens.scale * (z @ lens.unembedding.T.astype(np.float64)) + lens.bias


@pytest.mark.parametrize("norm", ["none", "layer", "rms"])
@pytest.mark.parametrize(("projection", "normalize", "centered"), [(True, True, True), (False, False, False)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_matches_float64_numpy(norm, projection, normalize, centered, dtype):
    lens = make_lens(norm, projection=projection, normalize=normalize, centered=centered)
    tokens = np.random.default_rng(1).standard_normal((2, 3, 4, D)).astype(dtype)
    scores = lens_scores(lens, tokens)
    assert scores.shape == (2, 3, 4, W)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, float64_scores(lens, tokens), rtol=1e-5, atol=1e-4)
    one = jax.jit(lambda token: lens_scores(lens, token))(tokens[0, 0, 0])
    np.testing.assert_allclose(one, scores[0, 0, 0], rtol=1e-5, atol=1e-5)


def test_zero_token_is_finite():
    """F-60: the norm of zeros."""
    assert np.isfinite(lens_scores(make_lens("none"), np.zeros((1, D), np.float32))).all()


def test_center_is_the_mean_of_normalized_projections():
    lens = make_lens(centered=False)
    rng = np.random.default_rng(2)
    # 70 images: two padded chunks
    tokens = ImageTokens(rng.standard_normal((70, 4, D)).astype(np.float32), np.arange(70).astype(str))
    centered = center_lens(lens, tokens, sample=None)
    z = np.asarray(project_tokens(lens, tokens.tokens), np.float64)
    np.testing.assert_allclose(centered.center, z.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(np.asarray(project_tokens(centered, tokens.tokens)).mean((0, 1)), 0, atol=1e-6)
    again = center_lens(centered, tokens, sample=None)
    np.testing.assert_array_equal(again.center, centered.center)


def test_center_uses_real_tokens_of_a_spread_sample():
    lens = make_lens(centered=False)
    rng = np.random.default_rng(3)
    values = rng.standard_normal((9, 4, D)).astype(np.float32)
    mask = rng.random((9, 4)) < 0.5
    calls = []
    centered = center_lens(
        lens,
        ImageTokens(values, np.arange(9).astype(str), mask=mask),
        sample=12,
        progress=lambda *state: calls.append(state),
    )
    z = np.asarray(project_tokens(lens, values[[0, 4, 8]]), np.float64)[mask[[0, 4, 8]]]
    np.testing.assert_allclose(centered.center, z.mean(0), atol=1e-6)
    assert calls == [(3, 3)]
    with pytest.raises(DataError, match="no image-token is real"):
        center_lens(lens, ImageTokens(values, np.arange(9).astype(str), mask=np.zeros((9, 4), bool)))


def test_text_vectors_are_centered_unit_vectors():
    vectors = np.random.default_rng(4).standard_normal((6, 3, J)) + 5
    out = text_lens_vectors(vectors)
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, rtol=1e-6)
    # the length of a template's vector must not matter
    np.testing.assert_allclose(out, text_lens_vectors(vectors * np.array([1.0, 7, 0.1])[None, :, None]), atol=1e-6)
    assert abs(out.mean(0)).max() < 0.5


def test_messages():
    lens = make_lens()
    with pytest.raises(DataError, match=r"width D = 12 .* shape \(2, 5\)"):
        lens_scores(lens, np.zeros((2, 5), np.float32))
    with pytest.raises(DataError, match="none, layer or rms"):
        lens_scores(dataclasses.replace(lens, norm="batch"), np.zeros((2, D), np.float32))


def test_word_lists(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("caf\u00e9\n\n dog \n", encoding="utf-8")
    assert read_words(path).tolist() == ["caf\u00e9", "dog"]
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_words(path)
    path.write_text("one\n")
    with pytest.raises(DataError, match="at least 2 words"):
        read_words(path)
    with pytest.raises(MissingInputError, match="no word list"):
        read_words(tmp_path / "none.txt")
