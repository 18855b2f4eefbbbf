"""Public form of token-level integrated gradients: checks, choice of implementation."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from mine_kernels.token_ig import reference, xla

Implementation = Literal["reference", "xla"]
_KNOWN = ("reference", "xla")


def token_ig(
    logits_0,
    logits_1,
    scalars_0,
    scalars_1,
    position,
    nodes,
    weights,
    *,
    cells=None,
    implementation: Implementation | None = None,
):
    """Attributes attention readouts to their tokens by integrated gradients.

    Args:
        logits_0: [..., H, P] key logits at the baseline, without the position term.
        logits_1: [..., H, P] at the image.
        scalars_0: [..., H, P] value scalars at the baseline.
        scalars_1: [..., H, P] at the image.
        position: [..., H, C], added to the logits of the attended cells (C = P without `cells`).
        nodes: [S] quadrature nodes in (0, 1).
        weights: [S] quadrature weights.
        cells: [C, P] weights with which tokens are averaged to attended cells; None when every
            token is attended itself. A row of zeros is a cell without real tokens.
        implementation: None for the fastest that works here, or a name.

    Returns:
        Scores [..., P] in units of the prediction; they sum to h(image) - h(baseline) up to
        the error of the quadrature.

    Raises:
        ValueError: if the shapes do not belong together.
        NotImplementedError: for an unknown implementation.

    Source: Sundararajan et al. 2017, eq. 1, for keys and values linear in the token.
    """
    if implementation is not None and implementation not in _KNOWN:
        raise NotImplementedError(f"`implementation` must be one of {_KNOWN} or None, but is {implementation!r}.")
    n_cells = logits_1.shape[-1] if cells is None else cells.shape[0]
    if position.shape[-1] != n_cells or (cells is not None and cells.shape[1] != logits_1.shape[-1]):
        raise ValueError(
            f"`position` must end in {n_cells} cells and `cells` in {logits_1.shape[-1]} tokens, "
            f"but have shapes {position.shape} and {None if cells is None else cells.shape}."
        )
    nodes, weights = jnp.asarray(nodes, logits_1.dtype), jnp.asarray(weights, logits_1.dtype)
    if implementation != "reference":
        return xla.token_ig(logits_0, logits_1, scalars_0, scalars_1, position, cells, nodes, weights)
    cells = jnp.eye(n_cells, dtype=logits_1.dtype) if cells is None else cells
    shape = jnp.broadcast_shapes(*(x.shape[:-1] for x in (logits_0, logits_1, scalars_0, scalars_1, position)))
    arrays = [
        jnp.broadcast_to(x, (*shape, x.shape[-1])).reshape(-1, shape[-1], x.shape[-1])
        for x in (logits_0, logits_1, scalars_0, scalars_1, position)
    ]
    scores = jax.vmap(reference.token_ig, in_axes=(0, 0, 0, 0, 0, None, None, None))(*arrays, cells, nodes, weights)
    return scores.reshape(*shape[:-1], -1)
