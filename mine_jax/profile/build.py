"""Descriptions of many images to one functional profile per voxel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from mine_jax._checks import takes
from mine_jax._progress import Progress, silent
from mine_jax.description import saliences
from mine_jax.description.describe import SMOOTHING, join
from mine_jax.memory import BLOCK_BYTES, SparseRows, blocks, column_sums, concatenated, empty_rows, summed_rows
from mine_jax.profile.reliability import agreement
from mine_jax.statistics import Interval, quantiles_of_sorted
from mine_jax.types import CLAIMS, Descriptions, Profiles


@takes("mine_jax.description.describe makes them.", descriptions=Descriptions)
def build(
    descriptions: Descriptions,
    faithfulness: np.ndarray,
    *,
    corpus: np.ndarray,
    chosen: np.ndarray | None = None,
    n_words: int = 20,
    n_bootstrap: int = 200,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress = silent,
) -> Profiles:
    """Builds the profile of each voxel from its most faithful images.

    Args:
        descriptions: of V x I pairs over C words.
        faithfulness: [V, I] of the same pairs.
        corpus: [C] mean share of each word over a corpus of images.
        chosen: [V, I] bool, the pairs that make the profiles; by default those of `most_faithful`.
        n_words: words kept, L.
        n_bootstrap: bootstrap samples over images for the interval (95 %).
        seed: of the bootstrap.
        folder: where shares of all words lie, in files without a name; None holds them in memory.
        progress: called with (done, total) voxels.

    Returns:
        Profiles without halves, which `with_halves` adds, and without a claim: `judge` makes them.

    Source: MINE, whose functional profiles are from the upper quartile of faithfulness; of 48 attributed images that
        leaves things in the profile that happened to be in a few of them.
    """
    n_voxels = len(descriptions.voxel_ids)
    chosen = most_faithful(faithfulness) if chosen is None else chosen
    mean = mean_shares(descriptions, chosen, folder=folder)
    word_ids = _ranked(mean, corpus, n_words)
    low, high = (np.full(word_ids.shape, np.nan, np.float32) for _ in range(2))
    n_chosen = chosen.sum(1)
    # voxels with equally many images together, some at a time
    for n in np.unique(n_chosen[n_chosen > 0]):
        voxels, at_once = np.flatnonzero(n_chosen == n), max(1, BLOCK_BYTES // (8 * n_bootstrap * word_ids.shape[1]))
        for part in blocks(len(voxels), at_once):
            rows = voxels[part]
            low[rows], high[rows] = _intervals(descriptions, rows, chosen[rows], word_ids[rows], n_bootstrap, seed)
            progress(int((n_chosen < n).sum()) + part.stop, n_voxels)
    progress(n_voxels, n_voxels)
    low, high = (np.where(word_ids >= 0, ends, np.nan).astype(np.float32) for ends in (low, high))
    faithful = np.where(chosen, faithfulness, np.nan)
    known = np.isfinite(faithful).any(1)
    median = np.full(n_voxels, np.nan, np.float32)
    median[known] = np.nanmedian(faithful[known], axis=1)
    empty = empty_rows(n_voxels, len(descriptions.words))
    return Profiles(
        voxel_ids=descriptions.voxel_ids,
        words=descriptions.words,
        word_ids=word_ids,
        weights=_where_real(word_ids, mean.at(word_ids)),
        low=low,
        high=high,
        log_odds=_where_real(word_ids, _log_odds(mean, word_ids)),
        distribution=mean,
        halves=(empty, empty),
        is_named=(word_ids >= 0) & (low > corpus[np.maximum(word_ids, 0)]),
        faithfulness=median,
        n_images=n_chosen.astype(np.int32),
        reliability=np.full(n_voxels, np.nan, np.float32),
        r_measured=np.full(n_voxels, np.nan, np.float32),
        effects={},
        p_values={},
        q_values={},
        claims=np.full(n_voxels, CLAIMS[0]),
        reasons=np.full(n_voxels, "not tested"),
    )


def with_halves(
    profiles: Profiles, halves: tuple[SparseRows, SparseRows], *, corpus: np.ndarray, common: np.ndarray | None = None
) -> Profiles:
    """Adds what two refits on disjoint halves of the images found.

    Args:
        profiles: of V voxels over C words.
        halves: two of [V, C], profiles of the refits.
        corpus: [C] mean share of each word over a corpus of images.
        common: [C] what decoys share, see `common_profile`; None for nothing.

    Returns:
        The profiles with `halves` and `reliability`.
    """
    reliability = agreement(*halves, corpus, common=common).astype(np.float32)
    return replace(profiles, halves=halves, reliability=reliability)


def most_faithful(
    faithfulness: np.ndarray, *, usable: np.ndarray | None = None, quantile: float = 0.5, min_images: int = 6
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
    order = np.argsort(-closeness, axis=1, kind="stable")
    chosen = np.zeros(closeness.shape, bool)
    np.put_along_axis(chosen, order, np.arange(closeness.shape[1]) < wanted[:, None], 1)
    return chosen


def mean_shares(descriptions: Descriptions, chosen: np.ndarray, *, folder: Path | None = None) -> SparseRows:
    """Averages the words of chosen pairs.

    Args:
        descriptions: of V x I pairs over C words.
        chosen: [V, I] bool.
        folder: where the shares lie, in files without a name; None holds them in memory.

    Returns:
        Mean share [V, C] float32 of each word; nothing for voxels without a chosen pair.
    """
    width = len(descriptions.words)

    def parts() -> Iterator[SparseRows]:
        yield empty_rows(0, width)
        for block in blocks(len(chosen), BLOCK_BYTES // (16 * max(1, descriptions.word_ids[:1].size))):
            ids = descriptions.word_ids[block]
            real = chosen[block][..., None] & (ids >= 0)
            summed = summed_rows(real.sum((1, 2)), ids[real], descriptions.weights[block][real], width)
            count = np.maximum(chosen[block].sum(1), 1)
            yield summed.with_values((summed.values / count[summed.rows]).astype(np.float32))

    return concatenated(parts(), folder=folder)


def sentences(profiles: Profiles, *, voxels: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Writes the sentences of some profiles.

    Args:
        profiles: of V voxels.
        voxels: positions, mask or slice; all by default.

    Returns:
        A sentence for each of these voxels, [v] object.
    """
    ids, named = profiles.word_ids[voxels], profiles.is_named[voxels]
    # of each profile four words are named
    texts = [
        sentence(profiles.words[row[row >= 0]], is_named[row >= 0])
        for row, is_named in zip(ids[:, :4], named[:, :4], strict=True)
    ]
    return np.array(texts, dtype=object)


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


