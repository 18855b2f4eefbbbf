"""Which category each area prefers, recovered from the profiles of its voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mine_jax._progress import Progress, silent
from mine_jax.config import RoiConfig
from mine_jax.roi import surrogates
from mine_jax.roi.categories import shares_of_words
from mine_jax.statistics import bootstrap_interval, false_discovery_rate, permutation_p
from mine_jax.types import Places, Profiles

# The variogram inside one area rests on few independent pieces of it: a normal distribution would promise too much.
_DEGREES = 8
SURROGATES, PERMUTED = "surrogates", "permuted voxels"


def selectivity(
    profiles: Profiles,
    rois: np.ndarray,
    *,
    corpus: np.ndarray,
    categories: Mapping[str, Sequence[str]],
    places: Places | None = None,
    fitted: np.ndarray | None = None,
    settings: RoiConfig | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Tests whether the profiles of an area speak of a category more than others do.

    The share of a category in a profile is the part of the profile's positive salience that
    falls on the category's words. Enrichment is the difference of the mean share inside and
    outside the area. Under the null the map of shares is as smooth as it is within areas: the
    enrichment must be larger than that allows, and the map must change at the borders of areas
    more than a map that is as smooth as itself. Without places area labels are exchanged,
    which is not enough for neighbours that resemble each other.

    Args:
        profiles: of V voxels; only those with words count.
        rois: [V] str, ";"-joined areas of each voxel.
        corpus: [C] mean shares of words over a corpus.
        categories: category to its words.
        places: of the voxels; None where they are unknown.
        fitted: [U] str, areas of all fitted voxels, also of those without a profile; by default `rois`.
        settings: sizes, thresholds and numbers of draws; by default those of the configuration.
        seed: of all that is drawn.
        progress: called with (done, total) areas.

    Returns:
        One row per area and category: roi, category, share, enrichment, low, high, p, q, n_voxels, preferred
        (the largest enrichment of the area that passes), worded (share of the area's fitted voxels with words; too
        small a share leaves p and q empty), border_q (of the category's map), null (what p comes from).

    Source: variogram-matched null maps, Burt et al. 2020, doi:10.1016/j.neuroimage.2020.117038.
    """
    settings = settings or RoiConfig()
    explained = np.flatnonzero(profiles.explained)
    names, shares = category_shares(profiles, corpus=corpus, categories=categories)
    shares = shares[explained]
    areas = {roi: members[explained] for roi, members in memberships(rois).items()}
    areas = {roi: inside for roi, inside in areas.items() if settings.min_voxels <= inside.sum() < len(explained)}
    if not areas or not names:
        return []
    worded = _worded(areas, memberships(rois if fitted is None else fitted))

    def still(done: int, total: int) -> None:
        """Lets signals through; draws of the null do not count."""
        progress(0, len(areas))

    null = _Null(shares, rois[explained], None if places is None else places.take(explained), settings, seed, still)
    rng, rows = np.random.default_rng(seed), list[dict[str, Any]]()
    for done, (roi, inside) in enumerate(areas.items()):
        p = null.p(inside) if worded[roi] >= settings.min_worded else np.full(len(names), np.nan)
        of_area = {"roi": roi, "n_voxels": int(inside.sum()), "worded": worded[roi], "null": null.name}
        columns = _sizes(shares, inside, settings.n_bootstrap, rng) | {"p": p, "border_q": null.border_q}
        rows += [
            {**of_area, "category": name, **{column: float(values[j]) for column, values in columns.items()}}
            for j, name in enumerate(names)
        ]
        progress(done + 1, len(areas))
    return _with_preference(rows, settings)


def _sizes(shares: np.ndarray, inside: np.ndarray, n_bootstrap: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Computes share, enrichment and its interval of each category in an area [V] bool."""
    within, outside = shares[inside], shares[~inside].mean(0)
    low, high = bootstrap_interval(
        lambda draws: within[draws].mean(1) - outside, len(within), n_bootstrap=n_bootstrap, rng=rng
    )
    return {"share": within.mean(0), "enrichment": within.mean(0) - outside, "low": low, "high": high}


class _Null:
    """What enrichment is compared with, for any area of the same voxels."""

    def __init__(
        self,
        shares: np.ndarray,
        rois: np.ndarray,
        places: Places | None,
        settings: RoiConfig,
        seed: int,
        progress: Progress,
    ) -> None:
        self.shares, self.settings, self.seed = shares, settings, seed
        self.name = PERMUTED if places is None else SURROGATES
        self.border_q = np.full(shares.shape[1], np.nan)
        self.place = None
        if places is not None:
            self.place = surrogates.space(places, rois, seed=seed)
            self.pooled = surrogates.components(self.place, shares, within=True)
            p = surrogates.border_p(
                self.place, shares, n_surrogates=settings.n_surrogates, seed=seed, progress=progress
            )
            self.border_q = false_discovery_rate(p)

    def p(self, inside: np.ndarray) -> np.ndarray:
        """Computes p of each category for an area [V] bool."""
        from scipy import stats

        difference = np.where(inside, 1 / inside.sum(), -1 / (~inside).sum())
        if self.place is None:
            observed, rng = difference @ self.shares, np.random.default_rng(self.seed)
            n = self.settings.n_permutations
            exceeding = sum((rng.permutation(difference) @ self.shares >= observed).astype(int) for _ in range(n))
            return permutation_p(np.asarray(exceeding), n)
        own = surrogates.components(surrogates.part_of(self.place, inside), self.shares[inside], within=True)
        unit = surrogates.variance_of_weighted_sums(self.place, difference)
        # the less favourable of the variograms within this area and within all areas
        spread = np.sqrt(np.maximum(np.maximum(self.pooled @ unit, own @ unit), 1e-24))
        return stats.t.sf((difference @ self.shares) / spread, _DEGREES)


def _worded(areas: Mapping[str, np.ndarray], fitted: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Computes which share of each area's fitted voxels has words."""
    return {roi: float(inside.sum() / max(fitted[roi].sum(), inside.sum())) for roi, inside in areas.items()}


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
    index = [np.array(positions) for positions in columns.values()]
    return list(columns), shares_of_words(profiles.distribution, corpus, index)


def memberships(rois: np.ndarray) -> dict[str, np.ndarray]:
    """Reads ";"-joined labels.

    Args:
        rois: [V] str, ";"-joined areas of each voxel.

    Returns:
        Area -> members [V] bool, in the order of first appearance.
    """
    texts, first, inverse = np.unique(np.asarray(rois).astype(str), return_index=True, return_inverse=True)
    labels = [[label for label in str(text).split(";") if label] for text in texts]
    names = list(dict.fromkeys(label for place in np.argsort(first) for label in labels[place]))
    return {name: np.array([name in own for own in labels], bool)[inverse] for name in names}


def _with_preference(rows: list[dict[str, Any]], settings: RoiConfig) -> list[dict[str, Any]]:
    for row, q in zip(rows, false_discovery_rate(np.array([row["p"] for row in rows], float)), strict=True):
        row["q"] = float(q)
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        row["preferred"] = False
        at_border = not row["border_q"] > settings.max_q
        passes = row["q"] <= settings.max_q and row["enrichment"] >= settings.min_enrichment and at_border
        if passes and row["enrichment"] > best.get(row["roi"], {"enrichment": 0})["enrichment"]:
            best[row["roi"]] = row
    for row in best.values():
        row["preferred"] = True
    return rows
