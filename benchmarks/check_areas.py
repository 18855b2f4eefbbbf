"""Are areas said to prefer something, or to have structure, where nothing was planted? A simulation.

    python -m benchmarks.check_areas [--repeats 20] [--json FILE]

A sheet of cortex is cut into areas (16 of 7 x 7 voxels, two voxels thick), and profiles over 64 words of eight
categories are drawn on it. Printed for each way of drawing them: the share of areas that should prefer nothing and
are said to prefer something, and of areas with a planted preference that are found; the same for structure.

- `smooth S`: fields with a Gaussian kernel of S voxels, whatever the areas are; `trend`: linear over the sheet
- `planted`: half of the areas prefer a category, voxel by voxel with another weight; the others nothing
- `planted, smooth S`: the areas that prefer nothing hold smooth fields instead
- `patches`, `shuffled`, `same`: voxels of an area prefer one word in each of three patches, the same words in random
  places, or one word everywhere; logarithmic shares have noise of this size in each half of the images
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from mine_jax import artifacts, memory, roi
from mine_jax.config import RoiConfig
from mine_jax.types import Profiles

SIDE, PER_SIDE, WORDS_EACH = 7, 4, 8
SHAPE = (SIDE * PER_SIDE, SIDE * PER_SIDE, 2)
INDICES = np.argwhere(np.ones(SHAPE))
AREAS = np.array([f"{i // SIDE}-{j // SIDE}" for i, j, _ in INDICES])
NAMES = np.unique(AREAS)
PLANTED = NAMES[::2]
CATEGORIES = {f"c{n}": tuple(f"w{n}-{i}" for i in range(WORDS_EACH)) for n in range(8)}
WORDS = np.array([word for words in CATEGORIES.values() for word in words])
CORPUS = np.full(len(WORDS), 1 / len(WORDS))
PREFERENCES = ("smooth 0", "smooth 1.5", "smooth 2.5", "smooth 4", "smooth 7", "trend", "planted")
PREFERENCES += ("planted, smooth 1.5", "planted, smooth 2.5", "planted, smooth 4")
STRUCTURES = ("patches, noise 0.5", "patches, noise 0.8", "shuffled, noise 0.5", "same, noise 0.8")
SETTINGS = RoiConfig(n_surrogates=200, n_permutations=500)
# Weight of a planted word on logarithmic shares.
_WEIGHT = 1.2


def shares_of(values: np.ndarray) -> np.ndarray:
    """Shares [V, C] from logarithmic values."""
    shares = np.exp(values - values.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def profiles_of(distribution: np.ndarray, halves: np.ndarray | None = None) -> Profiles:
    """Profiles of voxels that all have words."""
    n = len(distribution)
    blank, one, text = np.zeros((n, 1), np.float32), np.ones(n), np.full(n, "")
    return Profiles(
        voxel_ids=np.arange(n),
        words=WORDS,
        word_ids=np.zeros((n, 1), np.int32),
        **dict.fromkeys(("weights", "low", "high", "log_odds"), blank),
        distribution=memory.sparse_rows(distribution),
        halves=sparse_halves((distribution, distribution) if halves is None else halves),
        is_named=np.ones((n, 1), bool),
        **dict.fromkeys(("faithfulness", "reliability", "r_measured"), one),
        n_images=np.full(n, 10),
        effects={},
        p_values={},
        q_values={},
        claims=np.full(n, "words"),
        reasons=text,
    )


def sparse_halves(halves: Sequence[np.ndarray] | np.ndarray) -> tuple[memory.SparseRows, memory.SparseRows]:
    """Two halves [V, C] as profiles hold them."""
    first, second = (memory.sparse_rows(half) for half in halves)
    return first, second


def smooth(rng: np.random.Generator, width: float) -> np.ndarray:
    """Logarithmic shares [V, C] that vary smoothly over the sheet, with some noise of each voxel."""
    fields = rng.standard_normal((len(WORDS), *SHAPE))
    fields = np.stack([gaussian_filter(field, width, mode="wrap") if width else field for field in fields])
    fields = fields.reshape(len(WORDS), -1).T
    return 2 * fields / fields.std(0) + 0.5 * rng.standard_normal(fields.shape)


def preferring(rng: np.random.Generator, kind: str) -> np.ndarray:
    """Profiles [V, C] of one way of drawing them; the areas of `PLANTED` prefer a category where it says so."""
    if kind == "trend":
        place = (INDICES - INDICES.mean(0)) / np.ptp(INDICES, axis=0)
        return shares_of(
            place @ rng.normal(0, 3, (3, len(WORDS))) + 0.5 * rng.standard_normal((len(AREAS), len(WORDS)))
        )
    if kind.startswith("smooth"):
        return shares_of(smooth(rng, float(kind.split()[1])))
    values = rng.normal(0, 1.2, (len(AREAS), len(WORDS)))
    if "," in kind:
        values = np.where(np.isin(AREAS, PLANTED)[:, None], values, smooth(rng, float(kind.split()[-1])))
    shares = shares_of(values)
    for area in PLANTED:
        members = np.flatnonzero(AREAS == area)
        category = int(area[0]) * 2 + int(area[-1]) % 2
        weight = rng.choice([0.65, 0.5, 0.12], len(members), p=[0.75, 0.15, 0.1])[:, None]
        own = np.zeros((len(members), len(WORDS)))
        own[np.arange(len(members)), category * WORDS_EACH + rng.integers(WORDS_EACH, size=len(members))] = 1
        shares[members] = (1 - weight) * shares[members] + weight * own
    return shares


def structured(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Whole profiles [V, C] and halves [2, V, C] of areas of one way of drawing them."""
    values = np.zeros((len(AREAS), len(WORDS)))
    for number, area in enumerate(NAMES):
        members = np.flatnonzero(AREAS == area)
        patch = INDICES[members, 0] % SIDE * 3 // SIDE
        words = (number % 8) * WORDS_EACH + (rng.permutation(patch) if kind.startswith("shuffled") else patch)
        values[members, (number % 8) * WORDS_EACH + 4] = _WEIGHT
        if not kind.startswith("same"):
            values[members, words] += _WEIGHT
    noise = rng.normal(0, float(kind.split()[-1]), (3, *values.shape))
    return shares_of(values + noise[0] / np.sqrt(2)), np.stack([shares_of(values + one) for one in noise[1:]])


