"""Memory that is exhausted where nothing was planned: the chunk is done again in halves, with the same result."""

import jax
import numpy as np
import pytest

from mine_jax import description, encoder
from mine_jax.config import QueryConfig, RidgeConfig
from mine_jax.errors import ResourceError
from mine_jax.types import ImageTokens, Lens, Responses, Split

N, P, D, V = 45, 9, 6, 4


class Limited:
    """Tokens that exhaust the memory when more images than the limit are read at once."""

    def __init__(self, array, limit):
        self.array, self.limit = array, limit
        self.shape, self.dtype = array.shape, array.dtype
        self.read = []

    def __getitem__(self, rows):
        self.read.append(len(rows))
        if len(rows) > self.limit:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
        return self.array[rows]


def limited(tokens, limit):
    return ImageTokens(Limited(tokens.tokens, limit), tokens.image_ids, grid=tokens.grid)


@pytest.fixture(scope="module")
def tokens():
    array = np.random.default_rng(0).standard_normal((N, P, D)).astype(np.float32)
    return ImageTokens(array, np.array([f"im{i:02d}" for i in range(N)]), grid=(3, 3))


@pytest.fixture(scope="module", params=["query", "ridge"])
def encoders(request, tokens):
    measured = tokens.tokens.mean(1)[:, :V] + 0.1
    zeros = np.zeros(V)
    responses = Responses(
        responses=measured.astype(np.float32),
        image_ids=tokens.image_ids,
        n_repeats=np.ones(N, int),
        voxel_ids=np.arange(V),
        status=np.array(["ok"] * V),
        ncsnr=zeros,
        noise_ceiling=zeros,
        rois=np.array([""] * V),
    )
    settings = QueryConfig(width=6, epochs=1) if request.param == "query" else RidgeConfig(width=6)
    return encoder.fit(Split(tokens, responses), key=jax.random.key(0), config=settings)


def test_predictions_and_best_images(encoders, tokens, caplog):
    expected = encoder.predict(encoders, tokens)
    few = limited(tokens, 7)
    np.testing.assert_allclose(encoder.predict(encoders, few), expected, rtol=1e-5, atol=1e-6)
    assert max(few.tokens.read) == N and min(few.tokens.read) <= 7
    np.testing.assert_array_equal(
        encoder.top_images(encoders, limited(tokens, 7), n=5), encoder.top_images(encoders, tokens, n=5)
    )
    assert "run.image_chunk" in caplog.text


def test_words(tokens, caplog):
    lens = Lens(
        words=np.array(["face", "house", "tool", "animal"]),
        unembedding=np.random.default_rng(1).standard_normal((4, D)).astype(np.float32),
        bias=np.zeros(4, np.float32),
    )
    expected = description.top_words(lens, tokens, m=2)
    words = description.top_words(lens, limited(tokens, 7), m=2)
    np.testing.assert_array_equal(words.word_ids, expected.word_ids)
    np.testing.assert_allclose(words.shares, expected.shares, rtol=1e-5)
    assert "run.image_chunk" in caplog.text


def test_one_image_that_does_not_fit_is_a_named_error(encoders, tokens):
    with pytest.raises(ResourceError, match=r"even with run\.image_chunk = 1"):
        encoder.predict(encoders, limited(tokens, 0))
