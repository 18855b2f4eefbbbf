"""Profiles of a large vocabulary: no array of voxels times words, and the numbers of dense float64 arrays."""

import tracemalloc

import numpy as np
import pytest
import scipy.stats

from mine_jax import description, profile
from mine_jax.description import TokenWords
from mine_jax.description.words import Vocabulary
from mine_jax.memory import sparse
from mine_jax.types import CriticalTokens


def inputs(n_voxels, n_words, *, n_images=60, n_tokens=16, n_used=12, seed=0):
    """Token words of images over a vocabulary of which each image shows some, and critical tokens of voxels."""
    rng = np.random.default_rng(seed)
    ids = (n_words * rng.random((n_images, n_tokens, 5)) ** 4).astype(np.int32)
    shares = rng.dirichlet(np.ones(5), (n_images, n_tokens)).astype(np.float32) * 0.9
    names = np.array([f"w{i}" for i in range(n_words)])
    image_ids = np.array([f"{i:04d}" for i in range(n_images)])
    words = TokenWords(image_ids, Vocabulary(names, np.arange(n_words, dtype=np.int32), 0, 0), ids, shares)
    rows = np.stack([rng.choice(n_images, n_used, replace=False) for _ in range(n_voxels)])
    at = rng.integers(n_tokens, size=(*rows.shape, 4)).astype(np.int32)
    scores = np.sort(rng.normal(0.5, 1, at.shape).astype(np.float32), -1)[..., ::-1]
    critical = CriticalTokens(np.arange(n_voxels) * 3, image_ids[rows], at, scores)
    return words, critical, rng.uniform(0, 1.2, rows.shape).astype(np.float32)


def dense_shares(words, critical):
    """Share of every word in every pair, [V, I, C] float64, one critical token after another."""
    row_of = {image_id: row for row, image_id in enumerate(words.image_ids)}
    table = np.zeros((*critical.image_ids.shape, len(words.vocabulary.words)))
    for v, i in np.ndindex(critical.image_ids.shape):
        positive = np.maximum(critical.scores[v, i].astype(np.float64), 0)
        for token, score in zip(critical.indices[v, i], positive / max(positive.sum(), 1e-300), strict=True):
            row = row_of[critical.image_ids[v, i]]
            np.add.at(table[v, i], words.word_ids[row, token], words.shares[row, token] * score)
    return table


@pytest.fixture(scope="module")
def small():
    words, critical, faithful = inputs(30, 80)
    corpus = words.per_image().dense().astype(np.float64).mean(0)
    described = description.describe(critical, words, corpus=corpus, n_words=80)
    return words, critical, faithful, corpus, described, profile.build(described, faithful, corpus=corpus)


def test_descriptions_and_profiles_match_dense_float64(small):
    words, critical, faithful, corpus, described, made = small
    dense = dense_shares(words, critical)
    found, real = np.zeros_like(dense), described.word_ids >= 0
    found[(*np.nonzero(real)[:2], described.word_ids[real])] = described.weights[real]
    np.testing.assert_allclose(found, dense, atol=1e-6)
    chosen = profile.most_faithful(faithful)
    mean = (dense * chosen[..., None]).sum(1) / chosen.sum(1)[:, None]
    np.testing.assert_allclose(made.distribution.dense(), mean, atol=1e-6)
    order = np.argsort(-description.salience(mean, corpus), axis=1, kind="stable")[:, :20]
    np.testing.assert_array_equal(made.word_ids, np.where(np.take_along_axis(mean, order, 1) > 0, order, -1))
    smoothed = np.clip(mean + 1e-3, 1e-3, 1 - 1e-3)
    others = np.clip((mean.sum(0) - mean) / 29 + 1e-3, 1e-3, 1 - 1e-3)
    odds = np.log(smoothed / (1 - smoothed)) - np.log(others / (1 - others))
    odds = np.where(made.word_ids >= 0, np.take_along_axis(odds, order, 1), np.nan)
    np.testing.assert_allclose(made.log_odds, odds, atol=1e-4)


