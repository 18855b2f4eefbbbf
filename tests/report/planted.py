"""Voxels with planted truth, as a comparison with a phantom writes them, and a run of many voxels."""

import numpy as np
import pandas as pd

from mine_jax import artifacts

RUNGS = ("predicted", "reliable", "words")


def truth_voxels(*, seeds=1, sizes=(1000,), models=("phantom",)):
    rng = np.random.default_rng(0)
    parts = []
    for model, seed, size in [(m, s, n) for m in models for s in range(seeds) for n in sizes]:
        point = {"model": model, "seed": seed, "n_images": size, "true_ceiling": rng.uniform(0.05, 0.7, 80)}
        part = pd.DataFrame({**point, "kind": rng.choice(["concept", "place", "noise", "lowlevel"], 80)})
        part = part.assign(**{f"q_{rung}": rng.uniform(size=80) for rung in RUNGS})
        parts.append(part.assign(explained=part["true_ceiling"] > 0.4))
    return pd.concat(parts, ignore_index=True)


def many_voxels(directory, n):
    """Writes a run of n voxels with words, in a volume of 100 x 100."""
    rng, ids = np.random.default_rng(0), np.arange(n)
    voxels = pd.DataFrame({"voxel_id": ids, "i": ids % 100, "j": ids // 100 % 100, "k": ids // 10_000, "r2": 0.2})
    voxels = voxels.assign(status="ok", claim="words", explained=True, rois="V1", reason="", noise_ceiling=0.5)
    artifacts.write_table(directory / "voxels.tsv", voxels)
    words = pd.DataFrame({"voxel_id": np.repeat(ids, 12), "rank": np.tile(np.arange(12), n)})
    words = words.assign(word=rng.choice([f"word{i}" for i in range(900)], len(words)), weight=0.1, low=0.0, high=0.2)
    artifacts.write_table(directory / "profile/words.tsv", words)
