"""Are areas said to prefer something, or to have structure, where nothing was planted? A simulation.

    python -m benchmarks.check_areas [--cortex sheet or sphere] [--repeats 20] [--json FILE]

Profiles over 64 words of eight categories are drawn on 16 areas, of a sheet (7 x 7 voxels each, two voxels thick) or of
a surface: a part of fsaverage's sphere in each hemisphere, 10,000 vertices in all, and every area in both hemispheres.
Printed for each way of drawing them: the share of areas that should prefer nothing and are said to prefer something, by
maps as smooth and by exchanged voxels; of areas with a planted preference that are found; the same for structure.
Lengths are voxels, or 2 mm on the sphere; fields on it come from averages of neighbouring vertices, again and again.

- `smooth S`: fields with a Gaussian kernel of S, whatever the areas are; `trend`: linear over the cortex
- `mirrored S`: both hemispheres have the same field; `uneven S`: a kernel of S / 1.5 on one side, 1.5 S on the other
- `planted`: half of the areas prefer a category, voxel by voxel with another weight; the others nothing
- `planted, smooth S`: the areas that prefer nothing hold smooth fields instead
- `patches`, `shuffled`, `same`: voxels of an area prefer one word in each of three patches, the same words in random
  places, or one word everywhere; logarithmic shares have noise of this size in each half of the images
- `same, shared`: as `same`, where vertices closer than about a voxel share the noise, as resampled data do
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.ndimage import gaussian_filter

from benchmarks.icosphere import averaging, icosphere
from mine_jax import artifacts, memory, roi
from mine_jax.config import RoiConfig
from mine_jax.types import Places, Profiles, Surface

SIDE, PER_SIDE, WORDS_EACH = 7, 4, 8
SHAPE = (SIDE * PER_SIDE, SIDE * PER_SIDE, 2)
LEVEL, PER_HEMISPHERE, N_AREAS, UNIT_MM = 7, 5000, PER_SIDE**2, 2.0
CATEGORIES = {f"c{n}": tuple(f"w{n}-{i}" for i in range(WORDS_EACH)) for n in range(8)}
WORDS = np.array([word for words in CATEGORIES.values() for word in words])
CORPUS = np.full(len(WORDS), 1 / len(WORDS))
PREFERENCES = ("smooth 0", "smooth 1.5", "smooth 2.5", "smooth 4", "smooth 7", "trend", "planted")
PREFERENCES += ("planted, smooth 1.5", "planted, smooth 2.5", "planted, smooth 4")
STRUCTURES = ("patches, noise 0.5", "patches, noise 0.8", "shuffled, noise 0.5", "same, noise 0.8")
KINDS = {
    "sheet": PREFERENCES + STRUCTURES,
    "sphere": (*PREFERENCES, "mirrored 2.5", "uneven 2.5", *STRUCTURES, "same, shared, noise 0.8"),
}
SETTINGS = RoiConfig(n_surrogates=200, n_permutations=500)
# Weight of a planted word on logarithmic shares; kernel of noise that neighbouring vertices share.
_WEIGHT, _SHARED = 1.2, 0.7


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


@dataclass(frozen=True)
class Cortex:
    """Voxels and what is drawn on them.

    Attributes:
        places: of V voxels.
        areas: [V] str.
        third: [V] int, which third of its area a voxel lies in.
        fields: takes white noise [C, V] and a kernel; returns it smoothed.
    """

    places: Places
    areas: np.ndarray
    third: np.ndarray
    fields: Callable[[np.ndarray, float], np.ndarray]

    @property
    def planted(self) -> np.ndarray:
        """Areas that prefer a category where the way of drawing says so."""
        return np.unique(self.areas)[::2]


def sheet() -> Cortex:
    """A sheet of voxels."""
    indices = np.argwhere(np.ones(SHAPE))
    areas = np.array([f"{i // SIDE}-{j // SIDE}" for i, j, _ in indices])

    def fields(noise: np.ndarray, width: float) -> np.ndarray:
        return np.stack([gaussian_filter(one.reshape(SHAPE), width, mode="wrap").ravel() for one in noise])

    return Cortex(Places.of_voxels(indices), areas, indices[:, 0] % SIDE * 3 // SIDE, fields)


def sphere() -> Cortex:
    """The same part of the spheres of two hemispheres, as fine as fsaverage."""
    at, triangles = icosphere(LEVEL)
    chosen = np.sort(np.argsort(-at[:, 2])[:PER_HEMISPHERE])
    average = averaging(triangles, chosen, len(at)).astype(np.float32)
    own, spacing_mm = 100 * at[chosen], 100 * np.sqrt(8 * np.pi / np.sqrt(3) / len(at))
    number = kmeans2(own, N_AREAS, minit="++", seed=1)[1]
    third = np.zeros(len(own), int)
    for area in range(N_AREAS):
        members = np.flatnonzero(number == area)
        third[members[np.argsort(own[members, 0])]] = np.arange(len(members)) * 3 // len(members)

    def fields(noise: np.ndarray, width: float) -> np.ndarray:
        halves = noise.reshape(len(noise), 2, -1)
        columns = np.moveaxis(halves, 2, 0).reshape(len(own), -1).astype(np.float32)
        for _ in range(round((width * UNIT_MM / spacing_mm) ** 2 * 7 / 3)):
            columns = average @ columns
        return np.moveaxis(columns.reshape(len(own), len(noise), 2), 0, 2).reshape(noise.shape)

    space = Surface("fsaverage", (len(at), len(at)))
    places = Places.of_vertices(np.tile(own, (2, 1)), space, np.concatenate([chosen, chosen + len(at)]))
    return Cortex(places, np.tile([f"A{n:02d}" for n in number], 2), np.tile(third, 2), fields)


def smooth(rng: np.random.Generator, cortex: Cortex, kind: str) -> np.ndarray:
    """Logarithmic shares [V, C] that vary smoothly over the cortex, with some noise of each voxel."""
    width, n_voxels = float(kind.split()[-1]), len(cortex.areas)
    noise = rng.standard_normal((len(WORDS), n_voxels))
    if kind.startswith("mirrored"):
        noise = np.tile(noise[:, : n_voxels // 2], 2)
    if kind.startswith("uneven"):
        side = cortex.places.at[:, 0] > np.median(cortex.places.at[:, 0])
        both = (cortex.fields(noise, width * factor) for factor in (1.5, 1 / 1.5))
        wide, narrow = (field / field.std() for field in both)
        fields = np.where(side, wide, narrow).T
    else:
        fields = (cortex.fields(noise, width) if width else noise).T
    return 2 * fields / fields.std(0) + 0.5 * rng.standard_normal(fields.shape)


def preferring(rng: np.random.Generator, cortex: Cortex, kind: str) -> np.ndarray:
    """Profiles [V, C] of one way of drawing them; the areas that are planted prefer a category where it says so."""
    areas = cortex.areas
    if kind == "trend":
        place = (cortex.places.at - cortex.places.at.mean(0)) / np.ptp(cortex.places.at, axis=0)
        return shares_of(
            place @ rng.normal(0, 3, (3, len(WORDS))) + 0.5 * rng.standard_normal((len(areas), len(WORDS)))
        )
    if not kind.startswith("planted"):
        return shares_of(smooth(rng, cortex, kind))
    values = rng.normal(0, 1.2, (len(areas), len(WORDS)))
    if "," in kind:
        values = np.where(np.isin(areas, cortex.planted)[:, None], values, smooth(rng, cortex, kind))
    shares = shares_of(values)
    for number, area in enumerate(cortex.planted):
        members = np.flatnonzero(areas == area)
        category = number // 2 * 2
        weight = rng.choice([0.65, 0.5, 0.12], len(members), p=[0.75, 0.15, 0.1])[:, None]
        own = np.zeros((len(members), len(WORDS)))
        own[np.arange(len(members)), category * WORDS_EACH + rng.integers(WORDS_EACH, size=len(members))] = 1
        shares[members] = (1 - weight) * shares[members] + weight * own
    return shares


def structured(rng: np.random.Generator, cortex: Cortex, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Whole profiles [V, C] and halves [2, V, C] of areas of one way of drawing them."""
    values = np.zeros((len(cortex.areas), len(WORDS)))
    for number, area in enumerate(np.unique(cortex.areas)):
        members = np.flatnonzero(cortex.areas == area)
        patch = cortex.third[members]
        words = (number % 8) * WORDS_EACH + (rng.permutation(patch) if kind.startswith("shuffled") else patch)
        values[members, (number % 8) * WORDS_EACH + 4] = _WEIGHT
        if not kind.startswith("same"):
            values[members, words] += _WEIGHT
    size = float(kind.split()[-1])
    noise = rng.normal(0, size, (3, *values.shape))
    if "shared" in kind:
        noise = np.stack([cortex.fields(one.T, _SHARED).T for one in noise])
        noise *= size / noise.std()
    return shares_of(values + noise[0] / np.sqrt(2)), np.stack([shares_of(values + one) for one in noise[1:]])


