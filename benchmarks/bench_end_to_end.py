"""From image-tokens and responses to words of every voxel, beside the same functions one voxel at a time.

Fit, score, integrated gradients, critical tokens, patching, lens and descriptions, on planted
voxels: what batching over voxels is worth in the whole job. The loop compiles once, since every
voxel has the same shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.cases import Case
from mine_jax import attribution, description, encoder
from mine_jax.config import QueryConfig
from mine_jax.types import ImageTokens, Lens, Responses, Split

HEADER = "equal work: fit, score, attribute, patch and describe; the loop is timed on 4 voxels and scaled to all"
REFERENCE = "loop_over_voxels"
PEER_VOXELS = 4
N_WORDS = 200
K = 8
CONFIG = QueryConfig(width=64, epochs=6, position_order=0)
_SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}


def inputs(case: Case, *, seed: int = 0) -> dict[str, Any]:
    """Makes image-tokens, a lens, and voxels that look for one direction of the tokens each."""
    rng = np.random.default_rng(seed)
    n_images, width, n_voxels = max(60, 40 * case.ig_images), 64, case.ig_voxels
    tokens = rng.standard_normal((n_images, case.tokens, width)).astype(np.float32)
    wanted = rng.standard_normal((width, n_voxels)).astype(np.float32) / np.sqrt(width)
    signal = np.stack([(image @ wanted).max(0) for image in tokens])
    responses = signal + signal.std(0) * rng.standard_normal(signal.shape).astype(np.float32)
    ids = np.array([str(i) for i in range(n_images)])
    image_tokens = ImageTokens(tokens, ids)
    measured = Responses.from_array(responses.astype(np.float32), image_ids=ids)
    bounds = np.cumsum([0, *(int(share * n_images) for share in _SHARES.values())])
    rows = {name: np.arange(a, b) for name, a, b in zip(_SHARES, bounds[:-1], bounds[1:], strict=True)}
    words = np.array(["".join(chr(97 + int(d)) for d in f"{i:03d}") + "x" for i in range(N_WORDS)])
    lens = Lens(words, rng.standard_normal((N_WORDS, width)).astype(np.float32), np.zeros(N_WORDS, np.float32))
    return {"tokens": image_tokens, "responses": measured, "rows": rows, "lens": lens, "images": case.ig_images}


def implementations(case: Case, data: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Returns name -> call; results hold `r2` [V] and `described` [V, I]."""
    n_few = min(PEER_VOXELS, case.ig_voxels)

    def loop() -> dict[str, Any]:
        made = [_describe(data, np.array([voxel])) for voxel in range(n_few)]
        joined = {name: np.concatenate([one[name] for one in made]) for name in made[0]}
        return {**joined, "scale": case.ig_voxels / n_few}

    return {"mine_jax": lambda: _describe(data, np.arange(case.ig_voxels)), "loop_over_voxels": loop}


def compare(result: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Returns the largest difference of R2 and the share of equal descriptions, over the voxels both did."""
    n = min(len(result["r2"]), len(reference["r2"]))
    same = (result["described"][:n] == reference["described"][:n]).mean()
    return {
        "max_abs_err": float(np.abs(result["r2"][:n] - reference["r2"][:n]).max()),
        "same_description": float(same),
    }


def _describe(data: dict[str, Any], voxels: np.ndarray) -> dict[str, Any]:
    """Runs the whole job on some voxels."""
    tokens, responses = data["tokens"], data["responses"].take(voxels)
    train, val, test = (
        Split(tokens.take_images(rows), responses.take_images(rows), name) for name, rows in data["rows"].items()
    )
    encoders = encoder.fit(train, validation=val, key=jax.random.key(0), config=CONFIG)
    scores = encoder.score(encoders, test)
    chosen = test.tokens.take_images(np.arange(data["images"]))
    attributions = attribution.integrated_gradients(encoders, chosen)
    critical = attribution.critical_tokens(attributions, k=K)
    attribution.patch_tokens(encoders, chosen, attributions, k=K)
    words = description.top_words(data["lens"], chosen)
    described = description.describe(critical, words, corpus=words.per_image().dense().mean(0))
    return {"r2": np.asarray(scores.r2), "described": description.sentences(described)}