def _intervals(
    descriptions: Descriptions, rows: np.ndarray, chosen: np.ndarray, words: np.ndarray, n_bootstrap: int, seed: int
) -> Interval:
    """Intervals [v, L] of the shares of words [v, L] over the chosen images of some voxels, n of each."""
    n_voxels, n_images = len(rows), int(chosen[0].sum())
    image = np.nonzero(chosen)[1].reshape(n_voxels, n_images)
    ids, weights = (part[rows[:, None], image] for part in (descriptions.word_ids, descriptions.weights))
    width = ids.shape[2]
    # shares [v, n, L] of the wanted words: both sides share a key per pair
    tables = np.zeros((n_voxels, n_images, words.shape[1]), np.float32)
    for rank in range(width):
        same = (ids[:, :, rank, None] == words[:, None]) & (words >= 0)[:, None]
        np.copyto(tables, weights[:, :, rank, None], where=same)
    draws = np.empty((n_voxels, n_bootstrap, n_images), np.float32)
    sample = np.arange(n_bootstrap)[:, None] * n_images
    for place, voxel_id in enumerate(descriptions.voxel_ids[rows].tolist()):
        # the draws of a voxel depend on its id alone
        drawn = np.random.default_rng([seed, int(voxel_id)]).integers(n_images, size=(n_bootstrap, n_images))
        counts = np.bincount((drawn + sample).ravel(), minlength=n_bootstrap * n_images)
        draws[place] = counts.reshape(n_bootstrap, n_images)
    # samples last: a quantile goes over contiguous numbers
    means = np.ascontiguousarray((draws @ tables / n_images).transpose(0, 2, 1))
    means.sort(axis=2)
    return Interval(*(part.astype(np.float32) for part in quantiles_of_sorted(means)))


def _ranked(mean: SparseRows, corpus: np.ndarray, n_words: int) -> np.ndarray:
    """Positions [V, L] of the words with the largest salience, -1 where there are fewer."""
    n_words = min(n_words, mean.width)
    word_ids = np.full((len(mean), n_words), -1, np.int32)
    count = np.diff(mean.starts)
    step = BLOCK_BYTES // (8 * max(1, int(count.max(initial=1))))
    for block in blocks(len(mean), step):
        part = saliences(mean.take(block), corpus)
        rows, begin = part.rows, np.asarray(part.starts[:-1])
        table = np.full((len(part), int(count[block].max(initial=0))), np.inf)
        table[rows, np.arange(len(rows)) - begin[rows]] = -part.values
        order = np.argsort(table, axis=1, kind="stable")[:, :n_words]
        row, rank = np.nonzero(np.arange(order.shape[1]) < count[block][:, None])
        best = begin[row] + order[row, rank]
        # a word that is rarer than in the corpus comes after those that are not there at all
        place = rank + np.where(part.values[best] < 0, mean.width - count[block][row], 0)
        kept = place < n_words
        word_ids[block.start + row[kept], place[kept]] = part.columns[best[kept]]
    return word_ids


def _where_real(word_ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.where(word_ids >= 0, values, np.nan).astype(np.float32)


def _log_odds(mean: SparseRows, word_ids: np.ndarray) -> np.ndarray:
    """Natural log-odds [V, L] of some words against the mean of the other voxels."""
    total = column_sums(mean)
    own = mean.at(word_ids).astype(np.float64)
    others = (total[np.maximum(word_ids, 0)] - own) / max(len(mean) - 1, 1)

    def logit(share: np.ndarray) -> np.ndarray:
        share = np.clip(share + SMOOTHING, SMOOTHING, 1 - SMOOTHING)
        return np.log(share / (1 - share))

    return logit(own) - logit(others)
