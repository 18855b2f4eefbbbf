"""Cells: the square windows of the token grid over which tokens are averaged before anything reads them.

With windows of one token every token is a cell of its own. Averaging is linear in the tokens, so
that what is computed from cells stays exact for single tokens.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mine_jax import sharding
from mine_jax.errors import ConfigError
from mine_jax.types import Architecture, Array, ImageTokens


def cells(architecture: Architecture, n_tokens: int, mask: Array | None = None) -> Any:
    """Returns the weights [C, P] that average tokens to cells, or None when every token is a cell.

    Raises:
        ConfigError: if the windows do not tile the token grid.
    """
    window = _windows(architecture, n_tokens)
    if mask is None:
        return None if architecture.pool == 1 else window / window.sum(1, keepdims=True)
    weights = window * mask[None]
    total = weights.sum(1, keepdims=True)
    return jnp.where(total > 0, weights / jnp.maximum(total, 1), 0.0)


def n_cells(architecture: Architecture, n_tokens: int) -> int:
    """Returns the number of attended cells C."""
    return _windows(architecture, n_tokens).shape[0]


def cell_of_token(architecture: Architecture, n_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tokens [P] in the order of their cells, and the places [P] of the tokens in that order."""
    order = np.argsort(_windows(architecture, n_tokens).argmax(0), kind="stable")
    return order, np.argsort(order)


def pooled_tokens(tokens: ImageTokens, rows: np.ndarray, architecture: Architecture) -> tuple[Array, Array | None]:
    """Returns cell states [B, C, D] float32 and the mask of real cells [B, C] (None when all are)."""
    states = sharding.on_device(np.asarray(tokens.tokens[rows], dtype=np.float32))
    mask = None if tokens.mask is None else sharding.on_device(tokens.mask[rows])
    if mask is None:
        weights = cells(architecture, states.shape[1])
        return (states if weights is None else jnp.einsum("cp,bpd->bcd", weights, states)), None
    weights = jax.vmap(lambda one: cells(architecture, states.shape[1], one))(mask)
    return jnp.einsum("bcp,bpd->bcd", weights, jnp.where(mask[..., None], states, 0.0)), weights.sum(-1) > 0


def cell_mask(tokens: ImageTokens, architecture: Architecture) -> np.ndarray | None:
    """Returns which cells hold a real token, [N, C] bool; None when all tokens are real."""
    if tokens.mask is None:
        return None
    return np.asarray(tokens.mask, np.float32) @ _windows(architecture, tokens.tokens.shape[1]).T > 0


def position_basis(architecture: Architecture, n_tokens: int, order: int) -> np.ndarray:
    """Returns smooth functions of the cell's place, [C, order^2 - 1] float32.

    Products of cosines along the two sides of the grid without the constant, each with
    mean square 1. A voxel's position term is a combination of them: on few images a free
    number per cell overfits, and receptive fields are smooth.

    Raises:
        ConfigError: if there is no token grid.
    """
    if order == 0:
        return np.zeros((n_cells(architecture, n_tokens), 0), np.float32)
    if architecture.grid is None:
        raise ConfigError(
            "encoder.position_order needs the token grid; set features.grid = [rows, columns], or position_order = 0."
        )
    if np.prod(architecture.grid) != n_tokens:
        raise ConfigError(f"features.grid = {list(architecture.grid)} must hold all {n_tokens} tokens; or set none.")
    rows, columns = (side // architecture.pool for side in architecture.grid)
    vertical, horizontal = (
        np.stack([np.cos(np.pi * k * (np.arange(side) + 0.5) / side) for k in range(min(order, side))], 1)
        for side in (rows, columns)
    )
    functions = np.einsum("ai,bj->abij", vertical, horizontal).reshape(rows * columns, -1)[:, 1:]
    return (functions / np.sqrt((functions**2).mean(0))).astype(np.float32)


def _windows(architecture: Architecture, n_tokens: int) -> np.ndarray:
    """Membership [C, P] of tokens in cells, 0 or 1."""
    if architecture.pool == 1:
        return np.eye(n_tokens, dtype=np.float32)
    if architecture.grid is None:
        raise ConfigError("encoder.pool needs the token grid; set features.grid = [rows, columns], or pool = 1.")
    rows, columns = architecture.grid
    side = architecture.pool
    if rows % side or columns % side or rows * columns != n_tokens:
        raise ConfigError(
            f"encoder.pool = {side} must divide the token grid {architecture.grid}, "
            f"which must hold all {n_tokens} tokens."
        )
    row, column = np.divmod(np.arange(n_tokens), columns)
    cell = (row // side) * (columns // side) + column // side
    return (cell[None] == np.arange((rows // side) * (columns // side))[:, None]).astype(np.float32)
