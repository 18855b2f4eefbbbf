"""The types as labelled arrays of xarray, with the names of dimensions and coordinates that Brain-Score uses."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from mine_jax import _optional
from mine_jax.types import Profiles, Responses, Scores


@functools.singledispatch
def labelled(value: Any) -> Any:
    """Labels the arrays of responses (a DataArray), scores or profiles (a Dataset).

    Args:
        value: of V voxels, the `neuroid` dimension; its coordinate is `neuroid_id`.

    Returns:
        Arrays with labels. Responses are [presentation, neuroid], with `stimulus_id` and `region` beside.

    Raises:
        MissingExtraError: if xarray is not installed.
    """
    raise TypeError(f"{type(value).__name__} has no labelled form; responses, scores and profiles do.")


@labelled.register
def _(value: Responses) -> Any:
    of_images = {"stimulus_id": value.image_ids, "n_repeats": value.n_repeats}
    of_voxels = {"neuroid_id": value.voxel_ids, "region": value.rois, "noise_ceiling": value.noise_ceiling}
    coordinates = {name: ("presentation", array) for name, array in of_images.items()}
    coordinates |= {name: ("neuroid", array) for name, array in of_voxels.items()}
    return _xarray().DataArray(
        np.asarray(value.responses),
        dims=("presentation", "neuroid"),
        coords=coordinates,
        attrs={"subject": value.subject},
    )


@labelled.register
def _(value: Scores) -> Any:
    names = ("r2", "r", "r2_normalized", "noise_ceiling", "r2_selection", "status")
    numbers = {name: ("neuroid", getattr(value, name)) for name in names}
    return _dataset(value, numbers).assign_attrs(n_train=value.n_train, n_test=value.n_test)


@labelled.register
def _(value: Profiles) -> Any:
    names = ("claims", "reasons", "reliability", "faithfulness", "r_measured", "n_images")
    arrays: dict[str, Any] = {name: ("neuroid", getattr(value, name)) for name in names}
    listed = np.where(value.word_ids >= 0, value.words[value.word_ids], "")
    ranked = {"word": listed, "weight": value.weights, "low": value.low, "high": value.high}
    arrays |= {name: (("neuroid", "rank"), array) for name, array in ranked.items()}
    tests = {"effect": value.effects, "p": value.p_values, "q": value.q_values}
    arrays |= {name: (("neuroid", "rung"), np.stack(list(rungs.values()), 1)) for name, rungs in tests.items() if rungs}
    ranks = np.arange(1, value.word_ids.shape[1] + 1)
    return _dataset(value, arrays).assign_coords(rank=ranks, rung=list(value.q_values))


def _dataset(value: Scores | Profiles, arrays: dict[str, Any]) -> Any:
    return _xarray().Dataset(arrays, coords={"neuroid_id": ("neuroid", value.voxel_ids)})


def _xarray() -> Any:
    return _optional.require("xarray", extra="xarray", why="label arrays")
