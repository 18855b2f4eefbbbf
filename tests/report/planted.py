"""Voxels with planted truth, as a comparison with a phantom writes them."""

import numpy as np
import pandas as pd

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
