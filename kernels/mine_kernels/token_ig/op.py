"""Public forms of token-level integrated gradients: checks, choice of implementation."""

from __future__ import annotations

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from mine_kernels.arrays import Array
from mine_kernels.token_ig import reference, xla
from mine_kernels.token_ig.specs import BLOCKS, Blocks, TopTokens

Implementation = Literal["reference", "xla", "pallas"]
TopKImplementation = Literal["reference", "xla"]
IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)
TOP_K_IMPLEMENTATIONS: tuple[TopKImplementation, ...] = get_args(TopKImplementation)


def token_ig(
    logits_0: Array,
    logits_1: Array,
    scalars_0: Array,
    scalars_1: Array,
    position: Array,
    nodes: Array,
    weights: Array,
    *,
    cells: Array | None = None,
    implementation: Implementation | None = None,
    interpret: bool = False,
    blocks: Blocks = BLOCKS,
) -> jax.Array:
    """Attributes attention readouts to their tokens by integrated gradients.

    Args:
        logits_0: [..., H, P] key logits at the baseline, without the position term. Here and in
            the next three an axis of length 1 stands for P equal tokens.
        logits_1: [..., H, P] at the image, all P written out.
        scalars_0: [..., H, P] value scalars at the baseline.
        scalars_1: [..., H, P] at the image.
        position: [..., H, C], added to the logits of the attended cells (C = P without `cells`).
        nodes: [S] quadrature nodes in (0, 1).
        weights: [S] quadrature weights.
        cells: [C, P] weights with which tokens are averaged to attended cells; None when every
            token is attended itself. A row of zeros is a cell without real tokens.
        implementation: None for the fastest that works here, or a name.
        interpret: runs the "pallas" kernel step by step on any device, for tests.
        blocks: how much is worked on at a time. Speed only, never the result.

    Returns:
        Scores [..., P] in units of the prediction; they sum to h(image) - h(baseline) up to
        the error of the quadrature.

    Raises:
        ValueError: if the shapes do not belong together.
        NotImplementedError: for an unknown implementation, or one that this device cannot run.

    Source: Sundararajan et al. 2017, eq. 1, for keys and values linear in the token.
    """
    terms = (logits_0, logits_1, scalars_0, scalars_1, position)
    _check(terms, cells, implementation, interpret)
    nodes, weights = jnp.asarray(nodes, logits_1.dtype), jnp.asarray(weights, logits_1.dtype)
    if implementation == "pallas":
        # pallas takes long to import, and most runs need no kernel of it
        from mine_kernels.token_ig import pallas

        return pallas.token_ig(*terms, nodes, weights, blocks=blocks, interpret=interpret)
    if implementation == "reference":
        return _reference(terms, cells, nodes, weights)
    block = blocks.cpu if jax.default_backend() == "cpu" else None
    return xla.token_ig(*terms, cells, nodes, weights, block=block)


