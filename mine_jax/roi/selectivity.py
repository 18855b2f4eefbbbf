"""Which category each area prefers, recovered from the profiles of its voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.description import salience
from mine_jax.statistics import bootstrap_interval, false_discovery_rate, permutation_p
from mine_jax.types import Profiles


def selectivity(
    profiles: Profiles,
    rois: np.ndarray,
    *,
    corpus: np.ndarray,
    categories: Mapping[str, Sequence[str]],
    min_voxels: int = 5,
    n_permutations: int = 2000,
    n_bootstrap: int = 200,
    seed: int = 0,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Tests whether the profiles of an area speak of a category more than others do.

    The share of a category in a profile is the part of the profile's positive salience that
    falls on the category's words. Enrichment is the difference of the mean share inside and
    outside the area; under the null, area labels may be exchanged between explained voxels.

    Args:
        profiles: of V voxels; only explained ones count.
        rois: [V] str, ";"-joined areas of each voxel.
        corpus: [C] mean shares of words over a corpus.
        categories: category to its words.
        min_voxels: areas with fewer explained voxels are left out.
        n_permutations: permutations of the labels.
        n_bootstrap: bootstrap samples over the area's voxels for the 95 % interval.
        seed: of both.
        progress: called with (done, total) areas.

    Returns:
        One row per area and category: roi, category, share, enrichment, low, high, p, q,
        n_voxels, preferred (the largest enrichment of the area with q < 0.05).
    """
    explained = np.flatnonzero(profiles.explained)
    names, shares = category_shares(profiles, corpus=corpus, categories=categories)
    shares = shares[explained]
    areas = {roi: members[explained] for roi, members in memberships(rois).items()}
    areas = {roi: inside for roi, inside in areas.items() if min_voxels <= inside.sum() < len(explained)}
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for done, (roi, inside) in enumerate(areas.items()):
        enrichment = shares[inside].mean(0) - shares[~inside].mean(0)
        null = np.stack([_difference(shares, rng.permutation(inside)) for _ in range(n_permutations)])
        p = permutation_p((null >= enrichment).sum(0), n_permutations)
        within, outside = shares[inside], shares[~inside].mean(0)
        low, high = bootstrap_interval(
            lambda draws, within=within, outside=outside: within[draws].mean(1) - outside,
            len(within),
            n_bootstrap=n_bootstrap,
            rng=rng,
        )
        rows += [
            {
                "roi": roi,
                "category": name,
                "share": shares[inside, j].mean(),
                "enrichment": enrichment[j],
                "low": low[j],
                "high": high[j],
                "p": p[j],
                "n_voxels": int(inside.sum()),
            }
            for j, name in enumerate(names)
        ]
        progress(done + 1, len(areas))
    return _with_preference(rows)


def category_shares(
    profiles: Profiles, *, corpus: np.ndarray, categories: Mapping[str, Sequence[str]]
) -> tuple[list[str], np.ndarray]:
    """Computes the share of each category in each profile's positive salience.

    Args:
        profiles: of V voxels over C words.
        corpus: [C] mean shares of words over a corpus.
        categories: category to its words; the category's name counts as one of them.

    Returns:
        Names of the categories that have a word in the vocabulary, and shares [V, n] in 0..1.
    """
    position = {word: i for i, word in enumerate(profiles.words)}
    columns = {
        name: [position[word] for word in dict.fromkeys([name, *words]) if word in position]
        for name, words in categories.items()
    }
    columns = {name: index for name, index in columns.items() if index}
    positive = np.maximum(salience(profiles.distribution, corpus), 0)
    total = np.maximum(positive.sum(1), 1e-12)
    shares = [positive[:, index].sum(1) / total for index in columns.values()]
    return list(columns), np.stack(shares, 1) if shares else np.zeros((len(positive), 0))


def memberships(rois: np.ndarray) -> dict[str, np.ndarray]:
    """Reads ";"-joined labels.

    Args:
        rois: [V] str, ";"-joined areas of each voxel.

    Returns:
        Area -> members [V] bool, in the order of first appearance.
    """
    labels = [[label for label in str(text).split(";") if label] for text in rois]
    names = list(dict.fromkeys(label for voxel in labels for label in voxel))
    return {name: np.array([name in voxel for voxel in labels]) for name in names}


def _difference(shares: np.ndarray, inside: np.ndarray) -> np.ndarray:
    return shares[inside].mean(0) - shares[~inside].mean(0)


def _with_preference(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row, q in zip(rows, false_discovery_rate(np.array([row["p"] for row in rows], float)), strict=True):
        row["q"] = float(q)
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        row["preferred"] = False
        if row["q"] < 0.05 and row["enrichment"] > best.get(row["roi"], {"enrichment": 0})["enrichment"]:
            best[row["roi"]] = row
    for row in best.values():
        row["preferred"] = True
    return rows
