"""Nodes and weights on [0, 1] for the path integral of integrated gradients."""

from __future__ import annotations

import numpy as np

METHODS = ("gausslegendre", "midpoint")


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
    raise ValueError(f"`method` must be one of {METHODS}, but is {method!r}.")
