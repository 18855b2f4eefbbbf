"""Descriptions of many images to one functional profile per voxel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.description import salience
from mine_jax.description.describe import SMOOTHING, join
from mine_jax.profile.null import NullTest
from mine_jax.profile.stability import split_half
from mine_jax.statistics import bootstrap_interval_of_mean
from mine_jax.types import Descriptions, Faithfulness, Profiles, Scores


def build(
    descriptions: Descriptions,
    faithfulness: Faithfulness,
    *,
    corpus: np.ndarray,
    usable: np.ndarray | None = None,
    faithfulness_quantile: float = 0.75,
    min_images: int = 6,
    n_words: int = 20,
    n_bootstrap: int = 200,
    seed: int = 0,
    progress: Progress = silent,
) -> Profiles:
    """Builds the profile of each voxel from its most faithful images.

    Args:
        descriptions: of V x I pairs over C words.
        faithfulness: of the same pairs.
        corpus: [C] mean share of each word over a corpus of images.
        usable: [V, I] bool, pairs that may be used (for instance only training images); None for all.
        faithfulness_quantile: images at or above this quantile of the voxel's faithfulness are used.
        min_images: at least so many images are used where the voxel has them.
        n_words: words kept, L.
        n_bootstrap: bootstrap samples over images for the interval (95 %).
        seed: of bootstrap and halves.
        progress: called with (done, total) voxels.

    Returns:
        Profiles without null test: p, q and r_measured are NaN, nobody is explained yet.

    Source: MINE, functional profiles from the upper quartile of faithfulness.
    """
    n_voxels, n_images = faithfulness.faithfulness.shape
    usable = np.ones((n_voxels, n_images), bool) if usable is None else usable
    size = len(descriptions.words)
    mean, halves = np.zeros((n_voxels, size), np.float32), np.zeros((2, n_voxels, size), np.float32)
    low, high = np.zeros((n_voxels, size), np.float32), np.zeros((n_voxels, size), np.float32)
    chosen = _most_faithful(faithfulness.faithfulness, usable, faithfulness_quantile, min_images)
    stability = np.full(n_voxels, np.nan, np.float32)
    for v in range(n_voxels):
        tables = _tables(descriptions.word_ids[v, chosen[v]], descriptions.weights[v, chosen[v]], size)
        if len(tables):
            rng = np.random.default_rng([seed, int(descriptions.voxel_ids[v])])
            mean[v] = tables.mean(0)
            low[v], high[v] = bootstrap_interval_of_mean(tables, n_bootstrap=n_bootstrap, rng=rng)
            halves[:, v], stability[v] = split_half(tables, corpus, rng=rng)
        progress(v + 1, n_voxels)
    word_ids = _ranked(mean, corpus, n_words)
    blank = np.full(n_voxels, np.nan)
    faithful = [
        np.median(faithfulness.faithfulness[v, chosen[v]]) if chosen[v].any() else np.nan for v in range(n_voxels)
    ]
    return Profiles(
        voxel_ids=descriptions.voxel_ids,
        words=descriptions.words,
        word_ids=word_ids,
        weights=_pick(mean, word_ids),
        low=_pick(low, word_ids),
        high=_pick(high, word_ids),
        log_odds=_pick(_log_odds(mean), word_ids),
        distribution=mean,
        halves=halves,
        faithfulness=np.array(faithful, np.float32),
        sentences=np.array([_sentence(descriptions.words[row[row >= 0]]) for row in word_ids]),
        n_images=chosen.sum(1).astype(np.int32),
        stability=stability,
        r_measured=blank.astype(np.float32),
        p=blank,
        q=blank,
        explained=np.zeros(n_voxels, bool),
        reasons=np.full(n_voxels, "not tested"),
    )


def judge(
    profiles: Profiles,
    scores: Scores,
    test: NullTest,
    *,
    min_r2: float = 0.02,
    min_stability: float = 0.3,
    min_faithfulness: float = 0.5,
    min_images: int = 6,
    max_q: float = 0.05,
) -> Profiles:
    """Decides which voxels are explained, and says why the others are not.

    Args:
        profiles: of V voxels.
        scores: of the same voxels.
        test: null test of the same voxels.
        min_r2: smallest test R2.
        min_stability: smallest split-half correlation of the word table.
        min_faithfulness: smallest median faithfulness of the images used.
        min_images: fewest images used.
        max_q: largest Benjamini-Hochberg q of the profile's correlation with measured responses.

    Returns:
        The profiles with r_measured, p, q, explained and reasons; the first failed rule is the reason.
    """
    rules = [
        (scores.status == "ok", scores.status),
        (np.nan_to_num(scores.r2, nan=-1) >= min_r2, f"r2 < {min_r2:g}"),
        (profiles.n_images >= min_images, f"fewer than {min_images} images"),
        (np.nan_to_num(profiles.faithfulness, nan=-1) >= min_faithfulness, f"faithfulness < {min_faithfulness:g}"),
        (np.nan_to_num(profiles.stability, nan=-1) >= min_stability, f"stability < {min_stability:g}"),
        (np.nan_to_num(test.q, nan=2) <= max_q, f"q > {max_q:g}"),
    ]
    reasons = np.full(len(profiles.voxel_ids), "", dtype=object)
    for holds, reason in reversed(rules):
        reasons = np.where(holds, reasons, reason)
    return replace(
        profiles,
        r_measured=test.r.astype(np.float32),
        p=test.p,
        q=test.q,
        explained=reasons == "",
        reasons=reasons.astype(str),
    )


def _most_faithful(faithfulness: np.ndarray, usable: np.ndarray, quantile: float, min_images: int) -> np.ndarray:
    """Pairs [V, I] at or above the quantile of the voxel's faithfulness, and never fewer than asked for."""
    # beyond 1 the critical tokens overshoot the response: as unfaithful as falling short
    closeness = np.where(usable, 1 - np.abs(1 - faithfulness), np.nan)
    closeness = np.where(np.isfinite(closeness), closeness, -np.inf)
    count = np.isfinite(closeness).sum(1)
    wanted = np.minimum(count, np.maximum(min_images, np.ceil((1 - quantile) * count))).astype(int)
    rank = np.argsort(np.argsort(-closeness, axis=1, kind="stable"), axis=1)
    return rank < wanted[:, None]