def test_agreement_matches_pearson_and_partial_correlation_over_all_words(small):
    *_, corpus, described, made = small
    other = profile.mean_shares(described, np.arange(12) % 2 == np.zeros((30, 1)))
    one, two = (description.salience(half.dense().astype(np.float64), corpus) for half in (made.distribution, other))
    expected = [scipy.stats.pearsonr(a, b)[0] for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(profile.agreement(made.distribution, other, corpus), expected, atol=1e-9)
    common = profile.common_profile((made.distribution, other), corpus)
    rows = np.concatenate([one, two])
    rows = rows - rows.mean(1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    leading = np.linalg.svd(rows)[2][0]
    assert abs(common @ leading) == pytest.approx(1, abs=1e-9)
    left = [rows[k * 30 : (k + 1) * 30] - np.outer(rows[k * 30 : (k + 1) * 30] @ leading, leading) for k in range(2)]
    expected = [scipy.stats.pearsonr(a, b)[0] for a, b in zip(*left, strict=True)]
    np.testing.assert_allclose(profile.agreement(made.distribution, other, corpus, common=common), expected, atol=1e-8)
    areas = np.array(["a"] * 20 + ["b"] * 10)
    unit = np.split(rows, 2)
    pairs = unit[0] @ unit[1].T
    mean = [(pairs[v, areas == areas[v]].sum() - pairs[v, v]) / ((areas == areas[v]).sum() - 1) for v in range(30)]
    np.testing.assert_allclose(profile.agreement_with_others(made.distribution, other, corpus, areas), mean, atol=1e-9)


def test_the_common_profile_of_many_words_is_the_leading_direction():
    words, critical, faithful = inputs(40, 600)
    images = words.per_image()
    corpus = images.dense().mean(0)
    made = profile.build(description.describe(critical, words, corpus=corpus), faithful, corpus=corpus)
    common = profile.common_profile((made.distribution, images.take(slice(0, 40))), corpus)
    rows = np.concatenate(
        [description.saliences(x, corpus).dense() for x in (made.distribution, images.take(slice(0, 40)))]
    )
    rows = rows - rows.mean(1, keepdims=True)
    leading = np.linalg.svd(rows / np.linalg.norm(rows, axis=1, keepdims=True))[2][0]
    assert abs(common @ leading) == pytest.approx(1, abs=1e-7)


def test_memory_is_far_below_voxels_times_words():
    n_voxels, n_words = 1200, 60_000
    words, critical, faithful = inputs(n_voxels, n_words)
    measured = np.random.default_rng(1).standard_normal((60, n_voxels)).astype(np.float32)
    n_dense = 8 * n_voxels * n_words
    images = words.per_image()
    tracemalloc.start()
    corpus = description.corpus_shares(words, np.array(["train"] * 40 + ["test"] * 20)).mean
    made = profile.build(description.describe(critical, words, corpus=corpus), faithful, corpus=corpus, n_bootstrap=20)
    seen = [profile.Seen(images.take(rows), measured[rows]) for rows in (slice(0, 40), slice(40, 60))]
    profile.agreement(made.distribution, made.distribution, corpus)
    profile.ledger(made.word_ids, made.words, *seen[1], company=seen[0].words)
    assert tracemalloc.get_traced_memory()[1] < n_dense / 5
    assert made.distribution.nbytes < n_dense / 50
    tracemalloc.reset_peak()
    profile.measured_test(made.distribution, corpus, *seen[1], n_permutations=10)
    profile.localised_test(made.distribution, made.distribution, corpus, *seen[1], n_permutations=10)
    profile.drivers(made.words, *seen)
    assert tracemalloc.get_traced_memory()[1] < n_dense / 3
    tracemalloc.stop()


def test_a_loop_over_voxels_stops_where_progress_raises():
    words, critical, faithful = inputs(30, 80)
    corpus = words.per_image().dense().mean(0)

    def stop(done, total):
        raise KeyboardInterrupt

    made = profile.build(description.describe(critical, words, corpus=corpus), faithful, corpus=corpus)
    seen = profile.Seen(words.per_image(), np.random.default_rng(0).standard_normal((60, 30)))
    for run in (
        lambda: description.describe(critical, words, corpus=corpus, progress=stop),
        lambda: profile.drivers(made.words, seen, seen, progress=stop),
        lambda: profile.conjunctions(made.word_ids, seen, seen, progress=stop),
        lambda: profile.ledger(made.word_ids, made.words, *seen, progress=stop),
        lambda: profile.measured_test(made.distribution, corpus, *seen, n_permutations=5, progress=stop),
        lambda: profile.localised_test(
            made.distribution, made.distribution, corpus, *seen, n_permutations=5, progress=stop
        ),
    ):
        with pytest.raises(KeyboardInterrupt):
            run()


def test_profiles_without_words_give_empty_tables():
    words, critical, faithful = inputs(3, 80)
    silent = CriticalTokens(critical.voxel_ids, critical.image_ids, critical.indices, -np.ones_like(critical.scores))
    corpus = words.per_image().dense().mean(0)
    made = profile.build(description.describe(silent, words, corpus=corpus), faithful, corpus=corpus)
    seen = profile.Seen(words.per_image(), np.random.default_rng(0).standard_normal((60, 3)))
    assert (made.word_ids == -1).all() and made.distribution.shape == (3, 80)
    assert set(profile.sentences(made)) == {"No word describes what this voxel responds to."}
    assert len(profile.ledger(made.word_ids, made.words, *seen).word) == 0
    assert len(profile.conjunctions(made.word_ids, seen, seen).voxel) == 0
    assert np.isnan(profile.measured_test(made.distribution, corpus, *seen, n_permutations=5).p).all()
    assert np.isnan(profile.agreement(made.distribution, made.distribution, corpus)).all()


def test_profiles_in_files_and_in_small_blocks_are_those_in_memory(small, tmp_path, monkeypatch):
    _, _, faithful, corpus, described, made = small
    halves = [profile.mean_shares(described, np.arange(12) % 2 == np.full((30, 1), k)) for k in range(2)]
    areas = np.array(["a", "b", "a"] * 10)
    whole = profile.agreement(*halves, corpus), profile.agreement_with_others(*halves, corpus, areas)
    monkeypatch.setattr(sparse, "BLOCK_BYTES", 1 << 10)
    in_files = profile.build(described, faithful, corpus=corpus, folder=tmp_path)
    assert isinstance(in_files.distribution.values, np.memmap)
    np.testing.assert_array_equal(in_files.word_ids, made.word_ids)
    np.testing.assert_array_equal(in_files.distribution.dense(), made.distribution.dense())
    np.testing.assert_allclose(in_files.log_odds, made.log_odds, rtol=1e-6)
    blocked = profile.agreement(*halves, corpus), profile.agreement_with_others(*halves, corpus, areas)
    for one, other in zip(whole, blocked, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    saliences = [description.saliences(half, corpus).dense() for half in halves]
    np.testing.assert_allclose(whole[0][4], np.corrcoef(saliences[0][4], saliences[1][4])[0, 1], rtol=1e-9)