def said_of(rng: np.random.Generator, cortex: Cortex, kind: str, seed: int) -> tuple[set[str], set[str] | None]:
    """Areas of which something is said, by maps as smooth and, for preferences, by exchanged voxels."""
    settings: dict[str, Any] = {"settings": SETTINGS, "seed": seed}
    if "noise" in kind:
        whole, halves = structured(rng, cortex, kind)
        profiles = profiles_of(whole, halves)
        table = roi.structure(profiles, cortex.areas, corpus=CORPUS, places=cortex.places, **settings)
        return {row["roi"] for row in table if row["is_structured"]}, None
    profiles = profiles_of(preferring(rng, cortex, kind))
    settings |= {"corpus": CORPUS, "categories": CATEGORIES}
    tables = (roi.selectivity(profiles, cortex.areas, places=places, **settings) for places in (cortex.places, None))
    said, exchanged = ({row["roi"] for row in table if row["preferred"]} for table in tables)
    return said, exchanged


def rates(cortex: Cortex, kinds: Sequence[str], repeats: int) -> list[dict[str, Any]]:
    """One row per way of drawing profiles: shares of areas found where nothing and where something was planted."""
    rows = []
    for kind in kinds:
        start = time.perf_counter()
        names = set(np.unique(cortex.areas))
        planted = names if kind.startswith("patches") else set()
        planted = set(cortex.planted) if kind.startswith("planted") else planted
        found = [said_of(np.random.default_rng(seed), cortex, kind, seed) for seed in range(repeats)]
        rows.append(
            {
                "test": "structure" if "noise" in kind else "preference",
                "profiles": kind,
                "wrong": _share([said for said, _ in found], names - planted),
                "wrong_exchanged": _share([exchanged for _, exchanged in found], names - planted),
                "found": _share([said for said, _ in found], planted),
                "seconds": round(time.perf_counter() - start),
            }
        )
        print(" ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    return rows


def _share(said: Sequence[set[str] | None], among: set[str]) -> float | None:
    """Of some areas the share that is said, over all repeats."""
    known = [areas for areas in said if areas is not None]
    return sum(len(areas & among) for areas in known) / (len(known) * len(among)) if known and among else None


def main() -> None:
    """Prints the rates, and writes them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cortex", choices=list(KINDS), default="sheet")
    every = sorted({kind for kinds in KINDS.values() for kind in kinds})
    parser.add_argument(
        "--profiles", nargs="*", choices=every, metavar="WAY", help="only these ways of drawing profiles"
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cortex = sheet() if arguments.cortex == "sheet" else sphere()
    rows = rates(cortex, arguments.profiles or KINDS[arguments.cortex], arguments.repeats)
    if arguments.json:
        artifacts.write_json(arguments.json, rows)


if __name__ == "__main__":
    main()