def _tables(word_ids: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Dense shares [n_images, C] of the kept words."""
    tables = np.zeros((len(word_ids), size + 1), np.float32)
    np.put_along_axis(tables, np.where(word_ids < 0, size, word_ids), weights, 1)
    return tables[:, :size]


def _ranked(mean: np.ndarray, corpus: np.ndarray, n_words: int) -> np.ndarray:
    order = np.argsort(-salience(mean, corpus), axis=1, kind="stable")[:, :n_words].astype(np.int32)
    return np.where(np.take_along_axis(mean, order, 1) > 0, order, -1)


def _pick(table: np.ndarray, word_ids: np.ndarray) -> np.ndarray:
    values = np.take_along_axis(table, np.maximum(word_ids, 0), 1)
    return np.where(word_ids >= 0, values, np.nan).astype(np.float32)


def _log_odds(mean: np.ndarray) -> np.ndarray:
    """Natural log-odds of each word against the mean of the other voxels, [V, C]."""
    others = (mean.sum(0) - mean) / max(len(mean) - 1, 1)

    def logit(share: np.ndarray) -> np.ndarray:
        share = np.clip(share + SMOOTHING, SMOOTHING, 1 - SMOOTHING)
        return np.log(share / (1 - share))

    return logit(mean) - logit(others)


def _sentence(words: np.ndarray) -> str:
    if len(words) == 0:
        return "No word describes what this voxel responds to."
    rest = [str(word) for word in words[1:4]]
    return f"Responds most to {words[0]}" + (f", then to {join(rest)}." if rest else ".")
