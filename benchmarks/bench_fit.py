"""Epochs of a whole query fit with a fixed trunk: projection, steps, closed-form readouts, validation, last readouts.

An epoch is the difference between fits of one and three epochs. The reference is the same fit of some voxels alone,
read out by NumPy in float64: voxels have nothing to do with each other, however many are fitted at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.cases import Case
from benchmarks.peaks import Product, Work, squares
from mine_jax import encoder
from mine_jax.config import QueryConfig
from mine_jax.types import Encoders, ImageTokens, Responses, Split

HEADER = (
    "a whole fit of one epoch and of three; the reference fits eight voxels alone, both ways, and predicts in float64"
)
REFERENCE = "alone_float64"
# What a fit of one epoch and of three differ in.
_EPOCHS = 2
_VALIDATION = 1 / 8
_CHECKED_VOXELS, _CHECKED_IMAGES = 8, 16


def inputs(case: Case, *, seed: int = 0) -> dict[str, Any]:
    """Makes image-tokens [N, P, E], and voxels that look for one direction of the tokens each."""
    rng = np.random.default_rng(seed)
    tokens = rng.standard_normal((case.images, case.tokens, case.width), dtype=np.float32)
    wanted = rng.standard_normal((case.width, case.voxels), dtype=np.float32) * np.float32(case.width**-0.5)
    # the strongest of a few tokens: what is planted is not timed
    signal = np.max([tokens[:, p] @ wanted for p in range(min(4, case.tokens))], axis=0)
    signal += rng.standard_normal(signal.shape, dtype=np.float32)
    ids = np.array([str(i) for i in range(case.images)])
    n_train = round(case.images * (1 - _VALIDATION))
    rows = {"train": slice(0, n_train), "val": slice(n_train, None)}
    return {
        "splits": [_split(tokens[own], signal[own], ids[own], name) for name, own in rows.items()],
        "few": min(_CHECKED_VOXELS, case.voxels),
    }


def implementations(case: Case, data: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Returns name -> call; results hold `predicted` [n, v] of the checked voxels."""
    del case
    splits, few = data["splits"], data["few"]

    def fitted(epochs: int) -> dict[str, Any]:
        encoders = _fit(splits, epochs)
        some = encoder.predict(encoders.take(np.arange(few)), _checked(splits[1].tokens))
        return {"epochs": epochs, "predicted": np.asarray(some)}

    def alone() -> dict[str, Any]:
        own = [Split(split.tokens, split.responses.take(np.arange(few)), split.name) for split in splits]
        checked = _checked(splits[1].tokens)
        predicted = {epochs: _float64(_fit(own, epochs), checked) for epochs in (1, 1 + _EPOCHS)}
        return {"epochs": 1, "predicted": predicted[1], "of_epochs": predicted}

    return {
        "mine_jax": functools.partial(fitted, 1),
        "mine_jax_3_epochs": functools.partial(fitted, 1 + _EPOCHS),
        REFERENCE: alone,
    }


def compare(result: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Returns the largest difference of predictions after as many epochs, relative to their largest."""
    expected = reference["of_epochs"][result["epochs"]]
    return {"max_abs_err": float(np.abs(result["predicted"] - expected).max() / np.abs(expected).max())}


def flop(case: Case, epochs: int) -> float:
    """Counts the FLOP of a fit of N images, of which n are for validation, V voxels, P tokens and width E.

        4 N P E^2           the components of the tokens, and their projection;
        8 V P E             each image of an epoch: logits, scalars, and the gradient of the query;
        4 V P E             each image of a validation: logits and scalars;
        4 V P E + 2 V E^2   each image of a readout: logits, attended tokens, Gram matrix;
        9 V E^3             each readout: eigenvectors.

    Readouts are solved before the first epoch, after each, and at the end with the validation images.
    """
    n, p, e, v = case.images, case.tokens, case.width, case.voxels
    n_held = case.images - round(n * (1 - _VALIDATION))
    n_train = n - n_held
    readout, validation = 4.0 * p * e + 2.0 * e**2, 4.0 * p * e
    per_voxel = epochs * n_train * 8.0 * p * e + (epochs + 1) * (n_train * readout + n_held * validation + 9.0 * e**3)
    return 4.0 * n * p * e**2 + v * (per_voxel + n * readout + 9.0 * e**3)


def work(case: Case, data: dict[str, Any]) -> dict[str, Work]:
    """Counts `flop`, and one exponential per logit."""
    made, images = {}, case.images * case.tokens * case.voxels
    for name, epochs in (("mine_jax", 1), ("mine_jax_3_epochs", 1 + _EPOCHS)):
        n_bytes = sum(split.tokens.tokens.nbytes + split.responses.responses.nbytes for split in data["splits"])
        made[name] = Work(flop(case, epochs), n_bytes, images * (2 * epochs + 2))
    return made


def planned(case: Case, data: dict[str, Any]) -> dict[str, int]:
    """Returns the bytes that the plan of the fit counts with."""
    del data
    shape = (case.tokens, case.width)
    plan = encoder.plan_query(_config(1), n_images=case.images, n_voxels=case.voxels, token_shape=shape)
    return {"mine_jax": plan.bytes}


def products(case: Case, data: dict[str, Any]) -> tuple[Product, ...]:
    """Returns products in the default precision of the device, which the steps use."""
    del data
    return squares(case, precision=None)


def finish(rows: list[dict[str, Any]], data: dict[str, Any]) -> list[dict[str, Any]]:
    """Adds the seconds of one epoch."""
    del data
    seconds = {row["implementation"]: row["seconds"] for row in rows}
    for row in rows:
        if row["implementation"] == "mine_jax" and "mine_jax_3_epochs" in seconds:
            row["epoch_s"] = (seconds["mine_jax_3_epochs"] - seconds["mine_jax"]) / _EPOCHS
    return rows


def _config(epochs: int) -> QueryConfig:
    return QueryConfig(epochs=epochs, patience=epochs + 1, position_order=0)


def _fit(splits: list[Split], epochs: int) -> Encoders:
    return encoder.fit(splits[0], validation=splits[1], key=jax.random.key(0), config=_config(epochs))


def _checked(tokens: ImageTokens) -> ImageTokens:
    return tokens.take_images(np.arange(min(_CHECKED_IMAGES, len(tokens.image_ids))))


def _float64(encoders: Encoders, tokens: ImageTokens) -> np.ndarray:
    """Predictions [n, v] by NumPy."""
    shared, voxels = (
        {name: np.asarray(value, np.float64) for name, value in part.items()}
        for part in (encoders.shared, encoders.per_voxel)
    )
    states = np.asarray(tokens.tokens, np.float64)
    keys = np.einsum("npd,de->npe", states, shared["key_weight"][:, 0]) + shared["key_bias"][0]
    logits = np.einsum("ve,npe->vnp", voxels["query"][:, 0], keys) / np.sqrt(keys.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return (np.einsum("vnp,npe,ve->vn", weights, keys, voxels["readout"][:, 0]) + voxels["intercept"][:, None]).T


def _split(tokens: np.ndarray, signal: np.ndarray, ids: np.ndarray, name: str) -> Split:
    return Split(ImageTokens(tokens, ids), Responses.from_array(signal, image_ids=ids), name)
