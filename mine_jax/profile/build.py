"""Descriptions of many images to one functional profile per voxel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.description import salience
from mine_jax.description.describe import SMOOTHING, join
from mine_jax.profile.reliability import agreement
from mine_jax.statistics import bootstrap_interval_of_mean
from mine_jax.types import CLAIMS, Descriptions, Profiles


def build(
    descriptions: Descriptions,
    faithfulness: np.ndarray,
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
        faithfulness: [V, I] of the same pairs.
        corpus: [C] mean share of each word over a corpus of images.
        usable: [V, I] bool, pairs that may be used (for instance only training images); None for all.
        faithfulness_quantile: images at or above this quantile of the voxel's faithfulness are used.
        min_images: at least so many images are used where the voxel has them.
        n_words: words kept, L.
        n_bootstrap: bootstrap samples over images for the interval (95 %).
        seed: of the bootstrap.
        progress: called with (done, total) voxels.

    Returns:
        Profiles without halves, which `with_halves` adds, and without a claim: `judge` makes them.

    Source: MINE, functional profiles from the upper quartile of faithfulness.
    """
    n_voxels = len(descriptions.voxel_ids)
    chosen = most_faithful(faithfulness, usable=usable, quantile=faithfulness_quantile, min_images=min_images)
    mean = mean_shares(descriptions, chosen)
    word_ids = _ranked(mean, corpus, n_words)
    low, high = (np.full(word_ids.shape, np.nan, np.float32) for _ in range(2))
    for v in range(n_voxels):
        if chosen[v].any():
            tables = _tables(descriptions, v, chosen[v], word_ids[v])
            rng = np.random.default_rng([seed, int(descriptions.voxel_ids[v])])
            low[v], high[v] = bootstrap_interval_of_mean(tables, n_bootstrap=n_bootstrap, rng=rng)
        progress(v + 1, n_voxels)
    low, high = (np.where(word_ids >= 0, ends, np.nan).astype(np.float32) for ends in (low, high))
    is_named = (word_ids >= 0) & (low > corpus[np.maximum(word_ids, 0)])
    faithful = np.where(chosen, faithfulness, np.nan)
    return Profiles(
        voxel_ids=descriptions.voxel_ids,
        words=descriptions.words,
        word_ids=word_ids,
        weights=_pick(mean, word_ids),
        low=low,
        high=high,
        log_odds=_pick(_log_odds(mean), word_ids),
        distribution=mean,
        halves=np.zeros((2, *mean.shape), np.float32),
        faithfulness=np.array([np.nanmedian(f) if np.isfinite(f).any() else np.nan for f in faithful], np.float32),
        sentences=np.array(
            [
                sentence(descriptions.words[row[row >= 0]], named[row >= 0])
                for row, named in zip(word_ids, is_named, strict=True)
            ],
            dtype=str,
        ),
        n_images=chosen.sum(1).astype(np.int32),
        reliability=np.full(n_voxels, np.nan, np.float32),
        r_measured=np.full(n_voxels, np.nan, np.float32),
        effects={},
        p_values={},
        q_values={},
        claims=np.full(n_voxels, CLAIMS[0]),
        reasons=np.full(n_voxels, "not tested"),
    )


def with_halves(
    profiles: Profiles, halves: np.ndarray, *, corpus: np.ndarray, common: np.ndarray | None = None
) -> Profiles:
    """Adds what two refits on disjoint halves of the images found.

    Args:
        profiles: of V voxels over C words.
        halves: [2, V, C] profiles of the refits.
        corpus: [C] mean share of each word over a corpus of images.
        common: [C] what decoys share, see `common_profile`; None for nothing.

    Returns:
        The profiles with `halves` and `reliability`.
    """
    reliability = agreement(*halves, corpus, common=common).astype(np.float32)
    return replace(profiles, halves=halves, reliability=reliability)


def most_faithful(
    faithfulness: np.ndarray, *, usable: np.ndarray | None = None, quantile: float = 0.75, min_images: int = 6
) -> np.ndarray:
    """Chooses the pairs that make a profile by their faithfulness.

    Args:
        faithfulness: [V, I].
        usable: [V, I] bool, pairs that may be chosen; None for all.
        quantile: pairs at or above this quantile of the voxel's faithfulness are chosen.
        min_images: never fewer than so many, where the voxel has them.

    Returns:
        The chosen pairs [V, I] bool.
    """
    # beyond 1 the critical tokens overshoot the response: as unfaithful as falling short
    closeness = 1 - np.abs(1 - np.asarray(faithfulness, np.float64))
    closeness = np.where(np.isfinite(closeness) & (True if usable is None else usable), closeness, -np.inf)
    count = np.isfinite(closeness).sum(1)
    wanted = np.minimum(count, np.maximum(min_images, np.ceil((1 - quantile) * count))).astype(int)
    rank = np.argsort(np.argsort(-closeness, axis=1, kind="stable"), axis=1)
    return rank < wanted[:, None]


def mean_shares(descriptions: Descriptions, chosen: np.ndarray) -> np.ndarray:
    """Averages the words of chosen pairs.

    Args:
        descriptions: of V x I pairs over C words.
        chosen: [V, I] bool.

    Returns:
        Mean share [V, C] float32 of each word; zeros for voxels without a chosen pair.
    """
    n_voxels, size = len(chosen), len(descriptions.words)
    table = np.zeros((n_voxels, size), np.float32)
    real = chosen[..., None] & (descriptions.word_ids >= 0)
    voxel = np.nonzero(real)[0]
    np.add.at(table, (voxel, descriptions.word_ids[real]), descriptions.weights[real])
    return table / np.maximum(chosen.sum(1), 1)[:, None]


def sentence(words: np.ndarray, is_named: np.ndarray) -> str:
    """Writes the sentence of a profile.

    Args:
        words: [<= L] str, best first.
        is_named: [<= L] bool, whether the word's interval lies above its share in the corpus.
    """
    if len(words) == 0:
        return "No word describes what this voxel responds to."
    if not is_named[0]:
        return f"Responds weakly to {words[0]}."
    rest = [str(word) for word in words[1:4][is_named[1:4]]]
    return f"Responds most to {words[0]}" + (f", then to {join(rest)}." if rest else ".")


def _tables(descriptions: Descriptions, v: int, chosen: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Shares [n, L] of some words in the chosen images of a voxel; NaN for a word of position -1."""
    ids, weights = descriptions.word_ids[v, chosen], descriptions.weights[v, chosen]
    size = len(descriptions.words)
    table = np.zeros((len(ids), size + 1), np.float32)
    np.put_along_axis(table, np.where(ids < 0, size, ids), weights, 1)
    return table[:, words]


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
