"""Nothing that features fit (PCA, center of the lens) may see a test image: only the test images are changed here."""

import dataclasses

import numpy as np
import pytest

from mine_jax.config import ClipConfig
from mine_jax.errors import CheckpointError, DataError
from mine_jax.features import load_features
from mine_jax.features.lens import spaced_rows
from mine_jax.types import Stimuli

N, TEST = 24, np.arange(0, 24, 3)
IDS = np.array([f"im{i:02d}" for i in range(N)])
TRAINING = np.delete(IDS, TEST)


def make_stimuli(*, test_seed):
    images = np.random.default_rng(0).integers(0, 256, (N, 40, 40, 3), dtype=np.uint8)
    images[TEST] = np.random.default_rng(test_seed).integers(0, 100, (len(TEST), 40, 40, 3), dtype=np.uint8)
    lookup = dict(zip(IDS.tolist(), images, strict=True))
    return Stimuli(IDS, lambda wanted: [lookup[i] for i in wanted], np.full(N, ""), np.zeros(N, bool))


@pytest.fixture
def stage(checkpoint, words, tmp_path):
    (tmp_path / "words.txt").write_text("\n".join(words))

    def run(test_seed, *, fitted_on=TRAINING, directory=None, **keys):
        config = ClipConfig(
            model=str(checkpoint), words=str(tmp_path / "words.txt"), batch_size=8, dtype="float32", **keys
        )
        return load_features(config, make_stimuli(test_seed=test_seed), fitted_on=fitted_on, directory=directory)

    return run


@pytest.mark.parametrize("keys", [{}, {"reduce": 5}])
def test_test_images_change_nothing_of_the_others(stage, keys):
    """F-09: what features fit is of training images."""
    one, other = stage(1, **keys), stage(2, **keys)
    for name in ("center", "lift", "lift_offset"):
        np.testing.assert_array_equal(getattr(one[1], name), getattr(other[1], name))
    training = np.isin(IDS, TRAINING)
    np.testing.assert_array_equal(one[0].tokens[training], other[0].tokens[training])
    assert (one[0].tokens[~training] != other[0].tokens[~training]).any()


@pytest.mark.parametrize("keys", [{}, {"reduce": 5}])
def test_all_images_count_where_all_are_given(stage, keys):
    one, other = (stage(seed, fitted_on=None, **keys)[1] for seed in (1, 2))
    assert np.abs(one.center - other.center).max() > 1e-4


def test_a_reduction_of_another_sample_is_refused(stage, tmp_path):
    stage(1, directory=tmp_path / "features", reduce=5)
    with pytest.raises(CheckpointError, match="different: sample_sha256"):
        stage(1, directory=tmp_path / "features", fitted_on=TRAINING[:-1], reduce=5)


def test_spaced_rows():
    assert spaced_rows(IDS, None, 3).tolist() == [0, 12, 23]
    assert set(IDS[spaced_rows(IDS, TRAINING, None)]) == set(TRAINING)
    with pytest.raises(DataError, match="none of the images"):
        spaced_rows(IDS, np.array(["else"]), 3)


def test_corpus_of_words_is_of_training_images(stage):
    from mine_jax import description

    splits = np.where(np.isin(IDS, TRAINING), np.where(np.arange(N) % 2, "val", "train"), "test")
    means = []
    for seed in (1, 2):
        tokens, lens = stage(seed)
        words = description.top_words(lens, tokens, m=3)
        means.append(description.corpus_shares(words, splits).mean)
        everything = description.corpus_shares(dataclasses.replace(words), np.full(N, "train")).mean
        assert np.abs(everything - means[-1]).max() > 1e-5
    np.testing.assert_array_equal(*means)