def rates(repeats: int) -> list[dict[str, Any]]:
    """One row per way of drawing profiles: shares of areas found where nothing and where something was planted."""
    rows = []
    for kind in (*PREFERENCES, *STRUCTURES):
        false = found = n_false = n_found = 0
        for seed in range(repeats):
            rng = np.random.default_rng(seed)
            places: dict[str, Any] = {"indices": INDICES, "settings": SETTINGS, "seed": seed}
            if kind in STRUCTURES:
                whole, halves = structured(rng, kind)
                table = roi.structure(profiles_of(whole, halves), AREAS, corpus=CORPUS, **places)
                said = {row["roi"] for row in table if row["is_structured"]}
                planted = set(NAMES) if kind.startswith("patches") else set()
            else:
                made = profiles_of(preferring(rng, kind))
                table = roi.selectivity(made, AREAS, corpus=CORPUS, categories=CATEGORIES, **places)
                said = {row["roi"] for row in table if row["preferred"]}
                planted = set(PLANTED) if kind.startswith("planted") else set()
            false, n_false = false + len(said - planted), n_false + len(NAMES) - len(planted)
            found, n_found = found + len(said & planted), n_found + len(planted)
        share = {"wrong": false / n_false if n_false else None, "found": found / n_found if n_found else None}
        rows.append({"test": "structure" if kind in STRUCTURES else "preference", "profiles": kind, **share})
        print(" ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    return rows


def main() -> None:
    """Prints the rates, and writes them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = rates(arguments.repeats)
    if arguments.json:
        artifacts.write_json(arguments.json, rows)


if __name__ == "__main__":
    main()