def token_ig_top_k(
    logits_0: Array,
    logits_1: Array,
    scalars_0: Array,
    scalars_1: Array,
    position: Array,
    nodes: Array,
    weights: Array,
    *,
    k: int,
    cells: Array | None = None,
    implementation: Implementation | None = None,
    interpret: bool = False,
    blocks: Blocks = BLOCKS,
) -> TopTokens:
    """Finds the tokens with the largest integrated gradients of attention readouts.

    Args:
        logits_0: as for `token_ig`, like all arguments that are not described here.
        logits_1: [..., H, P].
        scalars_0: [..., H, P].
        scalars_1: [..., H, P].
        position: [..., H, C].
        nodes: [S].
        weights: [S].
        k: tokens kept, at most P.
        cells: [C, P] or None.
        implementation: None for the fastest that works here, or a name.
        interpret: runs the "pallas" kernel step by step on any device, for tests.
        blocks: how much is worked on at a time. Speed only, never the result.

    Returns:
        Indices [..., K] int32, best first; ties go to the lowest position, NaN comes last.
        Scores [..., K] in units of the prediction, and the sum of all P scores [...].

    Raises:
        ValueError: if the shapes do not belong together, or `k` is not in 1..P.
        NotImplementedError: for an unknown implementation, or one that this device cannot run.

    Source: Sundararajan et al. 2017, eq. 1; MINE, critical tokens.
    """
    terms = (logits_0, logits_1, scalars_0, scalars_1, position)
    if not 1 <= k <= logits_1.shape[-1]:
        raise ValueError(f"`k` must be in 1..{logits_1.shape[-1]}, the number of tokens, but is {k}.")
    if implementation == "pallas":
        _check(terms, cells, implementation, interpret)
        from mine_kernels.token_ig import pallas

        nodes, weights = jnp.asarray(nodes, logits_1.dtype), jnp.asarray(weights, logits_1.dtype)
        return pallas.token_ig_top_k(*terms, nodes, weights, k=k, blocks=blocks, interpret=interpret)
    scores = token_ig(*terms, nodes, weights, cells=cells, implementation=implementation, blocks=blocks)
    # the scores are rounded as they are when all are returned: ties and near ties stay the same
    scores = jax.lax.optimization_barrier(scores)
    indices = top_k(scores, k=k, implementation="reference" if implementation == "reference" else "xla")
    return TopTokens(indices, jnp.take_along_axis(scores, indices, -1), scores.sum(-1))


def top_k(scores: Array, *, k: int, implementation: TopKImplementation | None = None) -> jax.Array:
    """Finds the largest scores.

    Args:
        scores: [..., P].
        k: how many, at most P.
        implementation: None for the fastest that works here, or a name.

    Returns:
        Positions [..., K] int32, best first; ties go to the lowest position, NaN comes last.

    Raises:
        NotImplementedError: for an unknown implementation.
    """
    if implementation is not None and implementation not in TOP_K_IMPLEMENTATIONS:
        raise NotImplementedError(f'`implementation` must be "reference", "xla" or None, but is {implementation!r}.')
    return (reference if implementation == "reference" else xla).top_k(scores, k)


def _check(terms: tuple[Array, ...], cells: Array | None, implementation: str | None, interpret: bool) -> None:
    if implementation is not None and implementation not in IMPLEMENTATIONS:
        raise NotImplementedError(
            f"`implementation` must be one of {IMPLEMENTATIONS} or None, but is {implementation!r}."
        )
    logits_1, position = terms[1], terms[-1]
    n_cells = logits_1.shape[-1] if cells is None else cells.shape[0]
    if position.shape[-1] != n_cells or (cells is not None and cells.shape[1] != logits_1.shape[-1]):
        raise ValueError(
            f"`position` must end in {n_cells} cells and `cells` in {logits_1.shape[-1]} tokens, "
            f"but have shapes {position.shape} and {None if cells is None else cells.shape}."
        )
    if implementation != "pallas":
        return
    if cells is not None:
        raise NotImplementedError('`implementation="pallas"` has no `cells`; use "xla", or None.')
    if not interpret and jax.default_backend() != "gpu":
        raise NotImplementedError(
            f'`implementation="pallas"` needs a GPU, but the device is {jax.default_backend()!r}. '
            'Use "xla", or None; `interpret=True` runs the kernel slowly, for tests.'
        )


def _reference(terms: tuple[Array, ...], cells: Array | None, nodes: Array, weights: Array) -> jax.Array:
    logits_1, position = terms[1], terms[-1]
    lead = np.broadcast_shapes(*(x.shape[:-1] for x in terms))
    sizes = [logits_1.shape[-1]] * 4 + [position.shape[-1]]
    arrays = [
        jnp.broadcast_to(x, (*lead, size)).reshape(math.prod(lead[:-1]), lead[-1], size)
        for x, size in zip(terms, sizes, strict=True)
    ]
    cells = jnp.eye(logits_1.shape[-1], dtype=logits_1.dtype) if cells is None else cells
    scores = jax.vmap(reference.token_ig, in_axes=(0, 0, 0, 0, 0, None, None, None))(*arrays, cells, nodes, weights)
    return scores.reshape(*lead[:-1], -1)
