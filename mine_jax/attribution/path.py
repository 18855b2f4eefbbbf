"""The path from the baseline to an image: its settings, and the points at which it is followed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import jax
import numpy as np

from mine_jax import sharding
from mine_jax.types import Array

Baseline = str | Array | None
# What to do with bare arrays.
OF_ARRAYS = (
    "Encoders are those of mine_jax.encoder.fit, or `encoders_` of a fitted VoxelEncoder; an array X becomes tokens by "
    "ImageTokens.from_array(X)."
)
QUADRATURES = ("gausslegendre", "midpoint")


class PathSettings(TypedDict, total=False):
    """Keywords of the public functions that become a `Path`; what is left out has its default there."""

    baseline: Baseline
    n_steps: int
    max_steps: int
    tolerance: float
    method: str
    quadrature: str
    reduce: str


@dataclass(frozen=True, eq=False)
class Path:
    """Settings of integrated gradients; the defaults are those of the configuration.

    Attributes:
        baseline: start of the path, [D] or [P, D], "mean" (or None: mean training token) or "zero".
        n_steps: quadrature points S.
        max_steps: pairs whose completeness gap exceeds `tolerance` get more points, up to this.
        tolerance: allowed gap as a share of the range of the voxel's predictions.
        method: "exact" or "autodiff".
        quadrature: "gausslegendre" or "midpoint".
        reduce: "sum" keeps the sign and completeness; "abs" sums absolute values over D (autodiff only).

    Raises:
        ValueError: for an unknown value, or a reduction that the method cannot do.
    """

    baseline: Baseline = "mean"
    n_steps: int = 32
    max_steps: int = 256
    tolerance: float = 1e-3
    method: str = "exact"
    quadrature: str = "gausslegendre"
    reduce: str = "sum"

    def __post_init__(self) -> None:
        method, reduce = self.method, self.reduce
        if method not in ("exact", "autodiff") or reduce not in ("sum", "abs") or (method, reduce) == ("exact", "abs"):
            raise ValueError(
                f"`method` {method!r} with `reduce` {reduce!r}: use exact with sum, or autodiff with either."
            )
        if self.quadrature not in QUADRATURES:
            raise ValueError(f"`quadrature` must be one of {QUADRATURES}, but is {self.quadrature!r}.")
        if self.n_steps < 1:
            raise ValueError(f"`n_steps` must be at least 1, but is {self.n_steps}.")
        if isinstance(self.baseline, str) and self.baseline not in ("mean", "zero"):
            raise ValueError(f'`baseline` must be "mean", "zero" or an array, but is {self.baseline!r}.')

    def steps(self, start: Any, n_steps: int) -> Steps:
        """Returns the points of the path from a start; `n_steps` in place of the first number of them."""
        room = max(self.max_steps, n_steps)
        padded = (np.pad(x, (0, room - n_steps)) for x in nodes_and_weights(n_steps, self.quadrature))
        return Steps(start, *(sharding.on_device(x.astype(np.float32)) for x in padded))


class Steps(NamedTuple):
    """Points of a path: its start (`Images`, or states [P, D]), shares of the way and weights [S].

    S has room for the most steps; weights are 0 after the last that is taken. Programs are compiled once for any.
    """

    start: Any
    nodes: jax.Array
    weights: jax.Array


def check_settings(settings: Mapping[str, Any], *kinds: type) -> None:
    """Checks that keywords are fields of some dataclasses.

    Args:
        settings: keywords.
        *kinds: dataclasses that take them.

    Raises:
        TypeError: naming the first unknown keyword, and those that there are.
    """
    valid = [name for kind in kinds for name in inspect.signature(kind).parameters]
    unknown = [name for name in settings if name not in valid]
    if unknown:
        raise TypeError(f"unknown keyword `{unknown[0]}`; the settings are {', '.join(valid)}.")


def nodes_and_weights(n_steps: int, method: str = "gausslegendre") -> tuple[np.ndarray, np.ndarray]:
    """Returns quadrature nodes and weights on the unit interval.

    Args:
        n_steps: number of nodes S, at least 1.
        method: `"gausslegendre"` (exact for polynomials up to degree 2 S - 1) or `"midpoint"`.

    Returns:
        Nodes [S] in (0, 1) and weights [S] that sum to 1, float64.

    Raises:
        ValueError: for an unknown method or fewer than one step.
    """
    if n_steps < 1:
        raise ValueError(f"`n_steps` must be at least 1, but is {n_steps}.")
    if method == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(n_steps)
        return (nodes + 1) / 2, weights / 2
    if method == "midpoint":
        return (np.arange(n_steps) + 0.5) / n_steps, np.full(n_steps, 1 / n_steps)
    raise ValueError(f"`method` must be one of {QUADRATURES}, but is {method!r}.")
