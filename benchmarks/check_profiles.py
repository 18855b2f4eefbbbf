"""Do the steps from descriptions to areas grow with the number of voxels, and no faster? A check on random input.

    python -m benchmarks.check_profiles [--voxels 2000,4000] [--words 20000] [--images 1000,200] [--json FILE]

Images show four planted things of 300, among the words of a language; voxels look at random tokens of 48 of them,
and the responses are noise. Printed for each step: CPU seconds per voxel relative to those of all steps together at
the smaller size, how many times as many per voxel at the larger one (constant costs make that less than 1), the power
of V with which the cost grows, and the bytes per voxel above what was held before the step.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.run import environment
from benchmarks.timing import PeakMemory
from mine_jax import artifacts, description, memory, profile, roi
from mine_jax.description import TokenWords
from mine_jax.description.words import Vocabulary
from mine_jax.types import CriticalTokens, Places

N_TOKENS, N_WORDS, N_USED, N_CRITICAL, N_THINGS, SIDE = 64, 10, 48, 8, 300, 8
VOXELS_OF_AREA = 300


def token_words(n_images: int, n_words: int) -> TokenWords:
    """Words of image-tokens: those of a language by their frequency, and planted things first."""
    rng = np.random.default_rng(0)
    frequency = np.cumsum(1 / np.arange(1, n_words + 1))
    ids = np.searchsorted(frequency / frequency[-1], rng.random((n_images, N_TOKENS, N_WORDS)))
    things, shown = rng.integers(N_THINGS, size=(n_images, 4)), rng.integers(4, size=(n_images, N_TOKENS))
    image, token = np.nonzero(rng.random((n_images, N_TOKENS)) < 0.7)
    ids[image, token, 0] = 500 + things[image, shown[image, token]]
    ids = rng.permutation(n_words)[np.minimum(ids, n_words - 1)].astype(np.int32)
    shares = np.sort(rng.dirichlet(np.full(N_WORDS, 0.5), (n_images, N_TOKENS)).astype(np.float32), -1)[..., ::-1]
    vocabulary = Vocabulary(np.array([f"w{i:05d}" for i in range(n_words)]), np.arange(n_words, dtype=np.int32), 0, 0)
    return TokenWords(np.array([f"{i:05d}" for i in range(n_images)]), vocabulary, ids, shares * np.float32(0.8))


def measure(n_voxels: int, n_words: int, n_training: int, n_test: int) -> dict[str, tuple[float, float]]:
    """Returns CPU seconds and bytes of each step."""
    numbers: dict[str, tuple[float, float]] = {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        with PeakMemory() as held:
            start = time.process_time()
            result = work()
            seconds = time.process_time() - start
        numbers[name] = seconds, float(held.peak["RssAnon"])
        return result

    words, rng = token_words(n_training + n_test, n_words), np.random.default_rng(1)
    rows = np.stack([rng.choice(n_training, N_USED, replace=False) for _ in range(n_voxels)])
    at = rng.integers(N_TOKENS, size=(*rows.shape, N_CRITICAL)).astype(np.int32)
    scores = np.sort(rng.exponential(size=at.shape).astype(np.float32), -1)[..., ::-1]
    critical = CriticalTokens(np.arange(n_voxels), words.image_ids[rows], at, np.ascontiguousarray(scores))
    faithful, measured = (
        rng.normal(0.7, 0.3, rows.shape),
        rng.standard_normal((len(words.image_ids), n_voxels), np.float32),
    )
    shares = description.corpus_shares(words, np.repeat(["train", "test"], [n_training, n_test]))
    corpus = shares.mean
    seen = [
        profile.Seen(shares.images.take(part), measured[part])
        for part in (slice(0, n_training), slice(n_training, n_training + n_test))
    ]
    described = step("description", lambda: description.describe(critical, words, corpus=corpus))
    made = step("profile", lambda: profile.build(described, faithful, corpus=corpus))
    halves = [profile.mean_shares(described, np.tile(np.arange(N_USED) % 2 == k, (n_voxels, 1))) for k in range(2)]
    some = (halves[0].take(slice(0, 500)), halves[1].take(slice(0, 500)))
    common = step("what decoys share", lambda: profile.common_profile(some, corpus))
    made = step("reliability", lambda: profile.with_halves(made, (halves[0], halves[1]), corpus=corpus, common=common))
    presence = description.Presence.of(seen[0].words)
    weights = step(
        "words: weights",
        lambda: memory.concatenated(
            [
                profile.word_weights(made.distribution.take(part), presence, measured[:n_training, part])
                for part in memory.blocks(n_voxels, memory.BLOCK_BYTES // (16 * n_words))
            ]
        ),
    )
    step(
        "words: exchanged images",
        lambda: profile.measured_test(made.distribution, corpus, *seen[1], weights=weights),
    )
    chosen = profile.most_faithful(faithful)
    voxel, image = np.nonzero(chosen)
    used = memory.summed_rows(chosen.sum(1), rows[voxel, image], 1 / chosen.sum(1)[voxel], len(words.image_ids))
    whole = profile.WholeImages(used, shares.images)
    step("localised: random tokens", lambda: profile.localised_test(made.distribution, whole, corpus, *seen[1]))
    step("ledger", lambda: profile.ledger(made.word_ids, made.words, *seen[1], company=seen[0].words))
    step("drivers", lambda: profile.drivers(made.words, *seen))
    step("conjunctions", lambda: profile.conjunctions(made.word_ids, *seen))
    field = step("field", lambda: profile.fields(critical, grid=(SIDE, SIDE)))
    held_out = TokenWords(
        words.image_ids[n_training:], words.vocabulary, words.word_ids[n_training:], words.shares[n_training:]
    )
    step("field test", lambda: profile.field_test(field.maps, made.distribution, corpus, held_out, seen[1].measured))
    indices = np.argwhere(np.ones((int(np.ceil(n_voxels ** (1 / 3))),) * 3))[:n_voxels]
    places = Places.of_voxels(indices)
    areas = np.array([f"area{i}" for i in np.arange(n_voxels) // VOXELS_OF_AREA])
    made = replace(made, claims=np.full(n_voxels, "words"))
    leading = np.argsort(-corpus)
    kinds = {f"kind{n}": tuple(made.words[leading[n:240:8]].tolist()) for n in range(8)}
    step(
        "areas: selectivity",
        lambda: roi.selectivity(made, areas, corpus=corpus, categories=kinds, places=places),
    )
    step("areas: structure", lambda: roi.structure(made, areas, corpus=corpus, places=places))
    step("areas: contrasts", lambda: roi.contrasts(made, areas, places=places))
    return numbers


def table(
    small: dict[str, tuple[float, float]], large: dict[str, tuple[float, float]], ratio: float, n_voxels: int
) -> list[dict[str, Any]]:
    """One row per step, and one for all together."""
    all_steps = [
        {**part, "all": (sum(s for s, _ in part.values()), max(b for _, b in part.values()))} for part in (small, large)
    ]
    whole = all_steps[0]["all"][0]
    rows = []
    for name in all_steps[0]:
        (before, _), (after, held) = (part[name] for part in all_steps)
        power = float(np.log(max(after, 1e-3) / max(before, 1e-3)) / np.log(ratio))
        rows.append(
            {
                "step": name,
                "share": before / whole,
                "per_voxel_at_larger": after / max(before, 1e-3) / ratio,
                "power": power,
                "bytes_per_voxel": held / n_voxels,
            }
        )
    return rows


def main() -> None:
    """Parses the arguments, measures both sizes, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", default="2000,4000", help="smaller and larger number")
    parser.add_argument("--words", type=int, default=20_000)
    parser.add_argument("--images", default="1000,200", help="training and test images")
    parser.add_argument("--max-power", type=float, default=1.05, help="of V, of all steps together")
    parser.add_argument("--json", type=Path, help="file that receives the numbers")
    args = parser.parse_args()
    sizes, images = ([int(number) for number in text.split(",")] for text in (args.voxels, args.images))
    measure(min(200, sizes[0]), args.words, *images)  # loads what is loaded once
    small, large = (measure(size, args.words, *images) for size in sizes)
    rows = table(small, large, sizes[1] / sizes[0], sizes[1])
    for row in rows:
        print(
            f"{row['step']:26s} share {row['share']:6.1%}  per voxel x{row['per_voxel_at_larger']:.2f}  "
            f"power {row['power']:5.2f}  {row['bytes_per_voxel']:10.0f} bytes per voxel"
        )
    per_voxel = 1000 * sum(seconds for seconds, _ in large.values()) / sizes[1]
    print(f"all steps: {per_voxel:.2f} ms of CPU per voxel at {sizes[1]} voxels")
    if args.json:
        content = {"check": "profiles", **environment(), "voxels": sizes, "words": args.words, "rows": rows}
        artifacts.write_json(args.json, content)
    if rows[-1]["power"] > args.max_power:
        raise SystemExit(f"the cost grows as the power {rows[-1]['power']:.2f} of the voxels, over {args.max_power}")


if __name__ == "__main__":
    main()
